// SPDX-License-Identifier: GPL-2.0-only

//! Commit: moves the image home, batch by batch, by the steps of `imgstream_engine::settle`.
//!
//! What a batch lacks is fetched and stored first, as any fill: nothing is excluded while the network is waited for. Then
//! the batch is excluded and drained, copied, flushed, recorded and routed.

use crate::{
    device::{
        background::Background,
        inner::{
            Core,
            Member,
            PIECE_BLOCKS, //
        },
        merge,
        units::{
            want,
            Waiter, //
        },
    },
    kapi::{
        bio::Op,
        page::PageBuf, //
    },
    source::Priority,
};
use imgstream_engine::{
    block::Run,
    fill::next_absent,
    settle::{
        batch,
        parts,
        Batch,
        Part,
        Source,
        Step, //
    },
};
use imgstream_proto::disk::State;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Blocks of a batch: 16 MiB. A batch costs a drain (some tens of milliseconds) and three flushes, and holds guest
/// writes to it up for as long as copying takes.
const BATCH_BLOCKS: u64 = 4096;
/// When to look again while something is being fetched, in milliseconds.
const FETCH_MS: u32 = 5;
/// When to try again after an error.
const ERROR_MS: u32 = 2000;
/// Fetches for a batch at a time.
const WINDOW: usize = 8;

/// One batch, or a step towards it; when to come again.
pub(super) fn step(background: &Background) -> u32 {
    let core = &background.core;
    let counter = core.tables.locator().counter();
    let offset = core.tables.geometry().offset_blocks();
    let Some(run) = batch(counter, counter, offset, core.tables.blocks(), BATCH_BLOCKS) else {
        return finish(background);
    };
    if !core.may_change_state() || core.fetch_failed_lately() {
        return ERROR_MS;
    }
    match bring(core, run) {
        Ok(true) => {}
        Ok(false) => return FETCH_MS,
        Err(_) => return ERROR_MS,
    }
    if let Err(wait) = background.take(run.blocks) {
        return wait;
    }
    match settle(core, run) {
        Ok(()) => 0,
        Err(error) => {
            pr_err!(
                "commit: blocks from {} on could not be moved home ({:?}); trying again\n",
                run.start,
                error
            );
            ERROR_MS
        }
    }
}

/// Fetches what is absent in `run`; whether nothing is.
fn bring(core: &Arc<Core>, run: Run) -> Result<bool> {
    let locator = core.tables.locator();
    let mut at = run.start;
    let mut complete = true;
    while let Some(absent) = next_absent(&locator, at, run.end(), PIECE_BLOCKS) {
        complete = false;
        at = absent.end();
        if core.units.len() >= WINDOW {
            break;
        }
        if !core.units.overlaps(absent) {
            want(core, absent, Waiter::Nobody, Priority::Background, true)?;
        }
    }
    Ok(complete)
}

/// Moves a batch home. If it fails before the counter is recorded, nothing has moved.
fn settle(core: &Arc<Core>, run: Run) -> Result {
    let buf = PageBuf::new(&core.pool, usize::try_from(PIECE_BLOCKS)?)?;
    let mut batch = Batch::new(run);
    let result = loop {
        let done = match batch.next() {
            Step::Exclude(run) => {
                core.exclude(run);
                core.drain();
                Ok(())
            }
            Step::WriteHome(run) => write_home(core, run, &buf),
            Step::Flush => core.disk.flush(),
            Step::Record(blocks) => core.store.set_counter(blocks),
            Step::Route(blocks) => {
                core.tables.locator().raise_counter(blocks);
                Ok(())
            }
            Step::Release(_) | Step::Done => break Ok(()),
        };
        if let Err(error) = done {
            break Err(error);
        }
        batch.advance();
    };
    core.exclude(Run::new(0, 0));
    core.retry.wake();
    result
}

fn write_home(core: &Arc<Core>, run: Run, buf: &PageBuf) -> Result {
    // In an epoch of its own: `drain` was before, and states of excluded blocks stand still.
    let member = core.enter();
    let locator = core.tables.locator();
    for part in parts(&locator, run) {
        let mut at = part.run.start;
        while at < part.run.end() {
            let piece = Run::from_to(at, part.run.end().min(at.saturating_add(PIECE_BLOCKS)));
            move_piece(&member, &part, piece, buf)?;
            at = piece.end();
        }
    }
    Ok(())
}

fn move_piece(member: &Member, part: &Part, piece: Run, buf: &PageBuf) -> Result {
    let len = usize::try_from(piece.bytes())?;
    match part.source {
        Source::Skip => Ok(()),
        Source::Zeroes => member.disk.write_zeroes(piece.start_bytes(), piece.bytes()),
        // All was here before the batch was excluded, and nothing becomes absent.
        Source::Fetch => Err(EAGAIN),
        Source::Slot { disk_bytes } => {
            let skip = Run::from_to(part.run.start, piece.start).bytes();
            let from = disk_bytes.checked_add(skip).ok_or(EINVAL)?;
            merge::local(member, Op::Read, from, buf, 0, len)?;
            merge::local(member, Op::Write, piece.start_bytes(), buf, 0, len)
        }
    }
}

fn finish(background: &Background) -> u32 {
    match background.core.store.set_state(State::Committed) {
        Ok(()) => {
            pr_info!("committed: every block is at home\n");
            background.committed();
            0
        }
        Err(error) => {
            pr_err!(
                "commit: the last state could not be recorded ({:?}); trying again\n",
                error
            );
            ERROR_MS
        }
    }
}
