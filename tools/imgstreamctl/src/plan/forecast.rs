// SPDX-License-Identifier: GPL-2.0-only
//! What a migration costs, estimated.

use super::Source;
use crate::publish::Published;

/// What a disk moves in a second when a file system is shrunk: a hard disk's
/// sequential rate, for blocks lie together mostly.
const MOVE_BYTES_PER_S: u64 = 100 << 20;
/// Shutdown, firmware, loader and initramfs, twice.
const STARTS_S: u64 = 30;
/// e2fsck -f reads all metadata: about this share of the used bytes.
const CHECKED_SHARE: u64 = 50;

/// What a migration costs. Estimates: `plan` says what they rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Forecast {
    /// Bytes that the shrink has to move: those used beyond the new end.
    pub moved_bytes: u64,
    /// Seconds from the shutdown of the source until the target's loader runs.
    pub downtime_s: u64,
    /// What is fetched before the source shuts down.
    pub fetch_first_bytes: u64,
    /// What the target will fetch in all.
    pub fetch_bytes: u64,
}

impl Forecast {
    pub(super) fn of(source: &Source, image: &Published, filesystem_bytes: u64) -> Forecast {
        let moved_bytes = source.used_beyond(filesystem_bytes);
        let boot_bytes = image.manifest.boot_region.bytes();
        // Moved blocks are read and written; boot blocks are written, after the
        // source's were read and written.
        let disk_bytes = moved_bytes
            .saturating_mul(2)
            .saturating_add(boot_bytes.saturating_mul(3))
            .saturating_add(source.facts.used_bytes() / CHECKED_SHARE);
        Forecast {
            moved_bytes,
            downtime_s: STARTS_S + disk_bytes.div_ceil(MOVE_BYTES_PER_S),
            fetch_first_bytes: boot_bytes,
            fetch_bytes: image.manifest.data_bytes,
        }
    }
}
