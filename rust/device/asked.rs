// SPDX-License-Identifier: GPL-2.0-only

//! What the background asks the repository for: a sweep of the engine, told by the fetches what became of them.

use crate::{
    device::{
        inner::{
            Core,
            PIECE_BLOCKS, //
        },
        units::want,
        waiter::Waiter, //
    },
    kapi::time::now_ms,
    source::Priority,
};
use imgstream_engine::{
    block::Run,
    sweep::{
        Answer,
        Next,
        Sweep, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// A range that is to be here.
#[pin_data]
pub(super) struct Asked {
    range: Run,
    priority: Priority,
    #[pin]
    sweep: Mutex<Sweep>,
}

impl Asked {
    /// Nothing has been asked for yet.
    pub(super) fn new(range: Run, priority: Priority) -> Result<Arc<Self>> {
        let sweep = Sweep::new(range, PIECE_BLOCKS);
        Arc::pin_init(
            pin_init!(Self {
                range,
                priority,
                sweep <- new_mutex!(sweep, "imgstream:asked"),
            }),
            GFP_KERNEL,
        )
    }

    /// What is to be here.
    pub(super) fn range(&self) -> Run {
        self.range
    }

    /// What became of something that was asked for. Process context.
    pub(super) fn answer(&self, answer: Answer) {
        self.sweep.lock().answer(answer, now_ms());
    }

    /// Asks for what is absent while fewer than `window` fetches are under way and `pace` lets so many blocks pass, or
    /// says how many milliseconds to wait; what to do then. `Ask`: the same again. By one caller at a time.
    pub(super) fn go_on(
        self: &Arc<Self>,
        core: &Arc<Core>,
        window: usize,
        pace: impl Fn(u64) -> Result<(), u64>,
    ) -> Result<Next> {
        loop {
            let next = self.sweep.lock().next(&core.tables.locator(), now_ms());
            let Next::Ask(run) = next else {
                return Ok(next);
            };
            if core.units.len() >= window {
                return Ok(next);
            }
            if let Err(wait) = pace(run.blocks) {
                return Ok(Next::Pause(wait));
            }
            self.ask(core, run)?;
        }
    }

    fn ask(self: &Arc<Self>, core: &Arc<Core>, run: Run) -> Result {
        // Before the answer, which may come at once. Not with the lock, which that takes.
        self.sweep.lock().ask(run);
        let waiter = Waiter::Batch(self.clone());
        match want(core, run, waiter, self.priority, true) {
            Ok(blocks) => {
                self.sweep.lock().cut(run, blocks);
                Ok(())
            }
            Err(error) => {
                self.answer(Answer::Later);
                Err(error)
            }
        }
    }
}
