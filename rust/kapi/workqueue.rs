// SPDX-License-Identifier: GPL-2.0-only

//! Work queues of our own, and the ways to stop work that `kernel::workqueue` lacks.
//!
//! The system's queues are not flushed when a module goes; ours are drained and destroyed when dropped, so no work
//! item's code runs after that. Work items themselves are `kernel::workqueue::{Work, DelayedWork}` in an [`Arc`].
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::sync::Completion, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    ffi::c_int,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::msecs_to_jiffies,
    workqueue::{
        self,
        HasDelayedWork,
        HasWork,
        Work,
        WorkItem, //
    }, //
};

/// `alloc_workqueue()` with a rescuer thread, so that its work proceeds when memory is short.
///
/// The queue must not be dropped by one of its own work items: dropping waits for them. Whoever owns it therefore
/// cancels first what may still hold a reference.
///
/// # Invariants
///
/// `raw` is a valid workqueue that nobody else destroys.
pub(crate) struct Queue {
    raw: NonNull<bindings::workqueue_struct>,
}

// SAFETY: Workqueues may be used and destroyed by any thread.
unsafe impl Send for Queue {}
// SAFETY: The C functions do their own locking.
unsafe impl Sync for Queue {}

impl Queue {
    /// A queue whose work runs on any processor, several items at a time (each item only once at a time).
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        Self::allocate(name, 0, 0)
    }

    fn allocate(name: &'static CStr, flags: bindings::wq_flags, max_active: c_int) -> Result<Self> {
        let flags = flags | bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM;
        // SAFETY: The format takes one C string, and `name` is one that lives for ever.
        let raw = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                flags,
                max_active,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: The workqueue is new, so it is valid and ours.
        NonNull::new(raw).map(|raw| Self { raw }).ok_or(ENOMEM)
    }

    /// Waits until everything that was queued before this call has run.
    pub(crate) fn flush(&self) {
        // SAFETY: The workqueue is valid by the type invariant.
        unsafe { bindings::__flush_workqueue(self.raw.as_ptr()) };
    }

    /// Runs `f` on a worker thread, which has a stack of its own, and waits for it. Process context; may sleep.
    pub(crate) fn call<R, F>(&self, f: F) -> Result<R>
    where
        R: Send + Unpin + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        let call = Arc::pin_init(
            pin_init!(Call {
                result <- new_mutex!(None, "imgstream:call"),
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        let theirs = call.clone();
        self.try_spawn(GFP_KERNEL, move || {
            let result = f();
            *theirs.result.lock() = Some(result);
            theirs.done.complete_all();
        })?;
        call.done.wait();
        let result = call.result.lock().take();
        result.ok_or(EINVAL)
    }

    /// Runs `work` in `delay_ms` from now, also if it was to run earlier or later. Does nothing while the item is being
    /// cancelled. May be called from any context.
    ///
    /// `mod_delayed_work()` would do this in one call, but it does not say whether it queued the item: one that is being
    /// cancelled it leaves alone, and nobody would drop its reference.
    pub(crate) fn enqueue_at<T, const ID: u64>(&self, work: Arc<T>, delay_ms: u32)
    where
        T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID> + Send + Sync + 'static,
    {
        let delay = msecs_to_jiffies(delay_ms);
        let delayed = delayed_work_of::<T, ID>(Arc::as_ptr(&work));
        let mut idle = 0;
        let mut work = work;
        // Neither queued by us nor to be taken off, once: it has just begun to run. Twice: it is being cancelled, or
        // somebody else has queued it and it runs, after whatever our caller wants it to see.
        while idle < 2 {
            work = match self.enqueue_delayed(work, delay) {
                Ok(()) => return,
                Err(work) => work,
            };
            // SAFETY: `delayed` is an initialised delayed work item of an object that `work` keeps alive.
            let was_pending = unsafe { bindings::cancel_delayed_work(delayed) };
            forget_reference(Arc::as_ptr(&work), was_pending);
            if !was_pending {
                idle += 1;
            }
        }
    }
}

impl Deref for Queue {
    type Target = workqueue::Queue;

    fn deref(&self) -> &workqueue::Queue {
        // SAFETY: The workqueue is valid by the type invariant, for as long as `self` lives.
        unsafe { workqueue::Queue::from_raw(self.raw.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant nobody else destroys it, and nobody can use it after us. This drains it.
        unsafe { bindings::destroy_workqueue(self.raw.as_ptr()) };
    }
}

/// A [`Queue::call`] under way.
#[pin_data]
struct Call<R> {
    #[pin]
    result: Mutex<Option<R>>,
    #[pin]
    done: Completion,
}

/// Takes `object`'s work item `ID` off its queue and waits until it does not run any more. Returns whether it was
/// waiting to run. It may be queued again afterwards: prevent that first. Must not be called by that item itself.
pub(crate) fn cancel_sync<T, const ID: u64>(object: &Arc<T>) -> bool
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasWork<T, ID>,
{
    let raw = Arc::as_ptr(object);
    let work = work_of::<T, ID>(raw);
    // SAFETY: `work` is an initialised work item of an object that `object` keeps alive.
    let was_pending = unsafe { bindings::cancel_work_sync(work) };
    forget_reference(raw, was_pending);
    was_pending
}

/// [`cancel_sync`] for a delayed item: the timer is stopped as well.
pub(crate) fn cancel_delayed_sync<T, const ID: u64>(object: &Arc<T>) -> bool
where
    T: WorkItem<ID, Pointer = Arc<T>> + HasDelayedWork<T, ID>,
{
    let raw = Arc::as_ptr(object);
    let delayed = delayed_work_of::<T, ID>(raw);
    // SAFETY: `delayed` is an initialised delayed work item of an object that `object` keeps alive.
    let was_pending = unsafe { bindings::cancel_delayed_work_sync(delayed) };
    forget_reference(raw, was_pending);
    was_pending
}

/// Drops the reference that a queued item had, if it was queued and was taken off.
fn forget_reference<T>(object: *const T, was_pending: bool) {
    if was_pending {
        // SAFETY: Queueing leaked one reference (`Arc::into_raw`) for the item to run with, and it will not run.
        drop(unsafe { Arc::from_raw(object) });
    }
}

/// The C work item of `object`, which must point to a live object.
fn work_of<T, const ID: u64>(object: *const T) -> *mut bindings::work_struct
where
    T: HasWork<T, ID>,
{
    // SAFETY: Our callers pass pointers that come from an `Arc`; the result is a field of that object.
    unsafe { Work::raw_get(T::raw_get_work(object.cast_mut())) }
}

/// The C delayed work item of `object`, which must point to a live object.
fn delayed_work_of<T, const ID: u64>(object: *const T) -> *mut bindings::delayed_work
where
    T: HasDelayedWork<T, ID>,
{
    let work = work_of::<T, ID>(object);
    // SAFETY: By `HasDelayedWork` the work item is the `work` field of a `delayed_work`.
    unsafe { kernel::container_of!(work, bindings::delayed_work, work) }
}
