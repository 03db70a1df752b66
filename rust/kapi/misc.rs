// SPDX-License-Identifier: GPL-2.0-only

//! A misc device whose open files keep the module loaded.
//!
//! `kernel::miscdevice` leaves `fops.owner` null, so that `rmmod` with an open file would pull the code away under it.
//! Its trait and its file operations are used as they are; only registration is ours, with the owner filled in.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    container_of,
    error::to_result,
    ffi::c_int,
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::Opaque,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// What stands behind a device file; all open files share it.
pub(crate) trait Control: Send + Sync + 'static {
    /// An ioctl. Process context; may sleep.
    fn ioctl(&self, number: u32, argument: Argument) -> Result;
}

/// The memory that an ioctl's argument points to.
#[derive(Clone, Copy)]
pub(crate) struct Argument(UserPtr);

impl Argument {
    /// Copies the caller's structure.
    pub(crate) fn read(self, to: &mut [u8]) -> Result {
        UserSlice::new(self.0, to.len()).reader().read_slice(to)
    }

    /// Copies a structure to the caller.
    pub(crate) fn write(self, from: &[u8]) -> Result {
        UserSlice::new(self.0, from.len())
            .writer()
            .write_slice(from)
    }
}

/// Whether the current task may do anything to the machine (`CAP_SYS_ADMIN`).
pub(crate) fn may_administer() -> bool {
    // SAFETY: Process context, as every caller of an ioctl's handler.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) }
}

/// Makes a [`Control`] a `MiscDevice`. Private, so that [`Registration`] is the only way to register one.
struct Adapter<C>(PhantomData<C>);

#[vtable]
impl<C: Control> MiscDevice for Adapter<C> {
    type Ptr = Arc<C>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<C>> {
        let raw = misc.as_raw().cast::<Opaque<bindings::miscdevice>>();
        // SAFETY: Only `Registration<C>` registers an `Adapter<C>`, so this is its `inner`; the C side keeps it registered
        // while `open()` runs.
        let registration = unsafe { &*container_of!(raw, Registration<C>, inner) };
        Ok(registration.control.clone())
    }

    fn ioctl(
        control: ArcBorrow<'_, C>,
        _file: &File,
        number: u32,
        argument: usize,
    ) -> Result<isize> {
        control.ioctl(number, Argument(UserPtr::from_addr(argument)))?;
        Ok(0)
    }
}

/// The file operations for one type of control, with this module as their owner.
pub(crate) struct FileOperations<C>(bindings::file_operations, PhantomData<C>);

// SAFETY: Never written after it was made.
unsafe impl<C> Sync for FileOperations<C> {}

impl<C: Control> FileOperations<C> {
    /// For a `static`: the C side uses them for as long as a file is open.
    pub(crate) const fn new(owner: &ThisModule) -> Self {
        let raw = MiscDeviceOptions { name: c"" }.into_raw::<Adapter<C>>();
        // SAFETY: `into_raw` makes `fops` point to a constant.
        let mut fops = unsafe { *raw.fops };
        fops.owner = owner.as_ptr();
        Self(fops, PhantomData)
    }
}

/// A registered misc device; dropping it removes it. Register it last and drop it first, so that nobody can come in
/// while things are half there.
///
/// # Invariants
///
/// `inner` is registered with the file operations of `Adapter<C>`, and stays at its place until it is removed.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<C: Control> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    control: Arc<C>,
}

// SAFETY: `misc_deregister()` may be called on any thread; `C` is `Send + Sync`.
unsafe impl<C: Control> Send for Registration<C> {}
// SAFETY: `inner` is not reachable through a shared reference; `C` is `Send + Sync`.
unsafe impl<C: Control> Sync for Registration<C> {}

impl<C: Control> Registration<C> {
    /// Registers `/dev/NAME`, readable and writable for root only.
    pub(crate) fn new(
        name: &'static CStr,
        fops: &'static FileOperations<C>,
        control: Arc<C>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // First, because it can be opened as soon as it is registered.
            control,
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                let mut raw = MiscDeviceOptions { name }.into_raw::<Adapter<C>>();
                raw.fops = &fops.0;
                raw.mode = 0o600;
                // SAFETY: `slot` is memory for a `miscdevice`.
                unsafe { slot.write(raw) };
                // INVARIANT: Registered if this is `Ok`; it is pinned.
                // SAFETY: `slot` is filled in, and is removed before its memory goes.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl<C: Control> PinnedDrop for Registration<C> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}
