// SPDX-License-Identifier: GPL-2.0-only

//! A directory of read-only files below a device in sysfs, and uevents of the device.
//!
//! The kernel crate has neither. Each file of a [`Group`] knows the object it shows (as `struct dev_ext_attribute`
//! does), so nothing is looked up through the device and it does not matter who else uses its private data.
//!
//! C headers: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h),
//! [`include/linux/device.h`](srctree/include/linux/device.h)

use crate::bindings;
use core::ptr;
use kernel::{
    device::Device,
    error::to_result,
    fmt,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// What the files of a [`Group`] show.
pub(crate) trait Files: Send + Sync + 'static {
    /// The directory's name.
    const DIRECTORY: &'static CStr;
    /// The files' names.
    const NAMES: &'static [&'static CStr];

    /// Writes the value of the file `NAMES[index]`, without the newline. Process context; may sleep, but must not wait
    /// for the group's removal.
    fn show(&self, index: usize, out: &mut Text<'_>) -> fmt::Result;
}

/// Text for one file: a page at most, the rest is cut off.
pub(crate) struct Text<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.get_mut(self.len..).ok_or(fmt::Error)?;
        let fits = room.len().min(text.len());
        let (Some(to), Some(from)) = (room.get_mut(..fits), text.as_bytes().get(..fits)) else {
            return Err(fmt::Error);
        };
        to.copy_from_slice(from);
        self.len = self.len.saturating_add(fits);
        Ok(())
    }
}

/// One file.
///
/// # Invariants
///
/// `object` is valid for as long as the file exists. `raw` is the first field.
#[repr(C)]
struct Attribute<T> {
    raw: bindings::device_attribute,
    object: *const T,
    index: usize,
}

/// The directory. Dropping it removes the files and waits for readers, so drop it before the device is removed.
///
/// # Invariants
///
/// The group is registered with `device`. `raw.attrs` points to `pointers`, which is ended by null and whose entries
/// point into `attributes`; none of the two vectors changes any more. `object` is what the attributes point to.
pub(crate) struct Group<T: Files> {
    device: ARef<Device>,
    raw: KBox<bindings::attribute_group>,
    _pointers: KVec<*mut bindings::attribute>,
    _attributes: KVec<Attribute<T>>,
    _object: Arc<T>,
}

// SAFETY: The pointers lead to memory that the group owns, and to `T`, which is `Send + Sync`.
unsafe impl<T: Files> Send for Group<T> {}
// SAFETY: As above; nothing is changed through a shared reference.
unsafe impl<T: Files> Sync for Group<T> {}

impl<T: Files> Group<T> {
    /// Makes the directory below `device`, which must be registered.
    pub(crate) fn new(device: &Device, object: Arc<T>) -> Result<Self> {
        let mut attributes = Self::attributes(&object)?;
        let pointers = Self::pointers(&mut attributes)?;
        let mut raw = KBox::new(
            bindings::attribute_group {
                name: T::DIRECTORY.as_char_ptr(),
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?;
        raw.__bindgen_anon_2.attrs = pointers.as_ptr().cast_mut();
        let kobject = kobject_of(device);
        // SAFETY: `kobject` is a registered device's; the group and all it points to are valid, and are owned by the
        // result, which removes the group before they go.
        to_result(unsafe { bindings::sysfs_create_group(kobject, &*raw) })?;
        // INVARIANT: Registered just now. Moving the boxes and vectors does not move what they own.
        Ok(Self {
            device: device.into(),
            raw,
            _pointers: pointers,
            _attributes: attributes,
            _object: object,
        })
    }

    fn attributes(object: &Arc<T>) -> Result<KVec<Attribute<T>>> {
        let mut attributes = KVec::with_capacity(T::NAMES.len(), GFP_KERNEL)?;
        for (index, name) in T::NAMES.iter().enumerate() {
            let mut raw: bindings::device_attribute = pin_init::zeroed();
            raw.attr.name = name.as_char_ptr();
            raw.attr.mode = 0o444;
            raw.__bindgen_anon_1.show = Some(Self::show);
            // INVARIANT: The group keeps `object` until its files are gone.
            let attribute = Attribute {
                raw,
                object: Arc::as_ptr(object),
                index,
            };
            attributes.push(attribute, GFP_KERNEL)?;
        }
        Ok(attributes)
    }

    fn pointers(attributes: &mut KVec<Attribute<T>>) -> Result<KVec<*mut bindings::attribute>> {
        let mut pointers = KVec::new();
        for attribute in attributes.iter_mut() {
            // SAFETY: Gives a lock class to an attribute that is not in use yet and will not move any more.
            unsafe { bindings::imgstream_sysfs_attr_init(&mut attribute.raw.attr) };
            pointers.push(&raw mut attribute.raw.attr, GFP_KERNEL)?;
        }
        pointers.push(ptr::null_mut(), GFP_KERNEL)?;
        Ok(pointers)
    }

    /// # Safety
    ///
    /// - `raw` must be the field of an [`Attribute<T>`] of a registered group.
    /// - `buffer` must be a page that may be written.
    unsafe extern "C" fn show(
        _device: *mut bindings::device,
        raw: *mut bindings::device_attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: By the first requirement; sysfs removes a file only when nobody is in here.
        let attribute = unsafe { &*raw.cast::<Attribute<T>>() };
        // SAFETY: Valid by the type invariant of `Attribute`.
        let object = unsafe { &*attribute.object };
        // SAFETY: By the second requirement; sysfs gives zeroed pages, and no one else has it.
        let buffer = unsafe {
            core::slice::from_raw_parts_mut(buffer.cast::<u8>(), kernel::page::PAGE_SIZE)
        };
        let mut text = Text { buffer, len: 0 };
        if object.show(attribute.index, &mut text).is_err() {
            return EIO.to_errno() as isize;
        }
        // The newline has its place even in a full page.
        let len = text.len.min(kernel::page::PAGE_SIZE - 1);
        if let Some(end) = text.buffer.get_mut(len) {
            *end = b'\n';
        }
        len as isize + 1
    }
}

impl<T: Files> Drop for Group<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by the type invariant. Waits until no file is being read.
        unsafe { bindings::sysfs_remove_group(kobject_of(&self.device), &*self.raw) };
    }
}

/// Tells user space that `device` changed (`KOBJ_CHANGE`), with `variable` ("NAME=value") in the event's environment.
/// Process context.
pub(crate) fn announce_change(device: &Device, variable: &CStr) -> Result {
    let mut environment = [variable.as_char_ptr().cast_mut(), ptr::null_mut()];
    // SAFETY: The device is live, and the environment is ended by null; its strings are only read.
    to_result(unsafe {
        bindings::kobject_uevent_env(
            kobject_of(device),
            bindings::kobject_action_KOBJ_CHANGE,
            environment.as_mut_ptr(),
        )
    })
}

fn kobject_of(device: &Device) -> *mut bindings::kobject {
    let raw: *const Device = device;
    let raw = raw.cast::<bindings::device>().cast_mut();
    // SAFETY: `Device` is a transparent wrapper of `struct device`, so this is the address of a field of a live one.
    unsafe { &raw mut (*raw).kobj }
}

#[kunit_tests(imgstream_sysfs)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use core::fmt::Write;
    use kernel::page::PAGE_SIZE;

    /// A file whose value has as many bytes as its index says, written in pieces; the last one fails.
    struct Values;

    const LENGTHS: [usize; 9] = [
        0,
        1,
        PAGE_SIZE - 2,
        PAGE_SIZE - 1,
        PAGE_SIZE,
        PAGE_SIZE + 1,
        2 * PAGE_SIZE,
        3 * PAGE_SIZE + 7,
        100,
    ];
    const BROKEN: usize = LENGTHS.len();

    impl Files for Values {
        const DIRECTORY: &'static CStr = c"values";
        const NAMES: &'static [&'static CStr] = &[];

        fn show(&self, index: usize, out: &mut Text<'_>) -> fmt::Result {
            let mut left = *LENGTHS.get(index).ok_or(fmt::Error)?;
            while left > 0 {
                let piece = "0123456".get(..left.min(7)).unwrap_or("");
                out.write_str(piece)?;
                left = left.saturating_sub(piece.len());
            }
            Ok(())
        }
    }

    /// Reads the file as sysfs does, into a page.
    fn read(index: usize) -> Result<(isize, KVec<u8>)> {
        let values = Values;
        let mut attribute = Attribute {
            raw: pin_init::zeroed(),
            object: &values,
            index,
        };
        let mut page = KVec::from_elem(0u8, PAGE_SIZE, GFP_KERNEL)?;
        let buffer = page.as_mut_ptr().cast();
        // SAFETY: The attribute, its object and the page live until this returns.
        let len = unsafe { Group::<Values>::show(ptr::null_mut(), &mut attribute.raw, buffer) };
        Ok((len, page))
    }

    fn is_right(len: usize, (read, page): &(isize, KVec<u8>)) -> bool {
        let text = len.min(PAGE_SIZE - 1);
        let is_text = |at: usize, byte: u8| byte == b'0' + (at % 7) as u8;
        let mut bytes = page.iter().copied().enumerate();
        *read == text as isize + 1
            && bytes
                .by_ref()
                .take(text)
                .all(|(at, byte)| is_text(at, byte))
            && bytes.next().map(|(_, byte)| byte) == Some(b'\n')
            && bytes.all(|(_, byte)| byte == 0)
    }

    #[test]
    fn a_value_ends_with_a_newline_and_with_the_page() {
        assert!(every(LENGTHS.into_iter().enumerate(), |&(index, len)| {
            read(index).is_ok_and(|read| is_right(len, &read))
        }));
    }

    #[test]
    fn a_value_that_cannot_be_shown_is_an_error() -> Result {
        let (len, _) = read(BROKEN)?;
        assert_eq!(len, EIO.to_errno() as isize);
        Ok(())
    }

    #[test]
    fn text_takes_what_fits() {
        let mut buffer = [0u8; 8];
        let mut text = Text {
            buffer: &mut buffer,
            len: 0,
        };
        let lens = ["abc", "", "defgh", "i", ""].map(|piece| {
            let result = text.write_str(piece);
            (result.is_ok(), text.len)
        });
        assert_eq!(
            lens,
            [(true, 3), (true, 3), (true, 8), (true, 8), (true, 8)]
        );
        assert_eq!(&buffer, b"abcdefgh");
    }
}
