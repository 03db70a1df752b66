// SPDX-License-Identifier: GPL-2.0-only

//! Block I/O descriptors: those that come in, and those that this module sends to the disk.
//!
//! An incoming [`Bio`] is owned and ends exactly once, by its type: ending, sending on and cloning consume it, and a
//! forgotten one ends with an I/O error when it is dropped. Shaped after `rust/kernel/block/bio.rs` of the downstream
//! rnull tree; upstream has no wrapper.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h).

mod set;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::{
        blk::{
            BlkStatus,
            SECTOR_BYTES, //
        },
        page::PageBuf, //
    },
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::{
        code::EINVAL,
        Result, //
    },
    ffi, //
};

pub(crate) use set::{
    BioSet,
    Clone,
    Completion, //
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

    /// Copies all data of a write into the buffer, from `offset` on.
    pub(crate) fn copy_out(&self, buf: &PageBuf, offset: usize) -> Result {
        if self.op() != Op::Write {
            return Err(EINVAL);
        }
        let mut done = 0u32;
        buf.each_part(offset, self.raw().bi_iter.bi_size as usize, |page, part| {
            let len = part.len as u32;
            // SAFETY: A write that is owed here has as many bytes as `bi_size` says, and all parts together are as long;
            // `each_part` keeps the part inside of the page.
            unsafe {
                bindings::imgstream_bio_copy_from(
                    self.as_ptr(),
                    done,
                    page.as_ptr(),
                    part.offset as u32,
                    len, //
                )
            };
            done = done.saturating_add(len);
            Ok(())
        })
    }

    /// Counts it as begun in the statistics of the device that it was sent to, and of its partition; when that was. None
    /// if they are switched off. Any context.
    fn begin_accounting(&self) -> Option<ffi::c_ulong> {
        // SAFETY: The device of a bio owed here stays until it ends, and with it its disk and that disk's queue.
        let features = unsafe { (*(*(*self.raw().bi_bdev).bd_disk).queue).limits.features };
        if features & bindings::BLK_FEAT_IO_STAT == 0 {
            return None;
        }
        // SAFETY: A valid bio by the type invariant.
        Some(unsafe { bindings::bio_start_io_acct(self.as_ptr()) })
    }

    /// Counts it as done, and how long it took. Any context.
    fn end_accounting(&self, began: Option<ffi::c_ulong>) {
        if let Some(began) = began {
            let device = self.raw().bi_bdev;
            // SAFETY: A valid bio by the type invariant, that was counted as begun for the device that it still has.
            unsafe { bindings::bio_end_io_acct_remapped(self.as_ptr(), began, device) };
        }
    }

    /// Counts an I/O that is answered at once in the statistics of its device. Any context.
    pub(crate) fn account_at_once(&self) {
        self.end_accounting(self.begin_accounting());
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
