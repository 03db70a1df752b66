// SPDX-License-Identifier: GPL-2.0-only

//! Where a block of the image is. The fast path of the device: no lock, no allocation, any context.

use core::sync::atomic::{AtomicU64, Ordering};

use imgstream_proto::disk::{BootEntry, BootState, Geometry};

use crate::block::{BlockState, Run};
use crate::map::Map;

/// Where to go for a piece of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its final location: reads and writes go there.
    Home,
    /// In its slot: reads go there; writes too, after `Overwritten` if the state is clean.
    Slot,
    /// Nowhere: reads are zeroes.
    Zero,
    /// Not here: reads fetch.
    Absent,
}

/// Consecutive blocks with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub place: Place,
    /// The blocks' state in the map. At home it means nothing and is `Dirty`.
    pub state: BlockState,
    /// The disk's byte of the first block: home location, or else its slot (also for `Zero` and `Absent`, where it is
    /// the place to write to).
    pub disk_bytes: u64,
    /// Number of blocks, at least one.
    pub blocks: u64,
}

/// A run of boot blocks as kept in memory, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRun {
    /// The blocks.
    pub run: Run,
    /// Whether the target's blocks are home.
    pub live: bool,
    /// Disk byte of the source's blocks (source view, roll back).
    pub relocated_bytes: u64,
}

impl From<BootEntry> for BootRun {
    fn from(entry: BootEntry) -> Self {
        Self {
            run: Run::new(entry.image_block, entry.blocks.into()),
            live: entry.state == BootState::Live,
            relocated_bytes: entry.relocated_bytes,
        }
    }
}

/// Answers where blocks are (repository mode).
///
/// # Invariants
///
/// `boot` ascends and does not overlap. `counter` never goes down, and is only ever raised to a number that is durable:
/// rule 9, for what the guest writes at home is lost if the next attach looks for it in the slot.
#[derive(Clone, Copy)]
pub struct Locator<'a> {
    map: Map<'a>,
    boot: &'a [BootRun],
    counter: &'a AtomicU64,
    geometry: &'a Geometry,
}

impl<'a> Locator<'a> {
    /// A locator over these parts. `counter` holds the durable copy counter, in blocks.
    pub const fn new(
        map: Map<'a>,
        boot: &'a [BootRun],
        counter: &'a AtomicU64,
        geometry: &'a Geometry,
    ) -> Self {
        Self {
            map,
            boot,
            counter,
            geometry,
        }
    }

    /// The map.
    pub const fn map(&self) -> Map<'a> {
        self.map
    }

    /// The durable copy counter.
    pub fn counter(&self) -> u64 {
        self.counter.load(Ordering::Acquire)
    }

    /// Routes blocks below `blocks` home. Only after that number is durable.
    pub fn raise_counter(&self, blocks: u64) {
        self.counter.fetch_max(blocks, Ordering::AcqRel);
    }

    /// Where `block` is, and how many blocks from it on, at most `max_blocks`, have the same answer and follow each
    /// other on the disk. `None` behind the image's end, or if nothing was asked for.
    pub fn locate(&self, block: u64, max_blocks: u64) -> Option<Piece> {
        let max = max_blocks.min(self.map.blocks().checked_sub(block)?);
        if max == 0 {
            return None;
        }
        let counter = self.counter();
        if block < counter {
            return Some(home(block, max.min(counter - block)));
        }
        let (live, max) = self.boot_part(block, max);
        if live {
            return Some(home(block, max));
        }
        let (state, blocks) = self.map.run(block, max);
        let place = match state {
            BlockState::Absent => Place::Absent,
            BlockState::Clean | BlockState::Dirty => Place::Slot,
            BlockState::Zero => Place::Zero,
        };
        Some(Piece {
            place,
            state,
            disk_bytes: self.geometry.slot_bytes(block)?,
            blocks: blocks.max(1),
        })
    }

    /// Whether `block` is a live boot block, and how far at most that answer reaches.
    fn boot_part(&self, block: u64, max: u64) -> (bool, u64) {
        let next = self.boot.partition_point(|boot| boot.run.end() <= block);
        match self.boot.get(next) {
            Some(boot) if boot.run.contains(block) => {
                (boot.live, max.min(boot.run.end().saturating_sub(block)))
            }
            Some(boot) => (false, max.min(boot.run.start.saturating_sub(block))),
            None => (false, max),
        }
    }

    /// Blocks at home: those below the counter and the live boot blocks above it.
    pub fn home_blocks(&self) -> u64 {
        let above = Run::from_to(self.counter(), self.map.blocks());
        self.boot
            .iter()
            .filter(|boot| boot.live)
            .fold(self.counter(), |sum, boot| {
                sum.saturating_add(boot.run.intersection(&above).blocks)
            })
    }
}

fn home(block: u64, blocks: u64) -> Piece {
    let run = Run::new(block, blocks);
    Piece {
        place: Place::Home,
        state: BlockState::Dirty,
        disk_bytes: run.start_bytes(),
        blocks,
    }
}
