// SPDX-License-Identifier: GPL-2.0-only
//! Finds the superblock of a disk.

use imgstream_engine::pair::{self, Choice};
use imgstream_proto::disk::superblock::{Superblock, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, Error as DiskError, SECTOR_BYTES};

use crate::error::Result;
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
    let mut worst: Option<DiskError> = None;
    for at in places(disk)? {
        match read(disk, at)? {
            Ok(superblock) => return both(disk, superblock, place).map(Some),
            Err(DiskError::Magic { .. } | DiskError::Short { .. }) => {}
            Err(error) => worst = worst.or(Some(error)),
        }
    }
    match worst {
        None => Ok(None),
        Some(error) => Err(refusal(place, error).into()),
    }
}

/// Reads the superblock at `at_bytes`.
pub fn read(
    disk: &mut dyn Medium,
    at_bytes: u64,
) -> Result<std::result::Result<Superblock, DiskError>> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    if at_bytes.saturating_add(SUPERBLOCK_LEN as u64) > disk.size_bytes() {
        return Ok(Err(DiskError::Short {
            found: 0,
            expected: SUPERBLOCK_LEN,
        }));
    }
    disk.read(at_bytes, &mut bytes)?;
    Ok(Superblock::decode(at_bytes, &bytes, crc32c::crc32c))
}

/// The places to look at. A disk whose GPT says that it ends where the disk
/// ends is no migrated one (an image is smaller than its disk, and a commit
/// moves the backup only when it is over), so the search over the whole disk,
/// long on a spinning terabyte, is left out there.
fn places(disk: &mut dyn Medium) -> Result<Vec<u64>> {
    let near_the_end = 1 + 4;
    let all = pair::scan(disk.size_bytes());
    Ok(if ends_at_its_end(disk)? {
        all.take(near_the_end).collect()
    } else {
        all.collect()
    })
}

fn ends_at_its_end(disk: &mut dyn Medium) -> Result<bool> {
    let mut head = vec![0; SUPERBLOCK_LEN];
    if disk.size_bytes() < SUPERBLOCK_LEN as u64 {
        return Ok(false);
    }
    disk.read(0, &mut head)?;
    let header = &head[512..1024];
    let mut alternate = [0; 8];
    alternate.copy_from_slice(&header[32..40]);
    let last_sector = disk.size_bytes() / SECTOR_BYTES - 1;
    Ok(&header[..8] == b"EFI PART" && u64::from_le_bytes(alternate) == last_sector)
}

/// Reads both copies of the pair that `one` belongs to, and decides.
fn both(disk: &mut dyn Medium, one: Superblock, place: &str) -> Result<Found> {
    let damaged = |what: &str| Refusal::DamagedSuperblock {
        place: place.to_string(),
        what: what.to_string(),
    };
    let [a, b] = pair::locations(&one).ok_or_else(|| damaged("its places make no sense"))?;
    let (a, b) = (read(disk, a)?, read(disk, b)?);
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
