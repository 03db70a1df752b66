// SPDX-License-Identifier: GPL-2.0-only

//! A set of small numbers in atomic words. No lock; usable from any context.

use core::sync::atomic::{AtomicU64, Ordering};

/// A view of a bitmap that somebody else owns.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Bits<'a> {
    /// Words needed for so many bits.
    pub const fn words_for(bits: u64) -> u64 {
        bits.div_ceil(64)
    }

    /// A view of these words.
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    fn place(&self, bit: u64) -> Option<(&'a AtomicU64, u64)> {
        let word = self.words.get(usize::try_from(bit / 64).ok()?)?;
        Some((word, 1u64 << (bit % 64)))
    }

    /// Sets the bit; whether it was clear. A bit behind the end is never set.
    ///
    /// What was written before is seen by whoever [`take`](Self::take)s the bit.
    pub fn set(&self, bit: u64) -> bool {
        self.place(bit)
            .is_some_and(|(word, mask)| word.fetch_or(mask, Ordering::AcqRel) & mask == 0)
    }

    /// Clears the bit; whether it was set.
    pub fn take(&self, bit: u64) -> bool {
        self.place(bit)
            .is_some_and(|(word, mask)| word.fetch_and(!mask, Ordering::AcqRel) & mask != 0)
    }

    /// Whether the bit is set.
    pub fn get(&self, bit: u64) -> bool {
        self.place(bit)
            .is_some_and(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    /// The first bit at or after `from` that is set.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let first = usize::try_from(from / 64).ok()?;
        let mut mask = u64::MAX << (from % 64);
        for (index, word) in self.words.iter().enumerate().skip(first) {
            let found = word.load(Ordering::Acquire) & mask;
            if found != 0 {
                let base = u64::try_from(index).ok()?.checked_mul(64)?;
                return base.checked_add(found.trailing_zeros().into());
            }
            mask = u64::MAX;
        }
        None
    }

    /// Number of set bits.
    pub fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.words
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }
}
