// SPDX-License-Identifier: GPL-2.0-only

//! Disks with a request queue.
//!
//! A [`Request`] is a share in a started request. It can be cloned; when the last share is dropped the request ends,
//! exactly once, with the first error that was reported, or with an I/O error if fewer bytes than it has were reported
//! done. Nothing else can end it. Shaped after `kernel::block::mq::request`, which counts references too.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::{
        bio::{
            Bio,
            BioSet,
            Completion,
            Op, //
        },
        blk::{
            disk::{
                Added,
                Config,
                Fops, //
            },
            BlkStatus,
            SECTOR_BYTES, //
        },
        page::PageBuf, //
    },
    THIS_MODULE,
};
use core::{
    marker::PhantomData,
    mem::size_of,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    },
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

/// What follows each `struct request` of our tag sets.
struct Pdu {
    /// Number of shares.
    shares: AtomicU32,
    /// First error, or 0.
    status: AtomicU32,
    /// Bytes reported done.
    done_bytes: AtomicU32,
}

/// A share in a request that blk-mq gave to this module.
///
/// # Invariants
///
/// The request is started, its [`Pdu`] is initialised and counts this share.
pub(crate) struct Request(NonNull<bindings::request>);

// SAFETY: A request may be handled and ended by any thread.
unsafe impl Send for Request {}
// SAFETY: Shared access reads what blk-mq does not change before the end, and atomics.
unsafe impl Sync for Request {}

impl Request {
    /// # Safety
    ///
    /// Hands over a started request of one of our tag sets.
    unsafe fn from_raw(request: NonNull<bindings::request>) -> Self {
        // SAFETY: Each request of our tag sets has room for a `Pdu` behind it, ours alone until it ends.
        unsafe {
            bindings::imgstream_blk_mq_rq_to_pdu(request.as_ptr())
                .cast::<Pdu>()
                .write(Pdu {
                    shares: AtomicU32::new(1),
                    status: AtomicU32::new(0),
                    done_bytes: AtomicU32::new(0),
                })
        };
        // INVARIANT: Initialised with this share.
        Self(request)
    }

    fn raw(&self) -> &bindings::request {
        // SAFETY: Valid until the last share is gone.
        unsafe { self.0.as_ref() }
    }

    fn pdu(&self) -> &Pdu {
        // SAFETY: Initialised by the type invariant.
        unsafe { &*bindings::imgstream_blk_mq_rq_to_pdu(self.0.as_ptr()).cast::<Pdu>() }
    }

    /// Operation.
    pub(crate) fn op(&self) -> Op {
        Op::from_flags(self.raw().cmd_flags)
    }

    /// First byte on the device.
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.raw().__sector.saturating_mul(SECTOR_BYTES)
    }

    /// Number of bytes.
    pub(crate) fn len_bytes(&self) -> u32 {
        self.raw().__data_len
    }

    /// Reports bytes done. All bytes have to be reported, each once.
    pub(crate) fn done(&self, bytes: u32) {
        self.pdu().done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reports an error; the first one counts.
    pub(crate) fn fail(&self, status: BlkStatus) {
        let new = u32::from(status.as_raw());
        let _ = self
            .pdu()
            .status
            .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Copies `len` bytes from the buffer into the request's pages (for a read).
    pub(crate) fn copy_in(
        &self,
        offset: u32,
        buf: &PageBuf,
        buf_offset: usize,
        len: u32,
    ) -> Result {
        self.copy(
            offset,
            buf,
            buf_offset,
            len,
            bindings::imgstream_bio_copy_to,
        )
    }

    /// Copies `len` bytes of the request's data into the buffer (for a write).
    pub(crate) fn copy_out(
        &self,
        offset: u32,
        buf: &PageBuf,
        buf_offset: usize,
        len: u32,
    ) -> Result {
        self.copy(
            offset,
            buf,
            buf_offset,
            len,
            bindings::imgstream_bio_copy_from,
        )
    }

    fn copy(
        &self,
        offset: u32,
        buf: &PageBuf,
        buf_offset: usize,
        len: u32,
        copy: CopyFn,
    ) -> Result {
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.len_bytes())
        {
            return Err(EINVAL);
        }
        let mut bio = self.raw().bio;
        let mut skip = offset;
        buf.each_part(buf_offset, len as usize, |page, part| {
            let mut at = part.offset as u32;
            let mut left = part.len as u32;
            while left > 0 {
                // SAFETY: The bios of a request are valid until it ends, and together they have `len_bytes()` bytes, so
                // that none is missing before the end of the range checked above.
                let size = unsafe { (*bio).bi_iter.bi_size };
                if skip >= size {
                    skip -= size;
                    // SAFETY: As above.
                    bio = unsafe { (*bio).bi_next };
                    continue;
                }
                let n = left.min(size - skip);
                // SAFETY: `[skip, skip + n)` is inside of the bio, `[at, at + n)` inside of the page.
                unsafe { copy(bio, skip, page.as_ptr(), at, n) };
                skip = skip.saturating_add(n);
                at = at.saturating_add(n);
                left = left.saturating_sub(n);
            }
            Ok(())
        })
    }
}

type CopyFn = unsafe extern "C" fn(*mut bindings::bio, u32, *mut bindings::page, u32, u32);

impl Clone for Request {
    fn clone(&self) -> Self {
        self.pdu().shares.fetch_add(1, Ordering::Relaxed);
        // INVARIANT: Counted above.
        Self(self.0)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let pdu = self.pdu();
        if pdu.shares.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let mut status = pdu.status.load(Ordering::Relaxed) as bindings::blk_status_t;
        if status == 0 && pdu.done_bytes.load(Ordering::Relaxed) != self.len_bytes() {
            status = BlkStatus::IOERR.as_raw();
        }
        // SAFETY: Started, and this was the last share: nobody touches the request after this.
        unsafe { bindings::blk_mq_end_request(self.0.as_ptr(), status) };
    }
}

/// A driver with a request queue.
pub(crate) trait MqDriver: Send + Sync + 'static {
    /// Takes a request. Must not sleep.
    fn queue(this: ArcBorrow<'_, Self>, request: Request);
}

/// A blk-mq tag set.
///
/// # Invariants
///
/// `raw` is an allocated tag set.
#[pin_data(PinnedDrop)]
struct TagSet {
    #[pin]
    raw: Opaque<bindings::blk_mq_tag_set>,
}

// SAFETY: A tag set belongs to no thread.
unsafe impl Send for TagSet {}
// SAFETY: Not changed after it was made, except by blk-mq under its own locks.
unsafe impl Sync for TagSet {}

impl TagSet {
    fn new(ops: &'static Ops, depth: u32) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(move |slot: *mut bindings::blk_mq_tag_set| {
                // SAFETY: `slot` is memory for a tag set; `ops` is static.
                unsafe {
                    core::ptr::write_bytes(slot, 0, 1);
                    (*slot).ops = &ops.0;
                    (*slot).nr_hw_queues = 1;
                    (*slot).queue_depth = depth;
                    (*slot).numa_node = bindings::NUMA_NO_NODE;
                    (*slot).cmd_size = size_of::<Pdu>() as u32;
                    // A stacking driver's requests wait for other devices: CPU hotplug must not wait for them.
                    (*slot).flags = bindings::BLK_MQ_F_STACKING | bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT;
                    to_result(bindings::blk_mq_alloc_tag_set(slot))
                }
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for TagSet {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Allocated, and the disk that used it is gone: `MqDisk` drops it first.
        unsafe { bindings::blk_mq_free_tag_set(self.raw.get()) };
    }
}

/// A static `blk_mq_ops`.
#[repr(transparent)]
struct Ops(bindings::blk_mq_ops);

// SAFETY: Never changed.
unsafe impl Sync for Ops {}

/// A disk with a request queue.
pub(crate) struct MqDisk<T: MqDriver> {
    added: Option<Added>,
    tags: Pin<KBox<TagSet>>,
    /// A reference that the queue's `queuedata` stands for.
    driver: *const T,
    _driver: PhantomData<Arc<T>>,
}

// SAFETY: Stands for an `Arc<T>`.
unsafe impl<T: MqDriver> Send for MqDisk<T> {}
// SAFETY: As above.
unsafe impl<T: MqDriver> Sync for MqDisk<T> {}

impl<T: MqDriver> MqDisk<T> {
    const OPS: &'static Ops = &Ops(bindings::blk_mq_ops {
        queue_rq: Some(Self::queue_rq),
        ..pin_init::zeroed()
    });
    const FOPS: &'static Fops = &Fops(bindings::block_device_operations {
        owner: THIS_MODULE.as_ptr(),
        ..pin_init::zeroed()
    });

    /// Makes and adds the disk, with `depth` requests at a time.
    pub(crate) fn add(driver: Arc<T>, mut config: Config, depth: u32) -> Result<Self> {
        let tags = KBox::pin_init(TagSet::new(Self::OPS, depth), GFP_KERNEL)?;
        let driver = Arc::into_raw(driver);
        let mut this = Self {
            added: None,
            tags,
            driver,
            _driver: PhantomData,
        };
        let class = kernel::static_lock_class!().as_ptr();
        // SAFETY: The tag set is allocated and outlives the disk; `queue_rq` expects a `T` behind `queuedata`, which
        // lives until `this` is dropped.
        let disk = from_err_ptr(unsafe {
            bindings::__blk_mq_alloc_disk(
                this.tags.raw.get(),
                &mut config.limits.0,
                driver.cast_mut().cast(),
                class,
            )
        })?;
        let disk = NonNull::new(disk).ok_or(ENOMEM)?;
        Self::never_throttle(disk);
        // SAFETY: Newly allocated; `FOPS` needs no private data.
        let added = unsafe { Added::add(disk, Self::FOPS, core::ptr::null_mut(), &config)? };
        this.added = Some(added);
        Ok(this)
    }

    /// Keeps the block layer from holding writes back until earlier ones have completed faster (`block/blk-wbt.c`, by default
    /// on for every queue, hidden or not). Requests here take as long as a network does, so it would let hardly any through,
    /// and who sends bios here would wait in [`MqDisk::send`] with tags left: for as long as the network is dead.
    fn never_throttle(disk: NonNull<bindings::gendisk>) {
        let flag = bindings::QUEUE_FLAG_DISABLE_WBT_DEF;
        // SAFETY: The disk is allocated, so it has its queue; a queue that is not registered is not throttled yet.
        unsafe { bindings::blk_queue_flag_set(flag, (*disk.as_ptr()).queue) };
    }

    /// Sends a clone of a bio of another disk of this module through this queue. The disk must be there until it ends;
    /// whoever sends bios here is torn down first. May sleep, until there are memory and a tag.
    pub(crate) fn send<P: Completion>(&self, set: &BioSet<P>, bio: Bio, private: P) {
        let Some(Ok(part0)) = self.added.as_ref().map(Added::part0) else {
            return bio.end(BlkStatus::IOERR);
        };
        match set.clone_to(part0, bio) {
            Ok(clone) => clone.submit(private),
            Err(bio) => bio.end(BlkStatus::AGAIN),
        }
    }

    /// # Safety
    ///
    /// Called by blk-mq for a queue made by `add`.
    unsafe extern "C" fn queue_rq(
        hctx: *mut bindings::blk_mq_hw_ctx,
        data: *const bindings::blk_mq_queue_data,
    ) -> bindings::blk_status_t {
        // SAFETY: Valid during the call, and `queuedata` is the `T` given to `add`.
        let (driver, request) = unsafe {
            let driver = ArcBorrow::from_raw((*(*hctx).queue).queuedata as *const T);
            (driver, (*data).rq)
        };
        let Some(raw) = NonNull::new(request) else {
            return BlkStatus::IOERR.as_raw();
        };
        // SAFETY: Given to us and not started yet.
        unsafe { bindings::blk_mq_start_request(request) };
        // SAFETY: Started; ours from here on, as the status below says.
        T::queue(driver, unsafe { Request::from_raw(raw) });
        BlkStatus::OK.as_raw()
    }
}

impl<T: MqDriver> Drop for MqDisk<T> {
    fn drop(&mut self) {
        self.added = None;
        // SAFETY: The disk is gone, so this is the reference that `add` turned into a pointer.
        drop(unsafe { Arc::from_raw(self.driver) });
    }
}
