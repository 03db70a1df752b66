// SPDX-License-Identifier: GPL-2.0-only

//! Relocate, store and roll back, cut at every single write, with many fates of the unflushed sectors.

use imgstream_engine::state::transition;
use imgstream_proto::disk::State;
use imgstream_sim::disk::image;
use imgstream_sim::stage::{boot_blocks, source, Stager};

/// Fates tried for each place of the cut.
const SEEDS: u64 = 60;

/// Calls `look` on the disk after a cut behind `writes` writes of `work`, for every number of writes that is cut.
fn cut_everywhere(prepare: impl Fn(&mut Stager), look: impl Fn(&mut Stager)) -> u64 {
    let mut cuts = 0;
    for writes in 0.. {
        let mut ended = false;
        for seed in 0..SEEDS {
            let mut stager = Stager::new(seed * 1000 + writes);
            prepare(&mut stager);
            stager.cut_after(writes);
            ended = stager.work().is_ok();
            stager.power_cycle();
            look(&mut stager);
            cuts += 1;
        }
        if ended {
            break;
        }
    }
    cuts
}

fn migrated(stager: &mut Stager) {
    stager.work().expect("no cut is planned");
    assert_eq!(stager.state(), Some(State::Streaming));
    assert!(stager.target_boots());
}

#[test]
fn a_cut_migration_is_resumed_and_block_0_comes_last() {
    let cuts = cut_everywhere(
        |_| (),
        |stager| {
            match stager.state().expect("a control area") {
                // Nothing of the source is touched while its blocks are being copied away.
                State::Relocating => assert!(stager.source_is_whole()),
                // Block 0 leads to the target only when all that it leads to is there.
                State::Storing => {
                    let any_new = (0..8).any(|at| *stager.disk.peek(at) == image(at));
                    let mut others = boot_blocks().filter(|block| *block != 0);
                    assert!(!any_new || others.all(|block| stager.block_is(block, image)));
                }
                State::Streaming => assert!(stager.target_boots()),
                other => panic!("{other}"),
            }
            migrated(stager);
        },
    );
    assert!(cuts > 13 * SEEDS);
}

#[test]
fn a_cut_roll_back_is_resumed_and_leaves_the_source_as_it_was() {
    let ask = |stager: &mut Stager| {
        migrated(stager);
        stager.ask_roll_back().expect("no cut is planned");
    };
    let cuts = cut_everywhere(ask, |stager| {
        match stager.state() {
            // Block 0 leads to the source only when all that it leads to is there.
            Some(State::RollingBack) => {
                let any_old = (0..8).any(|at| *stager.disk.peek(at) == source(at));
                let mut others = boot_blocks().filter(|block| *block != 0);
                assert!(!any_old || others.all(|block| stager.block_is(block, source)));
            }
            Some(State::RolledBack) | None => assert!(stager.source_is_whole()),
            Some(other) => panic!("{other}"),
        }
        stager.work().expect("no cut is planned");
        assert_eq!(stager.state(), None, "the superblocks are wiped");
        assert!(stager.source_is_whole());
    });
    assert!(cuts > 7 * SEEDS);
}

#[test]
fn a_cut_request_for_roll_back_is_there_or_not() {
    for writes in 0..3 {
        for seed in 0..SEEDS {
            let mut stager = Stager::new(seed);
            migrated(&mut stager);
            stager.cut_after(writes);
            let asked = stager.ask_roll_back().is_ok();
            stager.power_cycle();
            match stager.state() {
                Some(State::Streaming) => assert!(!asked && stager.target_boots()),
                Some(State::RollingBack) => {
                    stager.work().expect("no cut is planned");
                    assert!(stager.source_is_whole());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn several_cuts_in_a_row_do_no_harm() {
    for seed in 0..400 {
        let mut stager = Stager::new(seed);
        for cut in 0..6 {
            stager.cut_after((seed + cut * 7) % 19);
            if stager.work().is_ok() {
                break;
            }
            stager.power_cycle();
        }
        stager.power_cycle();
        migrated(&mut stager);
        stager.ask_roll_back().expect("no cut is planned");
        for cut in 0..6 {
            stager.cut_after((seed + cut * 5) % 13);
            if stager.work().is_ok() {
                break;
            }
            stager.power_cycle();
        }
        stager.power_cycle();
        stager.work().expect("no cut is planned");
        assert!(stager.source_is_whole());
        assert_eq!(stager.state(), None);
    }
}

#[test]
fn nothing_leads_back_from_a_commit() {
    for to in State::ALL {
        let legal = transition(State::Committing, to).is_ok();
        assert_eq!(legal, matches!(to, State::Committing | State::Committed));
    }
}
