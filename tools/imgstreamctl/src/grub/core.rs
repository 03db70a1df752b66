// SPDX-License-Identifier: GPL-2.0-only
//! GRUB's first stages on a BIOS disk: the boot sector and the core image that
//! it loads by sector number.

use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::Result;

/// Where boot.img keeps the first sector of the core image.
const CORE_SECTOR_AT: usize = 0x5c;
/// Where the first core sector keeps its first block list entry; the others
/// stand below it.
const BLOCK_LIST_AT: usize = 500;
/// Bytes of a block list entry: first sector, number of sectors, segment.
const ENTRY_BYTES: usize = 12;

/// A run of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// First one.
    pub lba: u64,
    /// How many.
    pub count: u64,
}

/// The sectors of GRUB's core image, or what is wrong with LBA 0.
pub fn sectors(disk: &Disk) -> Result<std::result::Result<Vec<Sectors>, &'static str>> {
    let lba0 = disk.read_sector(0)?;
    if !lba0.windows(4).any(|w| w == b"GRUB") {
        return Ok(Err("LBA 0 does not hold GRUB's boot sector"));
    }
    let first = u64_at(&lba0, CORE_SECTOR_AT);
    let sectors = disk.size_bytes() / SECTOR_BYTES;
    if first == 0 || first >= sectors {
        return Ok(Err("GRUB's boot sector points to no core image"));
    }
    let mut found = vec![Sectors {
        lba: first,
        count: 1,
    }];
    found.extend(block_list(&disk.read_sector(first)?));
    let fits = |s: &Sectors| s.lba.checked_add(s.count).is_some_and(|end| end <= sectors);
    if found.len() < 2 || !found.iter().all(fits) {
        return Ok(Err("GRUB's core image is not where its boot sector points"));
    }
    Ok(Ok(found))
}

/// The block list of the first core sector: it grows downwards and ends with
/// an entry of no sectors.
fn block_list(sector: &[u8; SECTOR_BYTES as usize]) -> Vec<Sectors> {
    let mut list = Vec::new();
    let mut at = BLOCK_LIST_AT;
    while let Some(count) = sector.get(at + 8..at + 10) {
        let count = u64::from(u16::from_le_bytes([count[0], count[1]]));
        if count == 0 || list.len() >= 32 {
            break;
        }
        list.push(Sectors {
            lba: u64_at(sector, at),
            count,
        });
        at -= ENTRY_BYTES;
    }
    list
}

fn u64_at(sector: &[u8; SECTOR_BYTES as usize], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&sector[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lists_grow_downwards() {
        let mut sector = [0; 512];
        for (at, lba, count) in [(500, 2_u64, 60_u16), (488, 2048, 3)] {
            sector[at..at + 8].copy_from_slice(&lba.to_le_bytes());
            sector[at + 8..at + 10].copy_from_slice(&count.to_le_bytes());
        }
        let expected = [(2, 60), (2048, 3)].map(|(lba, count)| Sectors { lba, count });
        assert_eq!(block_list(&sector), expected);
    }

    #[test]
    fn a_sector_full_of_entries_ends() {
        assert_eq!(block_list(&[0xff; 512]).len(), 32);
    }
}
