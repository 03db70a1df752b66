// SPDX-License-Identifier: GPL-2.0-only
//! The partition table in LBA 0 and the chain of logical partitions.

use zerocopy::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{bad, sectors_to_bytes, Kind, Partition, Role, Table};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::Result;

/// More logical partitions than any tool makes: the bound of a looping chain.
const MAX_LOGICAL: u32 = 60;
const TYPE_PROTECTIVE: u8 = 0xee;
const TYPE_ESP: u8 = 0xef;
const TYPES_EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A partition entry as it stands on disk.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Entry {
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first_lba: U32,
    sectors: U32,
}

/// A sector with four entries, in LBA 0 or in the chain.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Sector {
    code: [u8; 446],
    entries: [Entry; 4],
    signature: [u8; 2],
}

const _: () = assert!(size_of::<Sector>() == SECTOR_BYTES as usize);

fn entries(sector: &[u8; SECTOR_BYTES as usize]) -> [Entry; 4] {
    let sector: &Sector = zerocopy::transmute_ref!(sector);
    sector.entries
}

/// Whether the sector ends with 55 aa.
pub fn has_signature(sector: &[u8; SECTOR_BYTES as usize]) -> bool {
    sector.ends_with(&[0x55, 0xaa])
}

/// Whether LBA 0 says that the table is a GPT.
pub fn is_protective(lba0: &[u8; SECTOR_BYTES as usize]) -> bool {
    entries(lba0).iter().any(|e| e.kind == TYPE_PROTECTIVE)
}

/// LBA 0 with the protective entry made to cover a disk of `disk_bytes`.
pub fn resized_protective(
    lba0: &[u8; SECTOR_BYTES as usize],
    disk_bytes: u64,
) -> [u8; SECTOR_BYTES as usize] {
    let mut new = *lba0;
    let sectors = u32::try_from(disk_bytes / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    for (i, entry) in entries(lba0).iter().enumerate() {
        if entry.kind == TYPE_PROTECTIVE {
            let at = 446 + 16 * i + 12;
            new[at..at + 4].copy_from_slice(&sectors.to_le_bytes());
        }
    }
    new
}

/// Reads primary and logical partitions.
pub fn read(disk: &Disk) -> Result<Table> {
    let lba0 = disk.read_sector(0)?;
    let mut table = Table {
        kind: Kind::Mbr,
        partitions: Vec::new(),
        chain_lbas: Vec::new(),
    };
    for (number, entry) in (1..).zip(entries(&lba0)) {
        let Some(partition) = to_partition(&entry, number, 0) else {
            continue;
        };
        if partition.role == Role::Extended {
            read_chain(disk, partition.start_bytes / SECTOR_BYTES, &mut table)?;
        }
        table.partitions.push(partition);
    }
    Ok(table)
}

/// Follows the chain of the extended partition at `extended_lba`: each link
/// names one logical partition (relative to itself) and the next link
/// (relative to the extended partition).
fn read_chain(disk: &Disk, extended_lba: u64, table: &mut Table) -> Result<()> {
    let mut lba = extended_lba;
    for number in 5..5 + MAX_LOGICAL {
        if lba >= disk.size_bytes() / SECTOR_BYTES {
            return Err(bad(disk, "the chain of logical partitions leaves the disk"));
        }
        let sector = disk.read_sector(lba)?;
        if !has_signature(&sector) {
            return Err(bad(disk, "the chain of logical partitions is damaged"));
        }
        table.chain_lbas.push(lba);
        let [logical, next, ..] = entries(&sector);
        table.partitions.extend(to_partition(&logical, number, lba));
        if next.kind == 0 || next.sectors.get() == 0 {
            return Ok(());
        }
        lba = extended_lba + u64::from(next.first_lba.get());
    }
    Err(bad(disk, "the chain of logical partitions has no end"))
}

/// The entry as a partition, or `None` when it is unused.
fn to_partition(entry: &Entry, number: u32, base_lba: u64) -> Option<Partition> {
    if entry.kind == 0 || entry.sectors.get() == 0 {
        return None;
    }
    let role = match entry.kind {
        TYPE_ESP => Role::Esp,
        kind if TYPES_EXTENDED.contains(&kind) => Role::Extended,
        _ => Role::Data,
    };
    Some(Partition {
        number,
        role,
        start_bytes: sectors_to_bytes(base_lba + u64::from(entry.first_lba.get()))?,
        len_bytes: sectors_to_bytes(u64::from(entry.sectors.get()))?,
    })
}
