// SPDX-License-Identifier: GPL-2.0-only

//! The session and time: slow links and slow targets, silence, overload, and what happens again and again.

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::session::{ReadError, Reason, Violation};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_testtarget::{Damage, Fault, Phase, Plan, ReadFault};

const KIB: usize = 1 << 10;

fn rig(plan: Plan) -> Rig {
    Rig::new(config(), target(512 * KIB).plan(plan))
}

/// From some byte of the first Data-In of a read on, so many bytes each second.
fn drip(at: usize, bytes: usize) -> Plan {
    // The first three Data-In answer the identity check.
    let phase = Phase::Opcode(opcode::DATA_IN);
    Plan::once(3, Fault::Wire(phase, Damage::Drip(at, bytes, 1000)))
}

#[test]
fn a_target_that_sends_byte_by_byte_is_left_and_its_reads_are_issued_again() {
    for at in [0, 1, 47, 48, 49, 5000] {
        let mut rig = rig(drip(at, 1));
        for i in 0..4 {
            rig.read(i, u64::from(i) * 8192, 8192);
        }
        let start = rig.now;
        rig.run_reads();
        rig.check(&image(512 * KIB));
        assert!(rig.all_good(), "from byte {at}");
        assert_eq!(rig.reasons, [Reason::NoProgress], "from byte {at}");
        assert!(rig.now - start < 120_000, "{} ms", rig.now - start);
    }
}

#[test]
fn a_slow_link_is_not_a_dead_one() {
    // Forty reads of 8 KiB at 500 bytes a second: the last one waits for eleven minutes for its first byte.
    let mut rig = rig(drip(0, 500));
    for i in 0..40 {
        rig.read(i, u64::from(i) * 8192, 8192);
    }
    let start = rig.now;
    rig.run_reads();
    rig.check_undisturbed(&image(512 * KIB));
    assert!(rig.now - start > 600_000);
}

#[test]
fn an_idle_connection_acknowledges_every_status() {
    let mut rig = Rig::new(config(), target(64 * KIB));
    for i in 0..4 {
        rig.read(i, 0, 4096);
    }
    rig.run_reads();
    assert!(rig.target.unacknowledged != 0);
    rig.run_for(15_100);
    assert_eq!((rig.target.unacknowledged, rig.target.pings), (0, 1));
    rig.check(&image(64 * KIB));
}

#[test]
fn statuses_are_acknowledged_while_the_target_does_not_fall_silent() {
    // One read of 32 KiB takes more than half a minute, and nothing else is asked for meanwhile.
    let mut rig = rig(drip(4096, 1000));
    rig.read(0, 0, 4096);
    rig.read(1, 0, 32_768);
    rig.run(|rig| rig.target.reads == 2);
    rig.run_for(15_100);
    // All but the status of the slow read, which is still on its way.
    assert_eq!((rig.target.unacknowledged, rig.target.pings), (1, 1));
    assert!(!rig.done.contains_key(&1));
    rig.run_reads();
    // The answer to the ping came behind the data: the next ping is not due at once for that.
    rig.run_for(5_000);
    assert_eq!(rig.target.pings, 1);
    rig.check(&image(512 * KIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
}

#[test]
fn overload_without_an_end_is_called_so() {
    for status in [0x08, 0x28] {
        let mut rig = rig(Plan::always(Fault::Read(ReadFault::Status(status))));
        for i in 0..8 {
            rig.read(i, 0, 4096);
        }
        let start = rig.now;
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!(rig.reasons, [Reason::Overloaded]);
        assert!((120_000..130_000).contains(&(rig.now - start)));
        assert!(rig.target.reads < 200, "{} commands", rig.target.reads);
        rig.target.plans.clear();
        rig.run_reads();
        rig.check(&image(512 * KIB));
        assert!(rig.all_good());
    }
}

#[test]
fn an_overloaded_target_gets_fewer_commands_at_a_time() {
    for status in [0x08, 0x28] {
        let mut rig = rig(Plan::at(0, 1, Fault::Read(ReadFault::Status(status))));
        for i in 0..64 {
            rig.read(i, u64::from(i) * 4096, 4096);
        }
        rig.run(|rig| rig.target.reads >= 64);
        assert_eq!(rig.target.deepest, 64);
        rig.run_reads();
        // All others were answered well meanwhile, so only a storm tells.
        rig.target.plans = vec![Plan {
            connection: None,
            nth: None,
            times: 64,
            fault: Fault::Read(ReadFault::Status(status)),
        }];
        rig.done.clear();
        rig.buffers.clear();
        let sent = rig.target.reads;
        for i in 0..64 {
            rig.read(i, u64::from(i) * 4096, 4096);
        }
        rig.run(|rig| rig.target.reads >= sent + 64);
        (rig.target.deepest, rig.max_piece) = (0, 100_000);
        rig.run(|rig| rig.target.reads > sent + 64);
        assert_eq!(rig.target.deepest, 32, "half as many");
        rig.run_reads();
        rig.check(&image(512 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty());
    }
}

#[test]
fn a_rule_that_is_broken_on_five_connections_in_a_row_is_named_and_asked_about_slowly() {
    // Whatever is read first on a connection goes wrong, so that no read is to blame for it.
    let mut rig = rig(Plan::at(0, u32::MAX, Fault::Read(ReadFault::Short(512))));
    for i in 0..40 {
        rig.read(i, u64::from(i) * 4096, 4096);
    }
    rig.run(|rig| rig.reasons.len() == 4);
    assert!(rig
        .reasons
        .iter()
        .all(|r| matches!(r, Reason::Protocol(Violation::ShortRead { .. }))));
    assert!(rig.session.backoff_ms() < 10_000);
    let commands = rig.target.reads;
    rig.run(|rig| rig.reasons.len() == 5);
    assert!(matches!(
        rig.reasons[4],
        Reason::Repeated(Violation::ShortRead { .. })
    ));
    assert!(rig.session.backoff_ms() >= 30_000);
    assert_eq!(
        rig.reasons[4].to_string(),
        "protocol error of the target again and again: a read of 4096 bytes was reported good with 3584 bytes"
    );
    assert!(rig.target.reads - commands < 100);
    // The target is mended.
    rig.target.plans.clear();
    rig.run(|rig| rig.done.len() == rig.buffers.len());
    rig.check(&image(512 * KIB));
    // And what happens once, later, is one mishap.
    rig.run_for(20_000);
    let connections = rig.target.connections;
    rig.target.plans = vec![Plan {
        connection: Some(connections - 1),
        nth: None,
        times: 1,
        fault: Fault::Read(ReadFault::Short(512)),
    }];
    rig.read(1000, 0, 4096);
    rig.run(|rig| rig.reasons.len() == 6);
    assert!(matches!(rig.reasons[5], Reason::Protocol(_)));
    assert!(rig.session.backoff_ms() <= 500);
}

#[test]
fn a_read_that_is_to_blame_fails_and_the_others_are_not_slowed_down() {
    let mut rig = rig(Plan::at(0, u32::MAX, Fault::Read(ReadFault::Short(512))));
    rig.read(0, 0, 4096);
    rig.run_reads();
    assert_eq!(rig.done[&0], Err(ReadError::Protocol));
    assert!(rig.reasons.iter().all(|r| matches!(r, Reason::Protocol(_))));
    assert!(rig.session.backoff_ms() <= 8_000);
}

#[test]
fn a_window_that_is_closed_from_the_start_is_called_so() {
    let mut rig = Rig::new(config(), target(64 * KIB));
    rig.target.settings.window = 0;
    rig.read(0, 0, 4096);
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.reasons, [Reason::WindowClosed]);
    rig.target.settings.window = 1;
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
}

#[test]
fn a_target_that_does_not_receive_is_left() {
    let mut rig = Rig::new(config(), target(512 * KIB));
    rig.run(|rig| !rig.ready.is_empty());
    rig.deaf = true;
    let start = rig.now;
    for i in 0..64 {
        rig.read(i, u64::from(i) * 4096, 4096);
    }
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.reasons, [Reason::Silent]);
    assert!((30_000..31_000).contains(&(rig.now - start)));
    // The same during the login.
    rig.run(|rig| rig.reasons.len() == 2);
    assert_eq!(rig.reasons[1], Reason::LoginTimeout);
    rig.deaf = false;
    rig.run_reads();
    rig.check(&image(512 * KIB));
    assert!(rig.all_good());
}
