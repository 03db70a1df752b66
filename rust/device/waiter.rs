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

    /// Tells it about `part` of the blocks `all` that were fetched together, into the buffer. Process context.
    pub(super) fn answer(&self, core: &Arc<Core>, part: Run, all: Run, result: Result<&PageBuf>) {
        match result {
            Ok(buf) => self.answer_with(core, part, all, buf),
            Err(error) => self.fail(all, error),
        }
    }

    fn answer_with(&self, core: &Arc<Core>, part: Run, all: Run, buf: &PageBuf) {
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

    fn fail(&self, all: Run, error: Error) {
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
    Waiting(Waiters, Waiters),
    /// Arrived and being stored; who waits for that. The work item answers them, not he who receives.
    Here(Waiters),
    Stored,
    Failed(Error),
}

impl Phase {
    /// Lets `waiter` wait for `part`, or gives it back with the answer.
    pub(super) fn join(&mut self, waiter: Waiter, part: Run) -> Result<Option<(Waiter, Result)>> {
        let waiters = match self {
            Self::Waiting(_, waiters) | Self::Here(waiters) if waiter.is_patient() => waiters,
            Self::Waiting(waiters, _) => waiters,
            Self::Here(_) | Self::Stored => return Ok(Some((waiter, Ok(())))),
            Self::Failed(error) => return Ok(Some((waiter, Err(*error)))),
        };
        waiters.push((waiter, part), GFP_KERNEL)?;
        Ok(None)
    }

    /// It has arrived, or never will: who is told so now.
    pub(super) fn arrive(&mut self, result: Result) -> (Waiters, Waiters) {
        let next = match result {
            Ok(()) => Self::Here(KVec::new()),
            Err(error) => Self::Failed(error),
        };
        let Self::Waiting(early, mut late) = core::mem::replace(self, next) else {
            return (KVec::new(), KVec::new());
        };
        if let Self::Here(waiters) = self {
            *waiters = core::mem::take(&mut late);
        }
        (early, late)
    }

    /// It is stored as far as it can be: who is told so now.
    pub(super) fn stored(&mut self) -> Waiters {
        let Self::Here(waiters) = self else {
            return KVec::new();
        };
        let waiters = core::mem::take(waiters);
        *self = Self::Stored;
        waiters
    }
}

#[kunit_tests(imgstream_waiter)]
mod tests {
    use super::*;
    use crate::{
        kapi::testing::every,
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

    /// A phase, what one gets who waits for the arrival, what one gets who waits until it is stored; `None` waits.
    type Row = (fn() -> Phase, Option<Result>, Option<Result>);

    const fn waiting() -> Phase {
        Phase::Waiting(KVec::new(), KVec::new())
    }

    /// Who is in a list: whether each is patient, and waits for the part that it asked for.
    fn who(waiters: &Waiters) -> Result<KVec<bool>> {
        let mut found = KVec::new();
        for (waiter, part) in waiters {
            found.push(waiter.is_patient() && *part == PART, GFP_KERNEL)?;
        }
        Ok(found)
    }

    /// What becomes of one who joins: `None`, it waits; or the answer.
    fn joins(phase: &mut Phase, is_patient: bool) -> Result<Option<Result>> {
        let answer = phase.join(waiter(is_patient)?, PART)?;
        // It is given back as it came.
        let same =
            |(back, result): (Waiter, Result)| (back.is_patient() == is_patient).then_some(result);
        answer.map(|answer| same(answer).ok_or(EIO)).transpose()
    }

    #[test]
    fn who_joins_waits_or_is_answered_by_what_there_is() {
        let phases: [Row; 4] = [
            (waiting, None, None),
            (|| Phase::Here(KVec::new()), Some(Ok(())), None),
            (|| Phase::Stored, Some(Ok(())), Some(Ok(()))),
            (|| Phase::Failed(EIO), Some(Err(EIO)), Some(Err(EIO))),
        ];
        assert!(every(phases, |&(phase, arrival, stored)| {
            let impatient = joins(&mut phase(), false);
            let patient = joins(&mut phase(), true);
            impatient == Ok(arrival) && patient == Ok(stored)
        }));
    }

    #[test]
    fn an_arrival_answers_the_impatient_and_storing_the_patient() -> Result {
        let mut phase = waiting();
        for is_patient in [false, true, true, false] {
            assert_eq!(joins(&mut phase, is_patient)?, None);
        }
        // Nothing is stored before it arrives.
        assert!(phase.stored().is_empty());
        let (early, late) = phase.arrive(Ok(()));
        assert!(*who(&early)? == [false, false] && late.is_empty());
        // One more comes while it is stored.
        assert_eq!(joins(&mut phase, true)?, None);
        assert_eq!(*who(&phase.stored())?, [true, true, true]);
        assert!(matches!(phase, Phase::Stored) && phase.stored().is_empty());
        Ok(())
    }

    #[test]
    fn a_failure_is_everybodys() -> Result {
        let mut phase = waiting();
        for is_patient in [false, true] {
            assert_eq!(joins(&mut phase, is_patient)?, None);
        }
        let (early, late) = phase.arrive(Err(EIO));
        assert!(*who(&early)? == [false] && *who(&late)? == [true]);
        assert!(matches!(phase, Phase::Failed(error) if error == EIO));
        assert!(phase.stored().is_empty());
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
