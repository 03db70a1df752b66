// SPDX-License-Identifier: GPL-2.0-only

//! Disks: the common part, and the bio-based kind.
//!
//! Every disk has this module as its owner, so that `rmmod` is refused while one is open.
//! Shaped after `kernel::block::mq::gen_disk`.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use crate::{
    bindings,
    kapi::{
        bdev::Bdev,
        bio::Bio,
        blk::{
            door::Door,
            limits::Limits,
            SECTOR_BYTES, //
        },
    },
    THIS_MODULE,
};
use core::ptr::NonNull;
use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    str::CStr,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
};

/// What kind of disk is added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// With partitions, which nobody looks for before [`PartitionScan::run`].
    Partitioned,
    /// Without a partition scan.
    Whole,
    /// Without a device node.
    Hidden,
}

/// How a disk is to look.
pub(crate) struct Config {
    /// Its name in `/dev`.
    pub(crate) name: &'static CStr,
    /// Size.
    pub(crate) size_bytes: u64,
    /// Limits and features.
    pub(crate) limits: Limits,
    /// Kind.
    pub(crate) visibility: Visibility,
    /// Whether writes are refused.
    pub(crate) read_only: bool,
}

/// A `struct gendisk` that is added.
///
/// # Invariants
///
/// `disk` is a valid disk that was added and that nobody else deletes.
pub(super) struct Added {
    disk: NonNull<bindings::gendisk>,
}

// SAFETY: A disk belongs to no thread.
unsafe impl Send for Added {}
// SAFETY: The methods here are safe to call at the same time.
unsafe impl Sync for Added {}

impl Added {
    /// Fills an allocated disk in and adds it. The disk is freed if that fails.
    ///
    /// # Safety
    ///
    /// - `disk` is allocated, not added and handed over.
    /// - `fops` and `private` fit each other and stay valid until the disk is gone.
    pub(super) unsafe fn add(
        disk: NonNull<bindings::gendisk>,
        fops: &'static Fops,
        private: *mut core::ffi::c_void,
        config: &Config,
    ) -> Result<Self> {
        let raw = disk.as_ptr();
        let name = config.name.to_bytes_with_nul();
        // SAFETY: Exclusively ours until it is added.
        unsafe {
            for (to, from) in (*raw).disk_name.iter_mut().zip(name) {
                *to = *from;
            }
            (*raw).fops = &fops.0;
            (*raw).private_data = private;
            if config.visibility == Visibility::Partitioned {
                (*raw).state |= 1 << bindings::GD_SUPPRESS_PART_SCAN;
            }
            (*raw).flags |= match config.visibility {
                Visibility::Partitioned => 0,
                Visibility::Whole => bindings::GENHD_FL_NO_PART as i32,
                Visibility::Hidden => bindings::GENHD_FL_HIDDEN as i32,
            };
            bindings::set_capacity(raw, config.size_bytes / SECTOR_BYTES);
            bindings::set_disk_ro(raw, config.read_only);
        }
        // SAFETY: Complete but for being added.
        let added = to_result(unsafe {
            bindings::device_add_disk(core::ptr::null_mut(), raw, core::ptr::null_mut())
        });
        if let Err(error) = added {
            // SAFETY: Allocated and not added.
            unsafe { bindings::put_disk(raw) };
            return Err(error);
        }
        // INVARIANT: Just added.
        Ok(Self { disk })
    }

    /// The device of the whole disk, valid as long as `self`.
    pub(super) fn part0(&self) -> Result<NonNull<bindings::block_device>> {
        // SAFETY: Valid by the type invariant; `part0` never changes.
        NonNull::new(unsafe { (*self.disk.as_ptr()).part0 }).ok_or(ENODEV)
    }

    fn device(&self) -> &Device {
        // SAFETY: Added by the type invariant; the device is a part of the disk.
        unsafe { Device::from_raw(bindings::imgstream_disk_to_dev(self.disk.as_ptr())) }
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        // SAFETY: Added by the type invariant. After `del_gendisk` no submit function runs any more and none starts.
        unsafe {
            bindings::del_gendisk(self.disk.as_ptr());
            bindings::put_disk(self.disk.as_ptr());
        }
    }
}

/// Looks for partitions of a disk, at a time of our choosing: the scan reads through the disk, holds up who opens it
/// meanwhile, and does not end before its reads do.
pub(crate) struct PartitionScan(ARef<Device>);

impl PartitionScan {
    /// Scans. Process context; sleeps. Does nothing if the disk is gone.
    pub(crate) fn run(&self) {
        let device: *const Device = &*self.0;
        let raw = device.cast::<bindings::device>().cast_mut();
        // SAFETY: `Device` is a transparent wrapper of `struct device`, and this one is a disk's, which the reference keeps
        // allocated. It may be deleted meanwhile.
        unsafe { bindings::imgstream_disk_scan_partitions(raw) };
    }
}

/// A static `block_device_operations`.
#[repr(transparent)]
pub(super) struct Fops(pub(super) bindings::block_device_operations);

// SAFETY: Never changed.
unsafe impl Sync for Fops {}

/// A driver that takes bios as they come.
pub(crate) trait BioDriver: Send + Sync + 'static {
    /// Takes a bio. Process context; may sleep for memory of its own reserves only, as the submitter's other bios wait
    /// meanwhile.
    fn submit(this: ArcBorrow<'_, Self>, bio: Bio);

    /// The disk below, whose geometry this one has.
    fn below(&self) -> Option<&Bdev> {
        None
    }
}

/// What the `private_data` of a bio-based disk points to. `BioDisk` holds a reference as long as the disk is there, and so
/// does everybody who has it open: what they call may come after the disk is gone.
struct Offered<T: BioDriver> {
    driver: Arc<T>,
    door: Door,
}

/// A bio-based disk.
pub(crate) struct BioDisk<T: BioDriver> {
    // Dropped before what it is driven by.
    added: Option<Added>,
    offered: Arc<Offered<T>>,
}

impl<T: BioDriver> BioDisk<T> {
    const FOPS: &'static Fops = &Fops(bindings::block_device_operations {
        submit_bio: Some(Self::submit_bio),
        open: Some(Self::open),
        release: Some(Self::release),
        getgeo: Some(Self::getgeo),
        owner: THIS_MODULE.as_ptr(),
        ..pin_init::zeroed()
    });

    /// Makes and adds the disk. I/O may come before this returns.
    pub(crate) fn add(driver: Arc<T>, mut config: Config) -> Result<Self> {
        let class = kernel::static_lock_class!().as_ptr();
        let door = Door::new();
        let offered = Arc::new(Offered { driver, door }, GFP_KERNEL)?;
        // SAFETY: The limits are ours; the lock class is static.
        let disk = from_err_ptr(unsafe {
            bindings::__blk_alloc_disk(&mut config.limits.0, bindings::NUMA_NO_NODE, class)
        })?;
        let disk = NonNull::new(disk).ok_or(ENOMEM)?;
        let mut this = Self {
            added: None,
            offered,
        };
        let private = Arc::as_ptr(&this.offered).cast_mut().cast();
        // SAFETY: Newly allocated; `FOPS` expects an `Offered<T>` behind `private_data`, which lives until `this` is dropped,
        // and longer for those who have the disk open.
        let added = unsafe { Added::add(disk, Self::FOPS, private, &config)? };
        this.added = Some(added);
        Ok(this)
    }

    /// The device of the whole disk, valid as long as `self`.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(in crate::kapi) fn part0(&self) -> Result<NonNull<bindings::block_device>> {
        self.added.as_ref().ok_or(ENODEV)?.part0()
    }

    /// Lets nobody open it from now on; `false`, and nothing is changed, if somebody has. Waits for nothing, and not for a
    /// scan for partitions, which has it not open.
    pub(crate) fn close_if_unused(&self) -> bool {
        self.offered.door.close()
    }

    /// Takes [`Self::close_if_unused`] back.
    pub(crate) fn reopen(&self) {
        self.offered.door.open();
    }

    /// # Safety
    ///
    /// `disk` was made by `add` and is there, or somebody has it open, for as long as the result is used.
    unsafe fn offered<'a>(disk: *mut bindings::gendisk) -> ArcBorrow<'a, Offered<T>> {
        // SAFETY: That is what `add` has put there, and never changes; who is named above holds a reference.
        unsafe { ArcBorrow::from_raw((*disk).private_data.cast::<Offered<T>>()) }
    }

    /// # Safety
    ///
    /// Called by the block layer for a disk made by `add` that is there, with its `open_mutex` held.
    unsafe extern "C" fn open(
        disk: *mut bindings::gendisk,
        _mode: bindings::blk_mode_t,
    ) -> core::ffi::c_int {
        // SAFETY: It is not deleted before its `open_mutex` is free.
        let offered = unsafe { Self::offered(disk) };
        if !offered.door.enter() {
            return ENXIO.to_errno();
        }
        // For `release`, which the block layer calls once for each time that this was fine.
        let _ = Arc::into_raw(Arc::from(offered));
        0
    }

    /// # Safety
    ///
    /// Called by the block layer once for each successful `open`, with the `open_mutex` held, maybe of a disk that is gone.
    unsafe extern "C" fn release(disk: *mut bindings::gendisk) {
        // SAFETY: `open` has taken a reference for this call, so what `add` has put there is alive.
        let offered = unsafe { Arc::from_raw((*disk).private_data.cast::<Offered<T>>()) };
        offered.door.leave();
    }

    /// # Safety
    ///
    /// Called by the block layer for a disk made by `add` that somebody has open, with a geometry to fill in. Process
    /// context; may sleep.
    unsafe extern "C" fn getgeo(
        disk: *mut bindings::gendisk,
        geometry: *mut bindings::hd_geometry,
    ) -> core::ffi::c_int {
        // SAFETY: Somebody has it open.
        let offered = unsafe { Self::offered(disk) };
        let Some(below) = offered.driver.below() else {
            return ENOTTY.to_errno();
        };
        // SAFETY: Disk and geometry are the caller's. `below` keeps its disk open, and so that disk's driver loaded.
        unsafe { bindings::imgstream_disk_getgeo(disk, below.as_ptr(), geometry) }
    }

    /// What finds the partitions.
    pub(crate) fn partition_scan(&self) -> Option<PartitionScan> {
        self.device().map(|device| PartitionScan(device.into()))
    }

    /// The device of the disk, for sysfs files and events.
    pub(crate) fn device(&self) -> Option<&Device> {
        self.added.as_ref().map(Added::device)
    }

    /// # Safety
    ///
    /// Called by the block layer for a bio of a disk made by `add`.
    unsafe extern "C" fn submit_bio(raw: *mut bindings::bio) {
        let Some(bio) = NonNull::new(raw) else {
            return;
        };
        // SAFETY: The disk is there during the call.
        let offered = unsafe { Self::offered((*(*raw).bi_bdev).bd_disk) };
        // SAFETY: The block layer hands the bio over.
        T::submit(offered.driver.as_arc_borrow(), unsafe {
            Bio::from_raw(bio)
        });
    }
}
