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
