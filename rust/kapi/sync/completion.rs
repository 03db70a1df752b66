// SPDX-License-Identifier: GPL-2.0-only

//! `struct completion` with the time limit that `kernel::sync::Completion` lacks.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{
    prelude::*,
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Something that others wait for.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A completion is not bound to a thread.
unsafe impl Send for Completion {}
// SAFETY: The C functions do their own locking.
unsafe impl Sync for Completion {}

impl Completion {
    /// A completion that has not happened.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is memory for a completion.
                unsafe { bindings::init_completion(slot) }
            }),
        })
    }

    /// Lets every waiter go on, for ever. Any context.
    pub(crate) fn complete_all(&self) {
        // SAFETY: The completion was initialised by `new`.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits. Process context; not interruptible.
    pub(crate) fn wait(&self) {
        // SAFETY: As above.
        unsafe { bindings::wait_for_completion(self.inner.get()) };
    }

    /// Waits for `timeout_ms` at most and returns whether it happened. Process context; not interruptible.
    pub(crate) fn wait_timeout(&self, timeout_ms: u32) -> bool {
        let jiffies = msecs_to_jiffies(timeout_ms);
        // SAFETY: As above.
        unsafe { bindings::wait_for_completion_timeout(self.inner.get(), jiffies) != 0 }
    }
}

#[kunit_tests(imgstream_completion)]
mod tests {
    use crate::kapi::testing::{
        begin,
        completion,
        queue,
        HANG_MS,
        SHORT_MS, //
    };
    use kernel::prelude::*;

    #[test]
    fn nothing_happens_by_itself() -> Result {
        let happened = completion()?;
        assert!(!happened.wait_timeout(0));
        assert!(!happened.wait_timeout(SHORT_MS));
        Ok(())
    }

    #[test]
    fn what_has_happened_has_happened_for_ever() -> Result {
        let happened = completion()?;
        happened.complete_all();
        for _ in 0..3 {
            assert!(happened.wait_timeout(0));
        }
        happened.wait();
        Ok(())
    }

    #[test]
    fn all_who_wait_go_on() -> Result {
        let (queue, happened) = (queue()?, completion()?);
        let mut waiting = KVec::new();
        for _ in 0..3 {
            let theirs = happened.clone();
            waiting.push(begin(&queue, move || theirs.wait())?, GFP_KERNEL)?;
        }
        assert!(waiting.iter().all(|over| !over.wait_timeout(SHORT_MS)));
        happened.complete_all();
        assert!(waiting.iter().all(|over| over.wait_timeout(HANG_MS)));
        Ok(())
    }
}
