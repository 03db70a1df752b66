// SPDX-License-Identifier: GPL-2.0-only

//! Claims: who may write a slot whose block is not present yet. One bit a block; no lock, usable from any context.
//!
//! Rule 4, the newest guest data always wins. Whoever sets a block's bit is the only one to write its slot until the
//! bit is released, and releases it only after the map says what the slot now holds:
//!
//! 1. A guest write to an absent or zero block claims it *at submission*, before anything is fetched or stored.
//! 2. A fill claims when its bytes have arrived, never earlier, so that nothing is held while the network is waited for;
//!    what it cannot claim, or what is no longer absent once it is claimed, it drops.
//! 3. A discard claims as well: a fill that is storing must be through before the block becomes zero, else its slot
//!    would still be written behind the next guest write.
//!
//! Claim first, look at the map second: the other way round a write could complete in between and be overwritten.

use crate::bits::Bits;
use crate::block::{BlockState, Run};
use crate::map::Map;

/// A view of the claims.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    blocks: u64,
    bits: Bits<'a>,
}

impl<'a> Claims<'a> {
    /// Words needed for so many blocks.
    pub const fn words_for(blocks: u64) -> u64 {
        Bits::words_for(blocks)
    }

    /// A view; `None` if there are too few words.
    pub fn new(blocks: u64, words: &'a [core::sync::atomic::AtomicU64]) -> Option<Self> {
        (words.len() as u64 >= Self::words_for(blocks)).then_some(Self {
            blocks,
            bits: Bits::new(words),
        })
    }

    /// Claims of no blocks: nothing can be claimed.
    pub const fn empty() -> Self {
        Self {
            blocks: 0,
            bits: Bits::new(&[]),
        }
    }

    /// Claims a block; whether it was free.
    pub fn try_claim(&self, block: u64) -> bool {
        block < self.blocks && self.bits.set(block)
    }

    /// Claims blocks from the start of `run` on, up to the first that is taken; how many.
    pub fn try_claim_run(&self, run: Run) -> u64 {
        let mut got = 0u64;
        while got < run.blocks && self.try_claim(run.start.saturating_add(got)) {
            got = got.saturating_add(1);
        }
        got
    }

    /// Claims the whole run or nothing; whether it did.
    pub fn try_claim_all(&self, run: Run) -> bool {
        let got = self.try_claim_run(run);
        if got < run.blocks {
            self.release_run(Run::new(run.start, got));
        }
        got == run.blocks
    }

    /// What a fill may store of `run`, whose bytes have arrived: blocks from its start on are claimed as long as they are
    /// free and absent. Rule 4: what was claimed or is here meanwhile is newer.
    pub fn try_claim_absent(&self, map: &Map<'_>, run: Run) -> Run {
        let mut end = run.start;
        while end < run.end() && self.try_claim(end) {
            if map.state(end) != BlockState::Absent {
                self.release(end);
                break;
            }
            end = end.saturating_add(1);
        }
        Run::from_to(run.start, end)
    }

    /// Whether somebody has claimed the block.
    pub fn claimed(&self, block: u64) -> bool {
        self.bits.get(block)
    }

    /// Whether somebody has claimed a block of the run.
    pub fn any_claimed(&self, run: Run) -> bool {
        (run.start..run.end()).any(|block| self.claimed(block))
    }

    /// Gives a claimed block back; whether it was claimed.
    pub fn release(&self, block: u64) -> bool {
        self.bits.take(block)
    }

    /// Gives a claimed run back.
    pub fn release_run(&self, run: Run) {
        for block in run.start..run.end() {
            self.release(block);
        }
    }
}
