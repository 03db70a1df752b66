// SPDX-License-Identifier: GPL-2.0-only

//! Scopes in which this thread's allocations do not come back to us.
//!
//! Writing a dirty page may need the disk that this driver is, and the disk may need memory: inside [`NoIo`] every
//! allocation of the thread, also those deep in the network stack, frees memory without starting I/O. Inside
//! [`NoReclaim`] it takes from the reserves instead of waiting for memory at all, as `nbd` and `nvme-tcp` do to send.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::{
    ffi::c_uint,
    types::NotThreadSafe, //
};

/// `memalloc_noio_save()` until dropped. Scopes nest; they must end in reverse order, which blocks do by themselves.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct NoIo {
    saved: c_uint,
    _thread: NotThreadSafe,
}

impl NoIo {
    /// Begins the scope for the current thread.
    pub(crate) fn enter() -> Self {
        Self {
            // SAFETY: Sets a flag of the current thread; `NotThreadSafe` keeps the end of the scope on it.
            saved: unsafe { bindings::imgstream_memalloc_noio_save() },
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: `saved` is what this thread's `enter` got.
        unsafe { bindings::imgstream_memalloc_noio_restore(self.saved) };
    }
}

/// `memalloc_noreclaim_save()` until dropped. Keep it short: it may use up the reserves.
#[must_use = "the scope ends when this is dropped"]
pub(crate) struct NoReclaim {
    saved: c_uint,
    _thread: NotThreadSafe,
}

impl NoReclaim {
    /// Begins the scope for the current thread.
    pub(crate) fn enter() -> Self {
        Self {
            // SAFETY: Sets a flag of the current thread; `NotThreadSafe` keeps the end of the scope on it.
            saved: unsafe { bindings::imgstream_memalloc_noreclaim_save() },
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for NoReclaim {
    fn drop(&mut self) {
        // SAFETY: `saved` is what this thread's `enter` got.
        unsafe { bindings::imgstream_memalloc_noreclaim_restore(self.saved) };
    }
}

#[kernel::prelude::kunit_tests(imgstream_noio)]
mod tests {
    use super::*;

    /// Which scopes the current thread is in.
    fn scopes() -> u32 {
        // SAFETY: The current task is there, and only it changes its flags.
        let flags = unsafe { (*bindings::get_current()).flags };
        flags & (bindings::PF_MEMALLOC_NOIO | bindings::PF_MEMALLOC)
    }

    #[test]
    fn scopes_nest_and_end() {
        let outside = scopes();
        let outer = NoIo::enter();
        assert_eq!(scopes(), outside | bindings::PF_MEMALLOC_NOIO);
        let inner = NoIo::enter();
        drop(inner);
        assert_eq!(scopes(), outside | bindings::PF_MEMALLOC_NOIO);
        drop(outer);
        assert_eq!(scopes(), outside);
    }

    #[test]
    fn scopes_without_reclaim_nest_in_those_without_io() {
        let outside = scopes();
        let no_io = NoIo::enter();
        for _ in 0..2 {
            let no_reclaim = NoReclaim::enter();
            let both = bindings::PF_MEMALLOC_NOIO | bindings::PF_MEMALLOC;
            assert_eq!(scopes(), outside | both);
            drop(NoReclaim::enter());
            assert_eq!(scopes(), outside | both);
            drop(no_reclaim);
            assert_eq!(scopes(), outside | bindings::PF_MEMALLOC_NOIO);
        }
        drop(no_io);
        assert_eq!(scopes(), outside);
    }
}
