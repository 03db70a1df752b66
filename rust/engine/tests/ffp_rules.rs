// SPDX-License-Identifier: GPL-2.0-only

//! Rules of the full feature phase about numbers, tags and PDUs that answer nothing (rows F of the table in
//! Documentation/imgstream-protocol.rst).

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::session::{Config, Reason, Violation};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_testtarget::{Damage, Fault, ForgedTag, Phase, Plan, ReadFault};

const KIB: usize = 1 << 10;
/// Places of fields in what a target sends (RFC 7143 section 11).
const AHS_WORDS: usize = 4;
const DATA_LEN: usize = 5;
const TAG: usize = 16;
const STAT_SN: usize = 24;
const EXP_CMD_SN: usize = 28;
const MAX_CMD_SN: usize = 32;
/// Data-In PDUs and responses of the identity check.
const CHECK_DATA: u32 = 3;
const CHECK_PDUS: u32 = 6;

fn rig(plan: Plan) -> Rig {
    let mut rig = Rig::new(config(), target(64 * KIB).plan(plan));
    rig.target.settings.segment_bytes = 512;
    rig
}

/// Four reads of 2 KiB each.
fn submit(rig: &mut Rig) {
    for i in 0..4 {
        rig.read(i, u64::from(i) * 8192, 2048);
    }
}

fn wire(phase: Phase, nth: u32, damage: Damage) -> Plan {
    Plan::once(nth, Fault::Wire(phase, damage))
}

/// The same to every PDU after the login, from the first connection on.
fn always(damage: Damage) -> Plan {
    Plan::always(Fault::Wire(Phase::Full, damage))
}

/// Runs the reads under a plan; whatever happens, they end with the image's bytes.
fn reasons(plan: Plan) -> Vec<Reason> {
    let name = format!("{plan:?}");
    let mut rig = rig(plan);
    submit(&mut rig);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good(), "{name}");
    rig.reasons
}

fn protocol(violation: Violation) -> Vec<Reason> {
    vec![Reason::Protocol(violation)]
}

#[test]
fn commands_are_counted_also_over_the_wrap_and_immediate_ones_are_not() {
    // The target holds every CmdSN against the one that must come, pings of both sides included.
    let mut rig = rig(Plan::once(2, Fault::Ping(3)));
    for round in 0..10 {
        submit(&mut rig);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        rig.done.clear();
        rig.buffers.clear();
        rig.run_for(16_000);
        assert!(rig.target.pings > round);
    }
    assert_eq!((rig.target.pongs, rig.reasons.len()), (3, 0));
}

#[test]
fn any_window_that_a_target_tells_is_kept_or_ignored() {
    let whole = u32::MAX;
    // What is added to MaxCmdSN in all PDUs: smaller than before, contradicting ExpCmdSN, closed, huge, half the circle.
    for more in [whole, whole - 62, whole - 70, 1, 0x7fff_0000, 0x8000_0000] {
        assert_eq!(reasons(always(Damage::Add(MAX_CMD_SN, more))), [], "{more}");
    }
    // In one PDU only, and the next ones are right again.
    for nth in CHECK_PDUS..CHECK_PDUS + 8 {
        for more in [
            whole - 63,
            whole - 64,
            whole - 100,
            0x7fff_ffff,
            0x8000_0000,
        ] {
            let once = wire(Phase::Full, nth, Damage::Add(MAX_CMD_SN, more));
            assert_eq!(reasons(once), [], "{more} in PDU {nth}");
        }
    }
}

#[test]
fn a_login_whose_first_window_contradicts_itself_opens_none() {
    // ExpCmdSN and MaxCmdSN, in the first answer only.
    let window = Damage::Put(EXP_CMD_SN, [[0x60, 0, 0, 1], [0x40, 0, 0, 1]].concat());
    let mut rig = rig(wire(Phase::Login, 0, window));
    rig.target.settings.window = 0;
    submit(&mut rig);
    // The target takes no command, and would see one.
    rig.run(|rig| !rig.reasons.is_empty());
    rig.check(&image(64 * KIB));
    assert_eq!(rig.reasons, [Reason::WindowClosed]);
}

#[test]
fn an_acknowledgement_of_commands_that_were_never_sent_does_no_harm() {
    for more in [1, 1000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let plan = wire(Phase::Full, CHECK_PDUS, Damage::Add(EXP_CMD_SN, more));
        assert_eq!(reasons(plan), [], "{more}");
    }
}

#[test]
fn a_status_that_is_skipped_or_repeated_ends_the_connection() {
    // Every fourth Data-In ends a read.
    for more in [1, 2, u32::MAX, 0x8000_0000] {
        let data = wire(
            Phase::Opcode(opcode::DATA_IN),
            CHECK_DATA + 3,
            Damage::Add(STAT_SN, more),
        );
        let found = reasons(data);
        let right = match found[..] {
            [Reason::Protocol(Violation::StatSn { expected, found })] => {
                found == expected.wrapping_add(more)
            }
            _ => false,
        };
        assert!(right, "{more}: {found:?}");
    }
}

#[test]
fn a_number_that_is_no_status_is_ignored() {
    // 11.7.3, 11.19.2: without S, or in a NOP-In that answers nothing, StatSN does not count.
    for nth in 0..3 {
        let data = Phase::Opcode(opcode::DATA_IN);
        let plan = wire(data, CHECK_DATA + nth, Damage::Add(STAT_SN, 77));
        assert_eq!(reasons(plan), []);
    }
    for fault in [Fault::Ping(3), Fault::News(3)] {
        let mut rig = rig(Plan::once(1, fault));
        rig.target.plans.push(Plan::always(Fault::Wire(
            Phase::Opcode(opcode::NOP_IN),
            Damage::Add(STAT_SN, 77),
        )));
        submit(&mut rig);
        rig.run_reads();
        rig.run_for(100);
        rig.check(&image(64 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty());
    }
}

#[test]
fn every_unit_is_addressed_as_its_number_asks_for() {
    for lun in [0, 1, 255, 256, 16_383] {
        let mut rig = Rig::new(Config { lun, ..config() }, target(64 * KIB));
        rig.target.settings.lun = lun;
        submit(&mut rig);
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good() && rig.reasons.is_empty(), "unit {lun}");
    }
}

#[test]
fn forged_answers_complete_nothing() {
    use ForgedTag::{Late, Live, Reserved, Unknown};
    let task_response = opcode::TASK_RESPONSE;
    for tag in [Live, Late, Unknown, Reserved] {
        for code in [
            opcode::NOP_IN,
            opcode::SCSI_RESPONSE,
            task_response,
            opcode::LOGIN_RESPONSE,
            opcode::TEXT_RESPONSE,
            opcode::DATA_IN,
            opcode::LOGOUT_RESPONSE,
            opcode::R2T,
            opcode::REJECT,
        ] {
            let found = reasons(Plan::once(1, Fault::Read(ReadFault::Forged(code, tag))));
            let right = match (code, tag, &found[..]) {
                // News of the window, which is legal.
                (opcode::NOP_IN, Reserved, reasons) => reasons.is_empty(),
                (opcode::REJECT, _, reasons) => reasons == [Reason::Rejected(9)],
                (opcode::SCSI_RESPONSE | opcode::DATA_IN, Live, reasons) => {
                    let (expected, received) = (2048, 0);
                    *reasons == protocol(Violation::ShortRead { expected, received })[..]
                }
                (
                    opcode::NOP_IN
                    | opcode::SCSI_RESPONSE
                    | opcode::DATA_IN
                    | opcode::LOGOUT_RESPONSE,
                    _,
                    [Reason::Protocol(Violation::UnknownTag(_))],
                ) => true,
                (code, _, reasons) => *reasons == protocol(Violation::Unexpected(code))[..],
            };
            assert!(right, "{code:#x} {tag:?}: {found:?}");
        }
    }
}

#[test]
fn the_last_answer_again_finds_nothing() {
    for nth in 0..8 {
        let data = Phase::Opcode(opcode::DATA_IN);
        let found = reasons(wire(data, CHECK_DATA + nth, Damage::Twice));
        assert_eq!(found.len(), 1, "PDU {nth}: {found:?}");
        assert!(matches!(found[0], Reason::Protocol(_)));
    }
}

#[test]
fn a_pdu_that_is_malformed_ends_the_connection() {
    let put = |at: usize, bytes: &[u8]| {
        let data = Phase::Opcode(opcode::DATA_IN);
        let damage = Damage::Put(at, bytes.to_vec());
        reasons(wire(data, CHECK_DATA + 1, damage))
    };
    for words in [1, 2, 255] {
        let found = put(AHS_WORDS, &[words]);
        assert_eq!(found, protocol(Violation::AdditionalHeaders));
    }
    let found = put(DATA_LEN, &[4, 0, 1]);
    assert_eq!(found, protocol(Violation::SegmentTooLong(0x0004_0001)));
    let found = put(DATA_LEN, &[0xff, 0xff, 0xff]);
    assert_eq!(found, protocol(Violation::SegmentTooLong(0x00ff_ffff)));
    assert_eq!(
        put(DATA_LEN, &[3, 0, 0]),
        protocol(Violation::DataRange),
        "as long as a segment may be, and longer than the read"
    );
    assert_eq!(
        put(TAG, &[0, 1, 2, 3]),
        protocol(Violation::UnknownTag(0x0001_0203))
    );
    // Every operation code that does not exist, or belongs to an initiator.
    for code in (0u8..0x40).filter(|code| !matches!(code, 0x20 | 0x21 | 0x25 | 0x26 | 0x32 | 0x3f))
    {
        assert_eq!(put(0, &[code]), protocol(Violation::Unexpected(code)));
    }
    // 11.2.1.2: the two highest bits are reserved, and so ignored.
    assert_eq!(put(0, &[0xc0 | opcode::DATA_IN]), []);
}

#[test]
fn what_padding_holds_does_not_matter() {
    let mut rig = rig(Plan::always(Fault::Wire(
        Phase::Opcode(opcode::DATA_IN),
        Damage::Put(48 + 510, vec![1, 2]),
    )));
    // Two bytes of padding behind each segment.
    rig.target.settings.segment_bytes = 510;
    submit(&mut rig);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, []);
}

#[test]
fn data_without_bytes_and_a_sequence_that_ends_early_are_legal() {
    for count in [1, 3, 1000] {
        let plan = Plan::once(1, Fault::Read(ReadFault::Empty(count)));
        assert_eq!(reasons(plan), [], "{count} empty PDUs");
    }
    // 11.7.1: F ends a sequence, not the command.
    for nth in 0..3 {
        let damage = Damage::Put(1, vec![0x80]);
        let data = Phase::Opcode(opcode::DATA_IN);
        assert_eq!(reasons(wire(data, CHECK_DATA + nth, damage)), []);
    }
}

#[test]
fn empty_data_without_an_end_is_no_progress() {
    // The answer itself never comes.
    let mut rig = rig(Plan::once(1, Fault::Read(ReadFault::Empty(10_000))));
    let data = Phase::Opcode(opcode::DATA_IN);
    let drip = Damage::Drip(0, 48, 1000);
    rig.target.plans.push(wire(data, CHECK_DATA, drip));
    submit(&mut rig);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    assert_eq!(rig.reasons, [Reason::NoProgress]);
}

#[test]
fn a_ping_that_is_answered_with_data_is_not_answered() {
    let mut rig = Rig::new(config(), target(64 * KIB));
    rig.run(|rig| !rig.ready.is_empty());
    let nop = Phase::Opcode(opcode::NOP_IN);
    for (damage, violation) in [
        (Damage::Append(b"echo".to_vec()), Violation::Echo),
        (Damage::Put(20, vec![0, 0, 0, 1]), Violation::Echo),
    ] {
        rig.target.plans = vec![Plan::at(0, 1, Fault::Wire(nop, damage))];
        let ended = rig.reasons.len();
        rig.run(|rig| rig.reasons.len() > ended);
        assert_eq!(rig.reasons[ended..], protocol(violation));
        let ready = rig.ready.len();
        rig.run(|rig| rig.ready.len() > ready);
    }
}

#[test]
fn a_flood_of_news_costs_nothing_and_hides_nothing() {
    // NOP-Ins that ask for nothing: none is answered, none is gathered, and a read that is not answered is noticed.
    let mut rig = rig(Plan::once(1, Fault::News(10_000)));
    submit(&mut rig);
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good() && rig.reasons.is_empty());
    assert_eq!((rig.target.pongs, rig.target.pings), (0, 0));
}
