// SPDX-License-Identifier: GPL-2.0-only

//! What a commit and a fill cannot help by themselves, in a sentence for a person.

use core::fmt;

use crate::block::Run;

/// Why a commit stops, or the fill does not get to its end. Nothing is lost by it: blocks from the copy counter on are
/// where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A slot cannot be read, and no other copy of what it holds can.
    Unreadable {
        /// The block.
        block: u64,
        /// Its slot.
        disk_bytes: u64,
    },
    /// A block is not here, and the image's source refuses to read it.
    Missing {
        /// The block.
        block: u64,
    },
    /// A block came, and cannot be written to its slot.
    Unstored {
        /// The block.
        block: u64,
        /// Its slot.
        disk_bytes: u64,
    },
    /// A home location cannot be written.
    Unwritable {
        /// The block.
        block: u64,
    },
    /// The disk cannot be flushed.
    Unflushed,
    /// The control area cannot be written: rule 10.
    Unrecorded,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { block, disk_bytes } => write!(
                f,
                "block {block} cannot be read where it is, at byte {disk_bytes} of the disk"
            ),
            Self::Missing { block } => write!(
                f,
                "block {block} is not here, and the repository cannot read it: byte {} of the image has to be repaired there",
                Run::new(*block, 1).start_bytes()
            ),
            Self::Unstored { block, disk_bytes } => write!(
                f,
                "block {block} was fetched and cannot be stored, at byte {disk_bytes} of the disk"
            ),
            Self::Unwritable { block } => write!(
                f,
                "block {block} cannot be written to its place, byte {} of the disk",
                Run::new(*block, 1).start_bytes()
            ),
            Self::Unflushed => f.write_str("the disk cannot be flushed"),
            Self::Unrecorded => f.write_str("the control area cannot be written"),
        }
    }
}
