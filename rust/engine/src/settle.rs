// SPDX-License-Identifier: GPL-2.0-only

//! Settle: moves blocks to their final places. Commit is settle of the whole image, ascending.
//!
//! What is absent is fetched before a batch begins ([`crate::sweep`]), so that nothing is excluded while the network is
//! waited for. Blocks never become absent, so nothing else can be missing once the batch is excluded. What came and
//! cannot be stored is held in memory instead and goes home from there: if it is still absent when the batch is excluded,
//! nobody has written it, and as for any block nothing is said of it before its home location is durable.
//!
//! A batch `[c, c + n)` goes through these steps; each is there for a reason:
//!
//! 1. `Exclude`: new guest writes to the batch wait, and *all* I/O that was routed before, reads too and to whatever
//!    block, has finished. Rule 5: this batch overwrites slots of earlier batches, so nobody who looked one up may still
//!    be on the way; and nobody may write a slot whose contents were copied already. Reads may go on meanwhile: their
//!    slots are only copied, and the next batch drains them before it overwrites anything.
//! 2. `WriteHome`: [`parts`] says for each block where its bytes come from.
//! 3. `Flush`: what the counter will speak of is durable (rule 1).
//! 4. `Record`: the counter `c + n` becomes durable, in both journal copies.
//! 5. `Route`: the locator's counter is raised; not earlier, for what the guest then writes at home would not be found
//!    after a cut (rule 9).
//! 6. `Release`: waiting writes go on, and find their blocks at home.
//!
//! Overlap (rule 5 again): the home location of block `i` is the slot of block `i - offset`. A batch up to `end` destroys
//! the slots of blocks below `end - offset`; these must be home for good, that is `end <= durable counter + offset`. With
//! one batch at a time that is `n <= offset`; [`batch`] holds it for pipelined ones too. The batch's own slots begin at
//! home location `c + offset >= c + n`, so redoing it after a cut reads what it read the first time.
//!
//! A slot that cannot be read, or written, ends its batch; [`remedy`] says what then. Nothing has moved, so guest I/O goes
//! on as before, and what is fetched again is waited for with nothing excluded.

use crate::block::{BlockState, Run};
use crate::locate::{Locator, Place};
use crate::sweep::narrower;
use crate::trouble::Trouble;
use crate::trust::Trust;

/// Rule 8 in one place: where the bytes for the home location of a block come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is home already (live boot block): nothing to do.
    Skip,
    /// Zeroes are written; what stands in the slot or at home is old.
    Zeroes,
    /// From the image, held in memory; what stands in the slot is old.
    Fetch,
    /// From the slot at this byte of the disk.
    Slot {
        /// The first byte.
        disk_bytes: u64,
        /// Clean or dirty.
        state: BlockState,
    },
}

/// Blocks of a batch with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The blocks.
    pub run: Run,
    /// Where their bytes come from.
    pub source: Source,
}

/// The next batch, at most `max` blocks: from `next` on, ending where rule 5 allows. `durable` is the durable
/// counter; I/O to the slots below it was drained when their batches were excluded. `None`: at the end, or an earlier
/// batch must be recorded first.
pub fn batch(
    durable: u64,
    next: u64,
    offset_blocks: u64,
    image_blocks: u64,
    max: u64,
) -> Option<Run> {
    let limit = durable.saturating_add(offset_blocks).min(image_blocks);
    let end = next.saturating_add(max).min(limit);
    let run = Run::from_to(next, end);
    (!run.is_empty()).then_some(run)
}

/// The parts of a batch, ascending. The batch must be excluded, so that states stand still.
pub fn parts<'a>(locator: &'a Locator<'a>, run: Run) -> impl Iterator<Item = Part> + 'a {
    let mut at = run.start;
    core::iter::from_fn(move || {
        let piece = locator.locate(at, run.end().saturating_sub(at))?;
        let source = match (piece.place, piece.state) {
            (Place::Home, _) => Source::Skip,
            (Place::Zero, _) => Source::Zeroes,
            (Place::Absent, _) => Source::Fetch,
            (Place::Slot, BlockState::Clean | BlockState::Dirty) => Source::Slot {
                disk_bytes: piece.disk_bytes,
                state: piece.state,
            },
            // The locator names a slot for no other state.
            (Place::Slot, _) => return None,
        };
        let part = Run::new(at, piece.blocks);
        at = part.end();
        Some(Part { run: part, source })
    })
}

/// What to do about a slot that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Fetch so many blocks from it on from the image, then begin the batch again with them at hand.
    Fetch(u64),
    /// Stop: only a person can help.
    Stop(Trouble),
}

/// Blocks that are fetched again at a time: few, for they are held while a piece is moved.
const RESCUE_BLOCKS: u64 = 16;

/// What to do about a slot that cannot be read, or, of an absent block, not be written: the rules for readers,
/// [`Trust::may_fetch`], hold for a commit, too. `independent`: the image is never asked again. `refused`: what its source
/// refused when it was asked last.
pub fn remedy(
    trust: Trust,
    independent: bool,
    state: BlockState,
    block: u64,
    disk_bytes: u64,
    refused: Option<Run>,
) -> Remedy {
    let blocks = match refused.filter(|run| run.contains(block)) {
        Some(run) => narrower(run.blocks),
        None => Some(RESCUE_BLOCKS),
    };
    match blocks {
        Some(blocks) if trust.may_fetch(state) && !independent => Remedy::Fetch(blocks),
        _ if state == BlockState::Absent => Remedy::Stop(Trouble::Missing { block }),
        _ => Remedy::Stop(Trouble::Unreadable { block, disk_bytes }),
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hold new guest writes to these blocks, then wait until no I/O is under way that began before.
    Exclude(Run),
    /// Write what [`parts`] says to the home locations.
    WriteHome(Run),
    /// Flush the disk.
    Flush,
    /// Make this copy counter durable (a flush round that records it).
    Record(u64),
    /// [`Locator::raise_counter`].
    Route(u64),
    /// Let held writes go on.
    Release(Run),
    /// The batch is home.
    Done,
}

/// A batch under way.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    run: Run,
    done: u8,
}

impl Batch {
    /// The batch that [`batch`] named.
    pub const fn new(run: Run) -> Self {
        Self { run, done: 0 }
    }

    /// Its blocks.
    pub const fn run(&self) -> Run {
        self.run
    }

    /// What to do now.
    pub const fn next(&self) -> Step {
        match self.done {
            0 => Step::Exclude(self.run),
            1 => Step::WriteHome(self.run),
            2 => Step::Flush,
            3 => Step::Record(self.run.end()),
            4 => Step::Route(self.run.end()),
            5 => Step::Release(self.run),
            _ => Step::Done,
        }
    }

    /// The step that [`Batch::next`] named has succeeded. If one up to `Record` fails: release the run, nothing has
    /// moved.
    pub fn advance(&mut self) {
        self.done = self.done.saturating_add(1);
    }
}
