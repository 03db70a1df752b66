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
