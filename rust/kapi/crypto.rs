// SPDX-License-Identifier: GPL-2.0-only

//! CRC-32C as iSCSI and our own structures have it.
//!
//! C header: [`include/linux/crc32.h`](srctree/include/linux/crc32.h)

use crate::bindings;

/// The standard CRC-32C: `crc32c(b"123456789") == 0xe306_9283`.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    crc32c_append(0, data)
}

/// The CRC-32C of what `crc` is the CRC-32C of, followed by `data`; 0 is that of nothing.
pub(crate) fn crc32c_append(crc: u32, data: &[u8]) -> u32 {
    // SAFETY: `data` is readable for its length.
    unsafe { crc32c_raw(crc, data.as_ptr(), data.len()) }
}

/// As [`crc32c_append`], for memory that is no Rust data, and may change while it is read: then any number comes out.
///
/// # Safety
///
/// `len` bytes from `data` on must be readable.
pub(crate) unsafe fn crc32c_raw(crc: u32, data: *const u8, len: usize) -> u32 {
    // The kernel's function leaves both inversions to its caller.
    // SAFETY: By this function's requirement.
    !unsafe { bindings::crc32c(!crc, data.cast(), len) }
}

#[kernel::prelude::kunit_tests(imgstream_crypto)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;

    #[test]
    fn the_checksum_is_the_standard_one_whole_and_in_pieces() {
        let text = b"123456789";
        assert_eq!(crc32c(text), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        assert!(every(0..=text.len(), |&at| {
            let (head, tail) = text.split_at(at);
            crc32c_append(crc32c(head), tail) == 0xe306_9283
        }));
    }
}
