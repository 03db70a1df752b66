// SPDX-License-Identifier: GPL-2.0-only
//! Writes the superblock pair.

use imgstream_engine::pair::{self, Step, Update};
use imgstream_engine::state;
use imgstream_proto::disk::superblock::{Superblock, MAGIC, SUPERBLOCK_LEN};
use imgstream_proto::disk::{Copy2, State};

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

fn write(disk: &mut dyn Medium, superblock: &Superblock, at_bytes: u64) -> Result<()> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    superblock
        .encode(at_bytes, &mut bytes, crc32c::crc32c)
        .map_err(|e| Error::Other(format!("the superblock cannot be written: {e}")))?;
    Ok(disk.write(at_bytes, &bytes)?)
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
            disk.write(at, &[0; SUPERBLOCK_LEN])?;
            wiped += 1;
        }
    }
    disk.flush()?;
    Ok(wiped)
}

/// Makes both copies of one migration unreadable, B (which the scan looks at
/// first) last. Durable when it returns.
pub fn wipe_pair(disk: &mut dyn Medium, superblock: &Superblock) -> Result<()> {
    let places = pair::locations(superblock).ok_or_else(no_place)?;
    for copy in Copy2::BOTH {
        disk.write(*copy.of(&places), &[0; SUPERBLOCK_LEN])?;
        disk.flush()?;
    }
    Ok(())
}

fn no_place() -> Error {
    Error::Other("the superblock's places make no sense".into())
}
