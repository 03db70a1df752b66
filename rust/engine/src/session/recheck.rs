// SPDX-License-Identifier: GPL-2.0-only

//! The identity check of a connection that lasts.
//!
//! A target that puts another unit behind a running session should report a unit attention; some do not. So while reads
//! are served, designator, size, trailer and canaries are looked at again, beside the reads, one command at a time. A
//! connection that reads nothing is not asked; its next read has the check at its side.

use core::ops::DerefMut;

use super::reason::Reason;
use super::{Session, Stage};

/// When the unit was looked at.
#[derive(Debug)]
pub(super) struct Recheck {
    /// When the last check that found everything right ended.
    right_at: u64,
    /// A read has ended since then.
    used: bool,
    /// A check is under way.
    running: bool,
}

impl Recheck {
    pub(super) const fn new() -> Self {
        Self {
            right_at: 0,
            used: false,
            running: false,
        }
    }

    /// A check, the first one or a later one, found everything right.
    pub(super) fn right(&mut self, now: u64) {
        *self = Self {
            right_at: now,
            ..Self::new()
        };
    }

    /// A read has ended.
    pub(super) fn used(&mut self) {
        self.used = true;
    }

    pub(super) const fn running(&self) -> bool {
        self.running
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// When the next check is to begin: a while after the last one, if anything is or was read.
    pub(super) fn recheck_at(&self) -> Option<u64> {
        let recheck = &self.recheck;
        let reads = recheck.used || self.reads.outstanding() != 0;
        let wanted = self.stage == Stage::Ready && self.config.identity.is_some();
        (wanted && reads && !recheck.running)
            .then_some(recheck.right_at.saturating_add(self.config.timing.recheck))
    }

    /// Begins a check that is due, and sends the next command of the one that is under way.
    pub(super) fn put_recheck(&mut self) {
        if self.recheck_at().is_some_and(|at| self.now >= at) {
            self.recheck.running = true;
            self.identify.begin_again();
            self.clock.restart_step(self.now);
        }
        if self.recheck.running {
            self.put_identify();
        }
    }

    /// What a difference means on a connection that has served reads: those since the last check are of no use.
    pub(super) fn exchanged(&self, reason: Reason) -> Reason {
        match reason {
            Reason::WrongImage(mismatch) if self.recheck.running => Reason::Exchanged {
                mismatch,
                since_ms: self.now.saturating_sub(self.recheck.right_at),
            },
            other => other,
        }
    }
}
