// SPDX-License-Identifier: GPL-2.0-only

//! Shared data whose users can be waited for: the pair of per-CPU counters that `settle` excludes and drains with.
//!
//! An I/O enters the current epoch, looks its location up, and leaves when it has completed. [`Epochs::drain`] opens a
//! new epoch and waits for the old one to empty: afterwards no I/O is under way that looked at anything older.
//! Imitates SRCU; upstream wraps neither SRCU nor `percpu_ref`.
//!
//! C header: [`include/linux/percpu-refcount.h`](srctree/include/linux/percpu-refcount.h).

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicUsize,
        Ordering, //
    },
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::Mutex,
    types::Opaque, //
};

/// One counter.
///
/// # Invariants
///
/// `raw` is an initialised `percpu_ref` inside of this struct, live except while it is being drained, and `empty` is an
/// initialised completion.
#[pin_data(PinnedDrop)]
struct Counter {
    /// Initialised before `raw`, whose release function uses it.
    #[pin]
    empty: Opaque<bindings::completion>,
    #[pin]
    raw: Opaque<bindings::percpu_ref>,
}

impl Counter {
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            empty <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is memory for a completion that stays where it is.
                unsafe { bindings::init_completion(slot) }
            }),
            raw <- Opaque::try_ffi_init(|slot| {
                let reinit = bindings::PERCPU_REF_ALLOW_REINIT;
                // SAFETY: `slot` is memory for a `percpu_ref` that stays where it is.
                to_result(unsafe {
                    bindings::percpu_ref_init(slot, Some(Self::released), reinit, bindings::GFP_KERNEL)
                })
            }),
        })
    }

    fn try_get(&self) -> bool {
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::imgstream_percpu_ref_tryget_live(self.raw.get()) }
    }

    fn put(&self) {
        // SAFETY: Initialised by the type invariant; `Guard` calls this once for each successful `try_get`.
        unsafe { bindings::imgstream_percpu_ref_put(self.raw.get()) };
    }

    /// Waits until nobody holds the counter. It is dead afterwards.
    fn empty(&self) {
        // SAFETY: Initialised and live by the type invariant; callers are serialised.
        unsafe { bindings::imgstream_percpu_ref_kill(self.raw.get()) };
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::wait_for_completion(self.empty.get()) };
    }

    fn revive(&self) {
        // SAFETY: Killed and empty, as `percpu_ref_reinit` demands: called after `empty()` only.
        unsafe { bindings::percpu_ref_reinit(self.raw.get()) };
    }

    /// The release function.
    ///
    /// # Safety
    ///
    /// `raw` is the `raw` of a [`Counter`].
    unsafe extern "C" fn released(raw: *mut bindings::percpu_ref) {
        // SAFETY: By the caller's promise; `Opaque` is transparent.
        let counter = unsafe { &*kernel::container_of!(Opaque::cast_from(raw), Self, raw) };
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::complete(counter.empty.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Counter {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised; `Epochs` emptied it before, so nobody holds it.
        unsafe { bindings::percpu_ref_exit(self.raw.get()) };
    }
}

/// Data of type `T` that is used in epochs.
///
/// # Invariants
///
/// Every [`Guard`] holds one of the two counters, and was handed out while that counter was the current one.
#[pin_data(PinnedDrop)]
pub(crate) struct Epochs<T> {
    #[pin]
    even: Counter,
    #[pin]
    odd: Counter,
    current: AtomicUsize,
    #[pin]
    turn: Mutex<()>,
    #[pin]
    data: T,
}

// SAFETY: Counters belong to no CPU or thread; data goes with its own bounds.
unsafe impl<T: Send> Send for Epochs<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Epochs<T> {}

impl<T: Send + Sync> Epochs<T> {
    /// Wraps `data`.
    pub(crate) fn new(data: impl PinInit<T, Error>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            even <- Counter::new(),
            odd <- Counter::new(),
            current: AtomicUsize::new(0),
            turn <- kernel::new_mutex!((), "imgstream:epochs"),
            data <- data,
        })
    }

    fn counter(&self, epoch: usize) -> &Counter {
        if epoch & 1 == 0 {
            &self.even
        } else {
            &self.odd
        }
    }

    /// Enters the current epoch. Any context; never sleeps.
    pub(crate) fn enter(&self) -> Guard<T> {
        loop {
            let epoch = self.current.load(Ordering::SeqCst);
            let counter = self.counter(epoch);
            if !counter.try_get() {
                continue;
            }
            // A whole drain may have passed between the load and the get; then the next drain would wait for the
            // other counter only and miss this user.
            if self.current.load(Ordering::SeqCst) == epoch {
                // INVARIANT: The counter is held and current.
                return Guard {
                    counter: NonNull::from(counter),
                    data: NonNull::from(&self.data),
                };
            }
            counter.put();
        }
    }

    /// Waits for everybody who entered before this call. Sleeps; must not be called with a guard held.
    pub(crate) fn drain(&self) {
        let _turn = self.turn.lock();
        let old = self.current.load(Ordering::SeqCst);
        self.current.store(old ^ 1, Ordering::SeqCst);
        self.counter(old).empty();
        self.counter(old).revive();
    }
}

impl<T> Deref for Epochs<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

#[pinned_drop]
impl<T> PinnedDrop for Epochs<T> {
    fn drop(self: Pin<&mut Self>) {
        self.even.empty();
        self.odd.empty();
    }
}

/// Membership in an epoch; access to the data.
///
/// # Invariants
///
/// `counter` is held, so that the [`Epochs`] that both pointers point into is alive: its drop waits for the counter.
pub(crate) struct Guard<T> {
    counter: NonNull<Counter>,
    data: NonNull<T>,
}

// SAFETY: `percpu_ref_put` may be called on any CPU, from any context; only `&T` is given out.
unsafe impl<T: Send + Sync> Send for Guard<T> {}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Alive by the type invariant.
        unsafe { self.data.as_ref() }
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: Alive by the type invariant, up to the put.
        unsafe { self.counter.as_ref() }.put();
    }
}
