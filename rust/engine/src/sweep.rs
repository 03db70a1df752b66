// SPDX-License-Identifier: GPL-2.0-only

//! Sweep: has all that is absent in a range fetched, round what cannot be had.
//!
//! It goes over the range in passes. The first one asks for large pieces. A piece fails as a whole although perhaps only
//! one of its blocks is bad; so a pass that leaves pieces behind is followed by one that asks for smaller ones
//! ([`narrower`]), down to single blocks. A block that fails alone is bad. Nothing is kept of single blocks but one for
//! a message: what is left is absent, and the map has that.
//!
//! Only what the image's source *refuses* counts, or what came and cannot be written to its slot. What fails for a reason
//! that will pass is asked for again after a pause, and a source that does not answer is waited for. Whatever else asks
//! for a block that is bad has no influence.

use crate::block::Run;
use crate::fill::next_absent;
use crate::locate::Locator;
use crate::trouble::Trouble;

/// How long to wait after something failed that will pass, and before bad blocks are asked for again, in milliseconds.
pub const PAUSE_MS: u64 = 5000;

/// How long that becomes, doubled each time that nothing came.
pub const PAUSE_MAX_MS: u64 = 60_000;

/// How many blocks to ask for at a time where so many were refused; `None` for one that was refused alone.
pub const fn narrower(blocks: u64) -> Option<u64> {
    match blocks {
        0 | 1 => None,
        2..=16 => Some(1),
        _ => Some(16),
    }
}

/// What became of a piece that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It came. What of it is absent yet is asked for again.
    Came,
    /// It did not, for a reason that will pass.
    Later,
    /// The image's source refused these blocks, which may be more than were asked for.
    Refused(Run),
    /// It came, but of these blocks, which may be others than were asked for, the first and the last one at least cannot
    /// be written to their slots.
    Unstored(Run),
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for these blocks, see [`Sweep::ask`].
    Ask(Run),
    /// Wait for an answer.
    Wait,
    /// Wait for so many milliseconds.
    Pause(u64),
    /// All that can be had is here; what is wrong with the first block that is not. Begins anew after a pause.
    Stuck(Trouble),
    /// Nothing is absent.
    Done,
}

/// A block that failed alone.
#[derive(Clone, Copy, Debug)]
struct Bad {
    block: u64,
    /// It came, and cannot be stored.
    came: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    range: Run,
    max: u64,
    /// Blocks to ask for at a time in this pass.
    piece: u64,
    at: u64,
    /// Pieces that were asked for and not answered.
    waiting: u32,
    /// Whether several blocks at once failed in this pass.
    wide: bool,
    /// Whether something failed in this pass together with what was not asked for.
    again: bool,
    /// The first block that failed alone in this pass.
    bad: Option<Bad>,
    /// Whether something came since the last pause, and how long that was.
    came: bool,
    pause_ms: u64,
    resume_ms: u64,
}

impl Bad {
    fn trouble(self, locator: &Locator<'_>) -> Trouble {
        let block = self.block;
        match locator.locate(block, 1) {
            Some(piece) if self.came => Trouble::Unstored {
                block,
                disk_bytes: piece.disk_bytes,
            },
            _ => Trouble::Missing { block },
        }
    }
}

impl Sweep {
    /// A sweep over `range`, which begins with pieces of at most `max` blocks.
    pub const fn new(range: Run, max: u64) -> Self {
        Self {
            range,
            max,
            piece: max,
            at: range.start,
            waiting: 0,
            wide: false,
            again: false,
            bad: None,
            came: false,
            pause_ms: 0,
            resume_ms: 0,
        }
    }

    /// What it goes over.
    pub const fn range(&self) -> Run {
        self.range
    }

    /// What to do now. `now_ms` is any clock that goes forward.
    pub fn next(&mut self, locator: &Locator<'_>, now_ms: u64) -> Next {
        if now_ms < self.resume_ms {
            return Next::Pause(self.resume_ms.saturating_sub(now_ms));
        }
        if let Some(run) = self.absent(locator) {
            return Next::Ask(run);
        }
        if self.waiting != 0 {
            // Their answers say how the pass went.
            return Next::Wait;
        }
        let bad = self.end_pass();
        match (self.absent(locator), bad) {
            (None, _) => Next::Done,
            (Some(run), None) => Next::Ask(run),
            (Some(_), Some(bad)) => {
                self.pause(now_ms);
                Next::Stuck(bad.trouble(locator))
            }
        }
    }

    fn pause(&mut self, now_ms: u64) {
        let longer = match core::mem::take(&mut self.came) {
            true => 0,
            false => self.pause_ms.saturating_mul(2),
        };
        self.pause_ms = longer.clamp(PAUSE_MS, PAUSE_MAX_MS);
        self.resume_ms = now_ms.saturating_add(self.pause_ms);
    }

    fn absent(&self, locator: &Locator<'_>) -> Option<Run> {
        next_absent(locator, self.at, self.range.end(), self.piece)
    }

    /// Back to the start, with the size of pieces that the answers call for. If only single blocks failed, and all of them
    /// for themselves: the first of them.
    fn end_pass(&mut self) -> Option<Bad> {
        self.at = self.range.start;
        let bad = self.bad.take();
        let again = core::mem::take(&mut self.again);
        if core::mem::take(&mut self.wide) {
            self.piece = narrower(self.piece).unwrap_or(1);
            return None;
        }
        if again {
            return None;
        }
        if bad.is_some() {
            self.piece = self.max;
        }
        bad
    }

    /// This run is being asked for: exactly one [`Sweep::answer`] has to follow.
    pub fn ask(&mut self, run: Run) {
        self.at = run.end();
        self.waiting = self.waiting.saturating_add(1);
    }

    /// Of the run that was just asked for the answer will be about its first `blocks` only.
    pub fn cut(&mut self, run: Run, blocks: u64) {
        self.at = run.start.saturating_add(blocks).min(run.end());
    }

    /// What became of something that was asked for.
    pub fn answer(&mut self, answer: Answer, now_ms: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        match answer {
            Answer::Came => self.came = true,
            Answer::Later => self.resume_ms = now_ms.saturating_add(PAUSE_MS),
            Answer::Refused(run) => self.failed(run, false),
            Answer::Unstored(run) => self.failed(run, true),
        }
    }

    fn failed(&mut self, run: Run, came: bool) {
        let block = run.start;
        if run.blocks > self.piece || !self.range.contains(block) {
            // Somebody else's, which this one joined: it says nothing about what was asked for.
            self.again = true;
        } else if run.blocks > 1 {
            self.wide = true;
        } else if self.bad.is_none_or(|first| block < first.block) {
            self.bad = Some(Bad { block, came });
        }
    }
}
