// SPDX-License-Identifier: GPL-2.0-only

//! Commit: moves the image home, batch by batch, by the steps of `imgstream_engine::settle`.
//!
//! What a batch lacks is fetched and stored first, as any fill: nothing is excluded while the network is waited for. A
//! dead network is waited for, what the repository refuses is asked for in smaller pieces
//! ([`Asked`](super::asked::Asked)), and a block that it refuses alone stops the commit. Then the batch is excluded and
//! drained, copied, flushed, recorded and routed.
//!
//! If a slot can be read no more, or not be written, the batch ends there; what `settle::remedy` allows to be fetched
//! again is held at hand ([`Rescue`]) for the next attempt, which ends behind it. So each attempt is nearer to what it
//! is about than the last one, and two bad places are not taken in turns for ever. What nothing helps against stops
//! the commit, and is said; it is tried again when somebody says so, or at the next attach.

use crate::{
    device::{
        background::Background,
        inner::{
            Core,
            Member,
            PIECE_BLOCKS, //
        },
        merge,
        rescue::{
            Answer,
            Rescue,
            Rescued, //
        },
    },
    kapi::{
        bio::Op,
        page::PageBuf,
        time::Pacer, //
    },
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    block::{
        BlockState,
        Run, //
    },
    fill::next_absent,
    settle::{
        batch,
        parts,
        remedy,
        Batch,
        Part,
        Remedy,
        Source,
        Step, //
    },
    sweep::Next,
    trouble::Trouble, //
};
use imgstream_proto::disk::{
    State,
    BLOCK_LEN, //
};
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
/// What is tried again is said once a minute at most.
static RETRIES: Pacer = Pacer::new(60_000);

/// Why a step did not end well.
enum Halt {
    /// For want of memory: soon there may be some.
    Later(Error),
    /// A slot cannot be read, or cannot be written.
    Bad(Slot),
    /// Trying again would be of no use.
    Stop(Trouble),
}

/// A slot.
struct Slot {
    block: u64,
    disk_bytes: u64,
    state: BlockState,
    /// Where the piece ends that it belongs to: up to there blocks have one state.
    end: u64,
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Later(error.into())
    }
}

/// One batch, or a step towards it; when to come again.
pub(super) fn step(background: &Background) -> u32 {
    match try_step(background) {
        Ok(wait) => wait,
        Err(Halt::Later(error)) => {
            say_again(|more| pr_err!("commit: {error:?}; trying again ({more} more before)\n"));
            ERROR_MS
        }
        Err(Halt::Bad(slot)) => rescue(background, &slot),
        Err(Halt::Stop(trouble)) => {
            background.stopped(trouble);
            0
        }
    }
}

/// Has what cannot be read or stored here fetched again, if that is of use.
fn rescue(background: &Background, slot: &Slot) -> u32 {
    let core = &background.core;
    let refused = background.rescue().and_then(|last| match last.look() {
        Answer::Refused(run) => Some(run),
        _ => None,
    });
    let (block, at) = (slot.block, slot.disk_bytes);
    let independent = core.independent.load(Ordering::SeqCst);
    match remedy(core.trust, independent, slot.state, block, at, refused) {
        Remedy::Fetch(blocks) => {
            let what = match slot.state {
                BlockState::Absent => "stored",
                _ => "read",
            };
            say_again(|more| {
                pr_warn!(
                    "commit: block {block} cannot be {what} here and is fetched again ({more} more before)\n"
                );
            });
            let run = Run::from_to(block, slot.end.min(block.saturating_add(blocks)));
            // A fetch that cannot even begin is begun again after the next attempt.
            background.set_rescue(Rescue::fetch(core, run).ok());
            FETCH_MS
        }
        Remedy::Stop(trouble) => {
            background.stopped(trouble);
            0
        }
    }
}

fn say_again(say: impl FnOnce(u64)) {
    if let Some(more) = RETRIES.due() {
        say(more);
    }
}

fn try_step(background: &Background) -> Result<u32, Halt> {
    let core = &background.core;
    let (rescued, end) = match background.rescue().map(|rescue| rescue.look()) {
        Some(Answer::Waiting) => return Ok(FETCH_MS),
        Some(Answer::Later) => {
            background.set_rescue(None);
            return Ok(ERROR_MS);
        }
        Some(Answer::Here(rescued)) => {
            let end = rescued.run.end();
            (Some(rescued), end)
        }
        Some(Answer::Refused(run)) => (None, run.end()),
        None => (None, u64::MAX),
    };
    let Some(run) = next_batch(core, end) else {
        return finish(background);
    };
    if !core.may_change_state() {
        return Err(Halt::Stop(Trouble::Unrecorded));
    }
    let lacking = match &rescued {
        Some(rescued) => Run::from_to(run.start, run.end().min(rescued.run.start)),
        None => run,
    };
    if let Some(wait) = bring(background, lacking)? {
        return Ok(wait);
    }
    if let Err(wait) = background.take(run.blocks) {
        return Ok(u32::try_from(wait).unwrap_or(ERROR_MS));
    }
    settle(core, run, rescued.as_ref())?;
    background.set_rescue(None);
    Ok(0)
}

/// The next batch, which ends at `end` at the latest: behind blocks that are at hand, or that had to be asked for again.
fn next_batch(core: &Core, end: u64) -> Option<Run> {
    let counter = core.tables.locator().counter();
    let offset = core.tables.geometry().offset_blocks();
    let max = BATCH_BLOCKS.min(end.saturating_sub(counter));
    batch(counter, counter, offset, core.tables.blocks(), max)
}

/// Fetches what is absent in `run`; when to look again, unless nothing is.
fn bring(background: &Background, run: Run) -> Result<Option<u32>, Halt> {
    let core = &background.core;
    if next_absent(&core.tables.locator(), run.start, run.end(), 1).is_none() {
        // Also if something is still being fetched that the guest has written meanwhile.
        return Ok(None);
    }
    // The pace holds the moving back; what it needs may come.
    match background.asked(run)?.go_on(core, WINDOW, |_| Ok(()))? {
        Next::Done => Ok(None),
        Next::Ask(_) | Next::Wait => Ok(Some(FETCH_MS)),
        Next::Pause(_) => Ok(Some(ERROR_MS)),
        Next::Stuck(Trouble::Unstored { block, disk_bytes }) => {
            unstored(core, block, disk_bytes, run.end())
        }
        Next::Stuck(trouble) => Err(Halt::Stop(trouble)),
    }
}

/// A block came and cannot be stored. It need not be: nothing but its home location counts once it is home.
fn unstored(core: &Core, block: u64, disk_bytes: u64, end: u64) -> Result<Option<u32>, Halt> {
    match next_absent(&core.tables.locator(), block, end, PIECE_BLOCKS) {
        Some(absent) if absent.start == block => Err(Halt::Bad(Slot {
            block,
            disk_bytes,
            state: BlockState::Absent,
            end: absent.end(),
        })),
        // The guest has written it meanwhile.
        _ => Ok(Some(FETCH_MS)),
    }
}

/// Moves a batch home. If it fails before the counter is recorded, nothing has moved.
fn settle(core: &Arc<Core>, run: Run, rescued: Option<&Rescued>) -> Result<(), Halt> {
    let buf = PageBuf::new(&core.moves, usize::try_from(PIECE_BLOCKS)?)?;
    let mut batch = Batch::new(run);
    let result = loop {
        let done = match batch.next() {
            Step::Exclude(run) => {
                core.exclude(run);
                core.drain();
                Ok(())
            }
            Step::WriteHome(run) => write_home(core, run, &buf, rescued),
            Step::Flush => core
                .store
                .flush_disk()
                .map_err(|_| Halt::Stop(Trouble::Unflushed)),
            Step::Record(blocks) => core
                .store
                .record_counter(blocks)
                .map_err(|_| Halt::Stop(Trouble::Unrecorded)),
            Step::Route(blocks) => {
                core.tables.locator().raise_counter(blocks);
                Ok(())
            }
            Step::Release(_) | Step::Done => break Ok(()),
        };
        if let Err(halt) = done {
            break Err(halt);
        }
        batch.advance();
    };
    core.exclude(Run::new(0, 0));
    core.retry.wake();
    result
}

fn write_home(
    core: &Arc<Core>,
    run: Run,
    buf: &PageBuf,
    rescued: Option<&Rescued>,
) -> Result<(), Halt> {
    // In an epoch of its own: `drain` was before, and states of excluded blocks stand still.
    let member = core.enter();
    let locator = core.tables.locator();
    for part in parts(&locator, run) {
        let mut at = part.run.start;
        while at < part.run.end() {
            let piece = piece(&part, at, rescued);
            move_piece(&member, &part, piece, buf, rescued)?;
            at = piece.end();
        }
    }
    Ok(())
}

/// The next piece of a part: not too long, and with all of it rescued or nothing.
fn piece(part: &Part, at: u64, rescued: Option<&Rescued>) -> Run {
    let piece = Run::from_to(at, part.run.end().min(at.saturating_add(PIECE_BLOCKS)));
    match rescued {
        Some(rescued) if rescued.run.start > at => {
            Run::from_to(at, piece.end().min(rescued.run.start))
        }
        Some(rescued) if rescued.run.contains(at) => piece.intersection(&rescued.run),
        _ => piece,
    }
}

fn move_piece(
    member: &Member,
    part: &Part,
    piece: Run,
    buf: &PageBuf,
    rescued: Option<&Rescued>,
) -> Result<(), Halt> {
    let at_hand = |state| {
        rescued.filter(|rescued| member.trust.may_fetch(state) && rescued.run.contains(piece.start))
    };
    match part.source {
        Source::Skip => Ok(()),
        Source::Zeroes => member
            .disk
            .write_zeroes(piece.start_bytes(), piece.bytes())
            .map_err(|_| {
                member.counters.errors_write.fetch_add(1, Ordering::Relaxed);
                unwritable(piece.start)
            }),
        Source::Fetch => match at_hand(BlockState::Absent) {
            // Still absent: the guest has not written it, so it is what the image says.
            Some(rescued) => put_rescued(member, piece, rescued),
            // All else was here before the batch was excluded, and nothing becomes absent.
            None => Err(EAGAIN.into()),
        },
        Source::Slot { disk_bytes, state } => {
            if let Some(rescued) = at_hand(state) {
                // Still clean, and clean can be relied on: so this is what the slot says.
                return put_rescued(member, piece, rescued);
            }
            let skip = Run::from_to(part.run.start, piece.start).bytes();
            let from = disk_bytes.checked_add(skip).ok_or(EINVAL)?;
            transfer(member, Op::Read, from, piece, buf, 0).map_err(|block| {
                let inside = Run::from_to(piece.start, block).bytes();
                Halt::Bad(Slot {
                    block,
                    disk_bytes: from.saturating_add(inside),
                    state,
                    end: piece.end(),
                })
            })?;
            put_home(member, piece, buf, 0)
        }
    }
}

fn put_rescued(member: &Member, piece: Run, rescued: &Rescued) -> Result<(), Halt> {
    let inside = Run::from_to(rescued.run.start, piece.start).bytes() as usize;
    let offset = rescued.offset.saturating_add(inside);
    put_home(member, piece, &rescued.buf, offset)
}

fn put_home(member: &Member, piece: Run, buf: &PageBuf, offset: usize) -> Result<(), Halt> {
    transfer(member, Op::Write, piece.start_bytes(), piece, buf, offset).map_err(unwritable)
}

fn unwritable(block: u64) -> Halt {
    Halt::Stop(Trouble::Unwritable { block })
}

/// Reads or writes the blocks of `run`, which stand at `disk_bytes`. If that fails they are done one by one, so that only
/// the bad ones fail. `Err`: the first of these.
fn transfer(
    member: &Member,
    op: Op,
    disk_bytes: u64,
    run: Run,
    buf: &PageBuf,
    offset: usize,
) -> Result<(), u64> {
    if merge::local(member, op, disk_bytes, buf, offset, run.bytes() as usize).is_ok() {
        return Ok(());
    }
    for block in run.start..run.end() {
        let inside = Run::from_to(run.start, block).bytes();
        let at = disk_bytes.saturating_add(inside);
        let from = offset.saturating_add(inside as usize);
        merge::local(member, op, at, buf, from, BLOCK_LEN).map_err(|_| block)?;
    }
    Ok(())
}

fn finish(background: &Background) -> Result<u32, Halt> {
    let tables = &background.core.tables;
    if tables.locator().counter() != tables.blocks() {
        // No batch because of blocks at hand that are home already: go on without them.
        background.set_rescue(None);
        return Ok(FETCH_MS);
    }
    background
        .core
        .store
        .set_state(State::Committed)
        .map_err(|_| Halt::Stop(Trouble::Unrecorded))?;
    pr_info!("committed: every block is at home\n");
    background.committed();
    Ok(0)
}
