// SPDX-License-Identifier: GPL-2.0-only

//! Whether a disk may be opened.
//!
//! The block layer counts who has a disk open, but only under the disk's `open_mutex`, which it also holds while it looks for
//! partitions: with a dead network for ever. So who detaches must not take it, and asks here.

use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::prelude::*;

/// How many users there are, or [`CLOSED`]. One word, so that closing it and coming in exclude each other.
pub(super) struct Door(AtomicU32);

/// Nobody is in, and nobody comes in.
const CLOSED: u32 = u32::MAX;

impl Door {
    /// Open, with nobody in.
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Comes in; `false` if it is closed. Any context.
    pub(super) fn enter(&self) -> bool {
        let one_more = |users: u32| users.checked_add(1).filter(|users| *users != CLOSED);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .is_ok()
    }

    /// Goes out, once for each time that [`enter`](Self::enter) said `true`. Any context.
    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Closes it; `false`, and nothing is changed, if somebody is in. Any context.
    pub(super) fn close(&self) -> bool {
        matches!(self.change(0, CLOSED), Ok(_) | Err(CLOSED))
    }

    /// Takes that back. Any context.
    pub(super) fn open(&self) {
        let _ = self.change(CLOSED, 0);
    }

    fn change(&self, from: u32, to: u32) -> Result<u32, u32> {
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        self.0.compare_exchange(from, to, success, failure)
    }
}

#[kunit_tests(imgstream_blk_door)]
mod tests {
    use super::*;

    #[test]
    fn a_door_that_is_closed_lets_nobody_in() {
        let door = Door::new();
        assert!(door.close() && door.close());
        assert!(!door.enter());
        door.open();
        assert!(door.enter());
    }

    #[test]
    fn a_door_is_not_closed_before_all_are_out() {
        let door = Door::new();
        assert!(door.enter() && door.enter());
        assert!(!door.close());
        door.leave();
        assert!(!door.close());
        // Not closed, so this changes nothing.
        door.open();
        assert!(!door.close() && door.enter());
        door.leave();
        door.leave();
        assert!(door.close() && !door.enter());
    }

    #[test]
    fn a_door_lets_only_as_many_in_as_it_can_count() {
        let door = Door(AtomicU32::new(CLOSED - 2));
        assert!(door.enter() && !door.enter());
        door.leave();
        assert!(!door.close() && door.enter());
    }
}
