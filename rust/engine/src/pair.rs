// SPDX-License-Identifier: GPL-2.0-only

//! The superblock pair: which copy counts, and how both are written.

use imgstream_proto::disk::geometry::{last_superblock_bytes, SCAN_GRID_BYTES};
use imgstream_proto::disk::{Copy2, Error, Superblock};

/// What is found where the superblock should stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The newest copy is this one; `stale` names a copy that has to be written again.
    Found {
        /// Where it was read from.
        copy: Copy2,
        /// The other copy, if it is damaged or older.
        stale: Option<Copy2>,
    },
    /// Neither copy is valid.
    None {
        /// What is wrong with each.
        why: [Error; 2],
    },
    /// Both are valid, of the same migration and generation, and say different things: nobody can tell which is true.
    Conflict {
        /// That generation.
        generation: u64,
    },
    /// The copies belong to two migrations.
    TwoMigrations,
}

/// Decides which copy counts: the newest valid one.
///
/// A change was *acted on* only when both copies were durable (see [`Update`]), so taking one that only a single copy
/// says is safe: nothing has happened yet that depends on the older one being gone.
pub fn choose(a: &Result<Superblock, Error>, b: &Result<Superblock, Error>) -> Choice {
    let found = |copy, stale| Choice::Found { copy, stale };
    match (a, b) {
        (Err(a), Err(b)) => Choice::None { why: [*a, *b] },
        (Ok(_), Err(_)) => found(Copy2::A, Some(Copy2::B)),
        (Err(_), Ok(_)) => found(Copy2::B, Some(Copy2::A)),
        (Ok(a), Ok(b)) if a.uuid != b.uuid => Choice::TwoMigrations,
        (Ok(a), Ok(b)) if a.generation > b.generation => found(Copy2::A, Some(Copy2::B)),
        (Ok(a), Ok(b)) if a.generation < b.generation => found(Copy2::B, Some(Copy2::A)),
        (Ok(a), Ok(b)) if a == b => found(Copy2::A, None),
        (Ok(a), Ok(_)) => Choice::Conflict {
            generation: a.generation,
        },
    }
}

/// Where copy 0 and copy 1 of this superblock stand.
pub fn locations(superblock: &Superblock) -> Option<[u64; 2]> {
    let last = superblock.geometry.last_superblock_bytes()?;
    Some([superblock.geometry.control_start_bytes, last])
}

/// Where to look for superblocks on a disk of this size: the fixed distance from the end first, then (the disk may have
/// grown) every place of the 64 MiB grid, from the end down.
pub fn scan(disk_bytes: u64) -> impl Iterator<Item = u64> {
    let last = last_superblock_bytes(disk_bytes);
    let cells = last.map_or(0, |last| last / SCAN_GRID_BYTES);
    let grid = (0..=cells)
        .rev()
        .map(|cell| cell.saturating_mul(SCAN_GRID_BYTES));
    last.into_iter().chain(grid.filter(move |_| last.is_some()))
}

/// What to do next to replace the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this copy.
    Write(Copy2),
    /// Flush the disk.
    Flush,
    /// Both are durable: now the change may be acted on.
    Done,
}

/// Replaces both copies.
///
/// 1. The copy that is damaged or older is written first, else B: a cut now leaves the other, with what was true before.
/// 2. It is flushed *before* the other is touched: never are both in danger.
/// 3. The other is written and flushed. Only then `Done`: a reader then finds the change whichever copy it loses.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    first: Copy2,
    done: u8,
}

impl Update {
    /// An update that starts with the copy in need.
    pub fn new(stale: Option<Copy2>) -> Self {
        Self {
            first: stale.unwrap_or(Copy2::B),
            done: 0,
        }
    }

    /// What to do now.
    pub const fn next(&self) -> Step {
        match self.done {
            0 => Step::Write(self.first),
            2 => Step::Write(self.first.other()),
            1 | 3 => Step::Flush,
            _ => Step::Done,
        }
    }

    /// The step that [`Update::next`] named has succeeded. If it failed, give the update up: the pair is as it was, or
    /// newer, and nothing may act on the change.
    pub fn advance(&mut self) {
        self.done = self.done.saturating_add(1);
    }
}
