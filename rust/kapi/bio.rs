// SPDX-License-Identifier: GPL-2.0-only

//! Block I/O descriptors: those that come in, and those that this module sends to the disk.
//!
//! An incoming [`Bio`] is owned and ends exactly once, by its type: ending, sending on and cloning consume it, and a
//! forgotten one ends with an I/O error when it is dropped. Shaped after `rust/kernel/block/bio.rs` of the downstream
//! rnull tree; upstream has no wrapper.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h).

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
    prelude::*,
    types::Opaque, //
};

/// What a bio asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Flush, without data (blk-mq requests only; a bio says it with a flag).
    Flush,
    /// The contents are no longer needed.
    Discard,
    /// Make it read as zeroes.
    WriteZeroes,
    /// Anything else; not supported here.
    Other,
}

impl Op {
    pub(crate) fn from_flags(flags: bindings::blk_opf_t) -> Self {
        match flags & bindings::REQ_OP_MASK {
            bindings::req_op_REQ_OP_READ => Self::Read,
            bindings::req_op_REQ_OP_WRITE => Self::Write,
            bindings::req_op_REQ_OP_FLUSH => Self::Flush,
            bindings::req_op_REQ_OP_DISCARD => Self::Discard,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Other,
        }
    }
}

/// A bio that this module received and has to end.
///
/// # Invariants
///
/// The pointer is a valid bio whose completion is owed by the holder of this value, and by nobody else.
#[repr(transparent)]
pub(crate) struct Bio(NonNull<bindings::bio>);

// SAFETY: A bio belongs to no thread.
unsafe impl Send for Bio {}
// SAFETY: Shared references only read fields that nobody changes while the bio is owed here.
unsafe impl Sync for Bio {}

impl Bio {
    /// # Safety
    ///
    /// The caller hands the duty to end this valid bio over.
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the caller's promise.
        Self(bio)
    }

    fn into_raw(self) -> *mut bindings::bio {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// The C bio, still owned by `self`.
    pub(super) fn as_ptr(&self) -> *mut bindings::bio {
        self.0.as_ptr()
    }

    fn raw(&self) -> &bindings::bio {
        // SAFETY: Valid by the type invariant. Nobody else changes it while it is owed here.
        unsafe { self.0.as_ref() }
    }

    /// Operation.
    pub(crate) fn op(&self) -> Op {
        Op::from_flags(self.raw().bi_opf)
    }

    /// First sector, relative to the whole disk.
    pub(crate) fn sector(&self) -> u64 {
        self.raw().bi_iter.bi_sector
    }

    /// Number of sectors; 0 for a pure flush.
    pub(crate) fn sectors(&self) -> u32 {
        self.raw().bi_iter.bi_size / SECTOR_BYTES as u32
    }

    fn has(&self, flag: bindings::blk_opf_t) -> bool {
        self.raw().bi_opf & flag != 0
    }

    fn clear(&mut self, flag: bindings::blk_opf_t) {
        // SAFETY: Valid and exclusively ours by the type invariant.
        unsafe { (*self.as_ptr()).bi_opf &= !flag };
    }

    /// Whether the cache below has to be flushed first.
    pub(crate) fn is_preflush(&self) -> bool {
        self.has(bindings::REQ_PREFLUSH)
    }

    /// Whether the data has to be durable at completion.
    pub(crate) fn is_fua(&self) -> bool {
        self.has(bindings::REQ_FUA)
    }

    /// Whether the submitter wants an error rather than a wait.
    pub(crate) fn is_nowait(&self) -> bool {
        self.has(bindings::REQ_NOWAIT)
    }

    /// Whether this is read-ahead, which may fail at any time.
    pub(crate) fn is_readahead(&self) -> bool {
        self.has(bindings::REQ_RAHEAD)
    }

    /// Whether [`Bio::mark`] was called.
    pub(crate) fn is_marked(&self) -> bool {
        self.has(bindings::REQ_DRV)
    }

    /// Sets the flag that the block layer leaves to the driver.
    pub(crate) fn mark(&mut self) {
        // SAFETY: Valid and exclusively ours by the type invariant.
        unsafe { (*self.as_ptr()).bi_opf |= bindings::REQ_DRV };
    }

    /// Takes the demand to flush first away, once that has happened.
    pub(crate) fn clear_preflush(&mut self) {
        self.clear(bindings::REQ_PREFLUSH);
    }

    /// Ends the bio.
    pub(crate) fn end(self, status: BlkStatus) {
        let bio = self.into_raw();
        // SAFETY: Owed here by the type invariant, and given up by `into_raw`. The status stays what an earlier part
        // set if this one is fine.
        unsafe {
            if !status.is_ok() {
                (*bio).bi_status = status.as_raw();
            }
            bindings::bio_endio(bio);
        }
    }

    /// Answers a read with zeroes.
    pub(crate) fn end_zeroed(self) {
        // SAFETY: A valid bio by the type invariant; its pages are the submitter's until it ends.
        unsafe { bindings::zero_fill_bio(self.as_ptr()) };
        self.end(BlkStatus::OK);
    }

    /// Splits the first `sectors` off and submits the rest again, to the device it came from; it will be looked at
    /// after the returned part, whose resources are thus free by then: this is what lets one bio set serve any depth.
    /// `None` if that failed; the bio has ended then.
    pub(crate) fn split_front<P>(self, sectors: u32, set: &BioSet<P>) -> Option<Self> {
        let bio = self.into_raw();
        // SAFETY: The bio is ours to split; the set is initialised. The front part is ours to end, the rest is owed
        // by whoever gets it submitted.
        let front = unsafe { bindings::bio_submit_split_bioset(bio, sectors, set.raw.get()) };
        // SAFETY: Either null or a new bio that nobody else ends.
        NonNull::new(front).map(|front| unsafe { Self::from_raw(front) })
    }

    /// Submits the bio again, to the device that it belongs to. From a submit function it is queued behind.
    pub(crate) fn submit_again(self) {
        // SAFETY: Given up to the block layer.
        unsafe { bindings::submit_bio_noacct(self.into_raw()) };
    }

    /// Sends the bio itself to another whole disk, at the same sector.
    pub(super) fn send_to(self, bdev: NonNull<bindings::block_device>) {
        let bio = self.into_raw();
        // SAFETY: The device is valid by the (crate-internal) caller's choice; the bio is given up to the block layer.
        unsafe {
            bindings::imgstream_bio_set_dev(bio, bdev.as_ptr());
            bindings::submit_bio_noacct(bio);
        }
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: Still owed here. A `Bio` that is not ended on purpose ends as an error.
        unsafe {
            (*self.as_ptr()).bi_status = BlkStatus::IOERR.as_raw();
            bindings::bio_endio(self.as_ptr());
        }
    }
}

/// A queue of bios, linked through the bios themselves. Imitates `struct bio_list`.
///
/// # Invariants
///
/// `head` starts a list, linked by `bi_next`, of bios owed by this value; `tail` is its last one.
pub(crate) struct BioList {
    head: *mut bindings::bio,
    tail: *mut bindings::bio,
}

// SAFETY: Like `Bio`.
unsafe impl Send for BioList {}

impl BioList {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        Self {
            head: core::ptr::null_mut(),
            tail: core::ptr::null_mut(),
        }
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Appends a bio.
    pub(crate) fn push(&mut self, bio: Bio) {
        let bio = bio.into_raw();
        // SAFETY: The bio is ours; `tail` is a bio of ours unless the list is empty.
        unsafe {
            (*bio).bi_next = core::ptr::null_mut();
            if self.head.is_null() {
                self.head = bio;
            } else {
                (*self.tail).bi_next = bio;
            }
        }
        self.tail = bio;
    }

    /// Takes the first bio.
    pub(crate) fn pop(&mut self) -> Option<Bio> {
        let bio = NonNull::new(self.head)?;
        // SAFETY: By the type invariant, `bio` is valid and owed by the list, which gives it up here.
        unsafe {
            self.head = (*bio.as_ptr()).bi_next;
            (*bio.as_ptr()).bi_next = core::ptr::null_mut();
            Some(Bio::from_raw(bio))
        }
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }
}

impl Drop for BioList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// What is done when a bio of a [`BioSet`] has completed.
pub(crate) trait Completion: Sized + Send {
    /// Called once, in any context (mostly with interrupts off): must not sleep. `original` is what was cloned.
    fn done(self, original: Option<Bio>, status: BlkStatus);
}

/// What stands in front of each bio of a set (the C side's "front pad").
#[repr(C, align(16))]
struct Front<P> {
    private: MaybeUninit<P>,
    /// What a clone is a clone of, and whose pages it uses.
    original: Option<Bio>,
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
    raw: Opaque<bindings::bio_set>,
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

impl<P: Completion> BioSet<P> {
    /// Clones `bio` for the disk, all of it. Gives it back if there is no memory right now and it must not wait.
    pub(crate) fn clone_of(&self, bdev: &Bdev, bio: Bio) -> Result<Clone<P>, Bio> {
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
        let set = self.raw.get();
        // SAFETY: Valid arguments; the count was checked.
        let bio = unsafe {
            bindings::bio_alloc_bioset(disk.as_ptr(), pages as u16, opf, bindings::GFP_NOIO, set)
        };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?;
        let own = Clone::new(bio, None, Some(buf.clone()));
        buf.each_part(offset, len, |page, part| {
            // SAFETY: The bio has room for `pages` parts; the buffer stays in its front pad until it completed.
            unsafe {
                bindings::__bio_add_page(
                    bio.as_ptr(),
                    page.as_ptr(),
                    part.len as u32,
                    part.offset as u32, //
                )
            };
            Ok(())
        })?;
        Ok(own)
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
            (*this.front()).private.write(private);
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
    // SAFETY: `submit` wrote it.
    unsafe { front.private.assume_init() }.done(front.original, status);
}
