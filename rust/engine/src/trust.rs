// SPDX-License-Identifier: GPL-2.0-only

//! Rule 3: what a clean block is worth after an unclean attach.
//!
//! `Overwritten` is set in memory before a guest write is submitted, but reaches the journal only with the next round. A
//! power cut in between can leave the guest's bytes in the slot and `clean` in the map. The guest may then read those
//! bytes and build on them, so they must stay what they are: such blocks are not fetched again, not repaired and (later)
//! not evicted. Since nobody knows which they are, all clean blocks are suspect, for good, until something proves a
//! slot equal to the image; version 1 has no hashes and keeps the mark in the superblock for ever.

use crate::block::BlockState;
use imgstream_proto::disk::Superblock;

/// Whether `clean` can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Every attach so far followed a clean detach.
    Proven,
    /// Some did not.
    Suspect,
}

impl Trust {
    /// The trust of the attach that found this superblock.
    pub const fn at_attach(found: &Superblock) -> Self {
        if found.suspect || !found.clean {
            Trust::Suspect
        } else {
            Trust::Proven
        }
    }

    /// Whether a block may be taken from the image (again).
    ///
    /// Absent: always. Clean: only where clean is proven (to repair a slot that cannot be read). Dirty and zero: never,
    /// that is rule 8.
    pub const fn may_fetch(self, state: BlockState) -> bool {
        match state {
            BlockState::Absent => true,
            BlockState::Clean => matches!(self, Trust::Proven),
            BlockState::Dirty | BlockState::Zero => false,
        }
    }
}
