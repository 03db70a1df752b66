// SPDX-License-Identifier: GPL-2.0-only

//! Map, locator, claims and fetches.

use std::vec;
use std::vec::Vec;

use core::sync::atomic::AtomicU64;

use imgstream_proto::disk::{Geometry, BLOCKS_PER_SEGMENT};
use proptest::prelude::*;

use super::{claim_words, Words};
use crate::block::{BlockState, Run};
use crate::claim::Claims;
use crate::fetch::{plan, Plan};
use crate::fill::{is_independent, missing_blocks, next_absent};
use crate::locate::{BootRun, Locator, Place};
use crate::map::Change;
use crate::settle::{batch, parts, remedy, Remedy, Source};
use crate::sweep::{Next, Sweep};
use crate::trouble::Trouble;
use crate::trust::Trust;

const CHANGES: [Change; 4] = [
    Change::Filled,
    Change::Overwritten,
    Change::Written,
    Change::Zeroed,
];

proptest! {
    /// The map against an array of states: changes, runs, counts and marks.
    #[test]
    fn map_is_an_array(
        blocks in 1u64..6000,
        ops in proptest::collection::vec((any::<u16>(), 0u64..300, 0usize..4), 0..60),
    ) {
        let words = Words::new(blocks);
        let map = words.map();
        let mut model = vec![BlockState::Absent; usize::try_from(blocks).unwrap()];
        let mut touched = vec![false; usize::try_from(map.segments()).unwrap()];
        for (start, len, change) in ops {
            let run = Run::new(u64::from(start) % blocks, len);
            let change = CHANGES[change];
            let mut expected = 0;
            for block in run.start..run.end().min(blocks) {
                let state = &mut model[usize::try_from(block).unwrap()];
                if let Some(next) = change.next(*state) {
                    *state = next;
                    expected += 1;
                    touched[usize::try_from(block / BLOCKS_PER_SEGMENT).unwrap()] = true;
                }
            }
            prop_assert_eq!(map.apply(run, change), expected);
        }
        for (segment, touched) in (0u64..).zip(touched) {
            prop_assert_eq!(map.changed().get(segment), touched);
        }
        for state in [BlockState::Absent, BlockState::Clean, BlockState::Dirty, BlockState::Zero] {
            let count = model.iter().filter(|found| **found == state).count() as u64;
            prop_assert_eq!(map.counts().get(state), count);
        }
        check_runs(&words, &model)?;
    }

    /// A map that was saved segment by segment and loaded again is the same.
    #[test]
    fn segments_carry_the_whole_map(blocks in 1u64..6000, seed: u64) {
        let from = Words::new(blocks);
        for block in 0..blocks {
            let change = CHANGES[usize::try_from(((seed ^ block.wrapping_mul(0x9e37_79b9)) >> 3) & 3).unwrap()];
            from.map().apply(Run::new(block, 1), change);
        }
        let to = Words::new(blocks);
        for segment in 0..from.map().segments() {
            to.map().load(segment, &from.map().snapshot(segment));
        }
        to.map().recount();
        for block in 0..blocks {
            prop_assert_eq!(from.map().state(block), to.map().state(block));
        }
        for state in [BlockState::Absent, BlockState::Clean, BlockState::Dirty, BlockState::Zero] {
            prop_assert_eq!(from.map().counts().get(state), to.map().counts().get(state));
        }
        prop_assert!(to.map().changed().is_empty());
    }
}

fn check_runs(words: &Words, model: &[BlockState]) -> Result<(), TestCaseError> {
    let map = words.map();
    let mut at = 0;
    while at < words.blocks {
        let (state, len) = map.run(at, u64::MAX);
        let expected = model[usize::try_from(at).unwrap()..]
            .iter()
            .take_while(|found| **found == state)
            .count() as u64;
        prop_assert_eq!(len, expected);
        prop_assert_eq!(map.run(at, 3).1, expected.min(3));
        let found = map.next_in(state, at, words.blocks, 5);
        prop_assert_eq!(found, Some(Run::new(at, len.min(5))));
        at += len;
    }
    Ok(())
}

#[test]
fn changes_follow_the_table() {
    use BlockState::{Absent, Clean, Dirty, Zero};
    let table = [
        (Change::Filled, [Some(Clean), None, None, None]),
        (Change::Overwritten, [None, Some(Dirty), None, None]),
        (
            Change::Written,
            [Some(Dirty), Some(Dirty), None, Some(Dirty)],
        ),
        (Change::Zeroed, [Some(Zero), Some(Zero), Some(Zero), None]),
    ];
    for (change, row) in table {
        for (from, to) in [Absent, Clean, Dirty, Zero].into_iter().zip(row) {
            assert_eq!(change.next(from), to, "{change:?} of {from:?}");
        }
    }
}

#[test]
fn blocks_behind_the_image_never_change() {
    let words = Words::new(100);
    assert_eq!(words.map().apply(Run::new(90, 50), Change::Written), 10);
    assert_eq!(words.map().apply(Run::new(100, 1), Change::Written), 0);
    assert_eq!(words.map().state(100), BlockState::Absent);
    assert_eq!(words.map().counts().get(BlockState::Absent), 90);
    words.map().load(0, &[u64::MAX; 60]);
    words.map().recount();
    assert_eq!(words.map().counts().get(BlockState::Zero), 100);
}

fn geometry() -> Geometry {
    Geometry {
        useful_start_bytes: 40 * 4096,
        image_bytes: 100 * 4096,
        ..Geometry::default()
    }
}

fn boot() -> Vec<BootRun> {
    let run = |start, blocks, live| BootRun {
        run: Run::new(start, blocks),
        live,
        relocated_bytes: 0,
    };
    vec![run(0, 4, true), run(10, 2, false), run(50, 5, true)]
}

#[test]
fn locate_answers_for_every_kind_of_block() {
    let words = Words::new(100);
    let (boot, geometry, counter) = (boot(), geometry(), AtomicU64::new(0));
    let locator = Locator::new(words.map(), &boot, &counter, &geometry);
    words.map().apply(Run::new(20, 2), Change::Filled);
    words.map().apply(Run::new(22, 2), Change::Written);
    words.map().apply(Run::new(24, 2), Change::Zeroed);
    let slot = |block: u64| (block + 40) * 4096;
    let at = |block, max| {
        let piece = locator.locate(block, max).unwrap();
        (piece.place, piece.disk_bytes, piece.blocks)
    };
    assert_eq!(at(0, 100), (Place::Home, 0, 4));
    assert_eq!(at(2, 1), (Place::Home, 2 * 4096, 1));
    assert_eq!(at(4, 100), (Place::Absent, slot(4), 6));
    // Saved, but not live: not home.
    assert_eq!(at(10, 100), (Place::Absent, slot(10), 2));
    assert_eq!(at(12, 100), (Place::Absent, slot(12), 8));
    assert_eq!(at(20, 100), (Place::Slot, slot(20), 2));
    assert_eq!(at(22, 100), (Place::Slot, slot(22), 2));
    assert_eq!(at(24, 100), (Place::Zero, slot(24), 2));
    assert_eq!(at(26, 100), (Place::Absent, slot(26), 24));
    assert_eq!(at(52, 100), (Place::Home, 52 * 4096, 3));
    assert_eq!(locator.locate(100, 1), None);
    assert_eq!(locator.locate(0, 0), None);
    assert_eq!(locator.home_blocks(), 9);
    locator.raise_counter(23);
    assert_eq!(at(20, 100), (Place::Home, 20 * 4096, 3));
    assert_eq!(at(23, 100), (Place::Slot, slot(23), 1));
    assert_eq!(locator.home_blocks(), 28);
    // It never goes down.
    locator.raise_counter(7);
    assert_eq!(locator.counter(), 23);
}

#[test]
fn fill_goes_over_what_is_neither_home_nor_stored() {
    let words = Words::new(100);
    let (boot, geometry, counter) = (boot(), geometry(), AtomicU64::new(0));
    let locator = Locator::new(words.map(), &boot, &counter, &geometry);
    assert_eq!(missing_blocks(&locator), 91);
    let mut sweep = Sweep::new(Run::new(0, 100), 40);
    for expected in [
        Run::new(4, 6),
        Run::new(10, 2),
        Run::new(12, 38),
        Run::new(55, 40),
        Run::new(95, 5),
    ] {
        assert_eq!(sweep.next(&locator, 0), Next::Ask(expected));
        let again = sweep.next(&locator, 0);
        assert_eq!(again, Next::Ask(expected), "asking moves nothing");
        sweep.ask(expected);
    }
    words.map().apply(Run::new(0, 99), Change::Filled);
    assert!(!is_independent(&locator));
    locator.raise_counter(100);
    assert_eq!(next_absent(&locator, 0, 100, 1), None);
    assert!(is_independent(&locator));
}

#[test]
fn settle_takes_each_block_from_where_it_is() {
    let words = Words::new(100);
    let (boot, geometry, counter) = (boot(), geometry(), AtomicU64::new(0));
    let locator = Locator::new(words.map(), &boot, &counter, &geometry);
    words.map().apply(Run::new(4, 2), Change::Written);
    words.map().apply(Run::new(6, 1), Change::Zeroed);
    let found: Vec<_> = parts(&locator, Run::new(2, 7))
        .map(|part| (part.run.start, part.run.blocks, part.source))
        .collect();
    let slot = Source::Slot {
        disk_bytes: 44 * 4096,
        state: BlockState::Dirty,
    };
    let expected = [
        (2, 2, Source::Skip),
        (4, 2, slot),
        (6, 1, Source::Zeroes),
        (7, 2, Source::Fetch),
    ];
    assert_eq!(found, expected);
}

#[test]
fn only_what_equals_the_image_is_fetched_again() {
    let remedy = |trust, independent, state| remedy(trust, independent, state, 7, 4096, None);
    let stop = Remedy::Stop(Trouble::Unreadable {
        block: 7,
        disk_bytes: 4096,
    });
    assert_eq!(
        remedy(Trust::Proven, false, BlockState::Clean),
        Remedy::Fetch(16)
    );
    assert_eq!(remedy(Trust::Proven, true, BlockState::Clean), stop);
    assert_eq!(remedy(Trust::Suspect, false, BlockState::Clean), stop);
    assert_eq!(remedy(Trust::Proven, false, BlockState::Dirty), stop);
}

#[test]
fn a_slot_that_the_repository_cannot_replace_stops_the_commit() {
    let remedy = |refused| remedy(Trust::Proven, false, BlockState::Clean, 7, 4096, refused);
    assert_eq!(remedy(Some(Run::new(7, 16))), Remedy::Fetch(1));
    // A reader asked for more than that.
    assert_eq!(remedy(Some(Run::new(0, 256))), Remedy::Fetch(16));
    assert_eq!(remedy(Some(Run::new(6, 1))), Remedy::Fetch(16));
    let stop = Remedy::Stop(Trouble::Unreadable {
        block: 7,
        disk_bytes: 4096,
    });
    assert_eq!(remedy(Some(Run::new(7, 1))), stop);
}

#[test]
fn a_slot_that_cannot_be_written_is_not_needed() {
    let remedy = |refused| remedy(Trust::Suspect, false, BlockState::Absent, 7, 4096, refused);
    assert_eq!(remedy(None), Remedy::Fetch(16));
    assert_eq!(remedy(Some(Run::new(7, 16))), Remedy::Fetch(1));
    let stop = Remedy::Stop(Trouble::Missing { block: 7 });
    assert_eq!(remedy(Some(Run::new(7, 1))), stop);
}

#[test]
fn a_hull_has_both_and_what_is_between() {
    let (low, high, none) = (Run::new(3, 2), Run::new(9, 1), Run::new(20, 0));
    assert_eq!(low.hull(&high), Run::new(3, 7));
    assert_eq!(high.hull(&low), Run::new(3, 7));
    assert_eq!(low.hull(&none), low);
    assert_eq!(none.hull(&high), high);
}

#[test]
fn batches_end_where_slots_are_still_needed() {
    // durable, next, offset, blocks, max.
    assert_eq!(batch(0, 0, 10, 100, 64), Some(Run::new(0, 10)));
    assert_eq!(batch(0, 10, 10, 100, 64), None);
    assert_eq!(batch(8, 10, 10, 100, 64), Some(Run::new(10, 8)));
    assert_eq!(batch(95, 95, 10, 100, 64), Some(Run::new(95, 5)));
    assert_eq!(batch(100, 100, 10, 100, 64), None);
    assert_eq!(batch(0, 0, u64::MAX, 100, 7), Some(Run::new(0, 7)));
}

proptest! {
    /// No batch overwrites a slot that is needed: of a block that is not home for good, or of its own blocks.
    #[test]
    fn no_batch_overwrites_a_needed_slot(durable in 0u64..200, ahead in 0u64..50, offset in 1u64..60, max in 1u64..100) {
        if let Some(run) = batch(durable, durable + ahead, offset, 200, max) {
            for home in run.start..run.end() {
                // The home location of a block is the slot of the block `offset` before it.
                prop_assert!(home < offset || home - offset < durable);
            }
        }
    }
}

#[test]
fn a_claim_belongs_to_one() {
    let words = claim_words(200);
    let claims = Claims::new(200, &words).unwrap();
    assert!(claims.try_claim(7));
    assert!(!claims.try_claim(7));
    assert_eq!(claims.try_claim_run(Run::new(0, 20)), 7);
    assert!(!claims.try_claim_all(Run::new(190, 20)), "behind the end");
    assert!(!claims.claimed(190), "nothing is kept of a failed claim");
    assert!(claims.try_claim_all(Run::new(190, 10)));
    claims.release_run(Run::new(0, 8));
    assert!(claims.try_claim(7));
    assert!(claims.release(7));
    assert!(!claims.release(7));
    assert!(!claims.try_claim(200));
    assert!(Claims::new(300, &words).is_none());
}

#[test]
fn a_block_is_fetched_once() {
    let under_way = [('a', Run::new(4, 4)), ('b', Run::new(8, 1))];
    let plan = |start, blocks| plan(under_way, Run::new(start, blocks));
    assert_eq!(plan(0, 3), Plan::Start { blocks: 3 });
    assert_eq!(plan(0, 8), Plan::Start { blocks: 4 });
    assert_eq!(plan(4, 1), Plan::Join('a'));
    assert_eq!(plan(7, 8), Plan::Join('a'));
    assert_eq!(plan(8, 8), Plan::Join('b'));
    assert_eq!(plan(9, 8), Plan::Start { blocks: 8 });
    assert_eq!(plan(u64::MAX, 1), Plan::Start { blocks: 1 });
}

/// Found by the full demo: a fill that completed while the map was searched made the search end, and "nothing is absent"
/// was believed. The last block stays absent throughout, so every search must find something.
#[test]
fn a_search_is_not_ended_by_a_fill() {
    const BLOCKS: u64 = 200_000;
    let words = Words::new(BLOCKS);
    let map = words.map();
    std::thread::scope(|scope| {
        let filling = scope.spawn(|| {
            for block in 0..BLOCKS - 1 {
                map.apply(Run::new(block, 1), Change::Filled);
            }
        });
        while !filling.is_finished() {
            assert!(map.next_in(BlockState::Absent, 0, BLOCKS, 1).is_some());
            let last = map.next_in(BlockState::Clean, 0, BLOCKS, u64::MAX);
            assert!(last.is_none_or(|run| run.blocks != 0));
        }
    });
    assert!(map.next_in(BlockState::Absent, 0, BLOCKS, 1).is_some());
}
