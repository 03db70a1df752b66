// SPDX-License-Identifier: GPL-2.0-only

//! What connections ended with before: tells one mishap from something that goes on.

use core::mem::discriminant;
use core::ops::DerefMut;

use super::reason::{Reason, Violation};
use super::{Session, Stage};

/// Connections in a row on which one rule may be broken until it is called a habit.
const MAX_SAME: u8 = 5;
/// Connections that may be lost after their login within `LOST_MS`.
const MAX_LOST: usize = 5;
const LOST_MS: u64 = 60_000;
/// How long a connection must stand until nobody is suspected any more to have our name: longer than two computers
/// that both wait `backoff_refused` can have it in turns.
const UNCONTESTED_MS: u64 = 600_000;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    violation: Option<Violation>,
    same: u8,
    /// When the last connections were lost, the latest first.
    lost: [Option<u64>; MAX_LOST],
    contested: bool,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            violation: None,
            same: 0,
            lost: [None; MAX_LOST],
            contested: false,
        }
    }

    /// What broke the rule is not asked for any more.
    pub(super) fn culprit_is_gone(&mut self) {
        (self.violation, self.same) = (None, 0);
    }

    /// A connection was of use for so long.
    fn stood(&mut self, ms: u64, settled: bool) {
        if settled {
            self.culprit_is_gone();
        }
        if ms >= UNCONTESTED_MS {
            (self.contested, self.lost) = (false, [None; MAX_LOST]);
        }
    }

    /// A rule was broken. Whether that is a habit.
    fn broken(&mut self, violation: Violation) -> bool {
        let same = |before: Violation| discriminant(&before) == discriminant(&violation);
        self.same = match self.violation.is_some_and(same) {
            true => self.same.saturating_add(1),
            false => 1,
        };
        self.violation = Some(violation);
        self.same >= MAX_SAME
    }

    /// A connection was lost that was logged in. Whether somebody else seems to have our name.
    ///
    /// A target ends the old session when a new one with the same name and ISID begins (RFC 7143 section 6.3.5), and says
    /// nothing to it. Two computers of one name therefore throw each other out, each time at once.
    fn lost(&mut self, now: u64) -> bool {
        self.lost.rotate_right(1);
        if let Some(latest) = self.lost.first_mut() {
            *latest = Some(now);
        }
        let first = self.lost.last().copied().flatten();
        self.contested |= first.is_some_and(|first| now.saturating_sub(first) <= LOST_MS);
        self.contested
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// What a connection that ends for `reason` ends for in the light of those before it.
    pub(super) fn judge_history(&mut self, reason: Reason) -> Reason {
        let stood = self.clock.since_ready(self.now);
        let was_ready = matches!(self.stage, Stage::Ready | Stage::Logout);
        let settled = was_ready && stood >= self.config.timing.settled;
        if settled {
            self.backoff.succeeded();
        }
        self.history
            .stood(if was_ready { stood } else { 0 }, settled);
        let logged_in = !matches!(self.stage, Stage::Down | Stage::Login);
        match reason {
            Reason::Protocol(violation) if self.history.broken(violation) => {
                Reason::Repeated(violation)
            }
            Reason::Lost if logged_in && self.history.lost(self.now) => Reason::Contested,
            other => other,
        }
    }
}
