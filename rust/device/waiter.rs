// SPDX-License-Identifier: GPL-2.0-only

//! Who waits for a fetch, and what they are told.

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
