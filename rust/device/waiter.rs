// SPDX-License-Identifier: GPL-2.0-only

//! Who waits for a fetch, for what of it, and what they are told.

use crate::{
    device::{
        asked::Asked,
        inner::Core,
        merge,
        rescue::{
            self,
            Rescue,
            Rescued, //
        },
    },
    kapi::{
        blk::{
            mq::Request,
            BlkStatus, //
        },
        page::PageBuf,
    },
    source::is_refusal,
};
use imgstream_engine::{
    block::Run,
    sweep::Answer, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Who waits for blocks.
#[derive(Clone)]
pub(super) enum Waiter {
    /// A read: wants a copy.
    Read(Request),
    /// A write of a part of one block: wants it merged.
    Merge(Request),
    /// The background: wants it stored, and to hear whether it came.
    Batch(Arc<Asked>),
    /// The commit: wants it at hand.
    Commit(Arc<Rescue>),
}

impl Waiter {
    /// Whether it is answered when the blocks are stored, not already when they have arrived.
    pub(super) fn is_patient(&self) -> bool {
        matches!(self, Waiter::Merge(_) | Waiter::Batch(_))
    }

    /// Whether a request of the block layer waits.
    pub(super) fn is_request(&self) -> bool {
        matches!(self, Waiter::Read(_) | Waiter::Merge(_))
    }

    /// Tells it that `part` of the blocks `all`, which were fetched together, is in the buffer. Process context.
    pub(super) fn answer(&self, core: &Arc<Core>, part: Run, all: Run, buf: &PageBuf) {
        let offset = Run::from_to(all.start, part.start).bytes() as usize;
        match self {
            Waiter::Read(request) => merge::copy_in(request, part, buf, offset),
            Waiter::Merge(request) => {
                merge::write_block(core, request, part.start, Some((buf, offset)));
            }
            Waiter::Commit(rescue) => rescue.answer(rescue::Answer::Here(Rescued {
                run: part,
                buf: buf.clone(),
                offset,
            })),
            Waiter::Batch(asked) => asked.answer(Answer::Came),
        }
    }

    /// Tells it that the blocks `all`, or what it wanted of them, do not come.
    pub(super) fn fail(&self, all: Run, error: Error) {
        let refused = is_refusal(error);
        match self {
            Waiter::Read(request) | Waiter::Merge(request) => {
                request.fail(BlkStatus::from(error));
            }
            Waiter::Commit(rescue) if refused => rescue.answer(rescue::Answer::Refused(all)),
            Waiter::Commit(rescue) => rescue.answer(rescue::Answer::Later),
            Waiter::Batch(asked) if refused => asked.answer(Answer::Refused(all)),
            Waiter::Batch(asked) => asked.answer(Answer::Later),
        }
    }
}

pub(super) type Waiters = KVec<(Waiter, Run)>;

/// How far a fetch is, and who waits for it.
pub(super) enum Phase {
    /// Who waits until it arrives, and who until it is stored.
    Waiting([Waiters; 2]),
    /// Arrived and being stored; who waits for that. The work item answers them, not he who receives.
    Here(PageBuf, Waiters),
    /// Stored as far as it can be.
    Stored(PageBuf),
    /// It does not arrive; who has to be told.
    Failed(Error, [Waiters; 2]),
    /// They have been told.
    Over,
}

/// What becomes of one who joins.
pub(super) enum Joined {
    /// It waits.
    Waits,
    /// What it wants is here: it gets it from who called.
    Here(Waiter, PageBuf),
    /// There is nothing to wait for any more: it has to look for another fetch.
    Over(Waiter),
}

/// How a fetch ended, and who has to be told.
pub(super) struct Ended {
    pub(super) result: Result<PageBuf>,
    pub(super) waiters: [Waiters; 2],
}

impl Phase {
    /// Lets `waiter` wait for `part`.
    pub(super) fn join(&mut self, waiter: Waiter, part: Run) -> Result<Joined> {
        let waiters = match self {
            Self::Waiting([_, waiters]) | Self::Here(_, waiters) if waiter.is_patient() => waiters,
            Self::Waiting([waiters, _]) | Self::Failed(_, [waiters, _]) => waiters,
            Self::Here(buf, _) | Self::Stored(buf) => return Ok(Joined::Here(waiter, buf.clone())),
            Self::Over => return Ok(Joined::Over(waiter)),
        };
        waiters.push((waiter, part), GFP_KERNEL)?;
        Ok(Joined::Waits)
    }

    /// It has arrived: who is told so now.
    pub(super) fn arrive(&mut self, buf: &PageBuf) -> Waiters {
        let Self::Waiting([early, late]) = self else {
            return KVec::new();
        };
        let (early, late) = (core::mem::take(early), core::mem::take(late));
        *self = Self::Here(buf.clone(), late);
        early
    }

    /// It never will.
    pub(super) fn fail(&mut self, error: Error) {
        if let Self::Waiting(waiters) = self {
            *self = Self::Failed(error, core::mem::take(waiters));
        }
    }

    /// It is stored as far as it can be, or has failed.
    pub(super) fn end(&mut self) -> Option<Ended> {
        match core::mem::replace(self, Self::Over) {
            Self::Here(buf, waiters) => {
                *self = Self::Stored(buf.clone());
                Some(Ended {
                    result: Ok(buf),
                    waiters: [waiters, KVec::new()],
                })
            }
            Self::Failed(error, waiters) => Some(Ended {
                result: Err(error),
                waiters,
            }),
            other => {
                *self = other;
                None
            }
        }
    }
}

#[kunit_tests(imgstream_waiter)]
mod tests {
    use super::*;
    use crate::{
        kapi::{
            page::PagePool,
            testing::every, //
        },
        source::Priority, //
    };

    const PART: Run = Run::new(3, 4);

    /// Waits until it is stored.
    fn patient() -> Result<Waiter> {
        Ok(Waiter::Batch(Asked::new(PART, Priority::Background)?))
    }

    /// Waits until it arrives.
    fn impatient() -> Result<Waiter> {
        Ok(Waiter::Commit(Rescue::new()?))
    }

    fn waiter(is_patient: bool) -> Result<Waiter> {
        match is_patient {
            true => patient(),
            false => impatient(),
        }
    }

    fn waiting() -> Phase {
        Phase::Waiting(Default::default())
    }

    fn buf() -> Result<PageBuf> {
        PageBuf::new(&PagePool::new(1)?, 1)
    }

    fn here() -> Result<Phase> {
        let mut phase = waiting();
        phase.arrive(&buf()?);
        Ok(phase)
    }

    fn stored() -> Result<Phase> {
        let mut phase = here()?;
        phase.end();
        Ok(phase)
    }

    fn failed() -> Result<Phase> {
        let mut phase = waiting();
        phase.fail(EIO);
        Ok(phase)
    }

    fn over() -> Result<Phase> {
        let mut phase = failed()?;
        phase.end();
        Ok(phase)
    }

    /// Who is in a list: whether each is patient, and waits for the part that it asked for.
    fn who(waiters: &Waiters) -> Result<KVec<bool>> {
        let mut found = KVec::new();
        for (waiter, part) in waiters {
            found.push(waiter.is_patient() && *part == PART, GFP_KERNEL)?;
        }
        Ok(found)
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Gets {
        Waits,
        Here,
        Over,
    }

    /// What becomes of one who joins.
    fn joins(phase: &mut Phase, is_patient: bool) -> Result<Gets> {
        let (back, gets) = match phase.join(waiter(is_patient)?, PART)? {
            Joined::Waits => return Ok(Gets::Waits),
            Joined::Here(back, _) => (back, Gets::Here),
            Joined::Over(back) => (back, Gets::Over),
        };
        // It is given back as it came.
        (back.is_patient() == is_patient).then_some(gets).ok_or(EIO)
    }

    /// A phase, what one gets who waits for the arrival, what one gets who waits until it is stored.
    type Row = (fn() -> Result<Phase>, Gets, Gets);

    #[test]
    fn who_joins_waits_or_is_answered_by_what_there_is() {
        let phases: [Row; 5] = [
            (|| Ok(waiting()), Gets::Waits, Gets::Waits),
            (here, Gets::Here, Gets::Waits),
            (stored, Gets::Here, Gets::Here),
            (failed, Gets::Waits, Gets::Waits),
            (over, Gets::Over, Gets::Over),
        ];
        let gets = |phase: fn() -> Result<Phase>, is_patient| joins(&mut phase()?, is_patient);
        assert!(every(phases, |&(phase, arrival, stored)| {
            gets(phase, false) == Ok(arrival) && gets(phase, true) == Ok(stored)
        }));
    }

    #[test]
    fn an_arrival_answers_the_impatient_and_storing_the_patient() -> Result {
        let mut phase = waiting();
        for is_patient in [false, true, true, false] {
            assert_eq!(joins(&mut phase, is_patient)?, Gets::Waits);
        }
        // Nothing has ended before it arrives.
        assert!(phase.end().is_none());
        assert_eq!(*who(&phase.arrive(&buf()?))?, [false, false]);
        // One more comes while it is stored.
        assert_eq!(joins(&mut phase, true)?, Gets::Waits);
        let ended = phase.end().ok_or(EIO)?;
        assert!(ended.result.is_ok() && ended.waiters[1].is_empty());
        assert_eq!(*who(&ended.waiters[0])?, [true, true, true]);
        assert!(matches!(phase, Phase::Stored(_)) && phase.end().is_none());
        Ok(())
    }

    #[test]
    fn a_failure_is_everybodys_who_waits_and_ends_once() -> Result {
        let mut phase = waiting();
        for is_patient in [false, true] {
            assert_eq!(joins(&mut phase, is_patient)?, Gets::Waits);
        }
        phase.fail(EIO);
        // One more comes before it has ended.
        assert_eq!(joins(&mut phase, false)?, Gets::Waits);
        let ended = phase.end().ok_or(EIO)?;
        assert!(ended.result.is_err_and(|error| error == EIO));
        assert_eq!(*who(&ended.waiters[0])?, [false, false]);
        assert_eq!(*who(&ended.waiters[1])?, [true]);
        assert!(phase.end().is_none() && phase.arrive(&buf()?).is_empty());
        Ok(())
    }

    #[test]
    fn a_refusal_is_told_apart_from_what_passes() -> Result {
        let rescue = Rescue::new()?;
        let waiter = Waiter::Commit(rescue.clone());
        assert!(matches!(rescue.look(), rescue::Answer::Waiting));
        let refusal = crate::kapi::errno::Errno::NoData.into();
        waiter.fail(PART, refusal);
        assert!(matches!(rescue.look(), rescue::Answer::Refused(run) if run == PART));
        waiter.fail(PART, ENOMEM);
        assert!(matches!(rescue.look(), rescue::Answer::Later));
        Ok(())
    }
}
