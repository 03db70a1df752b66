// SPDX-License-Identifier: GPL-2.0-only
//! What a partition holds, by the signatures at fixed places.

use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::Result;
use crate::refusal::Refusal;
use crate::table::Partition;

const PAGE_BYTES: usize = 4096;
const MD_MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
const HIBERNATED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

/// What stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// ext2, ext3 or ext4.
    Ext,
    /// Swap space, not hibernated.
    Swap,
    /// Swap space that holds a hibernated system.
    Hibernated,
    /// A physical volume of LVM.
    Lvm,
    /// LUKS, version 1 or 2.
    Luks,
    /// Member of a software RAID.
    Md,
    /// A file system that is known but not supported as root or boot.
    Other(&'static str),
    /// Nothing that is known here.
    Unknown,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Content::Ext => "ext4",
            Content::Swap => "swap space",
            Content::Hibernated => "a hibernated system",
            Content::Lvm => "LVM",
            Content::Luks => "LUKS",
            Content::Md => "software RAID",
            Content::Other(name) => name,
            Content::Unknown => "nothing that is known",
        })
    }
}

/// Looks at the signatures of `partition`. Containers come first: their
/// payload may show a file system's signature too.
pub fn probe(disk: &Disk, partition: &Partition) -> Result<Content> {
    let len = usize::try_from(partition.len_bytes).unwrap_or(usize::MAX);
    let head = disk.read_up_to(partition.start_bytes, len.min(70 * 1024))?;
    if is_md(disk, partition, &head)? {
        return Ok(Content::Md);
    }
    Ok(of_head(&head))
}

/// What the first 70 KiB of a partition or file say.
pub fn of_head(head: &[u8]) -> Content {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if at(0, b"LUKS\xba\xbe") {
        return Content::Luks;
    }
    if (0..4).any(|sector| at(sector * SECTOR_BYTES as usize, b"LABELONE")) {
        return Content::Lvm;
    }
    if HIBERNATED.iter().any(|magic| at(PAGE_BYTES - 10, magic)) {
        return Content::Hibernated;
    }
    if at(PAGE_BYTES - 10, b"SWAPSPACE2") || at(PAGE_BYTES - 10, b"SWAP-SPACE") {
        return Content::Swap;
    }
    if at(1024 + 0x38, &[0x53, 0xef]) {
        return Content::Ext;
    }
    other(&at)
}

fn other(at: &impl Fn(usize, &[u8]) -> bool) -> Content {
    let known: [(usize, &[u8], &'static str); 5] = [
        (0, b"XFSB", "xfs"),
        (0x10040, b"_BHRfS_M", "btrfs"),
        (0x52, b"FAT32", "FAT"),
        (0x36, b"FAT1", "FAT"),
        (3, b"NTFS", "NTFS"),
    ];
    known
        .iter()
        .find(|(offset, magic, _)| at(*offset, magic))
        .map_or(Content::Unknown, |(_, _, name)| Content::Other(name))
}

/// md's superblock: version 1.1 at the start, 1.2 at 4 KiB, 1.0 in the last
/// 8 to 12 KiB, 0.90 in the last whole 64 KiB.
fn is_md(disk: &Disk, partition: &Partition, head: &[u8]) -> Result<bool> {
    let sectors = partition.len_bytes / SECTOR_BYTES;
    let mut found = [0, 4096]
        .iter()
        .any(|at| head.get(*at..at + 4) == Some(&MD_MAGIC[..]));
    if let Some(from_end) = sectors.checked_sub(16) {
        found |= magic_at(disk, partition, (from_end & !7) * SECTOR_BYTES)?;
    }
    if let Some(from_end) = (partition.len_bytes & !0xffff).checked_sub(0x1_0000) {
        found |= magic_at(disk, partition, from_end)?;
    }
    Ok(found)
}

fn magic_at(disk: &Disk, partition: &Partition, at: u64) -> Result<bool> {
    Ok(disk.read_up_to(partition.start_bytes + at, 4)? == MD_MAGIC)
}

/// Refuses containers and hibernated swap, by name.
pub fn refuse_containers(content: Content, place: String) -> Result<(), Refusal> {
    match content {
        Content::Lvm => Err(Refusal::Lvm { place }),
        Content::Luks => Err(Refusal::Luks { place }),
        Content::Md => Err(Refusal::Md { place }),
        Content::Hibernated => Err(Refusal::Hibernated { place }),
        _ => Ok(()),
    }
}
