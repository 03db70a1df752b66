// SPDX-License-Identifier: GPL-2.0-only

//! The clock of everything that waits, in milliseconds; chance, for waiting times; and saying things now and then.
//!
//! C headers: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h),
//! [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::bindings;
use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};

const NS_PER_MS: i64 = 1_000_000;

/// Milliseconds since some moment before the module was loaded; does not go back, stands still during suspend.
pub(crate) fn now_ms() -> u64 {
    // SAFETY: May be called from any context once time-keeping runs, which is before any module.
    let ns = unsafe { bindings::ktime_get() };
    (ns / NS_PER_MS).unsigned_abs()
}

/// A number below `limit` that nobody can guess; 0 if `limit` is 0.
pub(crate) fn random_below(limit: u32) -> u32 {
    // SAFETY: May be called from any context.
    let random = unsafe { bindings::get_random_u32() };
    // The upper half of the product is below `limit`, and as good as evenly spread for limits far below 2^32.
    ((u64::from(random) * u64::from(limit)) >> 32) as u32
}

/// Lets something happen once in an interval, and counts what it held back.
pub(crate) struct Pacer {
    interval_ms: u64,
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Pacer {
    /// A pacer whose first time is at once.
    pub(crate) const fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            next_ms: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether it is time again; if so, how often it was not since the last time. Any context.
    pub(crate) fn due(&self) -> Option<u64> {
        let now = now_ms();
        let next = self.next_ms.load(Ordering::Relaxed);
        let later = now.saturating_add(self.interval_ms);
        if now < next
            || self
                .next_ms
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[kernel::prelude::kunit_tests(imgstream_time)]
mod tests {
    use super::*;
    use crate::kapi::testing::{
        every,
        until, //
    };

    #[test]
    fn the_clock_goes_on_and_not_back() {
        let start = now_ms();
        assert!(until(|| now_ms() > start));
        let mut last = start;
        assert!(every(0..1000, |_| {
            let before = core::mem::replace(&mut last, now_ms());
            before <= last
        }));
    }

    #[test]
    fn chance_stays_below_its_limit() {
        assert!(every([1, 2, 3, 1000, u32::MAX], |&limit| {
            (0..1000).all(|_| random_below(limit) < limit)
        }));
        assert_eq!(random_below(0), 0);
    }

    #[test]
    fn chance_gives_everything_below_its_limit() {
        // One of the three missing in 1000: less likely than a broken computer.
        let mut seen = [false; 3];
        for _ in 0..1000 {
            if let Some(seen) = seen.get_mut(random_below(3) as usize) {
                *seen = true;
            }
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn a_pacer_holds_back_and_counts() {
        let pacer = Pacer::new(u64::MAX);
        // The first time is at once.
        assert_eq!(pacer.due(), Some(0));
        assert_eq!((pacer.due(), pacer.due()), (None, None));
        for held_back in [2, 1, 1] {
            // As if the interval were over.
            pacer.next_ms.store(now_ms(), Ordering::Relaxed);
            assert_eq!(pacer.due(), Some(held_back));
            assert_eq!(pacer.due(), None);
        }
    }

    #[test]
    fn a_pacer_without_an_interval_holds_nothing_back() {
        let pacer = Pacer::new(0);
        assert!(every(0..10, |_| pacer.due() == Some(0)));
    }
}
