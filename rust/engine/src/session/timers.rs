// SPDX-License-Identifier: GPL-2.0-only

//! Time: what is waited for, and for how long. A slow link is not a dead one, so everything but the login is measured
//! from the last byte that came; but bytes that come one at a time do not hold a connection for ever.

use core::ops::DerefMut;

use super::config::MAX_READS;
use super::reason::Reason;
use super::send::Ping;
use super::{Session, Stage};

/// First pause after BUSY, and the longest.
const BUSY_MS: (u64, u64) = (50, 5_000);
/// How much time a byte of data is worth: less than 250 bytes in a second are no progress, for no link is that slow.
const BYTE_MS: u64 = 4;
/// The same for one read, which may have to share the link with all others.
const SHARED_BYTE_MS: u64 = BYTE_MS * MAX_READS as u64;
/// What can be waited for at a time.
const LIMITS: usize = 6;

/// How many commands may be at the target: fewer after BUSY or TASK SET FULL, growing again with every success.
#[derive(Debug)]
pub(super) struct Flow {
    depth: usize,
    pause_ms: u64,
    hold_until: u64,
    /// Since when the target has been overloaded without answering anything.
    busy_since: Option<u64>,
}

impl Flow {
    pub(super) const fn new() -> Self {
        Self {
            depth: MAX_READS,
            pause_ms: 0,
            hold_until: 0,
            busy_since: None,
        }
    }

    pub(super) const fn may_send(&self, now: u64, sent: usize) -> bool {
        now >= self.hold_until && sent < self.depth
    }

    /// The target is overloaded. Answers that come while the pause lasts belong to the same overload.
    pub(super) fn busy(&mut self, now: u64) {
        if now < self.hold_until {
            return;
        }
        self.busy_since = self.busy_since.or(Some(now));
        self.depth = (self.depth / 2).max(1);
        self.pause_ms = self.pause_ms.saturating_mul(2).clamp(BUSY_MS.0, BUSY_MS.1);
        self.hold(now, self.pause_ms);
    }

    pub(super) fn hold(&mut self, now: u64, pause_ms: u64) {
        self.hold_until = self.hold_until.max(now.saturating_add(pause_ms));
    }

    pub(super) fn succeeded(&mut self) {
        self.depth = self.depth.saturating_add(1).min(MAX_READS);
        self.pause_ms /= 2;
        self.busy_since = None;
    }

    fn deadline(&self, now: u64) -> Option<u64> {
        (self.hold_until > now).then_some(self.hold_until)
    }
}

/// When things happened last.
#[derive(Debug)]
pub(super) struct Clock {
    start: u64,
    ready: Option<u64>,
    step: u64,
    received: u64,
    sent: u64,
    pinged: u64,
    progress: u64,
    closed: Option<u64>,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            start: 0,
            ready: None,
            step: 0,
            received: 0,
            sent: 0,
            pinged: 0,
            progress: 0,
            closed: None,
        }
    }

    /// A connection begins.
    pub(super) fn start(&mut self, now: u64) {
        *self = Self {
            start: now,
            ready: None,
            step: now,
            received: now,
            sent: now,
            pinged: now,
            progress: now,
            closed: None,
        };
    }

    pub(super) fn ready(&mut self, now: u64) {
        self.ready = Some(now);
    }

    /// How long the connection has been ready.
    pub(super) fn since_ready(&self, now: u64) -> u64 {
        self.ready.map_or(0, |ready| now.saturating_sub(ready))
    }

    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// When a read was last answered or got bytes.
    pub(super) fn progressed(&self) -> u64 {
        self.progress
    }

    pub(super) fn restart_step(&mut self, now: u64) {
        self.step = now;
    }

    pub(super) fn received(&mut self, now: u64) {
        self.received = now;
    }

    pub(super) fn sent(&mut self, now: u64) {
        self.sent = now;
    }

    /// A ping was due, or answered.
    pub(super) fn pinged(&mut self, now: u64) {
        self.pinged = now;
    }

    fn progress(&mut self, now: u64, bytes: u32) {
        let worth = u64::from(bytes).saturating_mul(BYTE_MS);
        self.progress = self.progress.saturating_add(worth).min(now);
    }

    /// A read was answered.
    pub(super) fn answered(&mut self, now: u64) {
        self.progress = now;
    }

    /// A command is sent while `sent` others are at the target: waiting for progress begins with the first.
    pub(super) fn command_sent(&mut self, now: u64, sent: usize) {
        if sent == 0 {
            self.progress = now;
        }
    }

    /// Whether the target's closed window is all that keeps reads back.
    pub(super) fn window_closed(&mut self, now: u64, blocked: bool) {
        self.closed = if blocked {
            self.closed.or(Some(now))
        } else {
            None
        };
    }

    fn alive(&self) -> u64 {
        self.received.max(self.pinged)
    }

    /// When one of both sides fell silent. Also after we did: the target keeps what it has sent until a request of ours
    /// acknowledges it (RFC 7143 section 4.2.2.2).
    fn idle_since(&self) -> u64 {
        self.received.min(self.sent).max(self.pinged)
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// A read got bytes.
    pub(super) fn progress(&mut self, index: usize, bytes: u32) {
        self.clock.progress(self.now, bytes);
        let worth = u64::from(bytes).saturating_mul(SHARED_BYTE_MS);
        self.reads.progress(index, worth, self.now);
    }

    /// Time has passed. To be called when [`Self::deadline`] is over; calling it more often does no harm.
    pub fn tick(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        if let Some(reason) = self.overdue() {
            return self.end(reason);
        }
        if self.stage == Stage::Ready && self.send.ping == Ping::None && self.over(self.ping_at()) {
            self.send.ping = Ping::Due;
            self.clock.pinged(self.now);
        }
        if self.recheck_at().is_some_and(|at| self.over(at)) {
            self.begin_recheck();
        }
    }

    fn over(&self, time: u64) -> bool {
        self.now >= time
    }

    /// Why the connection has to end by now.
    fn overdue(&self) -> Option<Reason> {
        let limits = self.limits();
        limits
            .into_iter()
            .flatten()
            .find(|(time, _)| self.over(*time))
            .map(|(_, reason)| reason)
    }

    /// Times at which the connection ends unless something happens before.
    fn limits(&self) -> [Option<(u64, Reason)>; LIMITS] {
        let timing = &self.config.timing;
        let one = |start: u64, wait, reason| {
            let limit = Some((start.saturating_add(wait), reason));
            [limit, None, None, None, None, None]
        };
        match self.stage {
            Stage::Down => [None; LIMITS],
            Stage::Login => one(self.clock.start, timing.login, Reason::LoginTimeout),
            Stage::Identify => one(self.clock.step, timing.login, self.identify_waits_for()),
            Stage::Discover => one(self.clock.step, timing.login, Reason::ListTimeout),
            Stage::Logout => one(self.clock.step, timing.logout, self.send.logout_reason),
            Stage::Ready => self.limits_of_reads(),
        }
    }

    /// What the identity check is waiting for.
    fn identify_waits_for(&self) -> Reason {
        let may_ask = self.identify.due(self.now);
        match may_ask && !self.numbers.window_open() {
            true => Reason::WindowClosed,
            false => Reason::LoginTimeout,
        }
    }

    fn limits_of_reads(&self) -> [Option<(u64, Reason)>; LIMITS] {
        let timing = &self.config.timing;
        let after = |since: Option<u64>, wait: u64, reason| {
            since.map(|since| (since.saturating_add(wait), reason))
        };
        let pinged = (self.send.ping != Ping::None).then(|| self.clock.alive());
        let waiting = (self.reads.sent() != 0).then_some(self.clock.progress);
        let busy = self
            .flow
            .busy_since
            .filter(|_| self.reads.outstanding() != 0);
        [
            after(pinged, timing.ping_answer, Reason::Silent),
            after(waiting, timing.progress, Reason::NoProgress),
            after(self.reads.lost_since(), timing.starved, Reason::NoProgress),
            after(self.clock.closed, timing.window, Reason::WindowClosed),
            after(busy, timing.window, Reason::Overloaded),
            after(
                self.recheck_waits_since(),
                timing.starved,
                Reason::NoProgress,
            ),
        ]
    }

    fn ping_at(&self) -> u64 {
        self.clock
            .idle_since()
            .saturating_add(self.config.timing.ping_idle)
    }

    /// When [`Self::tick`] is to be called next, on the clock of all other calls.
    pub fn deadline(&self) -> Option<u64> {
        let limits = self.limits().into_iter().flatten().map(|(time, _)| time);
        let ping =
            (self.stage == Stage::Ready && self.send.ping == Ping::None).then(|| self.ping_at());
        let hold = match self.stage {
            Stage::Ready if self.reads.waiting() => self.flow.deadline(self.now),
            _ => None,
        };
        let looking = self.stage == Stage::Identify || self.recheck.running();
        let asked = looking.then(|| self.identify.deadline(self.now)).flatten();
        // After a pause it is due as soon as a read has ended.
        let recheck = self.recheck_at().map(|at| at.max(self.now));
        let own = [hold, asked, recheck].into_iter().flatten();
        limits.chain(ping).chain(own).min()
    }
}
