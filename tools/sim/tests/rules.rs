// SPDX-License-Identifier: GPL-2.0-only

//! One test for each rule of Documentation/design/crash-consistency.rst: with the rule every seed holds, without it the
//! oracle finds something that must not be.

use imgstream_sim::rules::Broken;
use imgstream_sim::run::run_any;

/// Seeds that must hold, for each rule others.
const SEEDS: u64 = 300;
/// Seeds within which a missing rule must show (the most that one needs now is 718).
const HUNT: u64 = 5000;

fn holds(rule: u64) {
    for seed in rule * SEEDS..(rule + 1) * SEEDS {
        if let Some(violation) = run_any(seed, Broken::Nothing) {
            panic!("seed {seed}: {violation}");
        }
    }
}

fn shows_without(broken: Broken) {
    let shown = (0..HUNT).any(|seed| run_any(seed, broken).is_some());
    assert!(
        shown,
        "{broken:?} makes no difference: the model does not test this rule"
    );
}

#[test]
fn rule_01_states_are_recorded_after_their_data_is_durable() {
    holds(1);
    shows_without(Broken::NoFlushBeforeJournal);
    shows_without(Broken::FlushBeforeSnapshot);
}

#[test]
fn rule_02_flush_covers_every_change() {
    holds(2);
    shows_without(Broken::FlushWithoutRound);
}

#[test]
fn rule_03_clean_is_suspect_after_an_unclean_attach() {
    holds(3);
    shows_without(Broken::CleanBelieved);
    shows_without(Broken::SuspicionForgotten);
}

#[test]
fn rule_04_the_newest_guest_data_wins() {
    holds(4);
    shows_without(Broken::FillIgnoresClaims);
}

#[test]
fn rule_05_a_place_is_reused_after_all_have_left_it() {
    holds(5);
    shows_without(Broken::NoDrain);
    shows_without(Broken::NoOverlapBound);
}

#[test]
fn rule_06_stored_bytes_come_from_the_drivers_own_pages() {
    holds(6);
    shows_without(Broken::StoreFromReader);
}

#[test]
fn rule_07_received_bytes_are_counted() {
    holds(7);
    shows_without(Broken::BytesNotCounted);
}

#[test]
fn rule_08_nothing_comes_back_over_dirty_or_zero_blocks() {
    holds(8);
    shows_without(Broken::DiscardForgotten);
    shows_without(Broken::ZeroMergedWithSlot);
    shows_without(Broken::DirtyRefetched);
    shows_without(Broken::RescueNotAsked);
}

#[test]
fn rule_09_guest_io_goes_home_below_the_durable_counter() {
    holds(9);
    shows_without(Broken::RouteBeforeRecord);
    shows_without(Broken::OldCounterInSuperblock);
}

#[test]
fn rule_10_a_failed_journal_write_degrades() {
    holds(10);
    shows_without(Broken::JournalErrorIgnored);
}

/// For `make check-long`: as many seeds as IMGSTREAM_SIM_SEEDS says.
#[test]
#[ignore = "takes long; make check-long"]
fn all_rules_hold_for_many_seeds() {
    let seeds = std::env::var("IMGSTREAM_SIM_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(100_000);
    for seed in 1_000_000..1_000_000 + seeds {
        if let Some(violation) = run_any(seed, Broken::Nothing) {
            panic!("seed {seed}: {violation}");
        }
    }
}
