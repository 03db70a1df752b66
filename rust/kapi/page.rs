// SPDX-License-Identifier: GPL-2.0-only

//! Buffers of whole pages that the driver owns, with a reserve for the I/O path.
//!
//! Rule 6 of the design rests on this type: bytes are received into, checked in and stored from the same [`PageBuf`];
//! readers get copies. Imitates `kernel::page::Page` (upstream) over `mempool_t` (upstream has no wrapper for it).
//!
//! C headers: [`include/linux/mempool.h`](srctree/include/linux/mempool.h),
//! [`include/linux/gfp.h`](srctree/include/linux/gfp.h).

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Bytes in a page, which is the size of a block.
pub(crate) const PAGE_BYTES: usize = kernel::page::PAGE_SIZE;

/// A reserve of pages: an allocation larger than memory allows right now waits for pages of the reserve.
///
/// # Invariants
///
/// `pool` is a valid page mempool that holds at least `reserve` pages.
#[pin_data(PinnedDrop)]
pub(crate) struct PagePool {
    pool: NonNull<bindings::mempool_t>,
    reserve: usize,
    /// Held by the one allocation that may sleep for reserve pages. Two that each held half of the reserve would wait
    /// for each other for ever.
    #[pin]
    slow: Mutex<()>,
}

// SAFETY: A mempool has its own lock and belongs to no thread.
unsafe impl Send for PagePool {}
// SAFETY: As above; allocation and free may run at once.
unsafe impl Sync for PagePool {}

impl PagePool {
    /// Makes a pool that can always give out one buffer of `reserve` pages.
    pub(crate) fn new(reserve: usize) -> Result<Arc<Self>> {
        let count = i32::try_from(reserve)?;
        // SAFETY: May sleep, which is allowed where pools are made; the count is positive.
        let pool = unsafe { bindings::imgstream_page_pool_create(count) };
        let pool = NonNull::new(pool).ok_or(ENOMEM)?;
        // INVARIANT: Just created with `reserve` pages.
        Arc::pin_init(
            pin_init!(Self {
                pool,
                reserve,
                slow <- kernel::new_mutex!((), "imgstream:page_pool"),
            }),
            GFP_KERNEL,
        )
    }

    fn page(&self, gfp: bindings::gfp_t) -> Option<NonNull<bindings::page>> {
        // SAFETY: The pool is valid by the type invariant.
        let page = unsafe { bindings::mempool_alloc_noprof(self.pool.as_ptr(), gfp) };
        NonNull::new(page.cast())
    }

    fn free(&self, page: NonNull<bindings::page>) {
        // SAFETY: Each page given out by `page()` comes back once, from `PageBuf`'s drop.
        unsafe { bindings::mempool_free(page.as_ptr().cast(), self.pool.as_ptr()) };
    }
}

#[pinned_drop]
impl PinnedDrop for PagePool {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Every `PageBuf` holds an `Arc` of its pool, so all pages are back.
        unsafe { bindings::mempool_destroy(self.pool.as_ptr()) };
    }
}

/// A page of a [`PageBuf`].
#[repr(transparent)]
pub(crate) struct PagePtr(NonNull<bindings::page>);

impl PagePtr {
    /// The page, valid as long as the buffer it was borrowed from.
    pub(crate) fn as_ptr(&self) -> *mut bindings::page {
        self.0.as_ptr()
    }
}

struct Pages {
    pool: Arc<PagePool>,
    pages: KVec<PagePtr>,
}

// SAFETY: Pages belong to no thread.
unsafe impl Send for Pages {}
// SAFETY: Contents are only touched by raw copies (`PageBuf`) and by devices; nothing ever refers to them as Rust data.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        for page in &self.pages {
            self.pool.free(page.0);
        }
    }
}

/// A buffer of whole pages; clones share the pages.
///
/// Contents are plain bytes for devices, sockets and copies. Copies that race see a mixture of old and new bytes: who
/// may write when is the business of the owner (a fetch until it is reported done, nobody afterwards).
#[derive(Clone)]
pub(crate) struct PageBuf(Arc<Pages>);

impl PageBuf {
    /// Allocates `pages` pages, at most the reserve of the pool. May sleep, never for the network unless the reserve is
    /// held by fetches that wait for it.
    pub(crate) fn new(pool: &Arc<PagePool>, pages: usize) -> Result<Self> {
        if pages > pool.reserve {
            return Err(EINVAL);
        }
        let mut buf = Pages {
            pool: pool.clone(),
            pages: KVec::with_capacity(pages, GFP_KERNEL)?,
        };
        if Self::extend(&mut buf, pages, bindings::GFP_NOWAIT).is_err() {
            let taken = core::mem::replace(&mut buf.pages, KVec::with_capacity(pages, GFP_KERNEL)?);
            for page in taken {
                pool.free(page.0);
            }
            let _one = pool.slow.lock();
            Self::extend(&mut buf, pages, bindings::GFP_NOIO)?;
        }
        Ok(Self(Arc::new(buf, GFP_KERNEL)?))
    }

    fn extend(buf: &mut Pages, pages: usize, gfp: bindings::gfp_t) -> Result {
        while buf.pages.len() < pages {
            let page = buf.pool.page(gfp).ok_or(AllocError)?;
            if buf.pages.push_within_capacity(PagePtr(page)).is_err() {
                buf.pool.free(page);
                return Err(ENOMEM);
            }
        }
        Ok(())
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.pages.len().saturating_mul(PAGE_BYTES)
    }

    /// The pages, in order.
    pub(crate) fn pages(&self) -> &[PagePtr] {
        &self.0.pages
    }

    /// Copies `dst.len()` bytes from `offset` on out of the buffer.
    pub(crate) fn copy_to_slice(&self, offset: usize, dst: &mut [u8]) -> Result {
        let mut done = 0;
        self.each_part(offset, dst.len(), |page, part| {
            let to = dst.get_mut(done..).ok_or(EINVAL)?;
            let to = to.get_mut(..part.len).ok_or(EINVAL)?;
            // SAFETY: `each_part` keeps the part inside of the page; `to` has `part.len` bytes of its own.
            unsafe { Mapped::new(page).read(part.offset, to) };
            done = done.saturating_add(part.len);
            Ok(())
        })
    }

    /// Copies a slice into the buffer.
    pub(crate) fn copy_from_slice(&self, offset: usize, src: &[u8]) -> Result {
        let mut done = 0;
        self.each_part(offset, src.len(), |page, part| {
            let from = src.get(done..).ok_or(EINVAL)?;
            let from = from.get(..part.len).ok_or(EINVAL)?;
            // SAFETY: `each_part` keeps the part inside of the page.
            unsafe { Mapped::new(page).write(part.offset, from) };
            done = done.saturating_add(part.len);
            Ok(())
        })
    }

    /// Zeroes a range.
    pub(crate) fn fill_zero(&self, offset: usize, len: usize) -> Result {
        self.each_part(offset, len, |page, part| {
            // SAFETY: `each_part` keeps the part inside of the page.
            unsafe { Mapped::new(page).zero(part.offset, part.len) };
            Ok(())
        })
    }

    /// Calls `f` for each page that `[offset, offset + len)` touches, with the part inside of that page.
    pub(crate) fn each_part(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(&PagePtr, Part) -> Result,
    ) -> Result {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.len() {
            return Err(EINVAL);
        }
        let mut at = offset;
        while at < end {
            let page = self.0.pages.get(at / PAGE_BYTES).ok_or(EINVAL)?;
            let inside = at % PAGE_BYTES;
            let part = Part {
                offset: inside,
                len: (PAGE_BYTES - inside).min(end - at),
            };
            f(page, part)?;
            at = at.saturating_add(part.len);
        }
        Ok(())
    }
}

/// A byte range inside of one page.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// First byte.
    pub(crate) offset: usize,
    /// Number of bytes; `offset + len` is at most a page.
    pub(crate) len: usize,
}

/// A page mapped into the kernel's address space by this CPU; unmapped on drop, in reverse order of mapping.
struct Mapped(*mut u8);

impl Mapped {
    fn new(page: &PagePtr) -> Self {
        // SAFETY: The page is valid: it is borrowed from its buffer.
        Self(unsafe { bindings::kmap_local_page(page.as_ptr()) }.cast())
    }

    /// # Safety
    ///
    /// `offset + dst.len()` is at most a page.
    unsafe fn read(&self, offset: usize, dst: &mut [u8]) {
        // SAFETY: The source is inside of the mapped page by the caller's promise; page and slice do not overlap, as
        // the pages of a `PageBuf` are nobody's Rust data.
        unsafe { core::ptr::copy_nonoverlapping(self.0.add(offset), dst.as_mut_ptr(), dst.len()) }
    }

    /// # Safety
    ///
    /// `offset + src.len()` is at most a page.
    unsafe fn write(&self, offset: usize, src: &[u8]) {
        // SAFETY: As for `read`, in the other direction.
        unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), self.0.add(offset), src.len()) }
    }

    /// # Safety
    ///
    /// `offset + len` is at most a page.
    unsafe fn zero(&self, offset: usize, len: usize) {
        // SAFETY: Inside of the mapped page by the caller's promise.
        unsafe { core::ptr::write_bytes(self.0.add(offset), 0, len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: The address came from `kmap_local_page` and mappings nest like their Rust values.
        unsafe { bindings::kunmap_local(self.0.cast()) };
    }
}
