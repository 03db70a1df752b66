// SPDX-License-Identifier: GPL-2.0-only

//! The pace of fill and commit. Time is a number here: nothing waits.

use crate::fill::{Pace, QUIET_MS, TICK_MS};

/// Bytes that pass in `ms` milliseconds, in pieces of 64 KiB.
fn passes(pace: &mut Pace, from_ms: u64, ms: u64, busy: bool) -> u64 {
    let mut bytes = 0;
    for now in from_ms..from_ms + ms {
        while pace.take(now, busy, 64 << 10).is_ok() {
            bytes += 64 << 10;
        }
    }
    bytes
}

#[test]
fn a_busy_guest_leaves_the_minimum() {
    let mut pace = Pace::new(1024, 0, 0);
    passes(&mut pace, 0, 3000, true);
    let second = passes(&mut pace, 3000, 10_000, true);
    let expected = 10 << 20;
    assert!(second.abs_diff(expected) <= expected / 10, "{second}");
    assert_eq!(pace.rate_bytes_s(), 1 << 20);
}

#[test]
fn an_idle_guest_lets_it_go_up_to_the_maximum() {
    let mut pace = Pace::new(0, 8192, 0);
    passes(&mut pace, 0, 3000, false);
    let bytes = passes(&mut pace, 3000, 10_000, false);
    let expected = 80 << 20;
    assert!(bytes.abs_diff(expected) <= expected / 10, "{bytes}");
}

#[test]
fn it_comes_back_after_the_guest_was_busy() {
    let mut pace = Pace::new(0, 0, 0);
    passes(&mut pace, 0, 3000, true);
    assert_eq!(passes(&mut pace, 3000, 1000, true), 0, "minimum 0 stops");
    let before = pace.rate_bytes_s();
    pace.take(4000 + QUIET_MS, false, 4096).unwrap();
    assert!(pace.rate_bytes_s() > before);
}

#[test]
fn a_short_pause_of_the_guest_is_not_used() {
    let mut pace = Pace::new(1024, 0, 0);
    passes(&mut pace, 0, 3000, true);
    passes(&mut pace, 3000, QUIET_MS - 2 * TICK_MS, false);
    assert_eq!(
        pace.rate_bytes_s(),
        1 << 20,
        "paused for less than QUIET_MS"
    );
    passes(&mut pace, 3000 + QUIET_MS - 2 * TICK_MS, 4 * TICK_MS, false);
    assert!(pace.rate_bytes_s() > 1 << 20, "paused for longer");
}

#[test]
fn a_long_pause_brings_no_burst() {
    let mut pace = Pace::new(0, 8192, 0);
    passes(&mut pace, 0, 2000, false);
    let burst = {
        let mut bytes = 0u64;
        while pace.take(1_000_000, false, 4096).is_ok() {
            bytes += 4096;
        }
        bytes
    };
    assert!(burst <= (8 << 20) * 2 * TICK_MS / 1000 + 4096, "{burst}");
}

#[test]
fn a_minimum_above_the_maximum_is_the_maximum() {
    let mut pace = Pace::new(8192, 1024, 0);
    passes(&mut pace, 0, 1000, false);
    assert_eq!(pace.rate_bytes_s(), 1 << 20);
}

#[test]
fn what_the_guest_does_between_two_ticks_counts() {
    let mut pace = Pace::new(0, 0, 0);
    passes(&mut pace, 0, 3000, false);
    let before = pace.rate_bytes_s();
    // Seen by a call in the middle of a tick, gone again when the tick ends.
    let _ = pace.take(3000 + TICK_MS / 2, true, 4096);
    let _ = pace.take(3000 + TICK_MS, false, 4096);
    assert_eq!(pace.rate_bytes_s(), before / 2);
}
