// SPDX-License-Identifier: GPL-2.0-only

//! What SCSI adds: sense data of any length, access states, sizes (rows S).

mod common;

use common::{config, identity, image, target, Rig};
use imgstream_engine::session::{Config, Mismatch, ReadError, Reason, Violation};
use imgstream_proto::iscsi::sense::Sense;
use imgstream_testtarget::{Fault, Plan, ReadFault};

const KIB: usize = 1 << 10;

fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense {
        key,
        asc,
        ascq,
        deferred: false,
    }
}

fn rig(plan: Plan) -> Rig {
    let mut rig = Rig::new(config(), target(64 * KIB).plan(plan));
    for i in 0..4 {
        rig.read(i, u64::from(i) * 8192, 2048);
    }
    rig
}

#[test]
fn sense_data_of_any_length_is_read_or_ends_the_connection() {
    // SenseLength, and how many bytes there are: as they should be, none, more or fewer than told.
    let lengths = [0, 1, 2, 3, 18, 252, 1000];
    let right = lengths.map(|bytes| (bytes, bytes));
    let lying = [
        (0, 18),
        (1, 18),
        (2, 18),
        (252, 18),
        (19, 18),
        (65_535, 18),
        (65_535, 252),
        (18, 0),
    ];
    for (length, bytes) in right.into_iter().chain(lying) {
        let fault = Fault::Read(ReadFault::SenseLength(length, bytes));
        let mut rig = rig(Plan::once(1, fault));
        let start = rig.now;
        rig.run_reads();
        rig.check(&image(64 * KIB));
        assert!(rig.all_good(), "{length} {bytes}");
        // NOT READY is only read, and waited for, where its key is there.
        let read = length >= 3 && length <= bytes;
        let none = [Reason::Protocol(Violation::NoSense)];
        let expected: &[Reason] = if read { &[] } else { &none };
        assert_eq!(rig.reasons, expected, "{length} {bytes}");
        assert_eq!(rig.now - start >= 1000, read, "{length} {bytes}");
    }
    // More than there is room for: the connection ends, and no byte is written anywhere.
    let mut rig = rig(Plan::once(
        1,
        Fault::Read(ReadFault::SenseLength(65_535, 65_535)),
    ));
    rig.run_reads();
    rig.check(&image(64 * KIB));
    assert!(rig.all_good());
    let long = Violation::SegmentTooLong(65_537);
    assert_eq!(rig.reasons, [Reason::Protocol(long)]);
}

#[test]
fn a_command_that_the_target_fails_to_carry_out_is_issued_again() {
    for code in [0x01, 0x80, 0xff] {
        let failure = |times| Plan {
            connection: None,
            nth: None,
            times,
            fault: Fault::Read(ReadFault::Response(code)),
        };
        let mut once = rig(failure(3));
        once.run_reads();
        once.check(&image(64 * KIB));
        assert!(once.all_good() && once.reasons.is_empty(), "{code}");
        let mut again = rig(failure(100));
        again.run(|rig| !rig.reasons.is_empty());
        assert_eq!(again.reasons, [Reason::TargetFailure(code)]);
        assert!(again.done.is_empty());
    }
}

#[test]
fn a_port_in_transition_is_waited_for_and_one_in_standby_is_left() {
    let not_ready = |ascq| Fault::Read(ReadFault::Sense(2, 4, ascq));
    let mut transition = rig(Plan {
        connection: None,
        nth: None,
        times: 12,
        fault: not_ready(0x0a),
    });
    let start = transition.now;
    transition.run_reads();
    transition.check(&image(64 * KIB));
    assert!(transition.all_good() && transition.reasons.is_empty());
    assert!((3_000..13_000).contains(&(transition.now - start)));
    for ascq in [0x0b, 0x0c] {
        let mut left = rig(Plan::once(0, not_ready(ascq)));
        let start = left.now;
        left.run(|rig| !rig.reasons.is_empty());
        assert_eq!(left.reasons, [Reason::NotReady(sense(2, 4, ascq))]);
        assert_eq!(left.now, start, "at once, for another portal");
        left.run_reads();
        left.check(&image(64 * KIB));
        assert!(left.all_good());
    }
}

#[test]
fn a_size_that_changes_behind_the_portal_is_refused_until_it_is_right_again() {
    let data = image(64 * KIB);
    let wrong = |found| {
        Reason::WrongImage(Mismatch::Capacity {
            expected: 65_536,
            found,
        })
    };
    let last_block = Some(u64::MAX - 1);
    for (block, capacity, last, found) in [
        (512, Some(0), None, 0),
        (512, Some(32_768), None, 32_768),
        (512, Some(1 << 40), None, 1 << 40),
        (0, None, None, 0),
        (520, None, None, 0),
        (4096, None, Some(16), 69_632),
        (512, None, Some(u64::MAX), 0),
        (4096, None, last_block, 0),
        (512, None, Some((1 << 55) - 2), ((1 << 55) - 1) * 512),
    ] {
        let expected = Config {
            identity: Some(identity(&data)),
            ..config()
        };
        let mut rig = Rig::new(expected, target(64 * KIB));
        rig.read(0, 0, 2048);
        rig.run_reads();
        // The unit changes under the connection, and says so.
        let settings = rig.target.settings.clone();
        rig.target.settings.block_bytes = block;
        rig.target.settings.capacity_bytes = capacity;
        rig.target.settings.last_block = last;
        let told = Fault::Read(ReadFault::Sense(6, 0x2a, 9));
        rig.target.plans.push(Plan {
            connection: Some(0),
            nth: None,
            times: 1,
            fault: told,
        });
        rig.read(1, 4096, 2048);
        rig.run(|rig| rig.reasons.len() == 2);
        assert_eq!(
            rig.reasons,
            [Reason::Changed(sense(6, 0x2a, 9)), wrong(found)]
        );
        assert!(!rig.done.contains_key(&1) && rig.session.backoff_ms() >= 30_000);
        rig.target.settings = settings;
        rig.run_reads();
        rig.check(&data);
        assert!(rig.all_good());
    }
}

#[test]
fn another_image_after_a_reconnect_is_not_read() {
    let data = image(64 * KIB);
    let expected = Config {
        identity: Some(identity(&data)),
        ..config()
    };
    let reset = Fault::Read(ReadFault::Reset(1000));
    // Three reads of the identity check come first.
    let mut rig = Rig::new(expected, target(64 * KIB).plan(Plan::once(3, reset)));
    let mut other = data.clone();
    other[4096] ^= 1;
    rig.target.swaps.push((1, std::sync::Arc::new(other)));
    rig.target
        .swaps
        .push((3, std::sync::Arc::new(data.clone())));
    rig.read(0, 8192, 2048);
    rig.run(|rig| rig.reasons.len() == 2);
    let mismatch = Mismatch::Canary { block: 1 };
    assert_eq!(rig.reasons, [Reason::Lost, Reason::WrongImage(mismatch)]);
    rig.run_reads();
    rig.check(&data);
    assert!(rig.all_good());
    assert_eq!(rig.target.connections, 4);
}

#[test]
fn a_block_that_is_bad_for_ever_fails_alone_whatever_it_is_called() {
    for (key, asc) in [(3, 0x11), (4, 0x44), (5, 0x24), (7, 0x27), (8, 0)] {
        let mut rig = rig(Plan::always(Fault::Read(ReadFault::Sense(key, asc, 0))));
        rig.run_reads();
        assert!(rig.reasons.is_empty());
        assert!(rig.done.values().all(|result| match result {
            Err(ReadError::Medium(s) | ReadError::Hardware(s) | ReadError::Refused(s)) =>
                s.key == key,
            _ => false,
        }));
    }
}
