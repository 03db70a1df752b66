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
