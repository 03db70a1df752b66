// SPDX-License-Identifier: GPL-2.0-only

//! Reserves of memory for the I/O path. Upstream has no wrapper for `mempool_t`.
//!
//! C header: [`include/linux/mempool.h`](srctree/include/linux/mempool.h)

use crate::bindings;
use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// `mempool_t`: elements of one kind, so many of which can always be had in the end.
///
/// Whoever allocates from it gives every element back before it is dropped.
///
/// # Invariants
///
/// `raw` is a valid mempool that nobody else destroys.
pub(crate) struct Mempool {
    raw: NonNull<bindings::mempool_t>,
}

// SAFETY: A mempool has its own lock and belongs to no thread.
unsafe impl Send for Mempool {}
// SAFETY: As above; allocation and free may run at once.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Of pages. May sleep.
    pub(crate) fn pages(count: usize) -> Result<Self> {
        let count = i32::try_from(count)?;
        // SAFETY: May sleep, which is allowed where pools are made.
        Self::own(unsafe { bindings::imgstream_page_pool_create(count) })
    }

    /// Of `bytes` of memory each. May sleep.
    pub(crate) fn memory(count: usize, bytes: usize) -> Result<Self> {
        let count = i32::try_from(count)?;
        // SAFETY: As above.
        Self::own(unsafe { bindings::imgstream_kmalloc_pool_create(count, bytes) })
    }

    fn own(raw: *mut bindings::mempool_t) -> Result<Self> {
        // INVARIANT: Just created.
        NonNull::new(raw).map(|raw| Self { raw }).ok_or(ENOMEM)
    }

    /// An element, or `None` if there is no memory now.
    pub(crate) fn try_alloc(&self) -> Option<NonNull<c_void>> {
        self.alloc_with(bindings::GFP_NOWAIT)
    }

    /// An element, after waiting for one that comes back if need be. Sleeps.
    pub(crate) fn alloc(&self) -> Option<NonNull<c_void>> {
        self.alloc_with(bindings::GFP_NOIO)
    }

    fn alloc_with(&self, gfp: bindings::gfp_t) -> Option<NonNull<c_void>> {
        // SAFETY: Valid by the type invariant.
        NonNull::new(unsafe { bindings::mempool_alloc_noprof(self.raw.as_ptr(), gfp) })
    }

    /// Takes an element back. Any context.
    ///
    /// # Safety
    ///
    /// `element` was given out by this pool, and nobody uses it any more.
    pub(crate) unsafe fn free(&self, element: NonNull<c_void>) {
        // SAFETY: By the caller's promise.
        unsafe { bindings::mempool_free(element.as_ptr(), self.raw.as_ptr()) };
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // SAFETY: Valid and ours by the type invariant; all elements are back.
        unsafe { bindings::mempool_destroy(self.raw.as_ptr()) };
    }
}

#[kunit_tests(imgstream_mempool)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use kernel::page::PAGE_SIZE;

    /// How many elements, of how many bytes.
    const TABLE: [(usize, usize); 6] = [(1, 1), (1, 8), (2, 511), (3, 512), (16, 4096), (64, 96)];

    /// Whether so many elements can be had at a time, each of them all of `bytes` and nobody else's, and go back.
    fn gives(pool: &Mempool, count: usize, bytes: usize) -> Result<bool> {
        let mut elements = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let element = pool.alloc().ok_or(ENOMEM)?;
            // SAFETY: An element has this many bytes, and is ours.
            unsafe { element.as_ptr().cast::<u8>().write_bytes(0x5a, bytes) };
            elements.push(element, GFP_KERNEL)?;
        }
        let at = |index: usize| elements.get(index).map(|element| element.as_ptr() as usize);
        let distinct = (0..count).all(|one| (0..one).all(|other| at(one) != at(other)));
        for &element in &elements {
            // SAFETY: Given out above, and not used after this.
            unsafe { pool.free(element) };
        }
        Ok(distinct)
    }

    #[test]
    fn elements_can_be_had_all_at_once_and_again() -> Result {
        assert!(every(TABLE, |&(count, bytes)| {
            Mempool::memory(count, bytes)
                .is_ok_and(|pool| (0..2).all(|_| gives(&pool, count, bytes) == Ok(true)))
        }));
        let pages = Mempool::pages(8)?;
        assert_eq!(gives(&pages, 8, 0), Ok(true));
        assert_eq!(
            gives(&Mempool::memory(1, PAGE_SIZE)?, 1, PAGE_SIZE),
            Ok(true)
        );
        Ok(())
    }

    #[test]
    fn an_element_that_is_had_without_waiting_goes_back_like_any_other() -> Result {
        let pool = Mempool::memory(1, 64)?;
        for _ in 0..100 {
            let element = pool.try_alloc().ok_or(ENOMEM)?;
            // SAFETY: Just given out.
            unsafe { pool.free(element) };
        }
        Ok(())
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert!(every([1 << 31, 1 << 40, usize::MAX], |&count| {
            Mempool::pages(count).is_err() && Mempool::memory(count, 8).is_err()
        }));
    }
}
