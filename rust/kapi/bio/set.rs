// SPDX-License-Identifier: GPL-2.0-only

//! Reserves of bios with private data in front of each, and the bios that come from them: clones of what came in, and own
//! ones over pages of the driver.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h).

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    Bio,
    Op, //
};
use crate::{
    bindings,
    kapi::{
        bdev::Bdev,
        blk::{
            BlkStatus,
            SECTOR_BYTES, //
        },
        page::{
            PageBuf,
            PagePtr,
            Part,
            PAGE_BYTES, //
        },
    },
};
use core::{
    marker::PhantomData,
    mem::{
        size_of,
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi,
    prelude::*,
    types::Opaque, //
};

/// What is done when a bio of a [`BioSet`] has completed.
pub(crate) trait Completion: Sized + Send {
    /// Whether the original is counted in the statistics of its device, from the submission to the completion.
    const ACCOUNTED: bool = false;

    /// Called once, in any context (mostly with interrupts off): must not sleep. `original` is what was cloned.
    fn done(self, original: Option<Bio>, status: BlkStatus);
}

/// What stands in front of each bio of a set (the C side's "front pad").
#[repr(C, align(16))]
struct Front<P> {
    private: MaybeUninit<P>,
    /// What a clone is a clone of, and whose pages it uses.
    original: Option<Bio>,
    /// When that began, if it is counted.
    began: Option<ffi::c_ulong>,
    /// The pages that an own bio reads or writes.
    pages: Option<PageBuf>,
}

/// A reserve of bios with private data of type `P`.
///
/// # Invariants
///
/// `raw` is an initialised bio set whose front pad has room for a `Front<P>`.
#[pin_data(PinnedDrop)]
pub(crate) struct BioSet<P> {
    #[pin]
    pub(super) raw: Opaque<bindings::bio_set>,
    _private: PhantomData<fn(P) -> P>,
}

// SAFETY: A bio set has its own locks.
unsafe impl<P> Send for BioSet<P> {}
// SAFETY: As above.
unsafe impl<P> Sync for BioSet<P> {}

impl<P> BioSet<P> {
    /// Makes a set that guarantees progress with `reserve` bios, each with own room for data pages if `vecs`.
    pub(crate) fn new(reserve: u32, vecs: bool) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(move |slot: *mut bindings::bio_set| {
                let pad = size_of::<Front<P>>() as u32;
                let flags = if vecs { bindings::BIOSET_NEED_BVECS as i32 } else { 0 };
                // SAFETY: `slot` is memory for a bio set, zeroed first as C callers' statics are.
                unsafe {
                    core::ptr::write_bytes(slot, 0, 1);
                    to_result(bindings::bioset_init(slot, reserve, pad, flags))
                }
            }),
            _private: PhantomData,
        })
    }
}

#[pinned_drop]
impl<P> PinnedDrop for BioSet<P> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised. Whoever owns the set drained its bios before (epochs, queues).
        unsafe { bindings::bioset_exit(self.raw.get()) };
    }
}

impl<P> BioSet<P> {
    /// Whether `bio` comes from this reserve.
    pub(crate) fn has_made(&self, bio: &Bio) -> bool {
        core::ptr::eq(bio.raw().bi_pool, self.raw.get())
    }
}

impl<P: Completion> BioSet<P> {
    /// Clones `bio` for the disk, all of it. Gives it back if there is no memory right now and it must not wait.
    pub(crate) fn clone_of(&self, bdev: &Bdev, bio: Bio) -> Result<Clone<P>, Bio> {
        self.clone_to(bdev.raw(), bio)
    }

    /// The same for any device, which is valid until the clone ends.
    pub(in crate::kapi) fn clone_to(
        &self,
        bdev: NonNull<bindings::block_device>,
        bio: Bio,
    ) -> Result<Clone<P>, Bio> {
        let gfp = if bio.is_nowait() {
            bindings::GFP_NOWAIT
        } else {
            bindings::GFP_NOIO
        };
        let set = self.raw.get();
        // SAFETY: All three are valid; an allocation that may sleep comes from the set's reserve in the end.
        let raw = unsafe { bindings::bio_alloc_clone(bdev.as_ptr(), bio.as_ptr(), gfp, set) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Clone::new(raw, Some(bio), None)),
            None => Err(bio),
        }
    }

    /// Makes a bio over `len` bytes of a buffer from `offset` on: whole sectors, at most 256 pages.
    pub(crate) fn over(
        &self,
        disk: &Bdev,
        op: Op,
        buf: &PageBuf,
        offset: usize,
        len: usize,
    ) -> Result<Clone<P>> {
        let sector = SECTOR_BYTES as usize;
        let pages = (offset % PAGE_BYTES)
            .saturating_add(len)
            .div_ceil(PAGE_BYTES);
        if len == 0 || (offset | len) % sector != 0 || pages > bindings::BIO_MAX_VECS as usize {
            return Err(EINVAL);
        }
        let opf = match op {
            Op::Read => bindings::req_op_REQ_OP_READ,
            Op::Write => bindings::req_op_REQ_OP_WRITE,
            _ => return Err(EINVAL),
        };
        let own = self.own(disk, opf, pages, buf)?;
        buf.each_part(offset, len, |page, part| {
            // SAFETY: The bio has room for `pages` parts, and the buffer is the one it keeps.
            unsafe { own.add(page, part) };
            Ok(())
        })?;
        Ok(own)
    }

    /// Makes a write of `len` zeroes: whole sectors, at most 256 pages. All of them are the first page of `zeroes`.
    pub(crate) fn zeroes(&self, disk: &Bdev, zeroes: &PageBuf, len: usize) -> Result<Clone<P>> {
        let pages = len.div_ceil(PAGE_BYTES);
        if len == 0 || len % SECTOR_BYTES as usize != 0 || pages > bindings::BIO_MAX_VECS as usize {
            return Err(EINVAL);
        }
        let page = zeroes.pages().first().ok_or(EINVAL)?;
        let own = self.own(disk, bindings::req_op_REQ_OP_WRITE, pages, zeroes)?;
        for at in (0..len).step_by(PAGE_BYTES) {
            let part = Part {
                offset: 0,
                len: PAGE_BYTES.min(len.saturating_sub(at)),
            };
            // SAFETY: The bio has room for `pages` parts, and the buffer is the one it keeps.
            unsafe { own.add(page, part) };
        }
        Ok(own)
    }

    /// A bio of our own with room for so many parts, at most 256, of a buffer that it keeps.
    fn own(
        &self,
        disk: &Bdev,
        opf: bindings::blk_opf_t,
        parts: usize,
        buf: &PageBuf,
    ) -> Result<Clone<P>> {
        let set = self.raw.get();
        // SAFETY: Valid arguments; the callers have checked the count.
        let bio = unsafe {
            bindings::bio_alloc_bioset(disk.as_ptr(), parts as u16, opf, bindings::GFP_NOIO, set)
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        Ok(Clone::new(bio, None, Some(buf.clone())))
    }
}

/// A bio of a [`BioSet`] before it is submitted.
///
/// # Invariants
///
/// The pointer is an unsubmitted bio of a `BioSet<P>`; all of its front pad but `private` is initialised.
pub(crate) struct Clone<P> {
    bio: NonNull<bindings::bio>,
    _private: PhantomData<P>,
}

impl<P: Completion> Clone<P> {
    fn new(bio: NonNull<bindings::bio>, original: Option<Bio>, pages: Option<PageBuf>) -> Self {
        let front = Front::<P> {
            private: MaybeUninit::uninit(),
            original,
            began: None,
            pages,
        };
        // SAFETY: The front pad lies in front of the bio and is uninitialised memory of ours.
        unsafe { front_of::<P>(bio.as_ptr()).write(front) };
        // INVARIANT: Initialised above.
        Self {
            bio,
            _private: PhantomData,
        }
    }

    fn front(&self) -> *mut Front<P> {
        front_of(self.bio.as_ptr())
    }

    /// Adds a part of a page.
    ///
    /// # Safety
    ///
    /// The bio has room for one more, and the page is one of the buffer that it keeps.
    unsafe fn add(&self, page: &PagePtr, part: Part) {
        // SAFETY: By the caller's promise; the buffer stays in the front pad until the bio has completed.
        unsafe {
            bindings::__bio_add_page(
                self.bio.as_ptr(),
                page.as_ptr(),
                part.len as u32,
                part.offset as u32, //
            )
        };
    }

    /// Has it done in place of `original`, which its completion gets.
    pub(crate) fn instead_of(self, original: Bio) -> Self {
        // SAFETY: The front pad is initialised, and this bio is ours alone.
        unsafe { (*self.front()).original = Some(original) };
        self
    }

    /// Where on the disk it goes.
    pub(crate) fn set_sector(&mut self, sector: u64) {
        // SAFETY: Unsubmitted and ours.
        unsafe { (*self.bio.as_ptr()).bi_iter.bi_sector = sector };
    }

    /// Submits it; `private.done()` is called when it completed.
    pub(crate) fn submit(self, private: P) {
        let this = ManuallyDrop::new(self);
        let bio = this.bio.as_ptr();
        // SAFETY: Unsubmitted and ours; `end_io::<P>` fits the set's front pad. Given up to the block layer.
        unsafe {
            let front = &mut *this.front();
            front.private.write(private);
            if P::ACCOUNTED {
                front.began = front.original.as_ref().and_then(Bio::begin_accounting);
            }
            (*bio).bi_end_io = Some(end_io::<P>);
            bindings::submit_bio_noacct(bio);
        }
    }

    /// Submits it and waits; `private` is not needed then. Must not be used where bios of the same set are submitted
    /// from (a submit function), or it waits for itself.
    pub(crate) fn submit_and_wait(self) -> BlkStatus {
        // SAFETY: Unsubmitted and ours; freed by the drop of `self`, which still owns it afterwards.
        BlkStatus::from_errno(unsafe { bindings::submit_bio_wait(self.bio.as_ptr()) })
    }

    /// Submits it to the device that the original was sent to, not to the disk, without the demands to flush first and
    /// to be durable at completion: whoever does this answers them otherwise.
    ///
    /// The whole device, even if the original came through a partition: its sector has been moved by the partition's
    /// start already, and would be moved again.
    pub(crate) fn submit_beside_without_durability(self, private: P) {
        // SAFETY: Unsubmitted and ours.
        unsafe { (*self.bio.as_ptr()).bi_opf &= !(bindings::REQ_PREFLUSH | bindings::REQ_FUA) };
        // SAFETY: The front pad is initialised.
        if let Some(original) = unsafe { &(*self.front()).original } {
            // SAFETY: The device of a bio owed here stays until it ends, and with it its disk and that disk's whole device.
            let whole = unsafe { (*(*original.raw().bi_bdev).bd_disk).part0 };
            // SAFETY: Both are valid, as above; the bio is unsubmitted and ours.
            unsafe { bindings::imgstream_bio_set_dev(self.bio.as_ptr(), whole) };
        }
        self.submit(private);
    }
}

impl<P> Drop for Clone<P> {
    fn drop(&mut self) {
        let front: *mut Front<P> = front_of(self.bio.as_ptr());
        // SAFETY: Unsubmitted and ours to free; `private` is not initialised and not dropped, an original fails.
        unsafe {
            core::ptr::drop_in_place(front);
            bindings::bio_put(self.bio.as_ptr());
        }
    }
}

fn front_of<P>(bio: *mut bindings::bio) -> *mut Front<P> {
    bio.cast::<u8>().wrapping_sub(size_of::<Front<P>>()).cast()
}

/// Completion of a bio of a `BioSet<P>`.
///
/// # Safety
///
/// Called by the block layer, once, for a bio submitted by [`Clone::submit`].
unsafe extern "C" fn end_io<P: Completion>(bio: *mut bindings::bio) {
    let front: *mut Front<P> = front_of(bio);
    // SAFETY: `submit` completed the front pad; it is taken out before the bio is freed.
    let (front, status) = unsafe {
        let status = BlkStatus::from_raw((*bio).bi_status);
        (core::ptr::read(front), status)
    };
    // SAFETY: The one reference that the allocation gave.
    unsafe { bindings::bio_put(bio) };
    drop(front.pages);
    if let Some(original) = &front.original {
        original.end_accounting(front.began);
    }
    // SAFETY: `submit` wrote it.
    unsafe { front.private.assume_init() }.done(front.original, status);
}
