// SPDX-License-Identifier: GPL-2.0-only
//! Writes the superblock pair.

use imgstream_engine::pair::{self, Step, Update};
use imgstream_engine::state;
use imgstream_proto::disk::superblock::{Superblock, MAGIC, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, State, SECTOR_BYTES};

use super::Found;
use crate::error::{Error, Result};
use crate::medium::Medium;

impl Found {
    /// Moves the migration on and makes that durable in both copies. Nothing
    /// may act on the change before this has returned.
    pub fn set_state(&mut self, disk: &mut dyn Medium, to: State, cursor: u64) -> Result<()> {
        state::transition(self.superblock.state, to).map_err(|e| Error::Other(e.to_string()))?;
        let mut next = self.superblock;
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
        ..*superblock
    };
    let mut bytes = encode(&next, b)?;
    bytes[..SECTOR_BYTES as usize].fill(0);
    disk.write(b, &bytes)?;
    disk.flush()?;
    let mut found = Found {
        superblock: *superblock,
        stale: None,
    };
    found.replace(disk, *superblock)?;
    Ok(found)
}

fn write(disk: &mut dyn Medium, superblock: &Superblock, at_bytes: u64) -> Result<()> {
    Ok(disk.write(at_bytes, &encode(superblock, at_bytes)?)?)
}

fn encode(superblock: &Superblock, at_bytes: u64) -> Result<[u8; SUPERBLOCK_LEN]> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    superblock
        .encode(at_bytes, &mut bytes, crc32c::crc32c)
        .map_err(|e| Error::Other(format!("the superblock cannot be written: {e}")))?;
    Ok(bytes)
}

/// Makes what stands at `at_bytes` no superblock. The sector with the magic
/// goes first, alone: torn, the whole would be a damaged superblock, which
/// stops whoever finds it.
fn erase(disk: &mut dyn Medium, at_bytes: u64) -> Result<()> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    disk.read(at_bytes, &mut bytes)?;
    bytes[..SECTOR_BYTES as usize].fill(0);
    for bytes in [bytes, [0; SUPERBLOCK_LEN]] {
        disk.write(at_bytes, &bytes)?;
        disk.flush()?;
    }
    Ok(())
}

/// Makes every superblock of the disk unreadable at and above `from_bytes`;
/// says how many there were. Durable when it returns.
pub fn wipe(disk: &mut dyn Medium, from_bytes: u64) -> Result<usize> {
    let mut wiped = 0;
    let places: Vec<u64> = pair::scan(disk.size_bytes())
        .filter(|at| *at >= from_bytes)
        .collect();
    for at in places {
        let mut bytes = [0; SUPERBLOCK_LEN];
        if at + SUPERBLOCK_LEN as u64 > disk.size_bytes() {
            continue;
        }
        disk.read(at, &mut bytes)?;
        if bytes.starts_with(&MAGIC) {
            erase(disk, at)?;
            wiped += 1;
        }
    }
    Ok(wiped)
}

/// Makes both copies of one migration unreadable, B (which the scan looks at
/// first) last. Durable when it returns.
pub fn wipe_pair(disk: &mut dyn Medium, superblock: &Superblock) -> Result<()> {
    let places = pair::locations(superblock).ok_or_else(no_place)?;
    for copy in Copy2::BOTH {
        erase(disk, *copy.of(&places))?;
    }
    Ok(())
}

fn no_place() -> Error {
    Error::Other("the superblock's places make no sense".into())
}
