// SPDX-License-Identifier: GPL-2.0-only

//! Module parameters, in C: `kernel::module_param` has no strings, and none of its parameters can be seen in sysfs.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use crate::bindings;
use kernel::prelude::*;

/// `sessions=`: how many sessions with the repository there are to be from the attach on; 0 if nobody has said so.
pub(crate) fn sessions() -> u32 {
    // SAFETY: May be called at any time.
    unsafe { bindings::imgstream_param_sessions() }
}

/// `disk=`: the disk to attach when the module is loaded.
pub(crate) fn disk() -> Option<&'static CStr> {
    // SAFETY: May be called at any time.
    let raw = unsafe { bindings::imgstream_param_disk() };
    if raw.is_null() {
        return None;
    }
    // SAFETY: A `charp` parameter that is not null is a C string. Nobody can write it (mode 0444), so it stays as it is
    // until the module's code goes, and that is as long as `'static` lasts here.
    let value = unsafe { CStr::from_char_ptr(raw) };
    (!value.to_bytes().is_empty()).then_some(value)
}
