// SPDX-License-Identifier: GPL-2.0-only

//! Parallel sessions to one target: what one cannot finish another one takes over, once.

mod common;

use common::{config, image, target, Rig};
use imgstream_engine::parallel::MAX_SESSIONS;
use imgstream_engine::session::{ReadError, ReadId, Stage, Strikes};
use imgstream_testtarget::{Fault, Plan, ReadFault};

const KIB: usize = 1 << 10;
const READS: u16 = 4;

/// A session that has lost its connection while reads were under way, and is not to have another one.
fn cut(after_bytes: usize) -> Rig {
    let mut rig = Rig::new(config(), target(256 * KIB));
    rig.cut_first = Some(after_bytes);
    for id in 0..READS {
        rig.read(id, u64::from(id) * 32_768, 32_768);
    }
    rig.run(|rig| rig.reasons.len() == 1);
    rig.unreachable = true;
    rig
}

/// Moves a read from one session to another.
fn hand_over(from: &mut Rig, to: &mut Rig, id: u16) -> bool {
    let Some(strikes) = from.session.take_back(ReadId(id)) else {
        return false;
    };
    let (offset, buffer) = from.buffers.remove(&id).unwrap();
    let len = u32::try_from(buffer.len()).unwrap();
    let taken = to.session.submit_again(ReadId(id), offset, len, strikes);
    assert_eq!(taken, Ok(()));
    to.buffers.insert(id, (offset, buffer));
    true
}

#[test]
fn what_a_lost_connection_leaves_is_read_by_another_session_and_by_no_other() {
    let mut moved_some = false;
    for after_bytes in (0..160 * KIB).step_by(7 * KIB) {
        let mut first = cut(after_bytes);
        let mut second = Rig::new(config().of_session(1), target(256 * KIB));
        let ids = 0..READS;
        let moved: Vec<u16> = ids
            .filter(|id| hand_over(&mut first, &mut second, *id))
            .collect();
        assert_eq!(moved.len() + first.done.len(), usize::from(READS));
        moved_some |= !moved.is_empty() && !first.done.is_empty();
        second.run_reads();
        second.check(&image(256 * KIB));
        assert!(second.all_good() && second.done.len() == moved.len());
        // The first one has forgotten them, also when it is back.
        let ended = first.done.len();
        first.unreachable = false;
        first.run(|rig| rig.session.stage() == Stage::Ready);
        first.run_for(1000);
        assert_eq!((first.session.outstanding(), first.done.len()), (0, ended));
        first.check(&image(256 * KIB));
    }
    assert!(moved_some, "no cut was in the middle");
}

#[test]
fn what_is_at_the_target_is_not_taken_back() {
    let plan = Plan::once(0, Fault::Read(ReadFault::Stall));
    let mut rig = Rig::new(config(), target(256 * KIB).plan(plan));
    rig.read(0, 0, 32_768);
    rig.run_for(5_000);
    assert_eq!(rig.session.take_back(ReadId(1)), None, "there is none");
    assert_eq!(rig.session.take_back(ReadId(0)), None, "it is there");
    rig.run_reads();
    assert_eq!(rig.session.take_back(ReadId(0)), None, "it is done");
    rig.check(&image(256 * KIB));
}

#[test]
fn a_read_that_breaks_connections_fails_also_where_each_is_another_sessions() {
    let mut strikes = Strikes::NONE;
    for number in 0..MAX_SESSIONS {
        let plan = Plan::always(Fault::Read(ReadFault::Short(512)));
        let mut rig = Rig::new(config().of_session(number), target(64 * KIB).plan(plan));
        rig.session
            .submit_again(ReadId(0), 0, 4096, strikes)
            .unwrap();
        rig.buffers.insert(0, (0, vec![0; 4096]));
        rig.run(|rig| !rig.reasons.is_empty());
        if let Some(result) = rig.done.get(&0) {
            assert_eq!((*result, number), (Err(ReadError::Protocol), 4));
            return;
        }
        // It is to stay for a minute: a target that is out of order for a moment is not asked by all sessions in that moment.
        let keeps = |ms| rig.session.keeps(ReadId(0), rig.now + ms);
        assert_eq!(
            [keeps(0), keeps(59_000), keeps(60_000)],
            [true, true, false]
        );
        strikes = rig.session.take_back(ReadId(0)).unwrap();
        assert!(!rig.session.keeps(ReadId(0), rig.now), "there is none");
    }
    panic!("it never fails");
}

#[test]
fn sessions_have_names_and_chances_of_their_own() {
    let all: Vec<_> = (0..MAX_SESSIONS).map(|n| config().of_session(n)).collect();
    assert_eq!((all[0].isid, all[0].seed), (config().isid, config().seed));
    for (index, one) in all.iter().enumerate() {
        assert_eq!(one.isid[..5], all[0].isid[..5]);
        assert_eq!(usize::from(one.isid[5]), index);
        let seeds = all.iter().filter(|other| other.seed == one.seed);
        assert_eq!(seeds.count(), 1);
    }
}

#[test]
fn a_read_that_has_ended_no_connection_is_not_kept() {
    // One read has ended the connection, the others were lost with it.
    let plan = Plan::once(2, Fault::Read(ReadFault::Short(512)));
    let mut rig = Rig::new(config(), target(256 * KIB).plan(plan));
    for id in 0..READS {
        rig.read(id, u64::from(id) * 32_768, 32_768);
    }
    rig.run(|rig| rig.reasons.len() == 1);
    let now = rig.now;
    let kept = (0..READS).filter(|id| rig.session.keeps(ReadId(*id), now));
    assert_eq!(kept.collect::<Vec<_>>(), [2]);
    // Sent again, it is a read like any other.
    rig.run(|rig| rig.session.stage() == Stage::Ready);
    rig.run_for(100);
    assert!(!rig.session.keeps(ReadId(2), now));
    rig.run_reads();
    rig.check(&image(256 * KIB));
}
