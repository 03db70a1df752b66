// SPDX-License-Identifier: GPL-2.0-only

//! A spinlock that may be taken in any context: `spin_lock_irqsave()`.
//!
//! Shaped like `kernel::sync::SpinLock`, whose guard must not be taken where an interrupt may want the same lock.
//! Nothing may sleep while it is held, so nothing that is dropped under it may do so either.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::bindings;
use kernel::{
    ffi::c_ulong,
    prelude::*,
    sync::lock::{
        Backend,
        Lock, //
    }, //
};

/// Creates an [`IrqSpinLock`] initialiser with a lock class of its own.
macro_rules! new_irq_spinlock {
    ($inner:expr, $name:literal) => {
        $crate::kapi::sync::IrqSpinLock::new($inner, $name, ::kernel::static_lock_class!())
    };
}
pub(crate) use new_irq_spinlock;

/// A spinlock that switches interrupts off while it is held.
pub(crate) type IrqSpinLock<T> = Lock<T, IrqSave>;

/// The backend of [`IrqSpinLock`].
pub(crate) struct IrqSave;

// SAFETY: The C spinlock gives mutual exclusion; `relock` is the default one, which calls `lock` again.
unsafe impl Backend for IrqSave {
    type State = bindings::spinlock_t;
    type GuardState = c_ulong;

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: The caller gives memory to initialise, and a name and a key that live for ever.
        unsafe { bindings::__spin_lock_init(ptr, name, key) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: The caller has initialised the lock.
        unsafe { bindings::imgstream_spin_lock_irqsave(ptr) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;
        // SAFETY: The caller has initialised the lock.
        unsafe { bindings::imgstream_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
    }

    unsafe fn unlock(ptr: *mut Self::State, flags: &Self::GuardState) {
        // SAFETY: The caller owns the lock, and `flags` is what locking it gave.
        unsafe { bindings::imgstream_spin_unlock_irqrestore(ptr, *flags) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: The caller has initialised the lock.
        unsafe { bindings::spin_assert_is_held(ptr) }
    }
}

#[kunit_tests(imgstream_irq_spinlock)]
mod tests {
    use super::*;
    use crate::kapi::testing::{
        begin,
        queue,
        HANG_MS, //
    };
    use core::hint::spin_loop;
    use kernel::{
        sync::Arc,
        types::Opaque, //
    };

    fn lock(value: u64) -> Result<Arc<IrqSpinLock<u64>>> {
        Arc::pin_init(new_irq_spinlock!(value, c"imgstream:kunit"), GFP_KERNEL)
    }

    /// Of another class, for lockdep.
    fn other_lock() -> Result<Arc<IrqSpinLock<u64>>> {
        Arc::pin_init(new_irq_spinlock!(0, c"imgstream:kunit_inner"), GFP_KERNEL)
    }

    /// A lock that tells what the processor's flags were when it was taken.
    #[pin_data]
    struct Probe {
        #[pin]
        raw: Opaque<bindings::spinlock_t>,
    }

    impl Probe {
        fn new() -> Result<Pin<KBox<Self>>> {
            let class = kernel::static_lock_class!().as_ptr();
            let init = pin_init!(Self {
                raw <- Opaque::ffi_init(move |slot| {
                    // SAFETY: `slot` is memory for a lock; name and class are static.
                    unsafe { IrqSave::init(slot, c"imgstream:kunit".as_char_ptr(), class) }
                }),
            });
            KBox::pin_init(init, GFP_KERNEL)
        }

        /// Whether interrupts may come; `None` if the lock is not free.
        fn interrupts(&self) -> Option<bool> {
            // SAFETY: Initialised by `new`.
            let flags = unsafe { IrqSave::try_lock(self.raw.get()) }?;
            // SAFETY: Taken just now.
            unsafe { IrqSave::unlock(self.raw.get(), &flags) };
            Some(flags & (1 << bindings::X86_EFLAGS_IF_BIT) != 0)
        }
    }

    #[test]
    fn interrupts_are_off_while_it_is_held() -> Result {
        let (outer, inner, probe) = (lock(0)?, other_lock()?, Probe::new()?);
        assert_eq!(probe.interrupts(), Some(true));
        let first = outer.lock();
        let with_one = probe.interrupts();
        let second = inner.lock();
        let with_two = probe.interrupts();
        drop(second);
        // The inner one puts back what it found.
        let with_one_again = probe.interrupts();
        drop(first);
        assert_eq!([with_one, with_two, with_one_again], [Some(false); 3]);
        assert_eq!(probe.interrupts(), Some(true));
        Ok(())
    }

    #[test]
    fn trying_gives_it_or_changes_nothing() -> Result {
        let (lock, probe) = (lock(0)?, Probe::new()?);
        let held = lock.try_lock();
        let while_held = (probe.interrupts(), lock.try_lock().is_some());
        let was_free = held.is_some();
        drop(held);
        assert!(was_free);
        assert_eq!(while_held, (Some(false), false));
        assert_eq!(probe.interrupts(), Some(true));
        assert!(lock.try_lock().is_some());
        Ok(())
    }

    #[test]
    fn one_at_a_time_has_it() -> Result {
        const TIMES: u64 = 2_000;
        let (queue, lock) = (queue()?, lock(0)?);
        let add = |lock: Arc<IrqSpinLock<u64>>| {
            for _ in 0..TIMES {
                let mut value = lock.lock();
                let old = *value;
                (0..10).for_each(|_| spin_loop());
                *value = core::hint::black_box(old) + 1;
            }
        };
        let threads = [lock.clone(), lock.clone()].map(|lock| begin(&queue, move || add(lock)));
        for over in threads {
            assert!(over?.wait_timeout(HANG_MS));
        }
        let value = *lock.lock();
        assert_eq!(value, 2 * TIMES);
        Ok(())
    }
}
