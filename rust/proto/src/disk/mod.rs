// SPDX-License-Identifier: GPL-2.0-only

//! The on-disk format, version 1: what stands in the control area of a disk and in the trailer of a published image.
//!
//! Everything is little-endian. A structure is a `*Disk` type (its bytes) and a plain type of the same name (checked).
//! Decoding looks at magic and CRC-32C before any other field, then at version and feature words, migration and own
//! place; no length is believed before it is bounded. Encoding writes zeroes to everything reserved.
//!
//! This module computes nothing that depends on time or order; the rules of writing live in `imgstream_engine`.

pub mod address;
pub mod boot_list;
mod bounded;
pub mod error;
pub mod geometry;
pub mod header;
pub mod journal;
pub mod segment;
pub mod settings;
pub mod state;
pub mod superblock;
pub mod trailer;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use boot_list::{BootEntry, BootList, BootState};
pub use bounded::Bounded;
pub use error::{Error, Field};
pub use geometry::{
    Extent, Geometry, BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES, SECTOR_LEN, SLOT_BYTES,
};
pub use header::{Crc32c, Header, Uuid};
pub use segment::{Segment, BLOCKS_PER_SEGMENT, BLOCKS_PER_WORD, SEGMENT_LEN, WORDS_PER_SEGMENT};
pub use settings::Settings;
pub use state::State;
pub use superblock::Superblock;
pub use trailer::Trailer;

/// One of the two copies of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy2 {
    /// The first.
    A,
    /// The second.
    B,
}

impl Copy2 {
    /// Both, in the order in which they are written unless something else is said.
    pub const BOTH: [Copy2; 2] = [Copy2::A, Copy2::B];

    /// The other copy.
    pub const fn other(self) -> Self {
        match self {
            Copy2::A => Copy2::B,
            Copy2::B => Copy2::A,
        }
    }

    /// The one of `pair` that this names.
    pub fn of<T>(self, pair: &[T; 2]) -> &T {
        let [a, b] = pair;
        match self {
            Copy2::A => a,
            Copy2::B => b,
        }
    }

    /// The one of `pair` that this names, to change it.
    pub fn of_mut<T>(self, pair: &mut [T; 2]) -> &mut T {
        let [a, b] = pair;
        match self {
            Copy2::A => a,
            Copy2::B => b,
        }
    }
}
