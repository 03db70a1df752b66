// SPDX-License-Identifier: GPL-2.0-only

//! Unit tests of the rooms that decide about blocks, journal and disk. What they do together, and across power cuts, the
//! crash simulator (`tools/sim`) tests.

mod blocks;
mod journal;
mod pacing;
mod planning;
mod sweeping;

use std::vec::Vec;

use core::sync::atomic::AtomicU64;

use crate::claim::Claims;
use crate::map::{Counts, Map};

/// The words of a map.
struct Words {
    blocks: u64,
    words: Vec<AtomicU64>,
    changed: Vec<AtomicU64>,
    counts: Counts,
}

fn zeroes(count: u64) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl Words {
    fn new(blocks: u64) -> Self {
        let words = Self {
            blocks,
            words: zeroes(Map::words_for(blocks)),
            changed: zeroes(Map::changed_words_for(blocks)),
            counts: Counts::new(),
        };
        words.map().recount();
        words
    }

    fn map(&self) -> Map<'_> {
        Map::new(self.blocks, &self.words, &self.changed, &self.counts).unwrap()
    }
}

fn claim_words(blocks: u64) -> Vec<AtomicU64> {
    zeroes(Claims::words_for(blocks))
}
