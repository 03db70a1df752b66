// SPDX-License-Identifier: GPL-2.0-only
//! The plan of a migration: every number and every refusal before the first
//! write. `plan` prints it, `migrate` carries it out.

use std::path::PathBuf;

use imgstream_proto::disk::Geometry;

use crate::ext4::Facts;
use crate::publish::Published;
use crate::table::{Kind, Partition};

/// What was found out about the source's disk. Nothing in it is a guess.
#[derive(Clone, Debug)]
pub struct Source {
    /// The whole disk, for example `/dev/vda`, or an image of one.
    pub disk: PathBuf,
    /// D.
    pub disk_bytes: u64,
    /// Its partition table.
    pub table: Kind,
    /// The partition with the root file system: the last one.
    pub root: Partition,
    /// Its device, for example `/dev/vda2`; the disk itself when that is a file.
    pub root_device: PathBuf,
    /// What the root file system's superblock says.
    pub facts: Facts,
    /// The smallest size of the file system that resize2fs believes in.
    pub minimum_bytes: u64,
}

/// What a migration costs. Estimates; each says what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Forecast {
    /// Bytes of files that the shrink has to move, at most.
    pub moved_bytes: u64,
    /// Seconds between the shutdown of the source and the loader of the target.
    pub downtime_s: u64,
    /// What the target will fetch in all.
    pub fetch_bytes: u64,
}

/// A migration that is possible.
///
/// # Invariants
///
/// `geometry` was proved by `imgstream_engine`'s planner; the boot region of
/// `image` lies below S; the file system can be made `filesystem_bytes` large.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The source.
    pub source: Source,
    /// The image.
    pub image: Published,
    /// D, S, R, U, C, T.
    pub geometry: Geometry,
    /// What the root file system is shrunk to: it ends at or below S.
    pub filesystem_bytes: u64,
    /// What it costs.
    pub forecast: Forecast,
}
