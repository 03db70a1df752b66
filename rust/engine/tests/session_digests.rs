// SPDX-License-Identifier: GPL-2.0-only

//! Digests: the session against the scripted target, over byte arrays.

mod common;

use std::ops::Range;

use common::{config, image, target, Rig};
use imgstream_engine::session::{Config, ReadError, Reason, Stage, Violation};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_proto::iscsi::digest::{Digests, Policy};
use imgstream_testtarget::{Damage, Fault, Phase, Plan, Willing};

const KIB: usize = 1 << 10;
const KEYS: [&str; 2] = ["HeaderDigest", "DataDigest"];

const BOTH: Digests = Digests {
    header: true,
    data: true,
};
const NEITHER: Digests = Digests {
    header: false,
    data: false,
};

fn rig(policy: Policy, header: Willing, data: Willing) -> Rig {
    let config = Config {
        digests: policy,
        ..config()
    };
    let mut rig = Rig::new(config, target(64 * KIB));
    rig.target.settings.header_digest = header;
    rig.target.settings.data_digest = data;
    // Every data PDU ends with two bytes of padding.
    rig.target.settings.segment_bytes = 510;
    rig
}

fn protected() -> Rig {
    rig(Policy::Prefer, Willing::Offer, Willing::Offer)
}

/// One read, up to its end or the first end of a connection; what was agreed on, or why not.
fn outcome(mut rig: Rig) -> Result<Digests, Reason> {
    rig.read(0, 0, 2048);
    rig.run(|rig| !rig.done.is_empty() || !rig.reasons.is_empty());
    rig.check(&image(64 * KIB));
    match rig.reasons.first() {
        Some(reason) => Err(*reason),
        None => Ok(rig.session.digests()),
    }
}

/// F18.
#[test]
fn digests_are_what_policy_and_target_agree_to() {
    use Policy::{Off, Prefer, Require};
    use Willing::{Never, Offer};
    let unprotected = Err(Reason::Unprotected("HeaderDigest"));
    let table = [
        (Prefer, Never, Ok(NEITHER)),
        (Prefer, Offer, Ok(BOTH)),
        (Prefer, Willing::Require, Ok(BOTH)),
        (Require, Never, unprotected),
        (Require, Offer, Ok(BOTH)),
        (Require, Willing::Require, Ok(BOTH)),
        (Off, Never, Ok(NEITHER)),
        (Off, Offer, Ok(NEITHER)),
        // It rejects, and would then speak digests all the same.
        (
            Off,
            Willing::Require,
            Err(Reason::Negotiation("HeaderDigest")),
        ),
    ];
    for (policy, willing, expected) in table {
        let found = outcome(rig(policy, willing, willing));
        assert_eq!(found, expected, "{policy:?} {willing:?}");
    }
}

#[test]
fn one_digest_without_the_other_is_agreed_to_unless_both_are_required() {
    for (header, data, missing) in [(true, false, KEYS[1]), (false, true, KEYS[0])] {
        let willing = |on| if on { Willing::Offer } else { Willing::Never };
        let rig = |policy| rig(policy, willing(header), willing(data));
        let found = outcome(rig(Policy::Prefer));
        assert_eq!(found, Ok(Digests { header, data }));
        let found = outcome(rig(Policy::Require));
        assert_eq!(found, Err(Reason::Unprotected(missing)));
    }
}

/// One value out of the proposed list, or a refusal (RFC 7143 sections 6.2 and 6.2.1).
#[test]
fn an_answer_that_nobody_proposed_ends_the_login() {
    use Policy::{Off, Prefer, Require};
    let negotiation: fn(&'static str) -> Reason = Reason::Negotiation;
    let unprotected: fn(&'static str) -> Reason = Reason::Unprotected;
    // An empty answer is none at all.
    let table = [
        (Prefer, "", None),
        (Prefer, "None", None),
        (Prefer, "Irrelevant", None),
        (Prefer, "NotUnderstood", None),
        (Prefer, "Reject", Some(negotiation)),
        (Prefer, "crc32c", Some(negotiation)),
        (Prefer, "CRC32C,None", Some(negotiation)),
        (Prefer, "CRC64", Some(negotiation)),
        (Off, "", None),
        (Off, "Irrelevant", None),
        (Off, "NotUnderstood", None),
        (Off, "Reject", Some(negotiation)),
        (Off, "CRC32C", Some(negotiation)),
        (Require, "", Some(unprotected)),
        (Require, "None", Some(unprotected)),
        (Require, "Irrelevant", Some(unprotected)),
        (Require, "NotUnderstood", Some(unprotected)),
        (Require, "Reject", Some(unprotected)),
        (Require, "CRC32C,None", Some(negotiation)),
    ];
    for (policy, answer, reason) in table {
        for key in KEYS {
            // The other key is answered as the policy wants it.
            let usual = match policy {
                Require => Willing::Offer,
                _ => Willing::Never,
            };
            let willing = |of: &str| if of == key { Willing::Never } else { usual };
            let mut rig = rig(policy, willing(KEYS[0]), willing(KEYS[1]));
            let answers = &mut rig.target.settings.answers;
            answers.push((key.into(), answer.into()));
            let expected = reason.map_or(Ok(NEITHER), |reason| Err(reason(key)));
            assert_eq!(outcome(rig), expected, "{policy:?} {key}={answer}");
        }
    }
    for reason in [negotiation(KEYS[0]), unprotected(KEYS[0])] {
        assert!(reason.is_refusal());
    }
}

/// F18: none in the login, one behind every header from the next PDU on. The scripted target checks ours.
#[test]
fn digests_start_with_the_first_pdu_after_the_login() {
    let mut rig = protected();
    // Its own proposal has the login go on after digests were agreed on.
    let proposals = &mut rig.target.settings.proposals;
    proposals.push(("TaskReporting".into(), "FastAbort".into()));
    rig.run(|rig| rig.session.stage() == Stage::Login);
    assert_eq!(rig.session.digests(), NEITHER);
    rig.run(|rig| rig.session.stage() == Stage::Identify);
    assert_eq!(rig.session.digests(), BOTH);
    rig.target.plans.push(Plan::once(1, Fault::Ping(3)));
    for i in 0..3 {
        rig.read(i, u64::from(i) * 8192, 2048);
    }
    rig.run_reads();
    // Our own ping, its answer, and the logout.
    rig.run_for(20_000);
    rig.session.logout(rig.now);
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.reasons, [Reason::LoggedOut]);
    assert_eq!(rig.session.digests(), NEITHER);
    rig.check(&image(64 * KIB));
    assert!(rig.all_good() && rig.target.pings > 0 && rig.target.pongs == 3);
}

#[test]
fn digests_are_checked_also_over_a_wrapped_and_split_stream() {
    for max_piece in [1, 2, 3, 5, 7, 47, 53] {
        let mut rig = protected();
        rig.max_piece = max_piece;
        for i in 0..3 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty(), "{max_piece}");
    }
}

/// Where the target's bytes of the full feature phase lie: from its first PDU to the end of one read.
fn full_feature_bytes(rig: Rig) -> Range<usize> {
    let mut rig = rig;
    rig.read(0, 0, 2048);
    rig.run(|rig| rig.session.stage() == Stage::Identify);
    let start = rig.delivered_first;
    rig.run_reads();
    start..rig.delivered_first
}

/// A read with one bit changed on the way, and why its connections ended.
fn read_with_a_flip(rig: Rig, byte: usize) -> Rig {
    let mut rig = rig;
    rig.flips = vec![(byte, 1 << (byte % 8))];
    rig.read(0, 0, 2048);
    rig.run_reads();
    assert!(rig.all_good(), "byte {byte}");
    rig
}

/// F14: header, data, padding and digests of every PDU after the login.
#[test]
fn a_flip_of_any_byte_ends_the_connection_and_is_not_kept() {
    let bytes = full_feature_bytes(protected());
    // One read of 2048 bytes is five PDUs.
    assert!(bytes.len() > 2048 + 5 * (48 + 4 + 4));
    let mut seen = [0; 3];
    for byte in bytes {
        let rig = read_with_a_flip(protected(), byte);
        rig.check(&image(64 * KIB));
        let kinds = [
            Violation::HeaderDigest,
            Violation::DataDigest,
            // Byte 4 of a header is looked at before there can be a digest.
            Violation::AdditionalHeaders,
        ];
        let kind = kinds
            .iter()
            .position(|kind| rig.reasons == [Reason::Protocol(*kind)]);
        seen[kind.unwrap_or_else(|| panic!("byte {byte}: {:?}", rig.reasons))] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// What makes the difference: the same flips without digests. Those in the data are not noticed by anybody.
#[test]
fn without_digests_a_flip_of_data_is_not_noticed() {
    let rig = || rig(Policy::Off, Willing::Offer, Willing::Offer);
    let last_pdu_data = full_feature_bytes(rig()).end - 8;
    let rig = read_with_a_flip(rig(), last_pdu_data);
    assert_eq!(rig.reasons, []);
    assert_ne!(rig.buffers[&0].1, image(64 * KIB)[..2048]);
}

#[test]
fn one_digest_protects_its_part() {
    for (header, data) in [(true, false), (false, true)] {
        let willing = |on| if on { Willing::Offer } else { Willing::Never };
        let rig = || rig(Policy::Prefer, willing(header), willing(data));
        let bytes = full_feature_bytes(rig());
        // The last PDU: eight bytes of data, no padding, 48 of a header.
        let digest = |on: bool| if on { 4 } else { 0 };
        let data_at = bytes.end - digest(data) - 8;
        let header_at = data_at - digest(header) - 48;
        let (byte, violation) = match header {
            // Reserved (11.7): only the digest tells.
            true => (header_at + 2, Violation::HeaderDigest),
            false => (data_at, Violation::DataDigest),
        };
        let rig = read_with_a_flip(rig(), byte);
        rig.check(&image(64 * KIB));
        assert_eq!(rig.reasons, [Reason::Protocol(violation)]);
    }
}

/// Everything has come but a part of the last digest.
#[test]
fn a_read_is_not_done_before_the_digest_of_its_last_pdu() {
    let end = full_feature_bytes(protected()).end;
    for missing in 1..=4 {
        let mut rig = protected();
        rig.cut_first = Some(end - missing);
        rig.read(0, 0, 2048);
        rig.run(|rig| !rig.reasons.is_empty());
        assert!(rig.done.is_empty());
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good());
    }
}

#[test]
fn a_driver_that_does_not_hand_the_checksum_over_keeps_nothing() {
    let mut rig = protected();
    rig.forgets_checksums = true;
    rig.read(0, 0, 2048);
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!(rig.reasons, [Reason::Protocol(Violation::DataDigest)]);
    assert!(rig.done.is_empty());
}

/// Something between us and the target damages one block whenever it passes: that read fails in the end, others go on.
#[test]
fn a_read_whose_digest_is_never_right_fails_after_five_connections() {
    let mut rig = protected();
    // Of the data PDUs of a connection, the first three answer commands of the identity check.
    let fault = Fault::Wire(Phase::Opcode(opcode::DATA_IN), Damage::Flip(100));
    rig.target.plans.push(Plan::at(3, 5, fault));
    rig.read(0, 0, 2048);
    rig.run_reads();
    assert_eq!(rig.done[&0], Err(ReadError::Protocol));
    assert_eq!(rig.reasons, [Reason::Protocol(Violation::DataDigest); 5]);
    rig.read(1, 8192, 2048);
    rig.run_reads();
    assert_eq!(rig.done[&1], Ok(()));
    rig.check(&image(64 * KIB));
}
