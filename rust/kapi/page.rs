// SPDX-License-Identifier: GPL-2.0-only

//! Buffers of whole pages that the driver owns, with a reserve for the I/O path.
//!
//! Rule 6 of the design rests on this type: bytes are received into, checked in and stored from the same [`PageBuf`];
//! readers get copies. Imitates `kernel::page::Page` (upstream) over `mempool_t` (upstream has no wrapper for it).
//!
//! C headers: [`include/linux/mempool.h`](srctree/include/linux/mempool.h),
//! [`include/linux/gfp.h`](srctree/include/linux/gfp.h).

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::{
        crypto::crc32c_raw,
        mempool::Mempool, //
    },
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        Mutex,
        Refcount, //
    },
};

/// Bytes in a page, which is the size of a block.
pub(crate) const PAGE_BYTES: usize = kernel::page::PAGE_SIZE;

/// A reserve of pages, and of what a buffer needs besides them: who wants more than memory allows right now waits for
/// pages of the reserve, and nobody goes away empty-handed.
///
/// # Invariants
///
/// `pages` holds at least as many pages as `headers` has elements, and no less than `longest`; each element has room for a
/// [`Header`] and the pointers of `longest` pages.
#[pin_data]
pub(crate) struct PagePool {
    pages: Mempool,
    headers: Mempool,
    longest: usize,
    /// Held by the one allocation that may sleep for reserve pages. Two that each held half of the reserve would wait
    /// for each other for ever. Who waits for a header holds no page.
    #[pin]
    slow: Mutex<()>,
}

impl PagePool {
    /// Makes a pool that can always give out one buffer of `reserve` pages.
    pub(crate) fn new(reserve: usize) -> Result<Arc<Self>> {
        Self::with_longest(reserve, reserve)
    }

    /// Makes a pool that can always give out buffers of `reserve` pages together, each of at most `longest`, of which there are
    /// no less.
    pub(crate) fn with_longest(reserve: usize, longest: usize) -> Result<Arc<Self>> {
        if longest > reserve {
            return Err(EINVAL);
        }
        let list = longest.checked_mul(size_of::<PagePtr>()).ok_or(EINVAL)?;
        let header = list.checked_add(size_of::<Header>()).ok_or(EINVAL)?;
        let pages = Mempool::pages(reserve)?;
        let headers = Mempool::memory(reserve, header)?;
        // INVARIANT: Just created so.
        Arc::pin_init(
            pin_init!(Self {
                pages,
                headers,
                longest,
                slow <- kernel::new_mutex!((), "imgstream:page_pool"),
            }),
            GFP_KERNEL,
        )
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

/// What the clones of a buffer share; behind it in memory is its list of pages.
struct Header {
    users: Refcount,
    pool: Arc<PagePool>,
    /// Pages in the list.
    len: usize,
}

/// A buffer of whole pages; clones share the pages.
///
/// Contents are plain bytes for devices, sockets and copies. Copies that race see a mixture of old and new bytes: who
/// may write when is the business of the owner (a fetch until it is reported done, nobody afterwards).
///
/// # Invariants
///
/// The pointer is to an initialised [`Header`] that this value counts as a user of. It is an element of `headers` of its
/// pool, and the first `len` places of the list behind it are pages of that pool. Only the first user changes it, before
/// there is a second one.
pub(crate) struct PageBuf(NonNull<Header>);

// SAFETY: Pages belong to no thread, and users are counted atomically.
unsafe impl Send for PageBuf {}
// SAFETY: Contents are only touched by raw copies and by devices; nothing ever refers to them as Rust data.
unsafe impl Sync for PageBuf {}

impl PageBuf {
    /// Allocates `pages` pages, at most as many as the longest buffer of the pool has. May sleep, never for the network unless
    /// the reserve is held by fetches that wait for it.
    pub(crate) fn new(pool: &Arc<PagePool>, pages: usize) -> Result<Self> {
        if pages > pool.longest {
            return Err(EINVAL);
        }
        let mut buf = Self::empty(pool)?;
        while buf.pages().len() < pages {
            let Some(page) = pool.pages.try_alloc() else {
                buf.give_pages_back();
                return buf.filled_slowly(pages);
            };
            buf.push(page.cast());
        }
        Ok(buf)
    }

    fn filled_slowly(mut self, pages: usize) -> Result<Self> {
        let pool = self.header().pool.clone();
        let _one = pool.slow.lock();
        while self.pages().len() < pages {
            self.push(pool.pages.alloc().ok_or(ENOMEM)?.cast());
        }
        Ok(self)
    }

    fn empty(pool: &Arc<PagePool>) -> Result<Self> {
        let header = pool.headers.alloc().ok_or(ENOMEM)?.cast::<Header>();
        let first = Header {
            users: Refcount::new(1),
            pool: pool.clone(),
            len: 0,
        };
        // SAFETY: The element has room for it and is nobody else's.
        unsafe { header.write(first) };
        // INVARIANT: One user, no page.
        Ok(Self(header))
    }

    fn header(&self) -> &Header {
        // SAFETY: Initialised by the type invariant.
        unsafe { self.0.as_ref() }
    }

    /// The list of pages.
    fn list(&self) -> NonNull<PagePtr> {
        // SAFETY: By the type invariant the list is behind the header; both are aligned to the size of a pointer.
        unsafe { self.0.add(1) }.cast()
    }

    /// Adds a page of the pool. The only user calls this, less than `longest` times.
    fn push(&mut self, page: NonNull<bindings::page>) {
        let len = self.header().len;
        // SAFETY: There is room for `longest` pages.
        unsafe { self.list().add(len).write(PagePtr(page)) };
        // SAFETY: Nobody else uses the header.
        unsafe { self.0.as_mut() }.len = len.saturating_add(1);
    }

    /// Empties the buffer. The only or the last user calls this.
    fn give_pages_back(&mut self) {
        let header = self.header();
        for page in self.pages() {
            // SAFETY: A page of this pool by the type invariant, and no user is left.
            unsafe { header.pool.pages.free(page.0.cast()) };
        }
        // SAFETY: Nobody else uses the header.
        unsafe { self.0.as_mut() }.len = 0;
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.header().len.saturating_mul(PAGE_BYTES)
    }

    /// The pages, in order.
    pub(crate) fn pages(&self) -> &[PagePtr] {
        // SAFETY: By the type invariant; the header does not change while it is borrowed.
        unsafe { core::slice::from_raw_parts(self.list().as_ptr(), self.header().len) }
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

    /// The CRC-32C of what `crc` is the CRC-32C of, followed by `len` bytes from `offset` on.
    pub(crate) fn crc32c(&self, crc: u32, offset: usize, len: usize) -> Result<u32> {
        let mut crc = crc;
        self.each_part(offset, len, |page, part| {
            // SAFETY: `each_part` keeps the part inside of the page.
            crc = unsafe { Mapped::new(page).crc32c(crc, part) };
            Ok(())
        })?;
        Ok(crc)
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
            let page = self.pages().get(at / PAGE_BYTES).ok_or(EINVAL)?;
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

impl Clone for PageBuf {
    fn clone(&self) -> Self {
        self.header().users.inc();
        // INVARIANT: Counted.
        Self(self.0)
    }
}

impl Drop for PageBuf {
    fn drop(&mut self) {
        if !self.header().users.dec_and_test() {
            return;
        }
        self.give_pages_back();
        // SAFETY: The last user is gone; the header is not used as such any more.
        let Header { pool, .. } = unsafe { self.0.read() };
        // SAFETY: It came from there by the type invariant.
        unsafe { pool.headers.free(self.0.cast()) };
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
    /// `part` is inside of a page.
    unsafe fn crc32c(&self, crc: u32, part: Part) -> u32 {
        // SAFETY: Inside of the mapped page by the caller's promise.
        unsafe { crc32c_raw(crc, self.0.add(part.offset), part.len) }
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
