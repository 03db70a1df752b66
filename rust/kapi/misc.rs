// SPDX-License-Identifier: GPL-2.0-only

//! A misc device whose open files keep the module loaded.
//!
//! `kernel::miscdevice` leaves `fops.owner` null, so that `rmmod` with an open file would pull the code away under it.
//! Its trait and its file operations are used as they are; only registration is ours, with the owner filled in.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use crate::bindings;
use kernel::{
    error::to_result,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions, //
    },
    prelude::*,
    types::Opaque, //
};

/// The file operations of `kernel::miscdevice` for one type, with an owner.
///
/// # Invariants
///
/// `0` is what `MiscDeviceOptions::into_raw::<T>()` points to, but for `owner`, which is this module.
pub(crate) struct FileOperations<T>(bindings::file_operations, core::marker::PhantomData<T>);

// SAFETY: Never written after it was made.
unsafe impl<T> Sync for FileOperations<T> {}

impl<T: MiscDevice> FileOperations<T> {
    /// For a `static`: the C side uses them for as long as a file is open.
    pub(crate) const fn new(name: &'static CStr) -> Self {
        let raw = MiscDeviceOptions { name }.into_raw::<T>();
        // SAFETY: `into_raw` makes `fops` point to a constant.
        let mut fops = unsafe { *raw.fops };
        fops.owner = crate::THIS_MODULE.as_ptr();
        // INVARIANT: As made just now.
        Self(fops, core::marker::PhantomData)
    }
}

/// A registered misc device; dropping it removes it. Register it last and drop it first, so that nobody can come in
/// while things are half there.
///
/// # Invariants
///
/// `inner` is registered, and stays at its place until it is removed.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
}

// SAFETY: `misc_deregister()` may be called on any thread.
unsafe impl Send for Registration {}
// SAFETY: There is nothing to call through a shared reference.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers `/dev/NAME`, readable and writable for root only.
    pub(crate) fn new<T: MiscDevice>(
        name: &'static CStr,
        fops: &'static FileOperations<T>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // `open()` of `kernel::miscdevice` takes the `miscdevice` for its own registration type, which is the same
            // in memory (`repr(transparent)`).
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                let mut raw = MiscDeviceOptions { name }.into_raw::<T>();
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
impl PinnedDrop for Registration {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariant.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}
