// SPDX-License-Identifier: GPL-2.0-only

//! How long to wait before the next connection.

use super::config::Timing;

/// Pauses that double from failure to failure up to a limit, spread by a random half.
///
/// Spread, because many machines lose one target at the same moment and must not come back at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    random: u64,
    pause_ms: u64,
}

impl Backoff {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            random: seed,
            pause_ms: 0,
        }
    }

    /// The pause that was chosen last.
    pub(super) const fn pause_ms(&self) -> u64 {
        self.pause_ms
    }

    /// A connection stood long enough to count as a success.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A connection ended or could not be made: chooses the next pause, at least `floor_ms`.
    pub(super) fn failed(&mut self, timing: &Timing, refused: bool, floor_ms: u64) {
        let doubled = 1u64
            .checked_shl(self.failures)
            .and_then(|n| timing.backoff_min.checked_mul(n));
        let limit = doubled.unwrap_or(u64::MAX).min(timing.backoff_max);
        let limit = if refused {
            timing.backoff_refused
        } else {
            limit
        };
        self.failures = self.failures.saturating_add(1).min(32);
        self.pause_ms = self.jitter(limit).max(floor_ms);
    }

    /// Evenly distributed over the upper half of `limit`.
    fn jitter(&mut self, limit: u64) -> u64 {
        let half = limit / 2;
        let spread = half.checked_add(1).unwrap_or(1);
        limit.saturating_sub(self.next() % spread)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.random;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let timing = Timing::DEFAULT;
        let mut backoff = Backoff::new(1);
        for limit in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000] {
            backoff.failed(&timing, false, 0);
            assert!(
                (limit / 2..=limit).contains(&backoff.pause_ms()),
                "{} of {limit}",
                backoff.pause_ms()
            );
        }
        for _ in 0..1000 {
            backoff.failed(&timing, false, 0);
            assert!(backoff.pause_ms() <= timing.backoff_max);
        }
        backoff.succeeded();
        backoff.failed(&timing, false, 0);
        assert!(backoff.pause_ms() <= 500);
        backoff.failed(&timing, true, 0);
        assert!(backoff.pause_ms() >= 30_000);
        backoff.failed(&timing, false, 90_000);
        assert_eq!(backoff.pause_ms(), 90_000);
    }

    #[test]
    fn machines_with_other_seeds_pause_differently() {
        let pause = |seed| {
            let mut backoff = Backoff::new(seed);
            backoff.failed(
                &Timing {
                    backoff_min: 1 << 20,
                    backoff_max: 1 << 20,
                    ..Timing::DEFAULT
                },
                false,
                0,
            );
            backoff.pause_ms()
        };
        assert_ne!(pause(1), pause(2));
    }
}
