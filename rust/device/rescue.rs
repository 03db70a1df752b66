// SPDX-License-Identifier: GPL-2.0-only

//! Blocks that a commit could not read here, fetched again and held at hand. They are not stored in their slots: a guest
//! write may be under way while they are fetched. Whether they may still be used is asked when they are.

use crate::{
    device::{
        inner::Core,
        units::want,
        waiter::Waiter, //
    },
    kapi::page::PageBuf,
    source::Priority,
};
use imgstream_engine::block::Run;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Blocks of the image in memory.
#[derive(Clone)]
pub(super) struct Rescued {
    /// Which.
    pub(super) run: Run,
    /// Pages of the fetch that brought them.
    pub(super) buf: PageBuf,
    /// Where in these the first one is.
    pub(super) offset: usize,
}

/// What became of a fetch for the commit.
#[derive(Clone)]
pub(super) enum Answer {
    /// Nothing yet.
    Waiting,
    /// The blocks are here.
    Here(Rescued),
    /// The repository refused these, which may be more than were asked for.
    Refused(Run),
    /// It failed for a reason that will pass.
    Later,
}

/// A fetch for the commit.
#[pin_data]
pub(super) struct Rescue {
    #[pin]
    answer: Mutex<Answer>,
}

impl Rescue {
    /// Nothing has been asked for yet.
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { answer <- new_mutex!(Answer::Waiting, "imgstream:rescue") }),
            GFP_KERNEL,
        )
    }

    /// Asks for the first blocks of `run`.
    pub(super) fn fetch(core: &Arc<Core>, run: Run) -> Result<Arc<Self>> {
        let this = Self::new()?;
        want(
            core,
            run,
            Waiter::Commit(this.clone()),
            Priority::Background,
            false,
        )?;
        Ok(this)
    }

    /// What became of it; called once.
    pub(super) fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// What is known now.
    pub(super) fn look(&self) -> Answer {
        self.answer.lock().clone()
    }
}
