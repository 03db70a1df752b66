// SPDX-License-Identifier: GPL-2.0-only
//! The manifest: what a published image says about itself. JSON, so that it
//! can be read with any tool; `imgstreamctl` reads it, the module does not.

use serde::{Deserialize, Serialize};

use crate::disk::BLOCK_BYTES;
use crate::region::Region;
use crate::table::Kind;

/// The format this program writes. Fields may be added without a new number;
/// a reader ignores those it does not know.
pub const FORMAT: u32 = 1;
/// How many canaries an image has: the superblock has room for these.
pub const CANARIES: usize = 4;
/// A longer manifest is not read.
pub const MAX_BYTES: u64 = 64 << 20;

/// A block that is compared on every connect: another image behind the portal
/// is noticed before any of its blocks is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Image block.
    pub block: u64,
    /// CRC-32C of its 4 KiB.
    pub crc32c: u32,
}

/// One initramfs that GRUB can load and that holds imgstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initramfs {
    /// Its path in the file system with /boot.
    pub path: String,
    /// Versions of the kernels it has modules for.
    pub kernels: Vec<String>,
    /// NIC drivers in it (or built into its kernel).
    pub nic_drivers: Vec<String>,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// UUID of this published image.
    pub image_uuid: String,
    /// A name for people.
    pub name: String,
    /// As `uname -m` says it.
    pub architecture: String,
    /// T.
    pub image_bytes: u64,
    /// 512.
    pub logical_block_bytes: u32,
    /// The partition table's kind.
    pub table: Kind,
    /// Bytes in blocks that are not all zero: what a full copy fetches.
    pub data_bytes: u64,
    /// The blocks that firmware and loader may read.
    pub boot_region: Region,
    /// Blocks compared on connect.
    pub canaries: Vec<Canary>,
    /// Initramfs archives with imgstream; the first is the default entry's.
    pub initramfs: Vec<Initramfs>,
    /// SHA-256 of `[0, image_bytes)`, in hexadecimal.
    pub image_sha256: String,
}

impl Manifest {
    /// What contradicts itself in it, if anything does.
    pub fn fault(&self) -> Option<&'static str> {
        let blocks = self.image_bytes / BLOCK_BYTES;
        let runs = self.boot_region.runs();
        if self.image_bytes == 0 || self.image_bytes % BLOCK_BYTES != 0 {
            Some("the image's size is not a multiple of 4 KiB")
        } else if Region::from_runs(runs.iter().copied()).as_ref() != Some(&self.boot_region) {
            Some("the boot region is not a sorted list of runs")
        } else if !self.boot_region.contains(0) || self.boot_region.end_bytes() > self.image_bytes {
            Some("the boot region is not inside the image")
        } else if self.canaries.len() > CANARIES || self.canaries.iter().any(|c| c.block >= blocks)
        {
            Some("the canaries are not inside the image")
        } else {
            None
        }
    }
}
