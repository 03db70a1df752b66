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

#[kunit_tests(imgstream_epoch)]
mod tests {
    use super::*;
    use crate::kapi::{
        sync::Completion,
        testing::{
            begin,
            completion,
            queue,
            until,
            watched,
            Watched,
            HANG_MS,
            SHORT_MS, //
        },
        workqueue::Queue, //
    };
    use core::sync::atomic::{
        AtomicBool,
        AtomicU32, //
    };
    use kernel::sync::Arc;

    type Shared = Arc<Epochs<Option<Watched>>>;

    fn shared(watched: Option<Watched>) -> Result<Shared> {
        Arc::pin_init(Epochs::new(Ok(watched)), GFP_KERNEL)
    }

    /// Begins a drain and comes back when the new epoch is open.
    fn begin_drain(queue: &Queue, epochs: &Shared) -> Result<Arc<Completion>> {
        let before = epochs.current.load(Ordering::SeqCst);
        let theirs = epochs.clone();
        let over = begin(queue, move || theirs.drain())?;
        match until(|| epochs.current.load(Ordering::SeqCst) != before) {
            true => Ok(over),
            false => Err(ETIMEDOUT),
        }
    }

    #[test]
    fn drains_of_nobody_end() -> Result {
        let epochs = shared(None)?;
        for _ in 0..4 {
            epochs.drain();
            drop(epochs.enter());
        }
        Ok(())
    }

    #[test]
    fn a_drain_waits_for_who_is_inside() -> Result {
        let (queue, epochs) = (queue()?, shared(None)?);
        // Each of the two counters twice.
        for _ in 0..4 {
            let (first, second) = (epochs.enter(), epochs.enter());
            let drain = begin_drain(&queue, &epochs)?;
            drop(first);
            assert!(!drain.wait_timeout(SHORT_MS));
            drop(second);
            assert!(drain.wait_timeout(HANG_MS));
        }
        Ok(())
    }

    #[test]
    fn who_enters_later_is_waited_for_by_the_next_drain_only() -> Result {
        let (queue, epochs) = (queue()?, shared(None)?);
        for _ in 0..2 {
            let before = epochs.enter();
            let first = begin_drain(&queue, &epochs)?;
            let later = epochs.enter();
            drop(before);
            assert!(first.wait_timeout(HANG_MS));
            let second = begin_drain(&queue, &epochs)?;
            assert!(!second.wait_timeout(SHORT_MS));
            drop(later);
            assert!(second.wait_timeout(HANG_MS));
        }
        Ok(())
    }

    #[test]
    fn a_guard_may_leave_on_another_thread() -> Result {
        let (queue, epochs) = (queue()?, shared(None)?);
        let may_leave = completion()?;
        let left = Arc::new(AtomicBool::new(false), GFP_KERNEL)?;
        let (guard, theirs, flag) = (epochs.enter(), may_leave.clone(), left.clone());
        begin(&queue, move || {
            theirs.wait();
            flag.store(true, Ordering::SeqCst);
            drop(guard);
        })?;
        let drain = begin_drain(&queue, &epochs)?;
        assert!(!drain.wait_timeout(SHORT_MS));
        may_leave.complete_all();
        assert!(drain.wait_timeout(HANG_MS));
        assert!(left.load(Ordering::SeqCst));
        Ok(())
    }

    #[test]
    fn dropping_waits_for_who_is_inside() -> Result {
        let queue = queue()?;
        // In the first epoch, in the second, and in both.
        for table in [[true, false], [false, true], [true, true]] {
            let (data, watch) = watched()?;
            let epochs = shared(Some(data))?;
            let [first, second] = table;
            let first = first.then(|| epochs.enter());
            epochs.current.store(1, Ordering::SeqCst);
            let second = second.then(|| epochs.enter());
            let over = begin(&queue, move || drop(epochs))?;
            for guard in [first, second].into_iter().flatten() {
                assert!(!over.wait_timeout(SHORT_MS));
                assert!(guard.is_some() && !watch.is_gone());
                drop(guard);
            }
            assert!(over.wait_timeout(HANG_MS));
            assert!(watch.is_gone());
        }
        Ok(())
    }

    /// What `settle` relies on: whoever did not see the exclusion is through when the drain is.
    struct Exclusion {
        epochs: Shared,
        excluded: AtomicBool,
        busy: AtomicU32,
        entered: AtomicU32,
        stop: AtomicBool,
    }

    impl Exclusion {
        fn enter_again_and_again(&self) {
            while !self.stop.load(Ordering::SeqCst) {
                let _guard = self.epochs.enter();
                if !self.excluded.load(Ordering::SeqCst) {
                    self.busy.fetch_add(1, Ordering::SeqCst);
                    self.entered.fetch_add(1, Ordering::SeqCst);
                    self.busy.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }

    #[test]
    fn after_a_drain_nobody_is_inside_who_did_not_see_what_came_before() -> Result {
        let (queue, epochs) = (queue()?, shared(None)?);
        let shared = Arc::new(
            Exclusion {
                epochs,
                excluded: AtomicBool::new(false),
                busy: AtomicU32::new(0),
                entered: AtomicU32::new(0),
                stop: AtomicBool::new(false),
            },
            GFP_KERNEL,
        )?;
        for _ in 0..2 {
            let theirs = shared.clone();
            begin(&queue, move || theirs.enter_again_and_again())?;
        }
        let mut wrong = 0;
        for _ in 0..20 {
            let before = shared.entered.load(Ordering::SeqCst);
            // Somebody is at it.
            wrong += u32::from(!until(|| shared.entered.load(Ordering::SeqCst) != before));
            shared.excluded.store(true, Ordering::SeqCst);
            shared.epochs.drain();
            wrong += u32::from(shared.busy.load(Ordering::SeqCst) != 0);
            shared.excluded.store(false, Ordering::SeqCst);
        }
        shared.stop.store(true, Ordering::SeqCst);
        drop(queue);
        assert_eq!(wrong, 0);
        Ok(())
    }
}
