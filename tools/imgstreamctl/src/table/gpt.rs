// SPDX-License-Identifier: GPL-2.0-only
//! The GUID partition table: reading it, and moving its backup.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{damaged_gpt, mbr, sectors_to_bytes, Kind, Partition, Role, Table};
use crate::disk::{Disk, BLOCK_BYTES, SECTOR_BYTES};
use crate::error::Result;

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// Bound of the entry array: a thousand entries; every tool makes 128.
const MAX_ARRAY_BYTES: usize = 1024 * 128;
/// 21686148-6449-6E6F-744E-656564454649.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
/// C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
const ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// The header as it stands on disk; the rest of its sector is zero.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_bytes: U32,
    header_crc: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entries: U32,
    entry_bytes: U32,
    entries_crc: U32,
}

const _: () = assert!(size_of::<Header>() == 92);

impl Header {
    fn crc(mut self) -> u32 {
        self.header_crc = U32::ZERO;
        crc32fast::hash(self.as_bytes())
    }

    fn is_valid(&self, lba: u64) -> bool {
        self.signature == SIGNATURE
            && self.header_bytes.get() as usize == size_of::<Header>()
            && self.header_crc.get() == self.crc()
            && self.my_lba.get() == lba
    }

    /// The header in a sector of its own, checksummed.
    fn sealed(mut self) -> [u8; SECTOR_BYTES as usize] {
        self.header_crc = U32::new(self.crc());
        let mut sector = [0; SECTOR_BYTES as usize];
        sector[..size_of::<Header>()].copy_from_slice(self.as_bytes());
        sector
    }
}

/// The start of an entry; what follows up to `entry_bytes` is its name.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Entry {
    kind: [u8; 16],
    guid: [u8; 16],
    first_lba: U64,
    last_lba: U64,
}

/// A checked primary header and its entry array.
struct Primary {
    header: Header,
    array: Vec<u8>,
}

impl Primary {
    fn read(disk: &Disk) -> Result<Primary> {
        let sector = disk.read_sector(1)?;
        let header = Header::read_from_prefix(&sector).map(|(header, _)| header);
        let Some(header) = header.ok().filter(|header| header.is_valid(1)) else {
            return Err(damaged_gpt(disk, "its primary header is damaged"));
        };
        let len = header.entries.get() as usize * header.entry_bytes.get() as usize;
        if len == 0 || len > MAX_ARRAY_BYTES || header.entry_bytes.get() < 128 {
            return Err(damaged_gpt(disk, "its entry array has an absurd size"));
        }
        let Some(at) = sectors_to_bytes(header.entries_lba.get()) else {
            return Err(damaged_gpt(disk, "its entry array is beyond the end"));
        };
        let array = disk.read_up_to(at, len)?;
        if crc32fast::hash(&array) != header.entries_crc.get() {
            return Err(damaged_gpt(disk, "its entry array is damaged"));
        }
        Ok(Primary { header, array })
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        let entry_bytes = self.header.entry_bytes.get() as usize;
        (1..)
            .zip(self.array.chunks_exact(entry_bytes))
            .filter_map(|(number, chunk)| {
                let (entry, _) = Entry::read_from_prefix(chunk).ok()?;
                to_partition(&entry, number)
            })
    }

    /// Sectors of the entry array.
    fn array_sectors(&self) -> u64 {
        (self.array.len() as u64).div_ceil(SECTOR_BYTES)
    }
}

fn to_partition(entry: &Entry, number: u32) -> Option<Partition> {
    if entry.kind == [0; 16] {
        return None;
    }
    let (first, last) = (entry.first_lba.get(), entry.last_lba.get());
    Some(Partition {
        number,
        role: match entry.kind {
            BIOS_BOOT => Role::BiosBoot,
            ESP => Role::Esp,
            _ => Role::Data,
        },
        start_bytes: sectors_to_bytes(first)?,
        len_bytes: sectors_to_bytes(last.checked_sub(first)?.checked_add(1)?)?,
    })
}

/// Whether LBA 1 starts like a GPT header, whole or not.
pub fn has_header(disk: &Disk) -> Result<bool> {
    Ok(disk.read_sector(1)?.starts_with(&SIGNATURE))
}

/// Reads the primary table. The backup is not looked at: BIOS and GRUB do not
/// either, and `prepare` makes it anew.
pub fn read(disk: &Disk) -> Result<Table> {
    Ok(Table {
        kind: Kind::Gpt,
        partitions: Primary::read(disk)?.partitions().collect(),
        chain_lbas: Vec::new(),
    })
}

/// Bytes that replace what the disk has at `offset_bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub offset_bytes: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// A table moved to a disk of another size.
#[derive(Clone, Debug)]
pub struct Trimmed {
    /// The new size of the disk, a multiple of 4 KiB.
    pub disk_bytes: u64,
    /// What changes: LBA 0, both headers, the backup entries.
    pub patches: Vec<Patch>,
}

/// The smallest disk that ends with the last partition (at `end_bytes`) and
/// the backup table, and what changes on it.
pub fn trimmed(disk: &Disk, end_bytes: u64) -> Result<Trimmed> {
    let primary = Primary::read(disk)?;
    let backup_sectors = primary.array_sectors() + 1;
    let disk_bytes = (end_bytes + backup_sectors * SECTOR_BYTES).next_multiple_of(BLOCK_BYTES);
    let patches = primary.resized(disk, disk_bytes)?;
    Ok(Trimmed {
        disk_bytes,
        patches: patches.into(),
    })
}

/// What changes when the disk gets (or turns out to have) `disk_bytes`: LBA 0,
/// the primary header, and the backup at the new end.
pub fn resized(disk: &Disk, disk_bytes: u64) -> Result<[Patch; 3]> {
    Primary::read(disk)?.resized(disk, disk_bytes)
}

impl Primary {
    fn resized(&self, disk: &Disk, disk_bytes: u64) -> Result<[Patch; 3]> {
        let backup_sectors = self.array_sectors() + 1;
        let last_lba = disk_bytes / SECTOR_BYTES - 1;
        let mut header = self.header;
        header.alternate_lba = U64::new(last_lba);
        header.last_usable_lba = U64::new(last_lba - backup_sectors);
        let mut backup = header;
        backup.my_lba = U64::new(last_lba);
        backup.alternate_lba = U64::new(1);
        backup.entries_lba = U64::new(last_lba - self.array_sectors());
        let mut tail = self.array.clone();
        tail.resize((self.array_sectors() * SECTOR_BYTES) as usize, 0);
        tail.extend(backup.sealed());
        let lba0 = mbr::resized_protective(&disk.read_sector(0)?, disk_bytes);
        let patch = |lba: u64, bytes: Vec<u8>| Patch {
            offset_bytes: lba * SECTOR_BYTES,
            bytes,
        };
        Ok([
            patch(0, lba0.to_vec()),
            patch(1, header.sealed().to_vec()),
            patch(last_lba - self.array_sectors(), tail),
        ])
    }
}
