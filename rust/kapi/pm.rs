// SPDX-License-Identifier: GPL-2.0-only

//! A say in whether the machine hibernates, and in whether it becomes one that has.
//!
//! C header: [`include/linux/suspend.h`](srctree/include/linux/suspend.h)

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    container_of,
    error::to_result,
    ffi::{
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

/// While this is there the machine does not hibernate, nor does it read the image of a kernel that did (`EBUSY`). It may be
/// suspended to RAM.
///
/// # Invariants
///
/// `block` is registered with `told` as its function, and stays at its place until it is removed.
#[pin_data(PinnedDrop)]
pub(crate) struct NoHibernation {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    why: &'static str,
}

// SAFETY: `unregister_pm_notifier()` may be called on any thread.
unsafe impl Send for NoHibernation {}
// SAFETY: `block` is not reachable through a shared reference; `why` is never written.
unsafe impl Sync for NoHibernation {}

impl NoHibernation {
    /// `why` is for the kernel's log.
    ///
    /// Sleeps until the machine is through with a suspend or a hibernation that has begun. To be called with no lock held that
    /// a task may wait for, because such a task cannot be frozen.
    pub(crate) fn new(why: &'static str) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // First, because it is used as soon as the block is registered.
            why,
            block <- Opaque::try_ffi_init(move |slot: *mut bindings::notifier_block| {
                let raw = bindings::notifier_block {
                    notifier_call: Some(Self::told),
                    ..Default::default()
                };
                // SAFETY: `slot` is memory for a `notifier_block`.
                unsafe { slot.write(raw) };
                // INVARIANT: Registered if this is `Ok`; it is pinned.
                // A hibernation by the kernel holds this from before its notifiers are called: either it is told, or it is
                // over. One by a program that has /dev/snapshot open already is not told.
                let _sleep = SystemSleep::lock();
                // SAFETY: `slot` is filled in, and is removed before its memory goes.
                to_result(unsafe { bindings::register_pm_notifier(slot) })
            }),
        })
    }

    /// # Safety
    ///
    /// Called by the notifier chain, for the block of a `NoHibernation` that is registered. Process context, under the lock of
    /// the chain; takes none.
    unsafe extern "C" fn told(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        let what = match u32::try_from(action) {
            Ok(bindings::PM_HIBERNATION_PREPARE) => "hibernation",
            Ok(bindings::PM_RESTORE_PREPARE) => "the image of a hibernated kernel",
            _ => return bindings::NOTIFY_DONE as c_int,
        };
        let block = block.cast::<Opaque<bindings::notifier_block>>();
        // SAFETY: Only `new` registers this function, so this is the `block` of a `Self`, which is there while the chain,
        // whose lock its removal takes, calls it.
        let this = unsafe { &*container_of!(block, Self, block) };
        pr_warn!("{what} is refused: {}\n", this.why);
        refusal(EBUSY)
    }
}

/// Nobody suspends or hibernates the machine while this is there.
struct SystemSleep {
    flags: c_uint,
    // `unlock_system_sleep()` is for the task that locked.
    _not_send: PhantomData<*mut ()>,
}

impl SystemSleep {
    fn lock() -> Self {
        Self {
            // SAFETY: Process context, and the current task drops the result.
            flags: unsafe { bindings::lock_system_sleep() },
            _not_send: PhantomData,
        }
    }
}

impl Drop for SystemSleep {
    fn drop(&mut self) {
        // SAFETY: Locked by this task, which gave `flags`: `Self` is not `Send`.
        unsafe { bindings::unlock_system_sleep(self.flags) };
    }
}

/// `notifier_from_errno()` of C.
fn refusal(error: Error) -> c_int {
    (bindings::NOTIFY_STOP_MASK | bindings::NOTIFY_OK.saturating_add_signed(-error.to_errno()))
        as c_int
}

#[pinned_drop]
impl PinnedDrop for NoHibernation {
    fn drop(self: Pin<&mut Self>) {
        // Waits until the chain is not being called.
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::unregister_pm_notifier(self.block.get()) };
    }
}

#[kunit_tests(imgstream_pm)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;

    /// What the kernel tells of, and whether that is refused.
    const TABLE: [(u32, bool); 6] = [
        (bindings::PM_HIBERNATION_PREPARE, true),
        (bindings::PM_RESTORE_PREPARE, true),
        (bindings::PM_POST_HIBERNATION, false),
        (bindings::PM_POST_RESTORE, false),
        (bindings::PM_SUSPEND_PREPARE, false),
        (bindings::PM_POST_SUSPEND, false),
    ];

    #[test]
    fn hibernation_is_refused_and_suspend_is_not() -> Result {
        let awake = KBox::pin_init(NoHibernation::new("a test runs"), GFP_KERNEL)?;
        let block = awake.block.get();
        assert!(every(TABLE, |&(action, refused)| {
            // SAFETY: The block is registered, and as little is locked here as may be.
            let said =
                unsafe { NoHibernation::told(block, action as c_ulong, core::ptr::null_mut()) };
            match refused {
                true => said == refusal(EBUSY),
                false => said == bindings::NOTIFY_DONE as c_int,
            }
        }));
        Ok(())
    }

    #[test]
    fn a_refusal_stops_the_chain_and_carries_its_errno() {
        // notifier_to_errno() of <linux/notifier.h>.
        let errno = |said: c_int| {
            let said = (said as u32) & !bindings::NOTIFY_STOP_MASK;
            bindings::NOTIFY_OK.wrapping_sub(said) as c_int
        };
        assert!(every([EBUSY, EPERM, ENOMEM], |&error| {
            let said = refusal(error);
            said as u32 & bindings::NOTIFY_STOP_MASK != 0 && errno(said) == error.to_errno()
        }));
    }

    #[test]
    fn several_can_be_there_and_go_in_any_order() -> Result {
        let first = KBox::pin_init(NoHibernation::new("one"), GFP_KERNEL)?;
        let second = KBox::pin_init(NoHibernation::new("two"), GFP_KERNEL)?;
        drop(first);
        drop(KBox::pin_init(NoHibernation::new("three"), GFP_KERNEL)?);
        drop(second);
        Ok(())
    }
}
