// SPDX-License-Identifier: GPL-2.0-only

//! CHAP: the session against the scripted target. What goes right, and every way around it.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{config, image, target, Rig};
use imgstream_engine::session::{Account, ChapFault, Credentials, Crypto, Reason, Violation};
use imgstream_testtarget as peer;
use imgstream_testtarget::{hash, Chap, Fault, LoginFault, Plan};

const OURS: &str = "the initiator's own secret";
const THEIRS: &str = "what only the target knows";
const BYTES: usize = 64 << 10;

static RANDOM: AtomicU64 = AtomicU64::new(1);

/// Different each time, which is all that the tests need.
fn random(to: &mut [u8]) {
    let seed = RANDOM.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let bytes = hash(7, &seed);
    to.copy_from_slice(&bytes[..to.len()]);
}

fn stuck(to: &mut [u8]) {
    to.fill(0x5a);
}

fn digest<const BYTES: usize>(algorithm: u32, message: &[u8], to: &mut [u8; BYTES]) {
    to.copy_from_slice(&hash(algorithm, message));
}

fn crypto() -> Crypto {
    Crypto {
        md5: Some(|message, to| digest(5, message, to)),
        sha1: Some(|message, to| digest(6, message, to)),
        sha256: Some(|message, to| digest(7, message, to)),
        sha3_256: Some(|message, to| digest(8, message, to)),
        random,
    }
}

fn account<'a>(name: &'a str, secret: &'a str) -> Account<'a> {
    let secret = secret.as_bytes();
    Account { name, secret }
}

fn credentials(mutual: bool) -> Credentials {
    let target = mutual.then(|| account("the-target", THEIRS));
    Credentials::new(account("me", OURS), target).unwrap()
}

fn chap(mutual: bool) -> Chap {
    let target = mutual.then(|| peer::Account::new("the-target", THEIRS));
    Chap::new(peer::Account::new("me", OURS), target)
}

/// Both sides are configured alike.
fn rig(mutual: bool) -> Rig {
    let mut rig = Rig::new(config(), target(BYTES));
    rig.session.authenticate(&credentials(mutual), crypto());
    rig.target.settings.chap = Some(chap(mutual));
    rig
}

fn answers(rig: &mut Rig, key: &str, value: &str) {
    rig.target.settings.answers.push((key.into(), value.into()));
}

fn settings(rig: &mut Rig) -> &mut Chap {
    rig.target.settings.chap.as_mut().unwrap()
}

/// Reads come through on the first connection.
fn comes_through(mut rig: Rig, what: &str) -> Rig {
    rig.read(0, 4096, 8192);
    rig.run_reads();
    rig.check(&image(BYTES));
    assert!(
        rig.all_good() && rig.reasons.is_empty(),
        "{what}: {:?}",
        rig.reasons
    );
    assert_eq!(rig.target.connections, 1, "{what}");
    rig
}

/// Three connections in a row end so, at the pace of what only a person can help, and nothing is asked for, whatever the
/// target takes for a login.
#[track_caller]
fn is_left(mut rig: Rig, reason: Reason) -> Rig {
    rig.read(0, 0, 512);
    let start = rig.now;
    rig.run(|rig| rig.reasons.len() >= 3);
    assert_eq!(rig.reasons[..3], [reason; 3]);
    assert!(reason.is_refusal() == (rig.now - start >= 60_000));
    assert!(rig.ready.is_empty() && rig.done.is_empty());
    assert_eq!(rig.target.deepest, 0);
    rig
}

#[track_caller]
fn is_seen(rig: Rig, fault: ChapFault) -> Rig {
    is_left(rig, Reason::Chap(fault))
}

#[test]
fn both_sides_prove_who_they_are_by_every_algorithm() {
    for mutual in [false, true] {
        for algorithm in [5, 6, 7, 8] {
            for base64 in [false, true] {
                let mut rig = rig(mutual);
                settings(&mut rig).algorithms = vec![algorithm];
                settings(&mut rig).base64 = base64;
                let rig = comes_through(rig, &format!("{algorithm} {mutual} {base64}"));
                assert_eq!(rig.target.chap.received.len(), usize::from(mutual));
            }
        }
    }
}

/// tgt means SHA-1 by the number of SHA-256, and does not know SHA-1's.
fn as_tgt(rig: &mut Rig) {
    settings(rig).algorithms = vec![7, 5];
    settings(rig).seven_is_sha1 = true;
}

const MISREAD: Reason = Reason::Chap(ChapFault::Misread);

#[test]
fn a_target_that_means_sha1_by_7_is_logged_in_to_without_it() {
    for mutual in [false, true] {
        let mut rig = rig(mutual);
        as_tgt(&mut rig);
        rig.read(0, 4096, 8192);
        let start = rig.now;
        rig.run_reads();
        rig.check(&image(BYTES));
        assert!(rig.all_good() && rig.now - start < 5_000);
        assert_eq!(rig.reasons, [MISREAD]);
        assert_eq!(rig.target.chap.offers, ["8,7,6,5", "8,6,5"]);
    }
}

#[test]
fn a_wrong_secret_is_tried_by_every_algorithm_again() {
    let mut rig = rig(false);
    as_tgt(&mut rig);
    settings(&mut rig).initiator = peer::Account::new("me", "some other secret");
    rig.read(0, 0, 512);
    rig.run(|rig| rig.reasons.len() >= 3);
    let refused = Reason::Refused {
        class: 2,
        detail: 1,
    };
    assert_eq!(rig.reasons[..3], [MISREAD, refused, MISREAD]);
    assert_eq!(rig.target.chap.offers[..3], ["8,7,6,5", "8,6,5", "8,7,6,5"]);
}

#[test]
fn no_other_refusal_is_taken_for_tgts() {
    // Status, after which answer, and the target's algorithm. The last answer but one is to our response.
    for (class, detail, nth, algorithm) in [
        (2, 1, 2, 7),
        (3, 0, 2, 7),
        (2, 0, 1, 7),
        (2, 0, 3, 7),
        (2, 0, 2, 8),
    ] {
        let mut rig = rig(false);
        settings(&mut rig).algorithms = vec![algorithm];
        let refusal = Fault::Login(LoginFault::Status(class, detail));
        rig.target.plans.push(Plan::once(nth, refusal));
        rig.read(0, 0, 512);
        rig.run_reads();
        let what = format!("{class} {detail} {nth} {algorithm}");
        assert_eq!(rig.reasons, [Reason::Refused { class, detail }], "{what}");
        assert_eq!(rig.target.chap.offers, ["8,7,6,5"; 2], "{what}");
    }
}

#[test]
fn the_trouble_of_a_target_does_not_bring_back_what_was_left_out() {
    let mut rig = rig(false);
    as_tgt(&mut rig);
    let mut trouble = Plan::once(0, Fault::Login(LoginFault::Status(3, 1)));
    trouble.connection = Some(1);
    rig.target.plans.push(trouble);
    rig.read(0, 0, 512);
    rig.run_reads();
    let refused = Reason::Refused {
        class: 3,
        detail: 1,
    };
    assert_eq!(rig.reasons, [MISREAD, refused]);
    assert_eq!(rig.target.chap.offers.last().unwrap(), "8,6,5");
}

#[test]
fn what_was_left_out_is_not_taken() {
    let mut rig = rig(false);
    as_tgt(&mut rig);
    answers(&mut rig, "CHAP_A", "7");
    rig.read(0, 0, 512);
    rig.run(|rig| rig.reasons.len() >= 2);
    assert_eq!(
        rig.reasons[..2],
        [MISREAD, Reason::Chap(ChapFault::Algorithm)]
    );
}

#[test]
fn the_strongest_is_offered_first_and_only_what_the_driver_has() {
    let rig = comes_through(rig(false), "all");
    assert_eq!(rig.target.chap.offers, ["8,7,6,5"]);
    let mut rig = self::rig(true);
    let some = Crypto {
        sha3_256: None,
        sha1: None,
        ..crypto()
    };
    rig.session.authenticate(&credentials(true), some);
    let rig = comes_through(rig, "some");
    assert_eq!(rig.target.chap.offers, ["7,5"]);
}

#[test]
fn challenges_of_one_to_1024_bytes_are_answered() {
    for bytes in [1, 2, 15, 16, 17, 255, 256, 1023, 1024] {
        for base64 in [false, true] {
            let mut rig = rig(true);
            settings(&mut rig).challenge_bytes = bytes;
            settings(&mut rig).base64 = base64;
            comes_through(rig, &format!("{bytes} {base64}"));
        }
    }
}

#[test]
fn text_of_chap_may_come_in_pieces() {
    // Smaller ones take more requests than a login may have.
    for piece in 48..300 {
        let mut rig = rig(true);
        settings(&mut rig).challenge_bytes = 40;
        settings(&mut rig).algorithms = vec![6];
        rig.target.settings.text_piece = Some(piece);
        comes_through(rig, &format!("{piece}"));
    }
}

#[test]
fn every_connection_has_challenges_of_its_own() {
    let mut rig = rig(true);
    rig.target.plans.push(Plan::at(
        0,
        40,
        Fault::Read(imgstream_testtarget::ReadFault::Reset(0)),
    ));
    rig.read(0, 0, 512);
    rig.run_reads();
    assert_eq!(rig.target.connections, 41);
    // The target notes as a violation what it has seen before.
    rig.check(&image(BYTES));
    assert_eq!(rig.target.chap.received.len(), 41);
}

#[test]
fn a_response_that_is_asked_for_late_ends_the_stage_all_the_same() {
    // The target takes the response, and ends the stage only when it is asked again.
    for mutual in [false, true] {
        let mut rig = rig(mutual);
        let delay = Fault::Login(LoginFault::Hold);
        rig.target.plans.push(Plan::once(2, delay));
        comes_through(rig, &format!("{mutual}"));
    }
}

#[test]
fn a_wrong_secret_of_ours_is_refused_by_the_target() {
    let mut rig = rig(false);
    settings(&mut rig).initiator.secret = "another secret".into();
    let rig = is_left(
        rig,
        Reason::Refused {
            class: 2,
            detail: 1,
        },
    );
    assert_eq!(rig.target.chap.refused, 3);
}

#[test]
fn without_credentials_a_target_that_wants_chap_is_left() {
    let mut rig = Rig::new(config(), target(BYTES));
    answers(&mut rig, "AuthMethod", "CHAP");
    is_left(rig, Reason::Authentication);
    let mut rig = Rig::new(config(), target(BYTES));
    rig.target.settings.chap = Some(chap(false));
    is_left(
        rig,
        Reason::Refused {
            class: 2,
            detail: 1,
        },
    );
}

#[test]
fn no_target_gets_around_it() {
    // It takes everybody.
    let mut open = rig(false);
    open.target.settings.chap = None;
    is_seen(open, ChapFault::Skipped);
    for (value, fault) in [
        ("None", ChapFault::Skipped),
        ("", ChapFault::Skipped),
        ("KRB5", ChapFault::Method),
        ("CHAP,None", ChapFault::Method),
        ("chap", ChapFault::Method),
        ("Reject", ChapFault::Method),
        ("NotUnderstood", ChapFault::Method),
        ("Irrelevant", ChapFault::Method),
    ] {
        for mutual in [false, true] {
            let mut rig = rig(mutual);
            answers(&mut rig, "AuthMethod", value);
            is_seen(rig, fault);
        }
    }
}

#[test]
fn no_stage_is_skipped_at_any_step() {
    for mutual in [false, true] {
        for (step, fault) in [
            (0, LoginFault::Stage),
            (1, LoginFault::Stage),
            (2, LoginFault::Stage),
            (0, LoginFault::Transit),
            (1, LoginFault::Transit),
            // It goes to the full feature phase right away.
            (2, LoginFault::NextStage),
        ] {
            let mut rig = rig(mutual);
            rig.target
                .plans
                .push(Plan::at(step, u32::MAX, Fault::Login(fault)));
            is_seen(rig, ChapFault::Skipped);
        }
    }
}

#[test]
fn only_what_was_offered_can_be_chosen() {
    for value in [
        "4",
        "9",
        "0",
        "5,7",
        "8,7,6,5",
        "x",
        "-7",
        "0x100000007",
        "CHAP",
    ] {
        let mut rig = rig(true);
        answers(&mut rig, "CHAP_A", value);
        is_seen(rig, ChapFault::Algorithm);
    }
    // A function that this driver lacks was not offered either.
    let mut rig = rig(true);
    rig.session.authenticate(
        &credentials(true),
        Crypto {
            md5: None,
            ..crypto()
        },
    );
    answers(&mut rig, "CHAP_A", "5");
    is_seen(rig, ChapFault::Algorithm);
}

#[test]
fn an_identifier_is_an_octet() {
    for value in ["256", "-1", "0x100", "x", "1.5", "4294967296"] {
        let mut rig = rig(true);
        answers(&mut rig, "CHAP_I", value);
        is_seen(rig, ChapFault::Identifier);
    }
}

#[test]
fn a_challenge_is_one_to_1024_bytes() {
    let long = format!("0x{}", "ab".repeat(1025));
    for value in ["0x", "0b", "0b====", "abcd", "0xabcg", "0bab", "x", &long] {
        let mut rig = rig(true);
        answers(&mut rig, "CHAP_C", value);
        is_seen(rig, ChapFault::Challenge);
    }
    // Longer than any value may be (6.1).
    let mut rig = rig(true);
    answers(&mut rig, "CHAP_C", &format!("0x{}", "a".repeat(8191)));
    is_left(rig, Reason::Protocol(Violation::Text));
}

#[test]
fn nothing_is_left_out_and_nothing_comes_twice() {
    for key in ["CHAP_A", "CHAP_I", "CHAP_C"] {
        for mutual in [false, true] {
            let mut rig = rig(mutual);
            answers(&mut rig, key, "");
            is_seen(rig, ChapFault::OutOfOrder);
        }
    }
    for text in [
        "CHAP_A=7\0CHAP_A=7\0CHAP_I=1\0CHAP_C=0x11\0",
        "CHAP_A=7\0CHAP_I=1\0CHAP_C=0x11\0CHAP_I=1\0",
    ] {
        let mut rig = rig(true);
        let fault = LoginFault::Text(text.as_bytes().to_vec());
        rig.target
            .plans
            .push(Plan::at(1, u32::MAX, Fault::Login(fault)));
        is_left(rig, Reason::Protocol(Violation::Text));
    }
}

/// Texts that are right at another step.
#[test]
fn nothing_comes_out_of_turn() {
    const CHALLENGE: &str = "CHAP_A=7\0CHAP_I=1\0CHAP_C=0x112233\0";
    for (step, text) in [
        (0, format!("AuthMethod=CHAP\0{CHALLENGE}")),
        (0, CHALLENGE.to_string()),
        (0, "AuthMethod=CHAP\0CHAP_A=7\0".into()),
        (
            0,
            "AuthMethod=CHAP\0CHAP_N=the-target\0CHAP_R=0x11\0".into(),
        ),
        (1, "AuthMethod=CHAP\0".into()),
        (1, format!("AuthMethod=CHAP\0{CHALLENGE}")),
        (1, format!("{CHALLENGE}CHAP_N=the-target\0")),
        (1, format!("{CHALLENGE}CHAP_R=0x11\0")),
        (1, "CHAP_A=7\0".into()),
        (1, String::new()),
        (2, CHALLENGE.to_string()),
        (2, format!("CHAP_N=the-target\0CHAP_R=0x11\0{CHALLENGE}")),
        (2, "AuthMethod=None\0".into()),
        (2, "CHAP_I=1\0".into()),
    ] {
        for mutual in [false, true] {
            let mut rig = rig(mutual);
            let fault = LoginFault::Text(text.clone().into_bytes());
            rig.target
                .plans
                .push(Plan::at(step, u32::MAX, Fault::Login(fault)));
            is_seen(rig, ChapFault::OutOfOrder);
        }
    }
}

#[test]
fn a_proof_that_nobody_asked_for_is_out_of_turn() {
    let mut rig = rig(false);
    let fault = LoginFault::Text(b"CHAP_N=the-target\0CHAP_R=0x11\0".to_vec());
    rig.target
        .plans
        .push(Plan::at(2, u32::MAX, Fault::Login(fault)));
    is_seen(rig, ChapFault::OutOfOrder);
}

#[test]
fn a_target_that_does_not_prove_who_it_is_is_left() {
    // It has no account of its own, leaves out a part of the proof, or the stage does not even end.
    let mut silent = rig(true);
    settings(&mut silent).target = None;
    is_seen(silent, ChapFault::NoResponse);
    for key in ["CHAP_N", "CHAP_R"] {
        let mut rig = rig(true);
        answers(&mut rig, key, "");
        is_seen(rig, ChapFault::NoResponse);
    }
    let mut late = rig(true);
    settings(&mut late).target = None;
    late.target
        .plans
        .push(Plan::at(2, u32::MAX, Fault::Login(LoginFault::Hold)));
    is_seen(late, ChapFault::NoResponse);
}

#[test]
fn a_wrong_proof_is_seen() {
    let mut wrong = rig(true);
    settings(&mut wrong).target = Some(peer::Account::new("the-target", "some other secret"));
    is_seen(wrong, ChapFault::WrongResponse);
    // One bit, one byte too few or too many, another digest's length, no binary value at all.
    for value in [
        "0x00",
        "0x",
        "x",
        "0b",
        &format!("0x{}", "00".repeat(32)),
        &format!("0x{}", "00".repeat(33)),
        "0x0",
    ] {
        let mut rig = rig(true);
        answers(&mut rig, "CHAP_R", value);
        is_seen(rig, ChapFault::WrongResponse);
    }
    let mut own = rig(true);
    settings(&mut own).reflects_response = true;
    is_seen(own, ChapFault::WrongResponse);
}

#[test]
fn the_name_is_a_part_of_the_proof() {
    for name in ["somebody-else", "The-Target", "the-target-", "me"] {
        let mut rig = rig(true);
        answers(&mut rig, "CHAP_N", name);
        is_seen(rig, ChapFault::WrongName);
    }
}

#[test]
fn a_challenge_of_ours_that_comes_back_is_seen() {
    let mut rig = rig(true);
    settings(&mut rig).reflects_challenge = true;
    // On the first connection there is nothing to send back yet.
    rig.target.plans.push(Plan::once(
        0,
        Fault::Read(imgstream_testtarget::ReadFault::Reset(0)),
    ));
    rig.read(0, 0, 512);
    rig.run(|rig| rig.reasons.len() >= 3);
    assert_eq!(rig.reasons[1..3], [Reason::Chap(ChapFault::Reflected); 2]);
    assert_eq!((rig.target.logins, rig.target.chap.responses.len()), (1, 1));
}

#[test]
fn random_numbers_that_repeat_are_not_used() {
    let mut rig = rig(true);
    rig.session.authenticate(
        &credentials(true),
        Crypto {
            random: stuck,
            ..crypto()
        },
    );
    rig.target.plans.push(Plan::once(
        0,
        Fault::Read(imgstream_testtarget::ReadFault::Reset(0)),
    ));
    rig.read(0, 0, 512);
    rig.run(|rig| rig.reasons.len() >= 2);
    assert_eq!(rig.reasons[1], Reason::Chap(ChapFault::Random));
    assert_eq!(rig.target.chap.received.len(), 1);
}

#[test]
fn every_reason_is_a_sentence() {
    let say = |fault| Reason::Chap(fault).to_string();
    assert_eq!(
        say(ChapFault::Skipped),
        "login given up: CHAP is required, and the target goes on without it"
    );
    assert!(say(ChapFault::WrongResponse).ends_with("the target does not know its secret"));
}
