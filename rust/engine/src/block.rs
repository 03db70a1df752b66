// SPDX-License-Identifier: GPL-2.0-only

//! Blocks of the image: their states and runs of them.

use imgstream_proto::disk::BLOCK_BYTES;

/// What is known of a block of the image. The numbers are those of the map, two bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockState {
    /// Not on the disk.
    Absent = 0,
    /// On the disk, equal to the image.
    Clean = 1,
    /// On the disk, written here: never fetched again.
    Dirty = 2,
    /// Reads as zeroes; nothing is stored.
    Zero = 3,
}

impl BlockState {
    /// The state that the lowest two bits name.
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => BlockState::Absent,
            1 => BlockState::Clean,
            2 => BlockState::Dirty,
            _ => BlockState::Zero,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u64 {
        self as u64
    }
}

/// What a write to a part of a block without data here is merged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing: it is a whole block.
    Nothing,
    /// Zeroes. What stands in the slot is old.
    Zeroes,
    /// The image's block, which has to be fetched.
    Image,
}

impl BlockState {
    /// Rule 8: what a write to a block in this state is merged with, `whole` or not. `None`: the block has data here,
    /// and the write just goes to it.
    pub const fn base(self, whole: bool) -> Option<Base> {
        match self {
            BlockState::Clean | BlockState::Dirty => None,
            _ if whole => Some(Base::Nothing),
            BlockState::Absent => Some(Base::Image),
            BlockState::Zero => Some(Base::Zeroes),
        }
    }
}

/// Blocks `[start, start + blocks)` of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The first block.
    pub start: u64,
    /// Number of blocks.
    pub blocks: u64,
}

impl Run {
    /// A run from its start and length.
    pub const fn new(start: u64, blocks: u64) -> Self {
        Self { start, blocks }
    }

    /// The run `[start, end)`; empty if `end` is not behind `start`.
    pub const fn from_to(start: u64, end: u64) -> Self {
        Self {
            start,
            blocks: end.saturating_sub(start),
        }
    }

    /// The first block behind it.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.blocks)
    }

    /// Whether it has no block.
    pub const fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Whether the block belongs to it.
    pub const fn contains(&self, block: u64) -> bool {
        self.start <= block && block < self.end()
    }

    /// Whether both have a block in common.
    pub const fn overlaps(&self, other: &Run) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// What both have in common; maybe nothing.
    pub fn intersection(&self, other: &Run) -> Run {
        Run::from_to(self.start.max(other.start), self.end().min(other.end()))
    }

    /// From the first to the last block of both; of one of them if the other has none.
    pub fn hull(&self, other: &Run) -> Run {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => *other,
            (_, true) => *self,
            _ => Run::from_to(self.start.min(other.start), self.end().max(other.end())),
        }
    }

    /// Its length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK_BYTES)
    }

    /// The image address of its first byte, which is its home location too.
    pub const fn start_bytes(&self) -> u64 {
        self.start.saturating_mul(BLOCK_BYTES)
    }
}
