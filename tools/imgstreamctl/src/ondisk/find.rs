// SPDX-License-Identifier: GPL-2.0-only
//! Finds the superblock of a disk.

use std::io;

use imgstream_engine::pair::{self, Choice};
use imgstream_engine::plan::reach_bytes;
use imgstream_proto::disk::superblock::{Superblock, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, Error as DiskError, BLOCK_LEN, SECTOR_BYTES};

use crate::error::{Error, Result};
use crate::medium::Medium;
use crate::refusal::Refusal;

/// A migration's superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The copy that counts.
    pub superblock: Superblock,
    /// The copy that is damaged or older, if one is.
    pub stale: Option<Copy2>,
}

/// Looks at all places where a superblock may stand; `None` if there is none.
/// `place` names the disk in refusals.
pub fn find(disk: &mut dyn Medium, place: &str) -> Result<Option<Found>> {
    let mut worst: Option<Error> = None;
    for at in places(disk)? {
        match read(disk, at) {
            Ok(superblock) => return both(disk, superblock, place).map(Some),
            Err(Unread::None) => {}
            Err(why) => worst = worst.or(Some(why.error(place))),
        }
    }
    worst.map_or(Ok(None), Err)
}

/// Why a place gives no superblock.
enum Unread {
    /// There is none.
    None,
    /// It is damaged, or another's.
    Bad(DiskError),
    /// The disk does not give it back.
    Io(io::Error),
}

impl Unread {
    fn error(self, place: &str) -> Error {
        match self {
            Self::Io(error) => error.into(),
            Self::Bad(error) => refusal(place, error).into(),
            Self::None => refusal(place, NOTHING).into(),
        }
    }

    /// A copy that cannot be read is as good as a damaged one: the other counts.
    fn into_damage(self) -> DiskError {
        match self {
            Self::Bad(error) => error,
            Self::None | Self::Io(_) => NOTHING,
        }
    }
}

/// What is said of a place of which nothing is known.
const NOTHING: DiskError = DiskError::Short {
    found: 0,
    expected: SUPERBLOCK_LEN,
};

/// Reads the superblock at `at_bytes`.
fn read(disk: &mut dyn Medium, at_bytes: u64) -> Result<Superblock, Unread> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    if at_bytes.saturating_add(SUPERBLOCK_LEN as u64) > disk.size_bytes() {
        return Err(Unread::None);
    }
    disk.read(at_bytes, &mut bytes).map_err(Unread::Io)?;
    Superblock::decode(at_bytes, &bytes, crc32c::crc32c).map_err(|error| match error {
        DiskError::Magic { .. } => Unread::None,
        error => Unread::Bad(error),
    })
}

/// The places to look at, the end of the disk first.
///
/// A control area was planned for the end D of the disk as it was then; the
/// disk may have grown since. What the partition table describes ends at or
/// below D: the source's table before block 0 changes and after a roll back,
/// in between the target's, which ends with an image that lies below C as a
/// whole. So C is not below that end less what a control area takes at most,
/// and a disk that is used up to its end is looked at only there: 38 reads for
/// 16 TiB instead of 262145.
fn places(disk: &mut dyn Medium) -> Result<Vec<u64>> {
    let size = disk.size_bytes();
    let from = table_end(disk)?.min(size).saturating_sub(reach_bytes(size));
    Ok(pair::scan(size).take_while(|at| *at >= from).collect())
}

/// Where that ends which the partition table describes. A disk without one
/// does not start by BIOS and GRUB: no more than its end is looked at. If a GPT
/// was there and its header is not, nothing is known.
fn table_end(disk: &mut dyn Medium) -> Result<u64> {
    let mut head = [0; BLOCK_LEN];
    if disk.size_bytes() < BLOCK_LEN as u64 {
        return Ok(0);
    }
    disk.read(0, &mut head)?;
    let header = &head[512..];
    if header.starts_with(b"EFI PART") {
        return Ok(sectors(u64_at(header, 32).saturating_add(1)));
    }
    if head[510..512] != [0x55, 0xaa] {
        return Ok(u64::MAX);
    }
    let entries = head[446..510].chunks_exact(16);
    let ends = entries.map(|entry| match entry[4] {
        0 => 0,
        0xee => u64::MAX,
        _ => u64::from(u32_at(entry, 8)) + u64::from(u32_at(entry, 12)),
    });
    Ok(match ends.max() {
        Some(u64::MAX) => 0,
        None | Some(0) => u64::MAX,
        Some(end) => sectors(end),
    })
}

fn sectors(count: u64) -> u64 {
    count.saturating_mul(SECTOR_BYTES)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

/// Reads both copies of the pair that `one` belongs to, and decides.
fn both(disk: &mut dyn Medium, one: Superblock, place: &str) -> Result<Found> {
    let damaged = |what: &str| Refusal::DamagedSuperblock {
        place: place.to_string(),
        what: what.to_string(),
    };
    let [a, b] = pair::locations(&one).ok_or_else(|| damaged("its places make no sense"))?;
    let mut copy = |at| read(disk, at).map_err(Unread::into_damage);
    let (a, b) = (copy(a), copy(b));
    match pair::choose(&a, &b) {
        Choice::Found { copy, stale } => {
            let superblock = match copy {
                Copy2::A => a,
                Copy2::B => b,
            };
            let superblock = superblock.map_err(|error| refusal(place, error))?;
            Ok(Found { superblock, stale })
        }
        // The disk has another size than the superblock says: only the copy that was found stands where it should.
        Choice::None { .. } => Ok(Found {
            superblock: one,
            stale: None,
        }),
        Choice::Conflict { generation } => {
            let what = format!("both copies are of generation {generation} and differ");
            Err(damaged(&what).into())
        }
        Choice::TwoMigrations => Err(damaged("its copies belong to two migrations").into()),
    }
}

fn refusal(place: &str, error: DiskError) -> Refusal {
    let place = place.to_string();
    match error {
        DiskError::Version { .. } | DiskError::Incompat { .. } => Refusal::NewerSuperblock {
            place,
            what: error.to_string(),
        },
        DiskError::Location { .. } => Refusal::ForeignSuperblock {
            place,
            what: error.to_string(),
        },
        _ => Refusal::DamagedSuperblock {
            place,
            what: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
