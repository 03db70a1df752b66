// SPDX-License-Identifier: GPL-2.0-only

//! The identity check of a connection that lasts.
//!
//! A target that puts another unit behind a running session should report a unit attention; some do not. So while reads
//! are served, designator, size, trailer and canaries are looked at again, beside the reads, one command at a time. A
//! connection that reads nothing is not asked; its next read has the check right behind it.

use core::ops::DerefMut;

use super::reason::Reason;
use super::{Session, Stage};

/// When the unit was looked at.
#[derive(Debug)]
pub(super) struct Recheck {
    /// When the last check that found everything right began; of the first one, when it ended.
    right_at: u64,
    /// A read was answered since the last check began.
    used: bool,
    /// Since when a check is under way.
    began: Option<u64>,
    /// When a read was answered that was sent long after the command of the check.
    overtaken: Option<u64>,
    /// There is a reason to begin one now.
    suspected: bool,
}

impl Recheck {
    pub(super) const fn new() -> Self {
        Self {
            right_at: 0,
            used: false,
            began: None,
            overtaken: None,
            suspected: false,
        }
    }

    /// A check, the first one or a later one, found everything right.
    pub(super) fn right(&mut self, now: u64) {
        self.right_at = self.began.take().unwrap_or(now);
    }

    pub(super) const fn running(&self) -> bool {
        self.began.is_some()
    }

    /// A command of the check was answered.
    pub(super) fn answered(&mut self) {
        self.overtaken = None;
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// Another session has met another image: this one looks again, now, or when it is ready or has ended the check that runs.
    /// Its reads go on meanwhile, as beside any check.
    pub fn suspect(&mut self) {
        self.recheck.suspected = true;
    }

    /// When the next check is to begin: a while after the last one, if anything was read since; at once, if there is a reason.
    pub(super) fn recheck_at(&self) -> Option<u64> {
        let recheck = &self.recheck;
        let wanted = self.stage == Stage::Ready && self.config.identity.is_some();
        let due = match recheck.suspected {
            true => Some(0),
            false => recheck
                .used
                .then_some(recheck.right_at.saturating_add(self.config.timing.recheck)),
        };
        due.filter(|_| wanted && !recheck.running())
    }

    /// Begins a check.
    pub(super) fn begin_recheck(&mut self) {
        self.recheck = Recheck {
            began: Some(self.now),
            right_at: self.recheck.right_at,
            ..Recheck::new()
        };
        self.identify.begin_again();
        self.clock.restart_step(self.now);
    }

    /// A read was answered. If it was sent long after the command of the check, that one seems to be lost: on a slow link it
    /// stands behind the data of reads that were sent before, and of no others.
    pub(super) fn recheck_read(&mut self, index: usize) {
        self.recheck.used = true;
        let lost = self
            .clock
            .step()
            .saturating_add(self.config.timing.progress);
        let sent_at = self.reads.slot(index).map(|slot| slot.sent_at);
        if sent_at.is_some_and(|sent_at| lost <= sent_at) {
            self.recheck.overtaken = self.recheck.overtaken.or(Some(self.now));
        }
    }

    /// Since when a check has been waiting for its answer, and for nothing else.
    pub(super) fn recheck_waits_since(&self) -> Option<u64> {
        let alone =
            (self.reads.sent() == 0).then(|| self.clock.step().max(self.clock.progressed()));
        let since = self.recheck.overtaken.or(alone);
        since.filter(|_| self.recheck.running())
    }

    /// What a difference means on a connection that has served reads: those since the last check are of no use.
    pub(super) fn exchanged(&self, reason: Reason) -> Reason {
        match reason {
            Reason::WrongImage(mismatch) if self.recheck.running() => Reason::Exchanged {
                mismatch,
                since_ms: self.now.saturating_sub(self.recheck.right_at),
            },
            other => other,
        }
    }
}
