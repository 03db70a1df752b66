// SPDX-License-Identifier: GPL-2.0-only

//! The superblock pair: which copy counts, and how both are written.

use core::borrow::Borrow;

use imgstream_proto::disk::geometry::{last_superblock_bytes, SCAN_GRID_BYTES};
use imgstream_proto::disk::{Copy2, Error, Superblock, BLOCK_LEN, SECTOR_BYTES};

use crate::plan::reach_bytes;

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
pub fn choose<S: Borrow<Superblock>>(a: &Result<S, Error>, b: &Result<S, Error>) -> Choice {
    let (a, b) = (a.as_ref().map(S::borrow), b.as_ref().map(S::borrow));
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

/// Where to look for the superblocks of a disk that may carry a migration; `head` is its first block.
///
/// A control area was planned for the end D of the disk as it was then; the disk may have grown since. What the partition
/// table describes ends at or below D: the source's table before block 0 changes and after a roll back, in between the
/// target's, which ends with an image that lies below C as a whole. So C is not below that end less what a control area
/// takes at most, and a disk that is used up to its end is looked at only there: 38 reads for 16 TiB instead of 262145.
pub fn places(disk_bytes: u64, head: &[u8; BLOCK_LEN]) -> impl Iterator<Item = u64> {
    let end = table_end(head).min(disk_bytes);
    let from = end.saturating_sub(reach_bytes(disk_bytes));
    scan(disk_bytes).take_while(move |at| *at >= from)
}

/// Where that ends which the partition table describes. A disk without one does not start by BIOS and GRUB: no more than
/// its end is looked at. If a GPT was there and its header is not, nothing is known.
fn table_end(head: &[u8; BLOCK_LEN]) -> u64 {
    let at = |from: usize| head.get(from..).unwrap_or(&[]);
    if at(512).starts_with(b"EFI PART") {
        return sectors(u64_at(at(512 + 32)).saturating_add(1));
    }
    if !at(510).starts_with(&[0x55, 0xaa]) {
        return u64::MAX;
    }
    let mut last = 0;
    for entry in at(446).chunks_exact(16).take(4) {
        match entry.get(4) {
            Some(0) | None => {}
            Some(0xee) => return 0,
            Some(_) => last = last.max(mbr_end(entry)),
        }
    }
    match last {
        0 => u64::MAX,
        last => sectors(last),
    }
}

/// The first sector behind a partition of an MBR.
fn mbr_end(entry: &[u8]) -> u64 {
    // Start and length, four bytes each, little endian.
    let words = u64_at(entry.get(8..).unwrap_or(&[]));
    (words & u64::from(u32::MAX)).saturating_add(words >> 32)
}

fn u64_at(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn sectors(count: u64) -> u64 {
    count.saturating_mul(SECTOR_BYTES)
}

/// Every place where a superblock may stand on a disk of this size: the fixed distance from the end first, then (the disk
/// may have grown) every place of the 64 MiB grid, from the end down.
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
