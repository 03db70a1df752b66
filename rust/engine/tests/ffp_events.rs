// SPDX-License-Identifier: GPL-2.0-only

//! Asynchronous messages and logouts (rows F12 and F16).

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::session::{Mismatch, Reason, Stage};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_proto::iscsi::sense::Sense;
use imgstream_testtarget::{Announcement, Damage, Fault, Phase, Plan};

const KIB: usize = 1 << 10;

fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense {
        key,
        asc,
        ascq,
        deferred: false,
    }
}

/// Four reads; before the second is answered the target says something.
fn run(message: Announcement) -> Rig {
    let plan = Plan::once(1, Fault::Async(message));
    let mut rig = Rig::new(config(), target(64 * KIB).plan(plan));
    for i in 0..4 {
        rig.read(i, u64::from(i) * 8192, 2048);
    }
    rig
}

/// The same, until all reads have ended.
fn reasons(message: Announcement) -> Rig {
    let mut rig = run(message);
    rig.run_reads();
    rig.run_for(100);
    rig.check(&image(64 * KIB));
    assert!(rig.all_good(), "{message:?}");
    rig
}

#[test]
fn a_pause_that_makes_no_sense_is_cut_short() {
    for event in [1, 2, 3, 4, 5, 255] {
        for parameters in [[0; 3], [u16::MAX; 3], [7, 0, u16::MAX], [0, u16::MAX, 0]] {
            let message = Announcement {
                event,
                parameters,
                sense: None,
            };
            let mut rig = run(message);
            let start = rig.now;
            rig.run(|rig| rig.ready.len() == 2);
            rig.run_reads();
            rig.check(&image(64 * KIB));
            assert_eq!(rig.reasons, [Reason::Announced(event)]);
            let asked = matches!(event, 2 | 3) && parameters[1] != 0;
            let waited = rig.now - start;
            let limits = if asked { 60_000..61_000 } else { 0..1_000 };
            assert!(limits.contains(&waited), "{message:?}: {waited} ms");
        }
    }
}

#[test]
fn a_pause_that_is_asked_for_is_kept() {
    let message = |event| Announcement {
        event,
        parameters: [0, 9, 0],
        sense: None,
    };
    for event in [2, 3] {
        let mut rig = run(message(event));
        let start = rig.now;
        rig.run_reads();
        let waited = rig.now - start;
        assert!((9_000..10_000).contains(&waited), "{waited} ms");
    }
}

#[test]
fn a_logout_that_is_asked_for_comes_at_once() {
    for event in [1, 4] {
        let mut rig = run(Announcement::of(event));
        let start = rig.now;
        rig.run(|rig| rig.target.logouts == 1);
        assert_eq!(rig.now, start);
        let reads = rig.target.reads;
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!((rig.target.reads, rig.target.connections), (reads, 1));
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good());
    }
}

#[test]
fn a_scsi_event_leads_to_what_it_speaks_of() {
    let event = |sense| Announcement {
        sense,
        ..Announcement::of(0)
    };
    // Nothing that concerns us, or that commands will not tell.
    for quiet in [
        None,
        Some((6, 0x29, 0)),
        Some((6, 0x2a, 1)),
        Some((3, 0x11, 0)),
        Some((2, 4, 1)),
    ] {
        let rig = reasons(event(quiet));
        assert_eq!(
            (&rig.reasons[..], rig.target.connections),
            (&[][..], 1),
            "{quiet:?}"
        );
    }
    // Another size, another description, other units: who is there?
    for (key, asc, ascq) in [(6, 0x2a, 9), (6, 0x3f, 3), (6, 0x3f, 0x0e), (6, 0x28, 0)] {
        let rig = reasons(event(Some((key, asc, ascq))));
        assert_eq!(rig.reasons, [Reason::Changed(sense(key, asc, ascq))]);
        assert_eq!(rig.ready.len(), 2);
    }
}

#[test]
fn a_scsi_event_of_another_unit_is_not_ours() {
    for (asc, ascq, ours) in [(0x2a, 9, false), (0x3f, 0x0e, true)] {
        let message = Announcement {
            sense: Some((6, asc, ascq)),
            ..Announcement::of(0)
        };
        let mut rig = run(message);
        let lun = Damage::Put(8, vec![0, 9]);
        let phase = Phase::Opcode(opcode::ASYNC_MESSAGE);
        rig.target
            .plans
            .push(Plan::once(0, Fault::Wire(phase, lun)));
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert_eq!(rig.reasons.len(), usize::from(ours));
    }
}

#[test]
fn every_event_there_can_be_is_survived() {
    for event in 0..=255 {
        let rig = reasons(Announcement::of(event));
        let expected = if event == 0 { 0 } else { 1 };
        assert_eq!(rig.reasons.len(), expected, "event {event}");
        let ready = rig.ready.len() == expected + 1;
        assert!(ready || rig.session.stage() == Stage::Down, "event {event}");
    }
}

#[test]
fn every_answer_to_a_logout_ends_it() {
    let answer = Phase::Opcode(opcode::LOGOUT_RESPONSE);
    // 0 to 3, and one that does not exist.
    for response in [0, 1, 2, 3, 99] {
        let mut rig = Rig::new(config(), target(64 * KIB));
        let put = Damage::Put(2, vec![response]);
        rig.target
            .plans
            .push(Plan::once(0, Fault::Wire(answer, put)));
        rig.run(|rig| !rig.ready.is_empty());
        let now = rig.now;
        rig.session.logout(now);
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!(rig.reasons, [Reason::LoggedOut], "response {response}");
        rig.check(&image(64 * KIB));
    }
}

#[test]
fn a_logout_that_failed_says_how_long_to_wait() {
    let waits = [0, 1, 2, 3].map(|response| {
        let (answer, put) = (
            Phase::Opcode(opcode::LOGOUT_RESPONSE),
            Damage::Put(2, vec![response]),
        );
        let plan = Plan::once(0, Fault::Wire(answer, put));
        let mut rig = Rig::new(config(), target(64 * KIB).plan(plan));
        rig.target.settings.logout_wait_s = u16::MAX;
        rig.run(|rig| !rig.ready.is_empty());
        let now = rig.now;
        rig.session.logout(now);
        rig.run(|rig| !rig.reasons.is_empty());
        rig.session.backoff_ms() == 60_000
    });
    assert_eq!(waits, [false, false, true, true]);
}

#[test]
fn a_logout_that_is_not_answered_ends_in_time_and_sends_nothing_new() {
    let mut rig = Rig::new(config(), target(64 * KIB));
    let answer = Phase::Opcode(opcode::LOGOUT_RESPONSE);
    rig.target
        .plans
        .push(Plan::once(0, Fault::Wire(answer, Damage::Stall(0))));
    rig.run(|rig| !rig.ready.is_empty());
    let start = rig.now;
    rig.session.logout(start);
    rig.read(0, 0, 4096);
    rig.run(|rig| !rig.reasons.is_empty());
    // The pause before the next connection has passed, too.
    assert!((5_000..6_000).contains(&(rig.now - start)));
    assert_eq!(rig.target.reads, 0);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
}

#[test]
fn a_unit_that_is_gone_is_looked_for_before_it_is_called_wrong() {
    use imgstream_testtarget::ReadFault;
    let gone = Fault::Read(ReadFault::Sense(5, 0x25, 0));
    let mut rig = Rig::new(config(), target(64 * KIB).plan(Plan::once(0, gone)));
    rig.read(0, 0, 4096);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, [Reason::Changed(sense(5, 0x25, 0))]);
    assert!(rig.now < 10_000, "it moved, and was found at once");
    // Really gone.
    rig.target.settings.lun = 9;
    rig.target.plans.push(Plan {
        connection: Some(1),
        nth: None,
        times: 1,
        fault: Fault::Read(ReadFault::Sense(5, 0x25, 0)),
    });
    rig.read(1, 0, 4096);
    rig.run(|rig| rig.reasons.len() == 3);
    assert_eq!(rig.reasons[2], Reason::WrongImage(Mismatch::NoUnit));
    rig.target.settings.lun = 1;
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
}
