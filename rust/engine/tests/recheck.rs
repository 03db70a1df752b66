// SPDX-License-Identifier: GPL-2.0-only

//! The identity check of connections that last: a unit is exchanged below a session, and the target says nothing of it.

mod common;

use std::sync::Arc;

use common::{config, identity, image, target, Rig};
use imgstream_engine::session::{Config, Mismatch, Reason, Timing};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_testtarget::{Damage, Fault, Phase, Plan, ReadFault};
use proptest::prelude::*;

const KIB: usize = 1 << 10;
const BYTES: usize = 256 * KIB;
/// READ(16)s of one check: the trailer and the two canaries of `identity`.
const CHECK_READS: u64 = 3;

fn config_of(image: &[u8]) -> Config {
    Config {
        identity: Some(identity(image)),
        ..config()
    }
}

/// A session that is ready and has read something.
fn rig() -> Rig {
    let mut rig = Rig::new(config_of(&image(BYTES)), target(BYTES));
    rig.read(0, 0, 4096);
    rig.run_reads();
    assert_eq!(rig.target.reads, CHECK_READS + 1);
    rig
}

/// Plays a fault at the next occasion.
fn play_once(rig: &mut Rig, fault: Fault) {
    rig.target.plans.push(Plan {
        connection: None,
        nth: None,
        times: 1,
        fault,
    });
}

/// The next READ(16) is never answered; if nobody reads, that is a check's.
fn lose_next_read(rig: &mut Rig) {
    play_once(rig, Fault::Read(ReadFault::Stall));
}

/// The image with another byte at `place`.
fn other(place: usize) -> Arc<Vec<u8>> {
    let mut other = image(BYTES);
    other[place] ^= 1;
    Arc::new(other)
}

#[test]
fn another_unit_below_a_running_session_is_noticed() {
    let shorter = Arc::new(image(BYTES - 4096));
    let canary = Mismatch::Canary { block: 3 };
    let capacity = Mismatch::Capacity {
        expected: BYTES as u64,
        found: BYTES as u64 - 4096,
    };
    for (store, mismatch) in [
        (other(3 * 4096 + 77), canary),
        (other(BYTES - 1), Mismatch::Trailer),
        (shorter, capacity),
    ] {
        let mut rig = rig();
        rig.target.store = store;
        rig.run(|rig| !rig.reasons.is_empty());
        let since_ms = Timing::DEFAULT.recheck;
        assert_eq!(rig.reasons, [Reason::Exchanged { mismatch, since_ms }]);
        // No read is served until it is the right one again.
        rig.read(1, 64 * 512, 4096);
        rig.run_for(600_000);
        assert!(!rig.done.contains_key(&1));
        assert!(rig.reasons[1..]
            .iter()
            .all(|r| *r == Reason::WrongImage(mismatch)));
        rig.target.store = Arc::new(image(BYTES));
        rig.run_reads();
        rig.check(&image(BYTES));
        assert!(rig.all_good());
    }
}

#[test]
fn another_designator_below_a_running_session_is_noticed() {
    let mut rig = rig();
    let settings = &mut rig.connection.as_mut().unwrap().settings;
    settings.designator = Some([0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x57]);
    rig.run(|rig| !rig.reasons.is_empty());
    let mismatch = Mismatch::Designator;
    assert!(matches!(rig.reasons[..], [Reason::Exchanged { mismatch: m, .. }] if m == mismatch));
}

#[test]
fn who_reads_nothing_asks_nothing() {
    let mut rig = rig();
    rig.run_for(3_600_000);
    assert_eq!(
        rig.target.reads,
        2 * CHECK_READS + 1,
        "one check after the read"
    );
    assert!(rig.target.pings > 100);
    // The first read after that has the check right behind it.
    rig.target.store = other(4096);
    let start = rig.now;
    rig.read(1, 64 * 512, 4096);
    rig.run(|rig| !rig.reasons.is_empty());
    assert!(rig.now - start < 100, "{} ms", rig.now - start);
}

#[test]
fn reads_go_on_beside_a_check() {
    let mut rig = rig();
    let start = rig.now;
    for i in 1..=60 {
        rig.read(i, u64::from(i) * 4096, 4096);
        rig.run_for(1000);
    }
    rig.check(&image(BYTES));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, []);
    assert_eq!(rig.ready.len(), 1, "it is ready once");
    let checks = (rig.target.reads - 61) / CHECK_READS;
    let most = (rig.now - start) / Timing::DEFAULT.recheck + 1;
    assert!(
        (6..=most).contains(&checks),
        "{checks} checks, {most} at most"
    );
}

#[test]
fn a_lost_check_is_noticed_while_reads_go_on() {
    let mut rig = rig();
    lose_next_read(&mut rig);
    rig.run_for(Timing::DEFAULT.recheck + 100);
    let start = rig.now;
    for i in 1..=60 {
        rig.read(i, u64::from(i) * 4096, 4096);
        rig.run_for(1000);
    }
    rig.run_reads();
    rig.check(&image(BYTES));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, [Reason::NoProgress]);
    let timing = Timing::DEFAULT;
    assert!(rig.now - start > timing.starved + timing.progress);
}

/// From now on data comes at 500 bytes a second; fifty reads of 8 KiB are sent at once.
fn read_slowly(rig: &mut Rig) {
    let drip = Damage::Drip(0, 500, 1000);
    play_once(rig, Fault::Wire(Phase::Opcode(opcode::DATA_IN), drip));
    for i in 0..50 {
        rig.read(i, u64::from(i) * 8192, 8192);
    }
}

#[test]
fn a_check_on_a_slow_link_is_not_lost() {
    // The check begins behind the first read, and all others were sent before it.
    let bytes = 2 * BYTES;
    let mut rig = Rig::new(config_of(&image(bytes)), target(bytes));
    rig.run(|rig| !rig.ready.is_empty());
    let start = rig.now;
    read_slowly(&mut rig);
    rig.run_reads();
    rig.run(|rig| rig.target.reads == 50 + 2 * CHECK_READS);
    rig.check_undisturbed(&image(bytes));
    assert!(rig.now - start > 600_000);
}

#[test]
fn a_check_behind_reads_that_came_after_a_pause_is_not_lost() {
    // The first read and its check are an hour old when fifty come at once, and the link has become slow.
    let bytes = 2 * BYTES;
    let mut rig = Rig::new(config_of(&image(bytes)), target(bytes));
    rig.read(100, 0, 4096);
    rig.run_for(3_600_000);
    read_slowly(&mut rig);
    rig.run_reads();
    rig.check_undisturbed(&image(bytes));
}

#[test]
fn a_check_that_ends_during_a_logout_is_of_no_use() {
    for reads in 1..=CHECK_READS {
        let mut rig = rig();
        // The answer is still on its way when the logout begins.
        rig.max_piece = 20;
        rig.run(|rig| rig.target.reads == CHECK_READS + 1 + reads);
        rig.session.logout(rig.now);
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!(rig.reasons, [Reason::LoggedOut]);
        assert_eq!(rig.ready.len(), 1);
        assert_eq!(rig.target.reads, CHECK_READS + 1 + reads);
        assert_eq!(rig.target.violations, Vec::<String>::new());
    }
}

#[test]
fn a_read_that_ends_during_a_check_is_followed_by_another_check() {
    let mut rig = rig();
    // The trailer has been asked for; then the unit is exchanged, but for the canaries, and something is read.
    rig.run(|rig| rig.target.reads == CHECK_READS + 2);
    rig.target.store = other(BYTES - 1);
    rig.read(1, 64 * 512, 4096);
    rig.run(|rig| !rig.reasons.is_empty());
    assert!(matches!(
        rig.reasons[..],
        [Reason::Exchanged {
            mismatch: Mismatch::Trailer,
            ..
        }]
    ));
}

#[test]
fn a_check_that_is_not_answered_ends_the_connection() {
    let mut rig = rig();
    lose_next_read(&mut rig);
    let start = rig.now;
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.reasons, [Reason::NoProgress]);
    let waited = rig.now - start;
    let timing = Timing::DEFAULT;
    assert!(
        (timing.starved..timing.starved + timing.recheck + 1000).contains(&waited),
        "{waited} ms"
    );
    rig.read(1, 64 * 512, 4096);
    rig.run_reads();
    assert!(rig.all_good());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Checks that never stop disturb no read, in whatever pieces bytes travel.
    #[test]
    fn checks_without_a_pause_disturb_no_read(
        max_piece in 50usize..5000, reads in prop::collection::vec((0u64..480, 1u32..32), 1..40),
    ) {
        let config = config_of(&image(BYTES));
        let timing = Timing { recheck: 0, ..config.timing };
        let mut rig = Rig::new(Config { timing, ..config }, target(BYTES));
        rig.max_piece = max_piece;
        for (id, (sector, sectors)) in reads.iter().enumerate() {
            rig.read(id as u16, sector * 512, sectors * 512);
        }
        rig.run_reads();
        rig.check(&image(BYTES));
        prop_assert!(rig.all_good());
        prop_assert_eq!(rig.reasons.len(), 0);
        let twice = reads.len() as u64 + 2 * CHECK_READS;
        rig.run(|rig| rig.target.reads >= twice);
        prop_assert_eq!(rig.reasons.len(), 0);
    }
}

#[test]
fn a_suspicion_is_a_check_at_once_beside_the_reads() {
    let mut rig = rig();
    rig.run_for(2 * Timing::DEFAULT.recheck);
    let before = rig.target.reads;
    // Nobody has read since the last check, so there would be none.
    rig.session.suspect();
    rig.run_for(1_000);
    assert_eq!(
        (rig.target.reads - before, rig.reasons.len()),
        (CHECK_READS, 0)
    );
    rig.run_for(2 * Timing::DEFAULT.recheck);
    assert_eq!(rig.target.reads - before, CHECK_READS, "once");

    rig.target.store = other(3 * 4096 + 77);
    let began = rig.now;
    rig.session.suspect();
    rig.run(|rig| !rig.reasons.is_empty());
    assert!(rig.now - began < 1_000, "{:?}", rig.reasons);
    assert!(matches!(rig.reasons[..], [Reason::Exchanged { .. }]));
}

#[test]
fn a_suspicion_during_a_check_is_another_check() {
    let mut rig = rig();
    let before = rig.target.reads;
    rig.session.suspect();
    rig.run(|rig| rig.target.reads > before);
    rig.session.suspect();
    rig.run_for(1_000);
    assert_eq!(rig.target.reads - before, 2 * CHECK_READS);
}
