// SPDX-License-Identifier: GPL-2.0-only

//! Background fill: what is left to do, and how fast. Commit uses the same pace. Which blocks are next says
//! [`crate::sweep`].

use crate::block::{BlockState, Run};
use crate::locate::Locator;

/// The first run at or after `from` and before `end` that neither is home nor stored.
pub fn next_absent(locator: &Locator<'_>, from: u64, end: u64, max: u64) -> Option<Run> {
    let mut at = from;
    while at < end {
        let found = locator
            .map()
            .next_in(BlockState::Absent, at, end, max.max(1))?;
        let piece = locator.locate(found.start, found.blocks)?;
        let run = Run::new(found.start, piece.blocks);
        if piece.place == crate::locate::Place::Absent {
            return Some(run);
        }
        // Home, or no longer absent: go on behind it.
        at = run.end();
    }
    None
}

/// Number of absent blocks that are not home: what a fill has to do. 0: independent of the image's source.
pub fn missing_blocks(locator: &Locator<'_>) -> u64 {
    let end = locator.map().blocks();
    let mut at = 0;
    let mut sum = 0u64;
    while let Some(run) = next_absent(locator, at, end, u64::MAX) {
        sum = sum.saturating_add(run.blocks);
        at = run.end();
    }
    sum
}

/// Whether nothing is missing; cheaper than counting while something is.
pub fn is_independent(locator: &Locator<'_>) -> bool {
    next_absent(locator, 0, locator.map().blocks(), 1).is_none()
}

/// How often the pace looks at what the guest does, in milliseconds.
pub const TICK_MS: u64 = 50;

/// How long the guest has to be quiet before it counts as idle, in milliseconds. Shorter pauses are part of its work: a
/// computer that starts pauses all the time, and what it needs next is not to wait behind what it may never need.
pub const QUIET_MS: u64 = 2000;

/// A share of the disk that gives way to the guest.
///
/// While the guest does I/O the rate halves with each tick, down to the minimum; when it has been quiet for [`QUIET_MS`]
/// the rate doubles with each tick, up to the maximum. The bucket holds what one tick brings, so that the rate is kept
/// within tens of milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    min_bytes_s: u64,
    max_bytes_s: u64,
    rate_bytes_s: u64,
    /// Bytes that may be moved now; below zero after a piece larger than a tick's share.
    tokens: i64,
    last_tick_ms: u64,
    last_busy_ms: u64,
}

/// A rate that stands for "no limit": more than any disk does.
const UNLIMITED: u64 = 1 << 40;
/// The rate to start with, and the step up from nothing.
const START_BYTES_S: u64 = 4 << 20;

impl Pace {
    /// A pace between these rates, in KiB a second; a maximum of 0 is no limit.
    pub fn new(min_kib_s: u32, max_kib_s: u32, now_ms: u64) -> Self {
        let max = match u64::from(max_kib_s) << 10 {
            0 => UNLIMITED,
            max => max,
        };
        let min = (u64::from(min_kib_s) << 10).min(max);
        Self {
            min_bytes_s: min,
            max_bytes_s: max,
            // Not `clamp`: it panics if its bounds are the wrong way round, and the compiler cannot see that they are not.
            rate_bytes_s: START_BYTES_S.max(min).min(max),
            tokens: 0,
            last_tick_ms: now_ms,
            last_busy_ms: now_ms,
        }
    }

    /// The rate now, in bytes a second.
    pub const fn rate_bytes_s(&self) -> u64 {
        self.rate_bytes_s
    }

    /// Asks to move `bytes` now. `guest_busy`: the guest did I/O since the last call. `Err`: ask again after so many
    /// milliseconds.
    pub fn take(&mut self, now_ms: u64, guest_busy: bool, bytes: u64) -> Result<(), u64> {
        self.tick(now_ms, guest_busy);
        if self.tokens <= 0 {
            return Err(TICK_MS);
        }
        self.tokens = self
            .tokens
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        Ok(())
    }

    fn tick(&mut self, now_ms: u64, guest_busy: bool) {
        if guest_busy {
            self.last_busy_ms = now_ms;
        }
        let passed = now_ms.saturating_sub(self.last_tick_ms);
        if passed < TICK_MS {
            return;
        }
        self.last_tick_ms = now_ms;
        let quiet = now_ms.saturating_sub(self.last_busy_ms);
        let next = if quiet < TICK_MS {
            self.rate_bytes_s / 2
        } else if quiet < QUIET_MS {
            self.rate_bytes_s
        } else {
            self.rate_bytes_s.saturating_mul(2).max(START_BYTES_S)
        };
        self.rate_bytes_s = next.max(self.min_bytes_s).min(self.max_bytes_s);
        // A long pause brings no burst.
        let share = self.rate_bytes_s.saturating_mul(passed.min(2 * TICK_MS)) / 1000;
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(share).min(share);
    }
}
