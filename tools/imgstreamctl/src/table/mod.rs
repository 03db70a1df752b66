// SPDX-License-Identifier: GPL-2.0-only
//! Partition tables: what they say, and how `prepare` trims them.

pub mod gpt;
pub mod mbr;
mod none;

use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::Result;
use crate::refusal::Refusal;

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Partition table in LBA 0.
    Mbr,
    /// GUID partition table with a protective MBR.
    Gpt,
}

impl Kind {
    /// The kind of the table on `disk`. A GPT of which one half is gone is no
    /// MBR: whoever took it for one would leave its backup or its partitions behind.
    pub fn of(disk: &Disk) -> Result<Kind> {
        if disk.size_bytes() < SECTOR_BYTES {
            return Err(none::refusal(disk)?);
        }
        let lba0 = disk.read_sector(0)?;
        if !mbr::has_signature(&lba0) {
            return Err(none::refusal(disk)?);
        }
        match (mbr::is_protective(&lba0), gpt::has_header(disk)?) {
            (true, true) => Ok(Kind::Gpt),
            (false, false) => Ok(Kind::Mbr),
            (true, false) => Err(damaged_gpt(disk, "its header in LBA 1 is not there")),
            (false, true) => Err(damaged_gpt(disk, "LBA 0 has no protective partition")),
        }
    }
}

/// What a table says a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// GRUB's core image on GPT disks.
    BiosBoot,
    /// EFI system partition.
    Esp,
    /// An extended partition of an MBR, which only holds others.
    Extended,
    /// Anything else: its content says what it is.
    Data,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as in `/dev/vda1`.
    pub number: u32,
    /// What the table says it is for.
    pub role: Role,
    /// First byte.
    pub start_bytes: u64,
    /// Length.
    pub len_bytes: u64,
}

impl Partition {
    /// The byte after the last one.
    pub fn end_bytes(&self) -> u64 {
        self.start_bytes + self.len_bytes
    }
}

/// A partition table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    /// All partitions, ascending by start.
    pub partitions: Vec<Partition>,
    /// Sectors outside of LBA 0 that hold links of the chain of logical
    /// partitions; a boot loader reads them.
    pub chain_lbas: Vec<u64>,
}

impl Table {
    /// Reads and checks the partition table of `disk`.
    pub fn read(disk: &Disk) -> Result<Table> {
        let mut table = match Kind::of(disk)? {
            Kind::Gpt => gpt::read(disk)?,
            Kind::Mbr => mbr::read(disk)?,
        };
        table.partitions.sort_by_key(|p| p.start_bytes);
        table.check(disk)?;
        Ok(table)
    }

    /// Partitions that hold something themselves, ascending by start.
    pub fn data(&self) -> impl DoubleEndedIterator<Item = &Partition> {
        self.partitions.iter().filter(|p| p.role != Role::Extended)
    }

    /// The partition that ends last.
    pub fn last(&self) -> Option<&Partition> {
        self.data().max_by_key(|p| p.end_bytes())
    }

    /// First byte of the first partition.
    pub fn first_bytes(&self) -> u64 {
        self.partitions.first().map_or(0, |p| p.start_bytes)
    }

    /// No partition overlaps another or leaves the disk.
    fn check(&self, disk: &Disk) -> Result<()> {
        if self.data().next().is_none() {
            return Err(bad(disk, "the partition table is empty"));
        }
        let mut end = 0;
        for partition in self.data() {
            if partition.start_bytes < end.max(SECTOR_BYTES) {
                return Err(bad(disk, "partitions overlap"));
            }
            end = partition.end_bytes();
        }
        if end > disk.size_bytes() {
            return Err(bad(disk, "a partition reaches beyond the end"));
        }
        Ok(())
    }
}

/// The refusal of a partition table.
fn bad(disk: &Disk, what: &'static str) -> crate::Error {
    Refusal::PartitionTable {
        place: disk.path().display().to_string(),
        what,
    }
    .into()
}

/// The refusal of a GPT that cannot be relied on.
fn damaged_gpt(disk: &Disk, what: &'static str) -> crate::Error {
    Refusal::DamagedGpt {
        place: disk.path().display().to_string(),
        what,
    }
    .into()
}

/// Bytes of a run of sectors, or `None` when the numbers are absurd.
fn sectors_to_bytes(sectors: u64) -> Option<u64> {
    sectors
        .checked_mul(SECTOR_BYTES)
        .filter(|bytes| *bytes <= i64::MAX as u64)
}
