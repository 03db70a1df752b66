// SPDX-License-Identifier: GPL-2.0-only

//! Fetches under way: one for a block, however many readers.

use crate::block::Run;

/// What to do for the first blocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan<T> {
    /// This fetch brings the first of them, and maybe more: wait for it.
    Join(T),
    /// Nobody brings them: start a fetch.
    Start {
        /// Blocks, from the run's start.
        blocks: u64,
    },
}

/// What to do for the first blocks of `run` while these fetches are under way. They are few, and their owner holds a lock
/// around this, never while it waits for the network.
pub fn plan<T>(under_way: impl IntoIterator<Item = (T, Run)>, run: Run) -> Plan<T> {
    let mut blocks = run.blocks;
    for (fetch, brings) in under_way {
        if brings.contains(run.start) {
            return Plan::Join(fetch);
        }
        if brings.start > run.start {
            blocks = blocks.min(brings.start.saturating_sub(run.start));
        }
    }
    Plan::Start { blocks }
}
