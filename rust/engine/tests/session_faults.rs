// SPDX-License-Identifier: GPL-2.0-only

//! The session against the scripted target, over byte arrays: everything that goes wrong.

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::session::{Config, ReadError, Reason, Stage, Timing, Violation};
use imgstream_proto::iscsi::sense::Sense;
use imgstream_testtarget::{Announcement, Fault, LoginFault, Plan, ReadFault};
use proptest::prelude::*;

const KIB: usize = 1 << 10;

fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense {
        key,
        asc,
        ascq,
        deferred: false,
    }
}

/// A target that sends 512 bytes at a time, so that every answer has several data PDUs.
fn rig(plan: Plan) -> Rig {
    let mut rig = Rig::new(config(), target(64 * KIB).plan(plan));
    rig.target.settings.segment_bytes = 512;
    rig
}

#[test]
fn a_reset_at_any_byte_of_an_answer_loses_nothing() {
    // Four PDUs of 48 and 512 bytes answer one read.
    for byte in 1..=4 * 560 {
        let mut rig = rig(Plan::once(1, Fault::Read(ReadFault::Reset(byte))));
        for i in 0..3 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "reset at byte {byte}");
        assert_eq!(
            (rig.target.connections, &rig.reasons[..]),
            (2, &[Reason::Lost][..]),
            "reset at byte {byte}"
        );
    }
}

#[test]
fn a_reset_at_any_byte_of_a_session_loses_nothing() {
    let run = |cut: Option<usize>| {
        let mut rig = Rig::new(config(), target(64 * KIB));
        rig.target.settings.segment_bytes = 512;
        rig.cut_first = cut;
        rig.read(0, 4096, 1024);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "cut at {cut:?}");
        (rig.delivered_first, rig.target.connections)
    };
    let (all, connections) = run(None);
    assert_eq!(connections, 1);
    for byte in 0..all {
        assert_eq!(run(Some(byte)), (byte, 2), "cut at {byte}");
    }
}

#[test]
fn nothing_of_a_long_read_is_kept_over_a_new_connection() {
    // Its second command loses the connection; the first one is issued again, too.
    let reset = Plan::once(1, Fault::Read(ReadFault::Reset(100)));
    let mut rig = Rig::new(config(), target(1024 * KIB).plan(reset));
    rig.read(0, 0, 524_288);
    rig.run_reads();
    rig.check(&image(1024 * KIB));
    assert!(rig.all_good());
    assert_eq!((rig.target.connections, rig.target.reads), (2, 4));
}

/// Faults of one read, and what they are called.
fn violations() -> Vec<(ReadFault, Reason)> {
    let short = |received| Violation::ShortRead {
        expected: 2048,
        received,
    };
    let protocol = [
        (ReadFault::Short(4), short(2044)),
        (ReadFault::Short(512), short(1536)),
        (ReadFault::Short(2047), short(1)),
        (ReadFault::Nothing, short(0)),
        (ReadFault::Missing, Violation::DataSn),
        (ReadFault::Hole, Violation::DataOffset),
        (ReadFault::Duplicate, Violation::DataOffset),
        (ReadFault::Overlap, Violation::DataOffset),
        (ReadFault::Beyond, Violation::DataRange),
        (ReadFault::Wrap, Violation::DataRange),
        (ReadFault::WrongTag, Violation::UnknownTag(0x00ff_ff00)),
        (ReadFault::DataSn, Violation::DataSn),
        (ReadFault::StatusWithoutFinal, Violation::DataFlags),
        (ReadFault::Residual, Violation::Residual),
        (ReadFault::Response(2), Violation::Response(2)),
        (ReadFault::Status(0x04), Violation::Status(0x04)),
        (ReadFault::Status(0x02), Violation::NoSense),
        (ReadFault::BadSense, Violation::NoSense),
        (ReadFault::DataStatus(0x02), Violation::StatusInData(0x02)),
        (ReadFault::DataStatus(0x08), Violation::StatusInData(0x08)),
        (ReadFault::ExpDataSn, Violation::ExpDataSn),
        (ReadFault::Oversize, Violation::SegmentTooLong(262_148)),
        (ReadFault::AdditionalHeaders, Violation::AdditionalHeaders),
        (ReadFault::R2t, Violation::Unexpected(0x31)),
        (ReadFault::Opcode(0x22), Violation::Unexpected(0x22)),
        (ReadFault::Opcode(0x23), Violation::Unexpected(0x23)),
        (ReadFault::Opcode(0x24), Violation::Unexpected(0x24)),
        (ReadFault::Opcode(0x2f), Violation::Unexpected(0x2f)),
        (ReadFault::Opcode(0x01), Violation::Unexpected(0x01)),
    ];
    let mut all: Vec<_> = protocol
        .into_iter()
        .map(|(f, v)| (f, Reason::Protocol(v)))
        .collect();
    all.extend([
        (ReadFault::Reject, Reason::Rejected(9)),
        (ReadFault::ForgedReject, Reason::Rejected(9)),
        (ReadFault::Status(0x18), Reason::Reserved),
        (
            ReadFault::Sense(6, 0x2a, 9),
            Reason::Changed(sense(6, 0x2a, 9)),
        ),
        (
            ReadFault::Sense(6, 0x3f, 3),
            Reason::Changed(sense(6, 0x3f, 3)),
        ),
        (
            ReadFault::Sense(6, 0x3f, 0x0e),
            Reason::Changed(sense(6, 0x3f, 0x0e)),
        ),
        (
            ReadFault::Sense(5, 0x21, 0),
            Reason::Changed(sense(5, 0x21, 0)),
        ),
    ]);
    all
}

#[test]
fn whatever_a_target_does_wrong_nothing_of_it_is_kept() {
    for (fault, reason) in violations() {
        let mut rig = rig(Plan::once(1, Fault::Read(fault)));
        for i in 0..4 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "{fault:?}");
        assert_eq!(rig.reasons, [reason], "{fault:?}");
        assert_eq!(rig.target.connections, 2, "{fault:?}");
    }
}

/// Data under the tag of a read that has ended, a pong under the tag of a read, a status that was skipped: the tags and
/// numbers in the reason depend on the run.
#[test]
fn late_and_forged_tags_find_nothing() {
    for (fault, stat_sn) in [
        (ReadFault::LateTag, false),
        (ReadFault::ForgedPong, false),
        (ReadFault::StatSn, true),
    ] {
        let mut rig = rig(Plan::once(1, Fault::Read(fault)));
        rig.read(0, 0, 2048);
        rig.run_reads();
        rig.read(1, 8192, 2048);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "{fault:?}");
        let right = match rig.reasons[..] {
            [Reason::Protocol(Violation::UnknownTag(_))] => !stat_sn,
            [Reason::Protocol(Violation::StatSn { expected, found })] => {
                stat_sn && found == expected + 1
            }
            _ => false,
        };
        assert!(right, "{fault:?}: {:?}", rig.reasons);
    }
}

#[test]
fn a_read_that_always_goes_wrong_fails_and_the_others_do_not_wait_for_it() {
    for fault in [
        ReadFault::Short(512),
        ReadFault::Reject,
        ReadFault::Beyond,
        ReadFault::Sense(5, 0x21, 0),
    ] {
        let mut rig = rig(Plan::at(0, u32::MAX, Fault::Read(fault)));
        for i in 0..4 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        // The first command of every connection goes wrong, so the reads take turns at it.
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(
            rig.done
                .values()
                .all(|r| matches!(r, Ok(()) | Err(ReadError::Protocol))),
            "{fault:?}"
        );
        assert!(rig.done.values().any(|r| r.is_err()), "{fault:?}");
        assert!(rig.now > 10_000, "no pause between the attempts");
    }
}

#[test]
fn overload_is_waited_out() {
    for status in [0x08, 0x28] {
        let plan = Plan {
            connection: None,
            nth: None,
            times: 40,
            fault: Fault::Read(ReadFault::Status(status)),
        };
        let mut rig = rig(plan);
        for i in 0..32 {
            rig.read(i, u64::from(i) * 2048, 2048);
        }
        let start = rig.now;
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty());
        assert!(rig.now > start + 50, "no pause");
    }
}

#[test]
fn passing_conditions_pass() {
    let faults = [
        ReadFault::Sense(6, 0x29, 0),
        ReadFault::Sense(6, 0x2a, 1),
        ReadFault::Sense(0xb, 0x4e, 0),
        ReadFault::Sense(2, 4, 1),
        ReadFault::Sense(3, 0x11, 0),
        ReadFault::Sense(4, 0x44, 0),
        ReadFault::Status(0x40),
    ];
    for fault in faults {
        let mut rig = rig(Plan {
            connection: None,
            nth: Some(1),
            times: 2,
            fault: Fault::Read(fault),
        });
        for i in 0..4 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(
            rig.all_good() && rig.reasons.is_empty(),
            "{fault:?}: {:?}",
            rig.reasons
        );
    }
}

#[test]
fn errors_of_the_medium_reach_the_reader_and_only_the_reader() {
    let cases = [
        (
            ReadFault::Sense(3, 0x11, 0),
            ReadError::Medium(sense(3, 0x11, 0)),
            3,
        ),
        (
            ReadFault::Sense(4, 0x44, 0),
            ReadError::Hardware(sense(4, 0x44, 0)),
            3,
        ),
        (
            ReadFault::Sense(5, 0x24, 0),
            ReadError::Refused(sense(5, 0x24, 0)),
            3,
        ),
        (
            ReadFault::Sense(7, 0x27, 0),
            ReadError::Refused(sense(7, 0x27, 0)),
            3,
        ),
    ];
    for (fault, error, attempts) in cases {
        let mut rig = rig(Plan::always(Fault::Read(fault)));
        rig.read(0, 0, 2048);
        rig.run_reads();
        assert_eq!(rig.done[&0], Err(error));
        assert_eq!((rig.target.reads, rig.target.connections), (attempts, 1));
        rig.target.plans.clear();
        rig.read(1, 2048, 2048);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert_eq!((rig.done[&1], rig.target.connections), (Ok(()), 1));
    }
}

#[test]
fn conditions_without_an_end_end_the_connection() {
    for (fault, reason) in [
        (ReadFault::Sense(2, 4, 1), Reason::NotReady(sense(2, 4, 1))),
        (
            ReadFault::Sense(6, 0x29, 0),
            Reason::Condition(sense(6, 0x29, 0)),
        ),
    ] {
        let mut rig = rig(Plan::always(Fault::Read(fault)));
        rig.read(0, 0, 2048);
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!(rig.reasons, [reason]);
        rig.target.plans.clear();
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good());
    }
}

#[test]
fn announcements_of_the_target_are_followed() {
    for event in [0, 1, 2, 3, 4, 5, 100, 248, 255] {
        let mut rig = rig(Plan::once(1, Fault::Async(Announcement::of(event))));
        for i in 0..4 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        rig.run(|rig| rig.all_good() && (event == 0 || !rig.reasons.is_empty()));
        rig.check(&image(64 * KIB));
        let expected: &[Reason] = if event == 0 {
            &[]
        } else {
            &[Reason::Announced(event)]
        };
        assert_eq!(rig.reasons, expected);
        assert_eq!(
            rig.target.logouts,
            u32::from(matches!(event, 1 | 4)),
            "event {event}"
        );
    }
}

#[test]
fn every_fault_of_a_login_ends_it_with_its_name() {
    let protocol = |violation| Reason::Protocol(violation);
    let text = |text: &[u8]| LoginFault::Text(text.to_vec());
    let cases = [
        (0, LoginFault::Stage, protocol(Violation::Stage)),
        (1, LoginFault::Stage, protocol(Violation::Stage)),
        (0, LoginFault::NextStage, protocol(Violation::Stage)),
        (1, LoginFault::NextStage, protocol(Violation::Stage)),
        (
            0,
            LoginFault::ContinueAndTransit,
            protocol(Violation::Stage),
        ),
        (
            1,
            LoginFault::NoHandle,
            protocol(Violation::NoSessionHandle),
        ),
        (0, LoginFault::Version, protocol(Violation::Version)),
        (
            0,
            LoginFault::Opcode(0x20),
            protocol(Violation::Unexpected(0x20)),
        ),
        (
            1,
            LoginFault::Opcode(0x25),
            protocol(Violation::Unexpected(0x25)),
        ),
        (0, text(b"AuthMethod=CHAP\0"), Reason::Authentication),
        (0, text(b"AuthMethod=None"), protocol(Violation::Text)),
        (0, text(b"nothing\0"), protocol(Violation::Text)),
        (0, text(b"MaxBurstLength=512\0"), protocol(Violation::Text)),
        (
            0,
            text(b"TargetPortalGroupTag=65536\0"),
            Reason::Negotiation("TargetPortalGroupTag"),
        ),
        (
            1,
            text(b"InitialR2T=Yes\0InitialR2T=Yes\0"),
            protocol(Violation::RepeatedKey),
        ),
        (
            1,
            text(b"HeaderDigest=None,CRC32C\0"),
            Reason::Negotiation("HeaderDigest"),
        ),
        (
            1,
            text(b"DataDigest=Reject\0"),
            Reason::Negotiation("DataDigest"),
        ),
        (
            1,
            text(b"MaxBurstLength=511\0"),
            Reason::Negotiation("MaxBurstLength"),
        ),
        (
            1,
            text(b"MaxBurstLength=16776193\0"),
            Reason::Negotiation("MaxBurstLength"),
        ),
        (
            1,
            text(b"MaxBurstLength=+1024\0"),
            Reason::Negotiation("MaxBurstLength"),
        ),
        (
            1,
            text(b"MaxConnections=2\0"),
            Reason::Negotiation("MaxConnections"),
        ),
        (
            1,
            text(b"ErrorRecoveryLevel=1\0"),
            Reason::Negotiation("ErrorRecoveryLevel"),
        ),
        (
            1,
            text(b"DataPDUInOrder=yes\0"),
            Reason::Negotiation("DataPDUInOrder"),
        ),
        (
            1,
            text(b"MaxRecvDataSegmentLength=511\0"),
            Reason::Negotiation("MaxRecvDataSegmentLength"),
        ),
        (
            1,
            text(&[b'x'; 8196]),
            protocol(Violation::SegmentTooLong(8196)),
        ),
        (0, LoginFault::Silence, Reason::LoginTimeout),
        (
            1,
            LoginFault::StatSn,
            protocol(Violation::StatSn {
                expected: 2,
                found: 3,
            }),
        ),
    ];
    for (nth, fault, reason) in cases {
        let mut rig = rig(Plan::once(nth, Fault::Login(fault.clone())));
        rig.read(0, 0, 2048);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "{fault:?}");
        assert_eq!(rig.reasons, [reason], "{fault:?}");
    }
}

#[test]
fn a_login_with_another_tag_or_without_an_end_is_left() {
    let mut with_tag = rig(Plan::once(0, Fault::Login(LoginFault::Tag)));
    with_tag.run(|rig| !rig.reasons.is_empty());
    assert!(matches!(
        with_tag.reasons[0],
        Reason::Protocol(Violation::UnknownTag(_))
    ));
    let mut endless = rig(Plan::always(Fault::Login(LoginFault::Endless)));
    endless.run(|rig| !rig.reasons.is_empty());
    assert_eq!(endless.reasons, [Reason::Protocol(Violation::EndlessLogin)]);
    let mut reject = rig(Plan::once(0, Fault::Login(LoginFault::Opcode(0x3f))));
    reject.run(|rig| !rig.reasons.is_empty());
    assert!(matches!(reject.reasons[0], Reason::Rejected(_)));
}

#[test]
fn every_refusal_of_a_login_is_named_and_asked_about_at_its_pace() {
    for (class, detail) in [
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
        (2, 4),
        (2, 5),
        (2, 6),
        (2, 7),
        (2, 8),
        (2, 9),
        (2, 10),
        (2, 11),
        (2, 99),
        (3, 0),
        (3, 1),
        (3, 2),
        (3, 99),
        (4, 0),
        (255, 255),
    ] {
        let mut rig = rig(Plan::once(
            0,
            Fault::Login(LoginFault::Status(class, detail)),
        ));
        rig.read(0, 0, 2048);
        rig.run(|rig| !rig.reasons.is_empty());
        assert_eq!(rig.reasons, [Reason::Refused { class, detail }]);
        assert!(rig.reasons[0].to_string().starts_with("login refused: "));
        assert_eq!(
            rig.session.backoff_ms() >= 30_000,
            class != 3,
            "class {class}"
        );
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good());
    }
}

/// Flips bytes in what the target sends: the session may lose the connection as often as it likes, but it does not
/// panic, does not write outside of a read, and goes on once the bytes are right again.
fn run_with_flips(flips: &[(usize, u8)], segment: u32) {
    let timing = Timing {
        settled: 0,
        ..Timing::DEFAULT
    };
    let mut rig = Rig::new(Config { timing, ..config() }, target(64 * KIB));
    rig.target.settings.segment_bytes = segment;
    rig.flips = flips.to_vec();
    for i in 0..8 {
        rig.read(i, u64::from(i) * 8192, 2048);
    }
    rig.run(|rig| rig.done.len() == rig.buffers.len() || rig.now > 10_000_000);
    assert!(
        rig.done.len() == rig.buffers.len(),
        "no end: {:?}",
        rig.reasons
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_damage_on_the_wire_stops_the_session(
        flips in prop::collection::vec((0usize..20_000, 1u8..), 0..20),
        segment in prop::sample::select(vec![4u32, 512, 700, 2048]),
    ) {
        run_with_flips(&flips, segment);
    }

    #[test]
    fn no_damage_in_the_login_stops_the_session(flips in prop::collection::vec((0usize..700, 1u8..), 1..6)) {
        run_with_flips(&flips, 2048);
    }

    /// A target that is nothing but noise.
    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..2000), after in 0usize..1500) {
        let mut rig = Rig::new(config(), target(64 * KIB));
        rig.noise = Some((after, noise));
        rig.read(0, 0, 2048);
        rig.run_reads();
        prop_assert!(rig.done.len() == 1);
        prop_assert!(rig.session.stage() != Stage::Logout);
    }
}
