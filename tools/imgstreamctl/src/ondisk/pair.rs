// SPDX-License-Identifier: GPL-2.0-only
//! Writes the superblock pair.

use std::ops::Range;

use imgstream_engine::pair::{self, Step, Update};
use imgstream_engine::state;
use imgstream_proto::disk::superblock::{Chap, Superblock, CHAP_AT, MAGIC, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, State, Uuid, SECTOR_BYTES};
use zeroize::Zeroizing;

use super::find::{find_pair, Found};
use crate::error::{Error, Result};
use crate::medium::Medium;

/// The sectors of a superblock that have names and secrets.
const CHAP_SECTORS: Range<usize> = 1024..2048;

/// What stands where a copy of one migration's superblock was written. A file
/// system may have been grown over it since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// That copy, of whatever generation.
    Whole,
    /// Its first sector; what is behind it is torn, or somebody else's.
    Begun,
    /// Nothing of ours.
    Other,
}

impl Found {
    /// Lets both copies say what the newer one says, before anything acts on
    /// it. What stands there instead of the older one is replaced only if the
    /// control area is known to be `ours`; else it may belong to a file system,
    /// and what is no whole superblock contradicts nobody.
    pub fn agree(&mut self, disk: &mut dyn Medium, ours: bool) -> Result<()> {
        let Some(stale) = self.stale else {
            return Ok(());
        };
        let same = self.superblock.clone();
        let places = pair::locations(&same).ok_or_else(no_place)?;
        if ours || look(disk, *stale.of(&places), &same.uuid)? == Stands::Whole {
            self.replace(disk, same)?;
        }
        Ok(())
    }

    /// Moves the migration on and makes that durable in both copies. Nothing
    /// may act on the change before this has returned.
    pub fn set_state(&mut self, disk: &mut dyn Medium, to: State, cursor: u64) -> Result<()> {
        state::transition(self.superblock.state, to).map_err(|e| Error::Other(e.to_string()))?;
        let mut next = self.superblock.clone();
        next.state = to;
        next.cursor = cursor;
        self.replace(disk, next)
    }

    /// Replaces both copies by `next`, one after the other.
    pub fn replace(&mut self, disk: &mut dyn Medium, mut next: Superblock) -> Result<()> {
        next.generation = self.superblock.generation + 1;
        let places = pair::locations(&next).ok_or_else(no_place)?;
        let mut update = Update::new(self.stale);
        loop {
            match update.next() {
                Step::Write(copy) => write(disk, &next, *copy.of(&places))?,
                Step::Flush => disk.flush()?,
                Step::Done => break,
            }
            update.advance();
        }
        self.superblock = next;
        self.stale = None;
        Ok(())
    }
}

/// Writes the first superblock of a migration, both copies. A cut that tears
/// its first copy finds no other one to believe, so all but the sector with
/// the magic is durable before that sector is written, which no cut tears.
pub fn create(disk: &mut dyn Medium, superblock: &Superblock) -> Result<Found> {
    let [_, b] = pair::locations(superblock).ok_or_else(no_place)?;
    let next = Superblock {
        generation: superblock.generation + 1,
        ..superblock.clone()
    };
    let mut bytes = encode(&next, b)?;
    bytes[..SECTOR_BYTES as usize].fill(0);
    disk.write(b, &*bytes)?;
    disk.flush()?;
    let mut found = Found {
        superblock: superblock.clone(),
        stale: None,
    };
    found.replace(disk, superblock.clone())?;
    Ok(found)
}

fn write(disk: &mut dyn Medium, superblock: &Superblock, at_bytes: u64) -> Result<()> {
    Ok(disk.write(at_bytes, &*encode(superblock, at_bytes)?)?)
}

fn encode(superblock: &Superblock, at_bytes: u64) -> Result<Zeroizing<[u8; SUPERBLOCK_LEN]>> {
    let mut bytes = Zeroizing::new([0; SUPERBLOCK_LEN]);
    superblock
        .encode(at_bytes, &mut bytes, crc32c::crc32c)
        .map_err(|e| Error::Other(format!("the superblock cannot be written: {e}")))?;
    Ok(bytes)
}

fn look(disk: &mut dyn Medium, at_bytes: u64, uuid: &Uuid) -> Result<Stands> {
    let mut bytes = Zeroizing::new([0; SUPERBLOCK_LEN]);
    if at_bytes.saturating_add(SUPERBLOCK_LEN as u64) > disk.size_bytes() {
        return Ok(Stands::Other);
    }
    disk.read(at_bytes, &mut *bytes)?;
    Ok(
        match Superblock::decode(at_bytes, &*bytes, crc32c::crc32c) {
            Ok(found) if found.uuid == *uuid => Stands::Whole,
            _ if Superblock::begins(at_bytes, &*bytes, uuid) => Stands::Begun,
            _ => Stands::Other,
        },
    )
}

/// Makes what stands at `at_bytes` no superblock. The sector with the magic
/// goes first, alone: torn, the whole would be a damaged superblock, which
/// stops whoever finds it.
fn erase(disk: &mut dyn Medium, at_bytes: u64) -> Result<()> {
    erase_magic(disk, at_bytes)?;
    disk.write(at_bytes, &[0; SUPERBLOCK_LEN])?;
    Ok(disk.flush()?)
}

fn erase_magic(disk: &mut dyn Medium, at_bytes: u64) -> Result<()> {
    disk.write(at_bytes, &[0; SECTOR_BYTES as usize])?;
    Ok(disk.flush()?)
}

/// Erases what is known to be ours at `at_bytes`, and no other byte.
fn erase_own(disk: &mut dyn Medium, at_bytes: u64, uuid: &Uuid) -> Result<()> {
    match look(disk, at_bytes, uuid)? {
        Stands::Whole => erase(disk, at_bytes),
        Stands::Begun => erase_magic(disk, at_bytes),
        Stands::Other => Ok(()),
    }
}

/// Makes every superblock of the disk unreadable at and above `from_bytes`: pair
/// by pair as [`wipe_pair`] does, then what belongs to none. Durable when it
/// returns.
pub fn wipe(disk: &mut dyn Medium, from_bytes: u64) -> Result<()> {
    let places = pair::scan(disk.size_bytes());
    for at in places.filter(|at| *at >= from_bytes) {
        if !is_begun(disk, at)? {
            continue;
        }
        if let Some(found) = pair_behind(disk, at, from_bytes) {
            wipe_pair(disk, &found)?;
        }
        if is_begun(disk, at)? {
            erase(disk, at)?;
        }
    }
    Ok(())
}

/// The pair of which a copy stands at `at_bytes`, if it is one; what stands in
/// front of `from_bytes` belongs to somebody else.
fn pair_behind(disk: &mut dyn Medium, at_bytes: u64, from_bytes: u64) -> Option<Found> {
    let found = find_pair(disk, at_bytes).ok()?;
    let places = pair::locations(&found.superblock)?;
    places.iter().all(|at| *at >= from_bytes).then_some(found)
}

fn is_begun(disk: &mut dyn Medium, at_bytes: u64) -> Result<bool> {
    let mut bytes = Zeroizing::new([0; SUPERBLOCK_LEN]);
    if at_bytes.saturating_add(SUPERBLOCK_LEN as u64) > disk.size_bytes() {
        return Ok(false);
    }
    disk.read(at_bytes, &mut *bytes)?;
    Ok(bytes.starts_with(&MAGIC))
}

/// Makes both copies of one migration unreadable, and what they keep secret gone: the one that does not count
/// first, so that it is never left alone, else A last, which is found however
/// much the disk has grown. What stands there instead of a copy stays. Durable
/// when it returns.
pub fn wipe_pair(disk: &mut dyn Medium, found: &Found) -> Result<()> {
    let places = pair::locations(&found.superblock).ok_or_else(no_place)?;
    let first = found.stale.unwrap_or(Copy2::B);
    forget(
        disk,
        &found.superblock,
        [first, first.other()].map(|copy| *copy.of(&places)),
    )?;
    for copy in [first, first.other()] {
        erase_own(disk, *copy.of(&places), &found.superblock.uuid)?;
    }
    Ok(())
}

/// Takes names and secrets out of both copies while a cut still leaves one that can be found: what it leaves of them
/// behind an erased magic nobody would look for.
fn forget(disk: &mut dyn Medium, superblock: &Superblock, places: [u64; 2]) -> Result<()> {
    let mut next = superblock.clone();
    if next.origin.chap != Chap::NONE {
        next.origin.chap = Chap::NONE;
        next.generation += 1;
    }
    let mut whole = 0;
    for at in places {
        whole += usize::from(look(disk, at, &superblock.uuid)? == Stands::Whole);
    }
    for at in places {
        match look(disk, at, &superblock.uuid)? {
            Stands::Whole if whole == places.len() => write(disk, &next, at)?,
            Stands::Begun => forget_torn(disk, superblock, at)?,
            Stands::Whole | Stands::Other => {}
        }
        disk.flush()?;
    }
    Ok(())
}

/// Of a torn copy the sectors with names and secrets are ours if the places in front of these are the same: no file system
/// has smaller blocks than the two.
fn forget_torn(disk: &mut dyn Medium, superblock: &Superblock, at_bytes: u64) -> Result<()> {
    let mut found = Zeroizing::new([0; SUPERBLOCK_LEN]);
    disk.read(at_bytes, &mut *found)?;
    let ours = encode(superblock, at_bytes)?;
    let (first, proof) = (CHAP_SECTORS.start, CHAP_SECTORS.start..CHAP_AT);
    if found[proof.clone()] == ours[proof] {
        disk.write(
            at_bytes + first as u64,
            &[0; CHAP_SECTORS.end - CHAP_SECTORS.start],
        )?;
    }
    Ok(())
}

fn no_place() -> Error {
    Error::Other("the superblock's places make no sense".into())
}

#[cfg(test)]
mod tests;
