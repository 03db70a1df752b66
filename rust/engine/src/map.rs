// SPDX-License-Identifier: GPL-2.0-only

//! The map: the state of every block of the image.
//!
//! A [`Map`] is a view of words that somebody else owns; it takes no lock, never sleeps, and may be used from interrupt
//! context. Each change marks the segment it lies in, so that the next flush round records it.

use core::sync::atomic::{AtomicU64, Ordering};

use imgstream_proto::disk::segment::segments;
use imgstream_proto::disk::{BLOCKS_PER_SEGMENT, BLOCKS_PER_WORD, WORDS_PER_SEGMENT};

use crate::bits::Bits;
use crate::block::{BlockState, Run};

/// The low bit of each of the 32 lanes of a word.
const LANES: u64 = 0x5555_5555_5555_5555;

/// What happened to blocks: the only ways in which states change.
///
/// | | absent | clean | dirty | zero |
/// |---|---|---|---|---|
/// | `Filled` | clean | – | – | – |
/// | `Overwritten` | – | dirty | – | – |
/// | `Written` | dirty | dirty | – | dirty |
/// | `Zeroed` | zero | zero | zero | – |
///
/// Nothing makes a dirty or a zero block absent or clean again: that is rule 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A fill has stored the image's bytes, and its write has completed.
    Filled,
    /// A guest write to a slot that is clean is about to be submitted.
    Overwritten,
    /// A guest write of a whole block (or a merged one) has completed.
    Written,
    /// The guest discarded blocks, or wrote zeroes.
    Zeroed,
}

impl Change {
    /// The state that follows `from`; `None`: this change leaves such blocks as they are.
    pub const fn next(self, from: BlockState) -> Option<BlockState> {
        match (self, from) {
            (Change::Filled, BlockState::Absent) => Some(BlockState::Clean),
            (Change::Overwritten, BlockState::Clean) => Some(BlockState::Dirty),
            (Change::Written, BlockState::Absent | BlockState::Clean | BlockState::Zero) => {
                Some(BlockState::Dirty)
            }
            (Change::Zeroed, BlockState::Absent | BlockState::Clean | BlockState::Dirty) => {
                Some(BlockState::Zero)
            }
            _ => None,
        }
    }

    const fn to(self) -> BlockState {
        match self {
            Change::Filled => BlockState::Clean,
            Change::Overwritten | Change::Written => BlockState::Dirty,
            Change::Zeroed => BlockState::Zero,
        }
    }
}

/// Number of blocks in each state. Exact when nothing changes meanwhile.
#[derive(Debug, Default)]
pub struct Counts {
    by_state: [AtomicU64; 4],
}

impl Counts {
    /// Counts of an empty map.
    pub const fn new() -> Self {
        Self {
            by_state: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Blocks in this state.
    pub fn get(&self, state: BlockState) -> u64 {
        self.cell(state).load(Ordering::Relaxed)
    }

    fn cell(&self, state: BlockState) -> &AtomicU64 {
        let [absent, clean, dirty, zero] = &self.by_state;
        match state {
            BlockState::Absent => absent,
            BlockState::Clean => clean,
            BlockState::Dirty => dirty,
            BlockState::Zero => zero,
        }
    }

    fn add(&self, state: BlockState, blocks: u64) {
        self.cell(state).fetch_add(blocks, Ordering::Relaxed);
    }

    fn moved(&self, from: BlockState, to: BlockState, blocks: u64) {
        self.cell(from).fetch_sub(blocks, Ordering::Relaxed);
        self.add(to, blocks);
    }
}

/// A view of the map.
///
/// # Invariants
///
/// `words` has [`Map::words_for`] words and `changed` [`Map::changed_words_for`]; lanes behind the last block are absent
/// and are not counted.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    blocks: u64,
    words: &'a [AtomicU64],
    changed: Bits<'a>,
    counts: &'a Counts,
}

impl<'a> Map<'a> {
    /// Words of a map of so many blocks: whole segments.
    pub const fn words_for(blocks: u64) -> u64 {
        segments(blocks).saturating_mul(WORDS_PER_SEGMENT as u64)
    }

    /// Words of the set of changed segments.
    pub const fn changed_words_for(blocks: u64) -> u64 {
        Bits::words_for(segments(blocks))
    }

    /// A view; `None` if the slices have other lengths than they need.
    pub fn new(
        blocks: u64,
        words: &'a [AtomicU64],
        changed: &'a [AtomicU64],
        counts: &'a Counts,
    ) -> Option<Self> {
        let fits = words.len() as u64 == Self::words_for(blocks)
            && changed.len() as u64 == Self::changed_words_for(blocks);
        fits.then_some(Self {
            blocks,
            words,
            changed: Bits::new(changed),
            counts,
        })
    }

    /// A map of no blocks: everything is behind its end.
    pub const fn empty(counts: &'a Counts) -> Self {
        Self {
            blocks: 0,
            words: &[],
            changed: Bits::new(&[]),
            counts,
        }
    }

    /// Blocks of the image.
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Segments of the map.
    pub const fn segments(&self) -> u64 {
        segments(self.blocks)
    }

    /// Blocks by state.
    pub const fn counts(&self) -> &'a Counts {
        self.counts
    }

    /// Segments that changed since they were last taken for recording.
    pub const fn changed(&self) -> Bits<'a> {
        self.changed
    }

    /// The state of a block; a block behind the image is absent.
    pub fn state(&self, block: u64) -> BlockState {
        let lane = (block % BLOCKS_PER_WORD) * 2;
        BlockState::from_bits(self.word(block / BLOCKS_PER_WORD) >> lane)
    }

    fn word(&self, index: u64) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index))
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// The state of `block`, and how many blocks from it on, at most `max`, have the same: at least one, unless nothing
    /// is asked for. Other states may change meanwhile; each word is looked at once.
    pub fn run(&self, block: u64, max: u64) -> (BlockState, u64) {
        let end = block.saturating_add(max).min(self.blocks);
        let mut word = self.word(block / BLOCKS_PER_WORD);
        let state = BlockState::from_bits(word >> ((block % BLOCKS_PER_WORD) * 2));
        let mut at = block;
        while at < end {
            let lane = at % BLOCKS_PER_WORD;
            let same = lanes_in(word, state) >> (lane * 2);
            // Lanes that are shifted in at the top differ from every state: they end the run at the word's end.
            let len = u64::from((!same & LANES).trailing_zeros()) / 2;
            let len = len.min(BLOCKS_PER_WORD - lane);
            at = at.saturating_add(len);
            if lane.saturating_add(len) < BLOCKS_PER_WORD {
                break;
            }
            word = self.word(at / BLOCKS_PER_WORD);
        }
        (state, at.min(end).saturating_sub(block))
    }

    /// The first run of blocks in `state` at or after `from`, before `end`, at most `max` long.
    pub fn next_in(&self, state: BlockState, from: u64, end: u64, max: u64) -> Option<Run> {
        let end = end.min(self.blocks);
        let mut at = from;
        while at < end {
            let lane = at % BLOCKS_PER_WORD;
            let found = lanes_in(self.word(at / BLOCKS_PER_WORD), state) >> (lane * 2);
            if found != 0 {
                let start = at.saturating_add(u64::from(found.trailing_zeros()) / 2);
                if start >= end {
                    return None;
                }
                let (now, blocks) = self.run(start, max.min(end.saturating_sub(start)));
                if now == state && blocks != 0 {
                    return Some(Run { start, blocks });
                }
                // It changed between the two looks: go on behind it.
                at = start.saturating_add(1);
                continue;
            }
            at = at.saturating_add(BLOCKS_PER_WORD - lane);
        }
        None
    }

    /// Applies `change` to those blocks of `run` that it speaks of (see [`Change`]); how many that were.
    ///
    /// The words change first and the segment is marked afterwards: whoever takes the mark then sees the change. Two
    /// callers at the same time both succeed, each for the blocks it found.
    pub fn apply(&self, run: Run, change: Change) -> u64 {
        let end = run.end().min(self.blocks);
        let mut at = run.start;
        let mut total = 0u64;
        while at < end {
            let word_end = (at / BLOCKS_PER_WORD)
                .saturating_add(1)
                .saturating_mul(BLOCKS_PER_WORD);
            let part = Run::from_to(at, end.min(word_end));
            total = total.saturating_add(self.apply_in_word(part, change));
            at = part.end();
        }
        total
    }

    /// As [`Map::apply`] for a run inside of one word.
    fn apply_in_word(&self, part: Run, change: Change) -> u64 {
        let Some(word) = usize::try_from(part.start / BLOCKS_PER_WORD)
            .ok()
            .and_then(|index| self.words.get(index))
        else {
            return 0;
        };
        let mask = lane_mask(part.start % BLOCKS_PER_WORD, part.blocks);
        let step = |old| {
            let lanes = changing_lanes(old, change) & mask;
            (lanes != 0).then(|| with_lanes(old, lanes, change.to()))
        };
        let Ok(old) = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, step) else {
            return 0;
        };
        self.changed.set(part.start / BLOCKS_PER_SEGMENT);
        self.count(old, changing_lanes(old, change) & mask, change.to())
    }

    fn count(&self, old: u64, lanes: u64, to: BlockState) -> u64 {
        for from in STATES {
            let moved = u64::from((lanes_in(old, from) & lanes).count_ones());
            if moved != 0 {
                self.counts.moved(from, to, moved);
            }
        }
        lanes.count_ones().into()
    }

    fn segment_words(&self, segment: u64) -> &'a [AtomicU64] {
        let range = || {
            let start = usize::try_from(segment)
                .ok()?
                .checked_mul(WORDS_PER_SEGMENT)?;
            self.words.get(start..start.checked_add(WORDS_PER_SEGMENT)?)
        };
        range().unwrap_or(&[])
    }

    /// The states of a segment's blocks, as the disk has them.
    pub fn snapshot(&self, segment: u64) -> [u64; WORDS_PER_SEGMENT] {
        let mut words = [0; WORDS_PER_SEGMENT];
        for (to, from) in words.iter_mut().zip(self.segment_words(segment)) {
            *to = from.load(Ordering::Acquire);
        }
        words
    }

    /// Sets the states of a segment's blocks at load, before anybody uses the map; marks nothing, counts nothing.
    /// [`Map::recount`] must follow.
    pub fn load(&self, segment: u64, words: &[u64; WORDS_PER_SEGMENT]) {
        let first = segment.saturating_mul(BLOCKS_PER_SEGMENT);
        for (index, (to, from)) in (0u64..).zip(self.segment_words(segment).iter().zip(words)) {
            let block = first.saturating_add(index * BLOCKS_PER_WORD);
            let valid = self.blocks.saturating_sub(block).min(BLOCKS_PER_WORD);
            let mask = lane_mask(0, valid);
            // INVARIANT: lanes behind the last block are absent.
            to.store(from & (mask | (mask << 1)), Ordering::Release);
        }
    }

    /// Counts the states anew; at load, while nothing changes.
    pub fn recount(&self) {
        let mut sums = [0u64; 4];
        for word in self.words {
            let word = word.load(Ordering::Acquire);
            for (sum, state) in sums.iter_mut().zip(STATES) {
                *sum = sum.saturating_add(lanes_in(word, state).count_ones().into());
            }
        }
        let lanes = (self.words.len() as u64).saturating_mul(BLOCKS_PER_WORD);
        let behind = lanes.saturating_sub(self.blocks);
        for (sum, state) in sums.into_iter().zip(STATES) {
            let behind = if state == BlockState::Absent {
                behind
            } else {
                0
            };
            let blocks = sum.saturating_sub(behind);
            self.counts.cell(state).store(blocks, Ordering::Relaxed);
        }
    }
}

/// All states, in the order of their numbers.
const STATES: [BlockState; 4] = [
    BlockState::Absent,
    BlockState::Clean,
    BlockState::Dirty,
    BlockState::Zero,
];

/// The low bits of `blocks` lanes from `lane` on.
const fn lane_mask(lane: u64, blocks: u64) -> u64 {
    if blocks == 0 || lane >= BLOCKS_PER_WORD {
        return 0;
    }
    let width = if blocks < BLOCKS_PER_WORD {
        blocks
    } else {
        BLOCKS_PER_WORD
    };
    let ones = if width == BLOCKS_PER_WORD {
        u64::MAX
    } else {
        (1u64 << (width * 2)) - 1
    };
    (ones << (lane * 2)) & LANES
}

/// The lanes of a word that are in `state`.
const fn lanes_in(word: u64, state: BlockState) -> u64 {
    let low = word & LANES;
    let high = (word >> 1) & LANES;
    match state {
        BlockState::Absent => !low & !high & LANES,
        BlockState::Clean => low & !high,
        BlockState::Dirty => !low & high & LANES,
        BlockState::Zero => low & high,
    }
}

/// The lanes of a word that `change` moves.
fn changing_lanes(word: u64, change: Change) -> u64 {
    STATES
        .into_iter()
        .filter(|from| change.next(*from).is_some())
        .fold(0, |lanes, from| lanes | lanes_in(word, from))
}

/// The word with these lanes set to `state`.
const fn with_lanes(word: u64, lanes: u64, state: BlockState) -> u64 {
    let cleared = word & !(lanes | (lanes << 1));
    let low = if state.bits() & 1 != 0 { lanes } else { 0 };
    let high = if state.bits() & 2 != 0 { lanes << 1 } else { 0 };
    cleared | low | high
}
