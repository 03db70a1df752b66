// SPDX-License-Identifier: GPL-2.0-only

//! Sweeps, against a source of which some blocks are bad. Time is a number here: nothing waits.

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use core::sync::atomic::AtomicU64;

use imgstream_proto::disk::Geometry;
use proptest::prelude::*;

use super::Words;
use crate::block::{BlockState, Run};
use crate::locate::Locator;
use crate::map::Change;
use crate::sweep::{narrower, Answer, Next, Sweep, PAUSE_MAX_MS, PAUSE_MS};
use crate::trouble::Trouble;

fn stuck(block: u64) -> Next {
    Next::Stuck(Trouble::Missing { block })
}

fn has(blocks: &BTreeSet<u64>, run: Run) -> bool {
    blocks.range(run.start..run.end()).next().is_some()
}

/// An image that is fetched by a sweep.
struct Rig {
    words: Words,
    counter: AtomicU64,
    geometry: Geometry,
    sweep: Sweep,
    bad: BTreeSet<u64>,
    /// Blocks whose slots cannot be written.
    weak: BTreeSet<u64>,
    /// Asked for and not answered.
    open: Vec<Run>,
    asked: usize,
    now_ms: u64,
}

impl Rig {
    fn new(blocks: u64, range: Run, bad: impl IntoIterator<Item = u64>) -> Self {
        Self {
            words: Words::new(blocks),
            counter: AtomicU64::new(0),
            geometry: Geometry {
                useful_start_bytes: 40 * 4096,
                image_bytes: blocks * 4096,
                ..Geometry::default()
            },
            sweep: Sweep::new(range, 256),
            bad: bad.into_iter().collect(),
            weak: BTreeSet::new(),
            open: vec![],
            asked: 0,
            now_ms: 1000,
        }
    }

    fn next(&mut self) -> Next {
        let locator = Locator::new(self.words.map(), &[], &self.counter, &self.geometry);
        self.sweep.next(&locator, self.now_ms)
    }

    /// A pause of that length is asked for, to the millisecond, and passes.
    fn wait(&mut self, ms: u64) {
        assert_eq!(self.next(), Next::Pause(ms));
        self.now_ms += ms - 1;
        assert_eq!(self.next(), Next::Pause(1));
        self.now_ms += 1;
    }

    /// The source says what it says of `run`.
    fn answer(&mut self, run: Run) {
        let answer = if has(&self.bad, run) {
            Answer::Refused(run)
        } else if has(&self.weak, run) {
            Answer::Unstored(run)
        } else {
            self.words.map().apply(run, Change::Filled);
            Answer::Came
        };
        self.sweep.answer(answer, self.now_ms);
    }

    fn ask(&mut self, run: Run) {
        self.sweep.ask(run);
        self.asked += 1;
        self.open.push(run);
    }

    /// Asks one after the other until there is something else to do.
    fn run(&mut self) -> Next {
        loop {
            match self.next() {
                Next::Ask(run) => {
                    self.ask(run);
                    self.open.clear();
                    self.answer(run);
                }
                next => return next,
            }
        }
    }

    fn absent(&self, range: Run) -> BTreeSet<u64> {
        let map = self.words.map();
        (range.start..range.end())
            .filter(|block| map.state(*block) == BlockState::Absent)
            .collect()
    }
}

#[test]
fn all_is_fetched_in_large_pieces() {
    let mut rig = Rig::new(10_000, Run::new(1000, 4096), []);
    assert_eq!(rig.run(), Next::Done);
    assert_eq!(rig.asked, 16);
    assert_eq!(rig.words.map().counts().get(BlockState::Clean), 4096);
}

#[test]
fn all_round_a_bad_block_is_fetched() {
    let range = Run::new(1000, 4096);
    let mut rig = Rig::new(10_000, range, [1700]);
    assert_eq!(rig.run(), stuck(1700));
    assert_eq!(rig.absent(range), BTreeSet::from([1700]));
    assert_eq!(rig.asked, 16 + 16 + 16);
    rig.wait(PAUSE_MS);
    // Nothing else is asked for again.
    assert_eq!(rig.run(), stuck(1700));
    assert_eq!(rig.asked, 16 + 16 + 16 + 1);
}

#[test]
fn what_is_bad_is_asked_for_less_and_less_often() {
    let mut rig = Rig::new(100, Run::new(0, 100), [7, 9]);
    let mut pause = PAUSE_MS;
    for _ in 0..9 {
        assert_eq!(rig.run(), stuck(7));
        rig.wait(pause);
        pause = (pause * 2).min(PAUSE_MAX_MS);
    }
    // Something comes: what is left may, too.
    rig.bad.remove(&7);
    assert_eq!(rig.run(), stuck(9));
    rig.wait(PAUSE_MS);
    rig.bad.clear();
    assert_eq!(rig.run(), Next::Done);
}

#[test]
fn what_was_mended_is_fetched_in_large_pieces_again() {
    let range = Run::new(0, 4096);
    let mut rig = Rig::new(4096, range, 0..4096);
    assert_eq!(rig.run(), stuck(0));
    rig.asked = 0;
    rig.bad.clear();
    rig.wait(PAUSE_MS);
    assert_eq!(rig.run(), Next::Done);
    assert_eq!(rig.asked, 16);
}

#[test]
fn what_will_pass_is_no_refusal() {
    let mut rig = Rig::new(100, Run::new(0, 100), []);
    let Next::Ask(run) = rig.next() else {
        panic!("nothing is asked for");
    };
    rig.ask(run);
    assert_eq!(rig.next(), Next::Wait);
    rig.sweep.answer(Answer::Later, rig.now_ms);
    rig.wait(PAUSE_MS);
    assert_eq!(rig.next(), Next::Ask(run), "the same piece, as large");
    assert_eq!(rig.run(), Next::Done);
}

#[test]
fn a_source_that_does_not_answer_is_waited_for() {
    let mut rig = Rig::new(100, Run::new(0, 100), [7]);
    while let Next::Ask(run) = rig.next() {
        rig.ask(run);
    }
    rig.now_ms += 1_000_000_000;
    assert_eq!(rig.next(), Next::Wait);
}

#[test]
fn who_was_refused_together_with_others_is_not_bad() {
    let mut rig = Rig::new(100, Run::new(50, 1), [52]);
    // A reader fetches more than the block that is asked for, and all of that is refused.
    rig.ask(Run::new(50, 1));
    rig.sweep
        .answer(Answer::Refused(Run::new(48, 8)), rig.now_ms);
    assert_eq!(rig.run(), Next::Done);
}

#[test]
fn what_others_are_refused_makes_no_piece_narrower() {
    let mut rig = Rig::new(1000, Run::new(0, 1000), 0..16);
    let Next::Ask(first) = rig.next() else {
        panic!("nothing is asked for");
    };
    rig.ask(first);
    rig.answer(first);
    rig.bad.clear();
    while rig.next() != Next::Ask(Run::new(0, 16)) {
        let Next::Ask(run) = rig.next() else {
            panic!("it ends");
        };
        rig.ask(run);
        rig.answer(run);
    }
    // In the pass of smaller pieces one joins a large one of a reader, which is refused.
    rig.ask(Run::new(0, 16));
    rig.sweep.answer(Answer::Refused(first), rig.now_ms);
    rig.asked = 0;
    assert_eq!(rig.run(), Next::Done);
    assert_eq!(rig.asked, 15 + 1);
}

#[test]
fn a_slot_that_cannot_be_written_is_named() {
    let range = Run::new(0, 1000);
    let mut rig = Rig::new(1000, range, [700]);
    rig.weak.insert(300);
    let unstored = Next::Stuck(Trouble::Unstored {
        block: 300,
        disk_bytes: 340 * 4096,
    });
    assert_eq!(rig.run(), unstored);
    assert_eq!(rig.absent(range), BTreeSet::from([300, 700]));
    rig.wait(PAUSE_MS);
    rig.weak.clear();
    assert_eq!(rig.run(), stuck(700));
}

#[test]
fn a_slot_that_was_not_asked_for_is_no_trouble() {
    let mut rig = Rig::new(100, Run::new(50, 1), []);
    // A reader fetches more than the block that is asked for; the last of it stands alone and cannot be stored.
    rig.ask(Run::new(50, 1));
    rig.sweep
        .answer(Answer::Unstored(Run::new(52, 1)), rig.now_ms);
    assert_eq!(rig.run(), Next::Done);
}

#[test]
fn pieces_become_narrower_down_to_one_block() {
    let mut blocks = 256;
    let mut steps = 0;
    while let Some(fewer) = narrower(blocks) {
        assert!(fewer < blocks && fewer > 0);
        blocks = fewer;
        steps += 1;
    }
    assert_eq!((blocks, steps), (1, 2));
}

proptest! {
    /// Whatever is bad, in whatever order answers come, and however readers cut what is asked for: a sweep ends, and then
    /// exactly what is bad is absent.
    #[test]
    fn a_sweep_gets_all_that_can_be_had(
        blocks in 1u64..3000,
        bad in proptest::collection::btree_set(0u64..3000, 0..40),
        order in proptest::collection::vec((any::<usize>(), 0u64..300), 1..50),
    ) {
        let range = Run::new(blocks / 7, blocks - blocks / 7);
        let bad: BTreeSet<u64> = bad.into_iter().filter(|block| range.contains(*block)).collect();
        let mut rig = Rig::new(blocks, range, bad.clone());
        let mut order = order.into_iter().cycle();
        for _ in 0..20_000 {
            let (pick, cut) = order.next().unwrap();
            match rig.next() {
                Next::Ask(run) if rig.open.len() < 4 => {
                    let taken = Run::new(run.start, run.blocks.min(cut.max(1)));
                    rig.ask(run);
                    rig.open.pop();
                    rig.sweep.cut(run, taken.blocks);
                    rig.open.push(taken);
                }
                Next::Ask(_) | Next::Wait => {
                    let run = rig.open.swap_remove(pick % rig.open.len());
                    rig.answer(run);
                }
                Next::Stuck(trouble) => {
                    let block = *bad.first().unwrap();
                    prop_assert_eq!(trouble, Trouble::Missing { block });
                    prop_assert_eq!(rig.absent(range), bad);
                    return Ok(());
                }
                Next::Done => {
                    prop_assert!(bad.is_empty() && rig.absent(range).is_empty());
                    return Ok(());
                }
                Next::Pause(_) => prop_assert!(false, "nothing passes here"),
            }
        }
        prop_assert!(false, "the sweep does not end");
    }
}
