// SPDX-License-Identifier: GPL-2.0-only

//! The session against the scripted target, over byte arrays: what goes right.

mod common;

use std::sync::Arc;

use common::{config, identity, image, target, Rig};
use imgstream_engine::session::{
    Event, Identity, Mismatch, ReadError, ReadId, Reason, Stage, SubmitError,
};
use imgstream_engine::session::{Session, SCRATCH_BYTES};
use imgstream_proto::iscsi::inquiry::Designator;
use imgstream_testtarget::{Fault, LoginFault, Plan, ReadFault};

const MIB: usize = 1 << 20;

#[test]
fn a_whole_image_is_read_with_many_reads_in_flight() {
    let mut rig = Rig::new(config(), target(8 * MIB));
    for i in 0..64 {
        rig.read(i, u64::from(i) * 131_072, 131_072);
    }
    assert_eq!(
        rig.session.submit(ReadId(99), 0, 512),
        Err(SubmitError::Busy)
    );
    rig.run_reads();
    rig.check(&image(8 * MIB));
    assert!(rig.all_good());
    assert_eq!((rig.target.connections, rig.target.reads), (1, 64));
    assert!(rig.target.deepest >= 32, "{} at a time", rig.target.deepest);
    assert_eq!(rig.ready[0].capacity.bytes(), 8 << 20);
    assert_eq!(
        rig.ready[0].designator.value(),
        [0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x56]
    );
}

#[test]
fn bytes_may_travel_in_any_pieces() {
    for (max_piece, segment) in [
        (1, 8192),
        (3, 512),
        (47, 4),
        (49, 100),
        (4096, 1000),
        (100_000, 262_144),
    ] {
        let mut rig = Rig::new(config(), target(64 << 10));
        rig.max_piece = max_piece;
        rig.target.settings.segment_bytes = segment;
        for i in 0..4 {
            rig.read(i, u64::from(i) * 16_384, 4096);
        }
        rig.run_reads();
        rig.check(&image(64 << 10));
        assert!(rig.all_good());
        assert_eq!(rig.target.connections, 1);
    }
}

#[test]
fn a_status_of_its_own_is_as_good_as_one_with_the_data() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.separate_status = true;
    rig.read(0, 0, 65_536);
    rig.read(1, 65_536, 512);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
}

#[test]
fn long_reads_are_cut_to_what_was_negotiated() {
    for (burst, transfer, reads) in [
        (262_144, None, 4),
        (65_536, None, 16),
        (16 << 20, Some(512), 4),
        (1000, None, 2048),
    ] {
        let mut rig = Rig::new(config(), target(2 * MIB));
        rig.target.settings.max_burst_bytes = burst;
        rig.target.settings.max_transfer_blocks = transfer;
        rig.read(5, 4096, 1 << 20);
        rig.run_reads();
        rig.check(&image(2 * MIB));
        assert!(rig.all_good());
        assert_eq!(rig.target.reads, reads);
    }
}

#[test]
fn units_with_large_blocks_are_read_on_their_blocks() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.block_bytes = 4096;
    rig.read(0, 8192, 12_288);
    rig.read(1, 512, 4096);
    rig.read(2, 0, 512);
    rig.run_reads();
    rig.check(&image(MIB));
    assert_eq!(rig.done[&0], Ok(()));
    assert_eq!(
        (rig.done[&1], rig.done[&2]),
        (Err(ReadError::Range), Err(ReadError::Range))
    );
}

#[test]
fn reads_beyond_the_end_fail_without_being_sent() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.read(0, 1 << 20, 512);
    rig.read(1, (1 << 20) - 512, 1024);
    rig.read(2, u64::MAX - 511, 512);
    rig.read(3, (1 << 20) - 512, 512);
    rig.run_reads();
    let beyond: Vec<_> = (0..3).map(|i| rig.done[&i]).collect();
    assert_eq!(beyond, [Err(ReadError::Range); 3]);
    assert_eq!((rig.done[&3], rig.target.reads), (Ok(()), 1));
    rig.check(&image(MIB));
}

#[test]
fn reads_that_make_no_sense_are_not_taken() {
    let mut session = Session::new(config(), vec![0; SCRATCH_BYTES]).unwrap();
    for (offset, len) in [(0, 0), (0, 511), (1, 512), (0, (1 << 20) + 512)] {
        assert_eq!(
            session.submit(ReadId(0), offset, len),
            Err(SubmitError::Invalid)
        );
    }
    assert_eq!(session.submit(ReadId(0), 0, 512), Ok(()));
    assert_eq!(session.submit(ReadId(0), 512, 512), Err(SubmitError::Busy));
    assert_eq!(session.stage(), Stage::Down);
    assert!(Session::new(config(), vec![0; SCRATCH_BYTES - 1]).is_err());
    let lun = imgstream_engine::session::Config {
        lun: 0x4000,
        ..config()
    };
    assert!(Session::new(lun, vec![0; SCRATCH_BYTES]).is_err());
}

#[test]
fn a_target_that_asks_for_its_own_keys_gets_answers() {
    let mut rig = Rig::new(config(), target(MIB));
    let keys = [
        "TaskReporting",
        "IFMarker",
        "OFMarkInt",
        "X-com.example",
        "iSCSIProtocolLevel",
        "SomethingNew",
    ];
    rig.target.settings.proposals = keys.map(|k| (k.to_string(), "2".to_string())).to_vec();
    rig.read(0, 0, 4096);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
}

#[test]
fn login_text_may_come_in_pieces() {
    for piece in 40..400 {
        let mut rig = Rig::new(config(), target(64 << 10));
        rig.target.settings.text_piece = Some(piece);
        rig.read(0, 0, 4096);
        rig.run_reads();
        rig.check(&image(64 << 10));
        assert!(
            rig.reasons.is_empty(),
            "pieces of {piece}: {:?}",
            rig.reasons
        );
    }
}

#[test]
fn keys_may_be_left_out_or_declared_irrelevant() {
    let mut rig = Rig::new(config(), target(MIB));
    let answers = [
        ("FirstBurstLength", "Irrelevant"),
        ("MaxBurstLength", ""),
        ("DefaultTime2Retain", "Reject"),
        ("ImmediateData", "NotUnderstood"),
        ("InitialR2T", "Yes"),
        ("MaxRecvDataSegmentLength", "0x10000"),
    ];
    rig.target.settings.answers = answers
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .to_vec();
    rig.read(0, 0, 65_536);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
}

#[test]
fn conditions_that_are_pending_at_first_are_taken_away() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.attentions = vec![(0x29, 1), (0x2a, 9), (0x3f, 0x0e), (0x3f, 3), (0x28, 0)];
    rig.read(0, 0, 512);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.attentions = vec![(0x29, 0); 11];
    rig.run(|rig| !rig.reasons.is_empty());
    assert!(matches!(rig.reasons[0], Reason::Condition(_)));
}

#[test]
fn missing_pages_are_no_hindrance() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.designator = None;
    rig.read(0, 0, 512);
    rig.run_reads();
    assert!(rig.all_good());
    assert_eq!(rig.ready[0].designator, Designator::NONE);
}

#[test]
fn a_window_of_one_command_is_kept() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.target.settings.window = 1;
    for i in 0..64 {
        rig.read(i, u64::from(i) * 16_384, 16_384);
    }
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
    assert_eq!(rig.target.deepest, 1);
}

#[test]
fn a_closed_window_is_waited_for_and_reopened() {
    let mut rig = Rig::new(
        config(),
        target(MIB).plan(Plan::once(2, Fault::CloseWindow)),
    );
    rig.target.settings.window = 4;
    for i in 0..64 {
        rig.read(i, u64::from(i) * 16_384, 16_384);
    }
    let start = rig.now;
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
    assert!(rig.now - start >= 15_000, "nothing was waited for");
    assert_eq!(rig.target.pings, 1);
}

#[test]
fn a_window_that_stays_closed_ends_the_connection() {
    let mut config = config();
    config.timing.ping_idle = u64::MAX / 2;
    let mut rig = Rig::new(config, target(MIB).plan(Plan::once(0, Fault::CloseWindow)));
    rig.target.settings.window = 1;
    rig.read(0, 0, 512);
    rig.read(1, 512, 512);
    rig.run_reads();
    rig.check(&image(MIB));
    assert_eq!(rig.reasons, [Reason::WindowClosed]);
    assert!(rig.all_good());
}

#[test]
fn sequence_numbers_wrap() {
    for first in [0, 0xffff_fff0, 0xffff_ffff, 0x7fff_fff8] {
        let mut rig = Rig::new(config(), target(MIB));
        rig.target.settings.first_stat_sn = first;
        for i in 0..64 {
            rig.read(i, u64::from(i) * 512, 512);
        }
        rig.run_reads();
        rig.check(&image(MIB));
        assert!(rig.all_good() && rig.reasons.is_empty(), "from {first:#x}");
    }
}

#[test]
fn pings_of_the_target_are_answered_with_their_lun() {
    let mut rig = Rig::new(config(), target(MIB).plan(Plan::once(1, Fault::Ping(5))));
    for i in 0..4 {
        rig.read(i, 0, 4096);
    }
    rig.run_reads();
    rig.run_for(100);
    rig.check(&image(MIB));
    assert_eq!((rig.target.pongs, rig.reasons.len()), (5, 0));
}

#[test]
fn a_flood_of_pings_ends_the_connection() {
    let mut rig = Rig::new(
        config(),
        target(MIB).plan(Plan::once(0, Fault::Ping(10_000))),
    );
    rig.read(0, 0, 4096);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
    assert_eq!(
        rig.reasons,
        [Reason::Protocol(
            imgstream_engine::session::Violation::PingFlood
        )]
    );
}

#[test]
fn an_idle_connection_is_kept_alive_by_pings() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.run(|rig| !rig.ready.is_empty());
    rig.run_for(100_000);
    assert_eq!((rig.target.pings, rig.target.connections), (6, 1));
    rig.check(&image(MIB));
}

#[test]
fn a_silent_target_is_noticed_and_left() {
    let mut rig = Rig::new(config(), target(MIB).plan(Plan::once(1, Fault::Mute)));
    rig.run(|rig| !rig.ready.is_empty());
    rig.run(|rig| rig.ready.len() == 2);
    assert_eq!(rig.reasons, [Reason::Silent]);
    assert_eq!(rig.target.pings, 2);
}

#[test]
fn a_read_that_is_never_answered_is_issued_again_on_another_connection() {
    let mut rig = Rig::new(
        config(),
        target(MIB).plan(Plan::once(1, Fault::Read(ReadFault::Stall))),
    );
    for i in 0..4 {
        rig.read(i, u64::from(i) * 4096, 4096);
    }
    let start = rig.now;
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, [Reason::NoProgress]);
    assert!(rig.now - start >= 60_000);
}

#[test]
fn one_starved_read_is_noticed_while_others_go_on() {
    let mut rig = Rig::new(
        config(),
        target(MIB).plan(Plan::once(0, Fault::Read(ReadFault::Stall))),
    );
    rig.read(0, 0, 4096);
    rig.run(|rig| rig.target.reads == 1);
    for i in 1..1000 {
        rig.read(i, 4096, 4096);
        rig.run(|rig| rig.done.contains_key(&i) || !rig.reasons.is_empty());
        if !rig.reasons.is_empty() {
            break;
        }
        rig.run_for(1_000);
    }
    assert_eq!(rig.reasons, [Reason::NoProgress]);
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
}

#[test]
fn a_logout_ends_the_session() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.run(|rig| !rig.ready.is_empty());
    let now = rig.now;
    rig.session.logout(now);
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!((rig.reasons[0], rig.target.logouts), (Reason::LoggedOut, 1));
    rig.check(&image(MIB));
}

#[test]
fn a_target_that_is_not_there_is_asked_less_and_less_often() {
    let mut rig = Rig::new(config(), target(MIB));
    rig.unreachable = true;
    rig.read(0, 0, 4096);
    rig.run_for(600_000);
    assert!(rig.done.is_empty());
    assert!((15_000..=30_000).contains(&rig.session.backoff_ms()));
    rig.unreachable = false;
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
}

#[test]
fn the_pause_that_the_target_asks_for_is_kept() {
    let mut rig = Rig::new(
        config(),
        target(MIB).plan(Plan::once(0, Fault::Read(ReadFault::Reset(10)))),
    );
    rig.target.settings.time2wait_s = 7;
    rig.read(0, 0, 4096);
    let start = rig.now;
    rig.run_reads();
    assert!(rig.now - start >= 7_000);
    rig.check(&image(MIB));
}

fn first_reason(rig: &mut Rig) -> Reason {
    rig.run(|rig| !rig.reasons.is_empty());
    rig.reasons[0]
}

#[test]
fn the_right_image_is_recognised_and_every_other_is_not() {
    let data = image(MIB);
    let right = identity(&data);
    let other = |change: &dyn Fn(&mut Identity)| {
        let mut identity = right;
        change(&mut identity);
        let mut rig = Rig::new(
            imgstream_engine::session::Config {
                identity: Some(identity),
                ..config()
            },
            target(MIB),
        );
        rig.read(0, 0, 4096);
        let reason = first_reason(&mut rig);
        assert!(
            rig.session.backoff_ms() >= 30_000,
            "a refusal is not asked about often"
        );
        assert!(rig.done.is_empty() && rig.ready.is_empty());
        // The right image returns: the session goes on by itself.
        rig.session.expect(right);
        rig.run_reads();
        rig.check(&data);
        assert!(rig.all_good());
        reason
    };
    let found = 1 << 20;
    let wrong = Reason::WrongImage;
    assert_eq!(
        other(&|i| i.capacity_bytes -= 512),
        wrong(Mismatch::Capacity {
            expected: found - 512,
            found
        })
    );
    assert_eq!(
        other(&|i| i.designator = Designator::NONE),
        wrong(Mismatch::Designator)
    );
    assert_eq!(
        other(&|i| i.trailer_crc32c = Some(1)),
        wrong(Mismatch::Trailer)
    );
    let crc = |i: &mut Identity| i.canaries[2].as_mut().unwrap().crc32c ^= 1;
    assert_eq!(other(&crc), wrong(Mismatch::Canary { block: 3 }));
    let mut rig = Rig::new(
        imgstream_engine::session::Config {
            identity: Some(right),
            ..config()
        },
        target(MIB),
    );
    rig.read(0, 0, 4096);
    rig.run_reads();
    assert!(rig.all_good() && rig.reasons.is_empty());
    assert_eq!(rig.target.reads, 4, "trailer, two canaries, one read");
}

#[test]
fn an_image_that_is_swapped_behind_the_portal_is_not_read() {
    let data = image(MIB);
    let plan = Plan {
        connection: Some(0),
        nth: Some(4),
        times: 1,
        fault: Fault::Read(ReadFault::Reset(5000)),
    };
    let config = imgstream_engine::session::Config {
        identity: Some(identity(&data)),
        ..config()
    };
    let mut rig = Rig::new(config, target(MIB).plan(plan));
    rig.target.settings.segment_bytes = 4096;
    rig.read(0, 0, 4096);
    rig.read(1, 65_536, 65_536);
    rig.run(|rig| !rig.reasons.is_empty());
    let mut swapped = image(MIB);
    swapped[3 * 4096] ^= 1;
    rig.target.store = Arc::new(swapped);
    rig.run_for(300_000);
    assert!(!rig.done.contains_key(&1));
    assert_eq!(
        rig.reasons[1],
        Reason::WrongImage(Mismatch::Canary { block: 3 })
    );
    rig.target.store = Arc::new(image(MIB));
    rig.run_reads();
    rig.check(&data);
    assert!(rig.all_good());
}

#[test]
fn sizes_that_nothing_can_be_done_with_are_refused() {
    for (block, capacity) in [
        (0, None),
        (256, None),
        (520, None),
        (8192, None),
        (512, Some(0)),
        (512, Some(512)),
    ] {
        let mut rig = Rig::new(config(), target(MIB));
        rig.target.settings.block_bytes = block;
        rig.target.settings.capacity_bytes = capacity;
        let reason = first_reason(&mut rig);
        assert_eq!(
            reason,
            Reason::WrongImage(Mismatch::Capacity {
                expected: 0,
                found: 0
            }),
            "{block} {capacity:?}"
        );
    }
}

#[test]
fn a_unit_that_is_not_there_is_named() {
    let mut rig = Rig::new(
        imgstream_engine::session::Config { lun: 7, ..config() },
        target(MIB),
    );
    assert_eq!(first_reason(&mut rig), Reason::WrongImage(Mismatch::NoUnit));
}

#[test]
fn reconnecting_uses_the_same_name_and_new_tags() {
    let plan = Plan {
        connection: None,
        nth: Some(3),
        times: 3,
        fault: Fault::Read(ReadFault::Reset(100)),
    };
    let mut rig = Rig::new(config(), target(MIB).plan(plan));
    for i in 0..16 {
        rig.read(i, u64::from(i) * 65_536, 65_536);
    }
    rig.run_reads();
    rig.check(&image(MIB));
    assert!(rig.all_good());
    assert_eq!((rig.target.connections, rig.target.logins), (4, 4));
}

#[test]
fn nothing_is_said_twice() {
    let plan = Plan::once(0, Fault::Login(LoginFault::Status(2, 3)));
    let mut rig = Rig::new(config(), target(MIB).plan(plan));
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.session.event(), None::<Event>);
    let text = rig.reasons[0].to_string();
    assert_eq!(text, "login refused: no such target (status 0x0203)");
}
