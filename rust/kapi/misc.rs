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

#[kunit_tests(imgstream_misc)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use kernel::page::PAGE_SIZE;

    const READ_WRITE: usize = 3; // PROT_READ | PROT_WRITE
    const ANONYMOUS: usize = 0x22; // MAP_PRIVATE | MAP_ANONYMOUS

    /// Memory of a user, a page of it; nothing is behind it.
    fn user_page() -> Result<usize> {
        // SAFETY: In a test there is one; what is mapped goes with it.
        let address = unsafe {
            let test = bindings::kunit_get_current_test();
            let file = core::ptr::null_mut();
            bindings::kunit_vm_mmap(test, file, 0, PAGE_SIZE, READ_WRITE, ANONYMOUS, 0)
        };
        // Errors come back as addresses of the last page.
        match address == 0 || address > usize::MAX - PAGE_SIZE {
            true => Err(ENOMEM),
            false => Ok(address),
        }
    }

    fn argument(address: usize) -> Argument {
        Argument(UserPtr::from_addr(address))
    }

    /// Offsets and lengths in the page, and whether that is a structure of the user's.
    const TABLE: [(usize, usize, bool); 9] = [
        (0, 0, true),
        (0, 1, true),
        (1, 511, true),
        (0, PAGE_SIZE, true),
        (PAGE_SIZE - 1, 1, true),
        (PAGE_SIZE, 0, true),
        (0, PAGE_SIZE + 1, false),
        (PAGE_SIZE - 1, 2, false),
        (PAGE_SIZE, 1, false),
    ];

    #[test]
    fn structures_are_copied_both_ways_or_not_at_all() -> Result {
        let page = user_page()?;
        let from = KVec::from_elem(0x5au8, PAGE_SIZE + 1, GFP_KERNEL)?;
        let mut to = KVec::from_elem(0u8, PAGE_SIZE + 1, GFP_KERNEL)?;
        assert!(every(TABLE, |&(offset, len, is_there)| {
            to.fill(0);
            let argument = argument(page + offset);
            let (from, to) = (from.get(..len), to.get_mut(..len));
            let (from, to) = (from.unwrap_or(&[]), to.unwrap_or(&mut []));
            let results = (argument.write(from), argument.read(to));
            match is_there {
                true => results == (Ok(()), Ok(())) && from == to,
                false => results == (Err(EFAULT), Err(EFAULT)),
            }
        }));
        Ok(())
    }

    #[test]
    fn what_is_not_the_users_is_not_touched() -> Result {
        user_page()?;
        let secret = KBox::new([0x77u8; 16], GFP_KERNEL)?;
        let kernel = core::ptr::from_ref(&*secret) as usize;
        assert!(every([0, 1, kernel, usize::MAX - 15, usize::MAX], |&at| {
            let mut copy = [0; 16];
            argument(at).read(&mut copy) == Err(EFAULT)
                && copy == [0; 16]
                && argument(at).write(&[0; 16]) == Err(EFAULT)
        }));
        assert_eq!(*secret, [0x77; 16]);
        Ok(())
    }
}
