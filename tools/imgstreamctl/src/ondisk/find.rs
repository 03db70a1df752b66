// SPDX-License-Identifier: GPL-2.0-only
//! Finds the superblock of a disk.

use std::io;

use imgstream_engine::pair::{self, Choice};
use imgstream_engine::plan;
use imgstream_proto::disk::superblock::{Superblock, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, Error as DiskError, State, BLOCK_LEN};
use zeroize::Zeroizing;

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

/// How far [`find_committed`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Where the partition table leaves room for a control area.
    Room,
    /// Everywhere. At the end of a commit the backup of a GPT goes to the end
    /// of the disk, which may have grown since the control area was planned,
    /// so the table of an end that was cut bounds nothing any more.
    Disk,
}

/// What a commit has left. Where the partition table leaves room, whatever is
/// there counts; elsewhere only what is `committed`. A disk that does not give
/// all places back may carry one there.
pub fn find_committed(disk: &mut dyn Medium, place: &str, reach: Reach) -> Result<Option<Found>> {
    if let Some(found) = find(disk, place)? {
        return match makes_sense(&found, disk) {
            true => Ok(Some(found)),
            false => Err(damaged(place, "its places make no sense").into()),
        };
    }
    if reach == Reach::Room {
        return Ok(None);
    }
    let mut unread = None;
    for at in pair::scan(disk.size_bytes()) {
        match committed_at(disk, at) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    unread.map_or(Ok(None), |error| Err(error.into()))
}

/// The committed pair of which one copy stands at `at_bytes`.
fn committed_at(disk: &mut dyn Medium, at_bytes: u64) -> io::Result<Option<Found>> {
    let one = match read(disk, at_bytes) {
        Ok(one) => one,
        Err(Unread::Io(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let found = both(disk, one, "").ok();
    Ok(
        found
            .filter(|found| found.superblock.state == State::Committed && makes_sense(found, disk)),
    )
}

/// Whether the superblock is a plan of this disk, as the module asks, too:
/// nobody can be led to write elsewhere.
fn makes_sense(found: &Found, disk: &dyn Medium) -> bool {
    let Superblock {
        geometry, places, ..
    } = &found.superblock;
    geometry.disk_bytes <= disk.size_bytes() && plan::check(geometry, places).is_ok()
}

/// The pair of which one copy stands at `at_bytes`.
pub(super) fn find_pair(disk: &mut dyn Medium, at_bytes: u64) -> Result<Found> {
    let place = format!("byte {at_bytes} of the disk");
    match read(disk, at_bytes) {
        Ok(one) => both(disk, one, &place),
        Err(why) => Err(why.error(&place)),
    }
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
    let mut bytes = Zeroizing::new([0; SUPERBLOCK_LEN]);
    if at_bytes.saturating_add(SUPERBLOCK_LEN as u64) > disk.size_bytes() {
        return Err(Unread::None);
    }
    disk.read(at_bytes, &mut *bytes).map_err(Unread::Io)?;
    Superblock::decode(at_bytes, &*bytes, crc32c::crc32c).map_err(|error| match error {
        DiskError::Magic { .. } => Unread::None,
        error => Unread::Bad(error),
    })
}

/// The places to look at, the end of the disk first.
fn places(disk: &mut dyn Medium) -> Result<Vec<u64>> {
    let size = disk.size_bytes();
    let mut head = [0; BLOCK_LEN];
    if size >= BLOCK_LEN as u64 {
        disk.read(0, &mut head)?;
    }
    Ok(pair::places(size, &head).collect())
}

/// Reads both copies of the pair that `one` belongs to, and decides.
fn both(disk: &mut dyn Medium, one: Superblock, place: &str) -> Result<Found> {
    let damaged = |what: &str| damaged(place, what);
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

fn damaged(place: &str, what: &str) -> Refusal {
    Refusal::DamagedSuperblock {
        place: place.to_string(),
        what: what.to_string(),
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
