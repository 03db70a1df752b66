// SPDX-License-Identifier: GPL-2.0-only

//! The disk below: an exclusively opened block device.
//!
//! Upstream has no wrapper; shaped after `struct file *bdev_file_open_by_path()` and its users in `drivers/md`.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h).

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::blk::SECTOR_BYTES, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    str::CStr, //
};

/// An open block device that nobody else can claim.
///
/// # Invariants
///
/// `file` is an open block device file, opened with the address of [`HOLDER`] as its holder; `bdev` belongs to it and
/// stays valid while it is open.
pub(crate) struct Bdev {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
}

/// The holder's identity: a static address, so that a second claim by this module is refused like any other... unless
/// it is the same holder; the module attaches one disk at a time.
static HOLDER: u8 = 0;

// SAFETY: A block device file belongs to no thread.
unsafe impl Send for Bdev {}
// SAFETY: All methods go to functions of the block layer that lock for themselves.
unsafe impl Sync for Bdev {}

impl Bdev {
    /// Opens a block device for reading and writing and claims it: fails with `EBUSY` while it, or a part of it, is
    /// mounted or claimed.
    pub(crate) fn open(path: &CStr) -> Result<Self> {
        let mode = bindings::BLK_OPEN_READ | bindings::BLK_OPEN_WRITE;
        let holder = core::ptr::addr_of!(HOLDER).cast_mut().cast();
        // SAFETY: The path is a C string, the holder a static address. No holder operations: a disk that goes away
        // fails its I/O, which is all this module could do about it.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_path(
                path.as_char_ptr(),
                mode,
                holder,
                core::ptr::null(), //
            )
        })?;
        // SAFETY: Just opened, with this holder.
        unsafe { Self::from_file(file) }
    }

    /// The same for a disk of this module, which a kernel thread may not find by its name.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn open_own(disk: NonNull<bindings::block_device>) -> Result<Self> {
        let mode = bindings::BLK_OPEN_READ | bindings::BLK_OPEN_WRITE;
        let holder = core::ptr::addr_of!(HOLDER).cast_mut().cast();
        // SAFETY: The disk is there while the caller has it; the rest as in `open`.
        let file = from_err_ptr(unsafe {
            let number = (*disk.as_ptr()).bd_dev;
            bindings::bdev_file_open_by_dev(number, mode, holder, core::ptr::null())
        })?;
        // SAFETY: Just opened, with this holder.
        unsafe { Self::from_file(file) }
    }

    /// # Safety
    ///
    /// Hands over an open block device file with the address of [`HOLDER`] as its holder.
    unsafe fn from_file(file: *mut bindings::file) -> Result<Self> {
        // SAFETY: Open by the caller's promise.
        let bdev = unsafe { bindings::file_bdev(file) };
        // INVARIANT: By the caller's promise; an open block device file has a block device.
        Ok(Self {
            file: NonNull::new(file).ok_or(ENODEV)?,
            bdev: NonNull::new(bdev).ok_or(ENODEV)?,
        })
    }

    /// The C block device, valid as long as `self`.
    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// The device, valid as long as `self`.
    pub(super) fn raw(&self) -> NonNull<bindings::block_device> {
        self.bdev
    }

    /// Size in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        // SAFETY: Valid by the type invariant; the size is a word that may change at any time.
        let sectors =
            unsafe { core::ptr::addr_of!((*self.as_ptr()).bd_nr_sectors).read_volatile() };
        sectors.saturating_mul(SECTOR_BYTES)
    }

    /// Logical block size in bytes.
    pub(crate) fn logical_block_bytes(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::imgstream_bdev_logical_block_size(self.as_ptr()) }
    }

    /// Whether the disk takes discards.
    pub(crate) fn can_discard(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::imgstream_bdev_max_discard_sectors(self.as_ptr()) != 0 }
    }

    /// Whether the disk zeroes ranges by itself.
    pub(crate) fn can_write_zeroes(&self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { bindings::imgstream_bdev_write_zeroes_sectors(self.as_ptr()) != 0 }
    }

    /// Makes the kernel, and so udev, forget the disk's partitions; while the disk is claimed nobody can have them looked
    /// for again. `EBUSY`: one of them is open, and all stay. Sleeps; takes the disk's `open_mutex`, which nobody holds
    /// who calls into this module.
    pub(crate) fn drop_partitions(&self) -> Result {
        // SAFETY: Open by the type invariant, so its disk is there; the helper takes the lock that a change needs.
        to_result(unsafe { bindings::imgstream_bdev_drop_partitions(self.as_ptr()) })
    }

    /// Has the kernel look for the partitions again that [`Bdev::drop_partitions`] has made it forget. Sleeps, and locks as
    /// that does.
    pub(crate) fn find_partitions(&self) -> Result {
        // SAFETY: Open by the type invariant, so its disk is there; the helper takes the lock that a change needs.
        to_result(unsafe { bindings::imgstream_bdev_find_partitions(self.as_ptr()) })
    }

    /// Writes back and drops the disk's own page cache, so that nothing stale is read and nothing old is written later.
    /// Sleeps.
    pub(crate) fn sync_and_invalidate(&self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::sync_blockdev(self.as_ptr()) })?;
        // SAFETY: As above.
        unsafe { bindings::invalidate_bdev(self.as_ptr()) };
        Ok(())
    }

    /// Makes everything durable that was written and completed before. Sleeps.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: Valid by the type invariant.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_ptr()) })
    }

    /// Writes zeroes to a byte range of whole sectors. Sleeps; callers on the I/O path hold a NOIO scope.
    pub(crate) fn write_zeroes(&self, offset_bytes: u64, len_bytes: u64) -> Result {
        // SAFETY: Valid by the type invariant; the block layer checks the range.
        to_result(unsafe {
            bindings::blkdev_issue_zeroout(
                self.as_ptr(),
                offset_bytes / SECTOR_BYTES,
                len_bytes / SECTOR_BYTES,
                bindings::GFP_NOIO,
                0, //
            )
        })
    }

    /// Reads whole sectors into memory from `kmalloc` (not `vmalloc`). Sleeps.
    pub(crate) fn read(&self, offset_bytes: u64, buf: &mut [u8]) -> Result {
        self.rw(
            offset_bytes,
            buf.as_mut_ptr(),
            buf.len(),
            bindings::req_op_REQ_OP_READ,
        )
    }

    /// Writes whole sectors from memory from `kmalloc` (not `vmalloc`). Sleeps; durable only after [`Bdev::flush`].
    pub(crate) fn write(&self, offset_bytes: u64, buf: &[u8]) -> Result {
        let data = buf.as_ptr().cast_mut();
        self.rw(offset_bytes, data, buf.len(), bindings::req_op_REQ_OP_WRITE)
    }

    fn rw(&self, offset: u64, data: *mut u8, len: usize, op: bindings::req_op) -> Result {
        let sector = SECTOR_BYTES as usize;
        if offset % SECTOR_BYTES != 0 || len % sector != 0 || data.align_offset(sector) != 0 {
            return Err(EINVAL);
        }
        // SAFETY: Valid by the type invariant; `data` is `len` bytes of a borrowed slice, only read if `op` is a write.
        to_result(unsafe {
            bindings::bdev_rw_virt(
                self.as_ptr(),
                offset / SECTOR_BYTES,
                data.cast(),
                len,
                op, //
            )
        })
    }
}

impl Drop for Bdev {
    fn drop(&mut self) {
        // SAFETY: Open by the type invariant, and nobody holds a bio to it: bios hold what keeps the `Bdev` alive.
        unsafe { bindings::bdev_fput(self.file.as_ptr()) };
    }
}
