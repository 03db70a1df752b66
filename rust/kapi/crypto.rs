// SPDX-License-Identifier: GPL-2.0-only

//! CRC-32C as iSCSI and our own structures have it.
//!
//! C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h)

use crate::bindings;

/// The standard CRC-32C: `crc32c(b"123456789") == 0xe306_9283`.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    // The kernel's function leaves both inversions to its caller.
    // SAFETY: `data` is readable for its length.
    !unsafe { bindings::crc32c(!0, data.as_ptr().cast(), data.len()) }
}
