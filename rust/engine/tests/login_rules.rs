// SPDX-License-Identifier: GPL-2.0-only

//! The rules of the login (L1 to L14) and of what follows from it (F17, F21): one test for each, against the scripted
//! target over byte arrays.

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::session::{
    Config, Name, Reason, RedirectError, Session, Stage, Violation, Want, SCRATCH_BYTES,
};
use imgstream_proto::iscsi::bhs::{flag, opcode, LoginRequest, LoginResponse};
use imgstream_proto::iscsi::text::Pairs;
use imgstream_testtarget::{Damage, Fault, LoginFault, Phase, Plan, ReadFault};

const KIB: usize = 1 << 10;

fn rig(plans: impl IntoIterator<Item = Plan>) -> Rig {
    let mut rig = Rig::new(config(), target(64 * KIB));
    rig.target.plans.extend(plans);
    rig
}

fn fault(nth: u32, fault: LoginFault) -> Plan {
    Plan::once(nth, Fault::Login(fault))
}

fn text(text: &str) -> LoginFault {
    LoginFault::Text(text.as_bytes().to_vec())
}

/// Reads one block, whatever happens before, and finds nothing wrong with the initiator. Why connections ended.
fn reasons(mut rig: Rig) -> Vec<Reason> {
    rig.read(0, 0, 4096);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    rig.reasons
}

/// What the first login with this fault in its `nth` answer ends with.
fn reason(nth: u32, what: LoginFault) -> Option<Reason> {
    let all = reasons(rig([fault(nth, what)]));
    assert!(all.len() <= 1, "{all:?}");
    all.first().copied()
}

fn is_text(found: Option<Reason>) -> bool {
    found == Some(Reason::Protocol(Violation::Text))
}

fn stage() -> Option<Reason> {
    Some(Reason::Protocol(Violation::Stage))
}

/// The requests of a good login.
fn requests(change: impl FnOnce(&mut Rig)) -> Vec<(LoginRequest, Vec<u8>)> {
    let mut rig = rig([]);
    change(&mut rig);
    rig.read(0, 0, 4096);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(
        rig.all_good() && rig.reasons.is_empty(),
        "{:?}",
        rig.reasons
    );
    rig.target.login_requests
}

fn pairs(text: &[u8]) -> Vec<(&str, &str)> {
    Pairs::new(text).map(Result::unwrap).collect()
}

fn csg(request: &LoginRequest) -> u8 {
    (request.flags >> 2) & 3
}

#[test]
fn l1_the_first_request_names_both_sides_and_the_kind_of_session() {
    let requests = requests(|_| {});
    let first = pairs(&requests[0].1);
    assert_eq!(
        first,
        [
            ("InitiatorName", "iqn.2026-11.test.imgstream:initiator"),
            ("TargetName", "iqn.2026-11.test.imgstream:image"),
            ("SessionType", "Normal"),
            ("AuthMethod", "None"),
        ]
    );
    let later: Vec<_> = requests[1..]
        .iter()
        .flat_map(|(_, text)| pairs(text))
        .collect();
    assert!(!later.iter().any(|pair| first.contains(pair)), "{later:?}");
    // The longest names there are fit one request.
    let long = Name::new(&"x".repeat(Name::MAX_BYTES)).unwrap();
    let mut rig = Rig::new(
        Config {
            initiator_name: long,
            target_name: long,
            ..config()
        },
        target(64 * KIB),
    );
    rig.target.settings.target_name = long.as_str().into();
    assert_eq!(reasons(rig).len(), 0);
}

#[test]
fn l2_of_all_flags_only_those_of_the_stage_at_hand_are_taken() {
    for (nth, here, next) in [(0u32, 0u8, 1u8), (1, 1, 3)] {
        for flags in 0..=0xff {
            let transit = flags & flag::TRANSIT != 0;
            let legal = (flags >> 2) & 3 == here
                && (!transit || (flags & flag::CONTINUE == 0 && flags & 3 == next));
            let found = reason(nth, LoginFault::Flags(flags));
            let expected = if legal { None } else { stage() };
            assert_eq!(found, expected, "flags {flags:#04x} in answer {nth}");
        }
    }
}

#[test]
fn l2_a_stage_does_not_end_where_that_was_not_asked_for() {
    // The first answer goes on (C), so that the second request is empty and without T; T in its answer comes too early.
    let plans = [
        fault(0, LoginFault::Flags(flag::CONTINUE)),
        fault(1, LoginFault::Flags(flag::TRANSIT | 1)),
    ];
    assert_eq!(reasons(rig(plans)).first().copied(), stage());
}

#[test]
fn l2_requests_go_from_security_over_operational_to_full_feature() {
    let requests = requests(|rig| rig.target.settings.text_piece = Some(40));
    let stages: Vec<u8> = requests.iter().map(|(request, _)| csg(request)).collect();
    assert!(
        stages.windows(2).all(|two| two[0] <= two[1]) && stages.contains(&0) && stages.contains(&1)
    );
    for (request, _) in &requests {
        let next = request.flags & 3;
        let legal = match request.flags & flag::TRANSIT {
            0 => next == 0,
            _ => next == [1, 3][usize::from(csg(request))] && request.flags & flag::CONTINUE == 0,
        };
        assert!(legal && request.flags & 0x30 == 0, "{:#04x}", request.flags);
    }
}

#[test]
fn l3_continued_text_is_put_together_at_every_byte() {
    let burst = |split| {
        let mut rig = rig([]);
        rig.target.settings.text_split = Some(split);
        rig.target.settings.max_burst_bytes = 1024;
        rig.read(0, 0, 4096);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(
            rig.all_good() && rig.reasons.is_empty(),
            "split at {split}: {:?}",
            rig.reasons
        );
        rig.target.reads
    };
    // Keys and values arrive whole: what was negotiated is kept.
    for split in 1..360 {
        assert_eq!(burst(split), 4, "split at {split}");
    }
}

#[test]
fn l3_text_that_continues_is_asked_for_with_empty_requests_and_bounded() {
    let requests = requests(|rig| rig.target.settings.text_piece = Some(50));
    let empty: Vec<_> = requests
        .iter()
        .filter(|(_, text)| text.is_empty())
        .collect();
    assert!(empty.len() > 3);
    let endless = reason(1, LoginFault::Flags(4 | flag::CONTINUE));
    assert_eq!(endless, None, "one piece more is legal");
    let mut endless = rig([Plan::always(Fault::Login(LoginFault::Endless))]);
    endless.run(|rig| !rig.reasons.is_empty());
    assert_eq!(endless.reasons, [Reason::Protocol(Violation::EndlessLogin)]);
    assert!(endless.target.login_requests.len() <= 16);
    // 8192 bytes are taken (6.2); more than fits is not.
    let key = |n: usize| format!("X-{n:02}={}\0", "v".repeat(250));
    let whole: String = (0..32).map(key).collect();
    assert_eq!(whole.len(), 8192);
    assert_eq!(reason(1, text(&whole)), None);
    let more = [
        fault(0, LoginFault::Flags(flag::CONTINUE)),
        fault(1, text(&whole)),
    ];
    assert_eq!(reasons(rig(more)).len(), 0);
}

#[test]
fn l4_one_tag_and_one_command_number_for_the_whole_login() {
    let requests = requests(|rig| rig.target.settings.text_piece = Some(100));
    let first = requests[0].0;
    assert!(requests.len() > 4);
    for (request, _) in &requests {
        // The scripted target then checks that the first command has the CmdSN that was named here.
        assert_eq!((request.itt, request.cmd_sn), (first.itt, first.cmd_sn));
        assert_eq!(request.opcode, 0x43, "a login is immediate");
    }
}

#[test]
fn l4_an_answer_to_half_a_request_ends_the_login() {
    let mut session = Session::new(config(), vec![0; SCRATCH_BYTES]).unwrap();
    session.connected(0);
    let request = LoginRequest::decode(session.out().first_chunk().unwrap());
    let most = session.out().len() - 1;
    session.sent(most);
    let answer = LoginResponse {
        opcode: opcode::LOGIN_RESPONSE,
        itt: request.itt,
        ..LoginResponse::default()
    };
    match session.want() {
        Want::Control(buffer) => buffer.copy_from_slice(&answer.encode()),
        other => panic!("{other:?}"),
    }
    session.got(48, 0);
    let early = Reason::Protocol(Violation::Early);
    assert_eq!(session.last_reason(), Some(early));
}

#[test]
fn l5_one_isid_no_handle_in_requests_and_one_in_the_last_answer() {
    for (request, _) in requests(|rig| rig.target.settings.text_piece = Some(100)) {
        assert_eq!(
            (request.isid, request.tsih.get(), request.cid.get()),
            (config().isid, 0, 0)
        );
    }
    let found = reason(1, LoginFault::NoHandle);
    assert_eq!(found, Some(Reason::Protocol(Violation::NoSessionHandle)));
    assert_eq!(
        reason(0, LoginFault::NoHandle),
        None,
        "only the last answer needs one"
    );
}

#[test]
fn l6_text_that_is_no_list_of_keys_and_values_ends_the_login() {
    let long = "k".repeat(64);
    let value = "v".repeat(256);
    for bad in [
        "A=1",
        "A\0",
        "\0",
        "=1\0",
        "A=1\0\0",
        "A=1\0B",
        "A B=1\0",
        "A=1\n\0",
        "A=\u{7f}\0",
        &format!("{long}=1\0"),
        &format!("A={value}\0"),
    ] {
        assert!(is_text(reason(0, text(bad))), "{bad:?}");
        assert!(is_text(reason(1, text(bad))), "{bad:?}");
    }
    for good in [
        "",
        "A=\0",
        &format!("{}=1\0", &long[1..]),
        &format!("A={}\0", &value[1..]),
        "A=b=c\0",
    ] {
        assert_eq!(reason(1, text(good)), None, "{good:?}");
    }
}

#[test]
fn l6_a_key_comes_once_in_a_login_whoever_brings_it_up() {
    let twice = Some(Reason::Protocol(Violation::RepeatedKey));
    for (nth, key) in [
        (0, "TargetPortalGroupTag"),
        (0, "AuthMethod"),
        (0, "TargetAlias"),
        (1, "InitialR2T"),
        (1, "MaxBurstLength"),
        (1, "TaskReporting"),
        (1, "X-com.example.something"),
        (1, "IFMarker"),
    ] {
        let value = match key {
            "InitialR2T" => "Yes",
            "AuthMethod" => "None",
            _ => "1024",
        };
        let both = format!("{key}={value}\0{key}={value}\0");
        assert_eq!(reason(nth, text(&both)), twice, "{key}");
    }
    // In the first answer and in the second.
    let plans = [fault(0, text("X-one=1\0")), fault(1, text("X-one=1\0"))];
    assert_eq!(
        reasons(rig(plans)),
        [Reason::Protocol(Violation::RepeatedKey)]
    );
    // 6.3: TargetAddress may come as often as it likes.
    assert_eq!(
        reason(
            0,
            text("TargetAddress=192.0.2.1\0TargetAddress=192.0.2.2\0")
        ),
        None
    );
    // Names are case sensitive.
    assert_eq!(reason(1, text("X-a=1\0X-A=1\0")), None);
}

#[test]
fn l6_more_keys_than_anybody_has_end_the_login() {
    let many = Some(Reason::Protocol(Violation::TooManyKeys));
    for nth in [0, 1] {
        assert_eq!(reason(nth, LoginFault::Keys(40)), None);
        assert_eq!(reason(nth, LoginFault::Keys(65)), many);
        assert_eq!(reason(nth, LoginFault::Keys(2048)), many);
    }
    // Answers that would not fit one request are not sent: 60 names of 60 bytes.
    let name = |n: usize| format!("X-{n:02}{}=1\0", "n".repeat(57));
    let wide: String = (0..60).map(name).collect();
    assert_eq!(reason(0, text(&wide)), many);
}

/// What is answered to keys that the target brings up.
fn answers(keys: &[(&str, &str)]) -> Vec<(String, String)> {
    let requests = requests(|rig| {
        rig.target.settings.proposals = keys
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
    });
    let last = &requests.last().unwrap().1;
    pairs(last)
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

fn answer(key: &str, value: &str) -> String {
    let all = answers(&[(key, value)]);
    assert_eq!(all.len(), 1, "{key}");
    assert_eq!(all[0].0, key);
    all[0].1.clone()
}

#[test]
fn l7_keys_that_nobody_knows_are_answered_notunderstood_and_answers_are_not_answered() {
    for key in [
        "X-com.example.key",
        "Z-key",
        "SomethingNew",
        "initialr2t",
        "SendTargets",
    ] {
        assert_eq!(answer(key, "7"), "NotUnderstood", "{key}");
    }
    // In the first answer, behind which another request comes, which would have it.
    for value in ["NotUnderstood", "Reject", "Irrelevant"] {
        let mut rig = rig([fault(0, text(&format!("X-key={value}\0")))]);
        rig.run(|rig| rig.session.stage() == Stage::Ready);
        let asked = rig.target.login_requests.iter();
        assert!(!asked
            .flat_map(|(_, text)| pairs(text))
            .any(|(key, _)| key == "X-key"));
    }
}

#[test]
fn l7_an_answer_outside_of_what_was_proposed_ends_the_login() {
    let cases = [
        ("MaxConnections", "2"),
        ("MaxConnections", "0"),
        ("InitialR2T", "yes"),
        ("InitialR2T", "No"),
        ("ImmediateData", "Maybe"),
        ("ImmediateData", "Yes"),
        ("MaxRecvDataSegmentLength", "511"),
        ("MaxRecvDataSegmentLength", "16777216"),
        ("MaxBurstLength", "511"),
        ("MaxBurstLength", "16776193"),
        ("MaxBurstLength", "+1024"),
        ("MaxBurstLength", "1024,2048"),
        ("MaxBurstLength", "0x"),
        ("MaxBurstLength", ""),
        ("MaxBurstLength", "4294968320"),
        ("FirstBurstLength", "511"),
        ("FirstBurstLength", "65537"),
        ("DefaultTime2Wait", "3601"),
        ("DefaultTime2Retain", "1"),
        ("MaxOutstandingR2T", "0"),
        ("MaxOutstandingR2T", "2"),
        ("DataPDUInOrder", "1"),
        ("DataPDUInOrder", "No"),
        ("DataSequenceInOrder", "YES"),
        ("DataSequenceInOrder", "No"),
        ("ErrorRecoveryLevel", "1"),
        ("HeaderDigest", "None,CRC32C"),
        ("DataDigest", "SHA"),
    ];
    for (key, value) in cases {
        let found = reason(1, text(&format!("{key}={value}\0")));
        assert_eq!(found, Some(Reason::Negotiation(key)), "{key}={value}");
    }
    // Before they are proposed they are answers to nothing.
    assert!(is_text(reason(0, text("MaxBurstLength=512\0"))));
}

#[test]
fn l7_a_rejected_key_keeps_its_default() {
    for value in ["Reject", "Irrelevant", "NotUnderstood", ""] {
        let mut rig = Rig::new(config(), target(1024 * KIB));
        rig.target.settings.answers = vec![("MaxBurstLength".into(), value.into())];
        rig.read(0, 0, 524_288);
        rig.run_reads();
        rig.check(&image(1024 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty());
        // 262144 (13.13), not what was proposed.
        assert_eq!(rig.target.reads, 2, "{value}");
    }
}

#[test]
fn l8_the_first_burst_is_not_longer_than_a_burst() {
    let both = |first: u32, burst: u32| {
        text(&format!(
            "FirstBurstLength={first}\0MaxBurstLength={burst}\0"
        ))
    };
    assert_eq!(reason(1, both(4096, 4096)), None);
    assert_eq!(
        reason(1, both(4097, 4096)),
        Some(Reason::Negotiation("FirstBurstLength"))
    );
    // Against the default of the other, too; where it is not answered there is nothing to compare.
    assert_eq!(reason(1, text("MaxBurstLength=512\0")), None);
    assert_eq!(
        reason(
            1,
            text("FirstBurstLength=65536\0MaxBurstLength=Irrelevant\0")
        ),
        None
    );
}

#[test]
fn l9_segments_of_a_login_have_at_most_8192_bytes() {
    let found = reason(1, LoginFault::Text(vec![b'x'; 8193]));
    assert_eq!(
        found,
        Some(Reason::Protocol(Violation::SegmentTooLong(8193)))
    );
    let declared = requests(|_| {});
    let all: Vec<_> = declared.iter().flat_map(|(_, text)| pairs(text)).collect();
    assert!(all.contains(&("MaxRecvDataSegmentLength", "262144")));
    assert!(
        declared.iter().all(|(_, text)| text.len() <= 8192),
        "the target's limit during a login"
    );
    let mut oversize = rig([Plan::once(1, Fault::Read(ReadFault::Oversize))]);
    oversize.read(0, 0, 2048);
    oversize.read(1, 2048, 2048);
    oversize.run_reads();
    assert_eq!(
        oversize.reasons,
        [Reason::Protocol(Violation::SegmentTooLong(262_148))]
    );
}

#[test]
fn l10_another_portal_group_than_discovery_named_is_refused() {
    let with = |expected: Option<u16>, answer: &str| {
        let mut rig = rig([]);
        rig.target.settings.answers = vec![("TargetPortalGroupTag".into(), answer.into())];
        rig.session.expect_group(expected);
        rig.run(|rig| rig.session.stage() == Stage::Ready || !rig.reasons.is_empty());
        rig.reasons.first().copied()
    };
    for (expected, answer) in [
        (None, "7"),
        (Some(7), "7"),
        (Some(7), "0x7"),
        (Some(0), "0"),
        (Some(7), ""),
    ] {
        assert_eq!(with(expected, answer), None, "{expected:?} {answer}");
    }
    let group = |expected, found| Some(Reason::PortalGroup { expected, found });
    assert_eq!(with(Some(7), "8"), group(7, 8));
    assert_eq!(with(Some(1), "65535"), group(1, 65_535));
    for bad in ["65536", "-1", "one"] {
        assert_eq!(
            with(None, bad),
            Some(Reason::Negotiation("TargetPortalGroupTag")),
            "{bad}"
        );
    }
}

#[test]
fn l11_task_reporting_is_understood_and_markers_are_rejected() {
    assert_eq!(answer("TaskReporting", "FastAbort,RFC3720"), "RFC3720");
    // Only what is offered can be chosen.
    for list in ["FastAbort", "ResponseFence,FastAbort", ""] {
        assert_eq!(answer("TaskReporting", list), "Reject", "{list}");
    }
    // 13.26.2: asks for nothing.
    assert_eq!(
        answers(&[("X#NodeArchitecture", "Test:1"), ("Z-key", "1")]),
        [("Z-key".to_string(), "NotUnderstood".to_string())]
    );
    assert_eq!(answer("iSCSIProtocolLevel", "2"), "1");
    assert_eq!(answer("iSCSIProtocolLevel", "0"), "0");
    assert_eq!(answer("iSCSIProtocolLevel", "two"), "Reject");
    for key in ["IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt"] {
        assert_eq!(answer(key, "No"), "Reject");
    }
}

#[test]
fn l12_with_a_status_nothing_else_of_an_answer_counts() {
    // The scripted target fills every other field with nonsense then.
    for nth in [0, 1] {
        for class in [2, 3, 4, 255] {
            for detail in [0, 1, 0x0b, 255] {
                let found = reason(nth, LoginFault::Status(class, detail));
                assert_eq!(found, Some(Reason::Refused { class, detail }));
            }
        }
        let places = vec!["192.0.2.7:1".to_string()];
        match reason(nth, LoginFault::Redirect(1, places)) {
            Some(Reason::Redirected(to)) => assert_eq!(to.address, "192.0.2.7:1".parse().unwrap()),
            other => panic!("{other:?}"),
        }
        let found = reason(nth, LoginFault::Status(1, 1));
        assert_eq!(found, Some(Reason::BadRedirect(RedirectError::Missing)));
    }
}

#[test]
fn l13_nothing_but_login_responses_comes_during_a_login() {
    for opcode in (0..64).filter(|opcode| *opcode != 0x23) {
        for nth in [0, 1] {
            match (opcode, reason(nth, LoginFault::Opcode(opcode))) {
                (0x3f, Some(Reason::Rejected(_))) => {}
                (_, Some(Reason::Protocol(Violation::Unexpected(found)))) if found == opcode => {}
                (_, other) => panic!("{opcode:#04x}: {other:?}"),
            }
        }
    }
}

/// The time that a login may take, and the pause before the next one at most.
fn after_login_time(passed: u64) -> bool {
    let timing = config().timing;
    (timing.login..=timing.login + timing.backoff_min).contains(&passed)
}

#[test]
fn l13_a_login_has_an_end_whatever_the_target_says_meanwhile() {
    for nth in [0, 1] {
        let mut silent = rig([fault(nth, LoginFault::Silence)]);
        let start = silent.now;
        silent.run(|rig| !rig.reasons.is_empty());
        assert_eq!(silent.reasons, [Reason::LoginTimeout]);
        assert!(after_login_time(silent.now - start));
    }
    // A byte now and then does not keep it alive.
    let drip = Fault::Wire(Phase::Login, Damage::Drip(0, 1, 1_000));
    let mut slow = rig([Plan::once(0, drip)]);
    let start = slow.now;
    slow.run(|rig| !rig.reasons.is_empty());
    assert_eq!(slow.reasons, [Reason::LoginTimeout]);
    assert!(after_login_time(slow.now - start));
}

#[test]
fn l14_the_first_answer_sets_statsn_and_every_other_has_the_next() {
    for first in [0, 1, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff] {
        let requests = requests(|rig| {
            rig.target.settings.first_stat_sn = first;
            rig.target.settings.text_piece = Some(100);
        });
        let mut expected = first;
        for (request, _) in &requests[1..] {
            expected = expected.wrapping_add(1);
            assert_eq!(request.exp_stat_sn.get(), expected);
        }
    }
    let found = reason(1, LoginFault::StatSn);
    let gap = Violation::StatSn {
        expected: 2,
        found: 3,
    };
    assert_eq!(found, Some(Reason::Protocol(gap)));
}

#[test]
fn f17_a_target_that_is_stuck_with_the_old_session_is_asked_under_a_second_name() {
    for what in [LoginFault::Status(2, 6), LoginFault::Silence] {
        let mut rig = rig([Plan::at(0, 7, Fault::Login(what))]);
        rig.read(0, 0, 4096);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        let mut names: Vec<_> = rig
            .target
            .login_requests
            .iter()
            .map(|(request, _)| request.isid[5])
            .collect();
        names.truncate(8);
        assert_eq!(names, [0, 0, 0, 0x80, 0x80, 0x80, 0, 0]);
    }
}

#[test]
fn f17_a_new_login_reinstates_the_session_and_waits_for_nothing_of_the_old_one() {
    let mut rig = rig([Plan::once(1, Fault::Read(ReadFault::Stall))]);
    for id in 0..4 {
        rig.read(id, u64::from(id) * 4096, 4096);
    }
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    assert_eq!(rig.target.logins, 2);
    let names: Vec<_> = rig
        .target
        .login_requests
        .iter()
        .map(|(request, _)| (request.isid, request.tsih.get()))
        .collect();
    // The same name, and no handle: that ends the old session (6.3.5). No logout of it was waited for.
    assert!(names.iter().all(|name| *name == (config().isid, 0)));
    assert_eq!(rig.target.logouts, 0);
}
