// SPDX-License-Identifier: GPL-2.0-only

//! CRC-32C as iSCSI and our own structures have it, the one-way functions of CHAP, and random bytes.
//!
//! C headers: [`include/linux/crc32.h`](srctree/include/linux/crc32.h), [`include/crypto/md5.h`](srctree/include/crypto/md5.h),
//! [`sha1.h`](srctree/include/crypto/sha1.h), [`sha2.h`](srctree/include/crypto/sha2.h),
//! [`sha3.h`](srctree/include/crypto/sha3.h), [`include/linux/random.h`](srctree/include/linux/random.h)
//!
//! All of them are functions that are linked, not algorithms that are looked up: nothing is loaded when one is called.
//! Those that the kernel was built without are not there; SHA3-256 makes the module depend on `libsha3` where that is one.

use crate::bindings;
use imgstream_engine::session::{
    Crypto,
    Hash, //
};

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

/// A function that fills an array from a whole message, if the kernel has it.
macro_rules! one_way {
    ($config:ident, $name:ident, $there:ident, $bytes:literal) => {
        #[cfg($config)]
        const $there: Option<Hash<$bytes>> = Some($name);
        #[cfg(not($config))]
        const $there: Option<Hash<$bytes>> = None;

        #[cfg($config)]
        fn $name(message: &[u8], digest: &mut [u8; $bytes]) {
            // SAFETY: `message` is readable for its length, and `digest` is writable for as many bytes as this function
            // writes.
            unsafe {
                bindings::$name(message.as_ptr(), message.len(), digest.as_mut_ptr());
            }
        }
    };
}

one_way!(CONFIG_CRYPTO_LIB_MD5, md5, MD5, 16);
one_way!(CONFIG_CRYPTO_LIB_SHA1, sha1, SHA1, 20);
one_way!(CONFIG_CRYPTO_LIB_SHA256, sha256, SHA256, 32);
one_way!(CONFIG_CRYPTO_LIB_SHA3, sha3_256, SHA3_256, 32);

/// What CHAP is computed with. The functions neither sleep nor allocate; `random` does not wait for entropy, which a kernel that
/// has a network has.
pub(crate) fn chap() -> Crypto {
    Crypto {
        md5: MD5,
        sha1: SHA1,
        sha256: SHA256,
        sha3_256: SHA3_256,
        random,
    }
}

fn random(bytes: &mut [u8]) {
    // SAFETY: `bytes` is writable for its length.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), bytes.len()) }
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

    fn begins<const BYTES: usize>(
        hash: Option<fn(&[u8], &mut [u8; BYTES])>,
        with: [u8; 4],
    ) -> bool {
        hash.is_none_or(|hash| {
            let mut digest = [0; BYTES];
            hash(b"abc", &mut digest);
            digest.starts_with(&with)
        })
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        let chap = chap();
        assert!(begins(chap.md5, [0x90, 0x01, 0x50, 0x98]));
        assert!(begins(chap.sha1, [0xa9, 0x99, 0x3e, 0x36]));
        assert!(begins(chap.sha256, [0xba, 0x78, 0x16, 0xbf]));
        assert!(begins(chap.sha3_256, [0x3a, 0x98, 0x5d, 0xa7]));
        assert!(chap.sha1.is_some() && chap.sha256.is_some());
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random(&mut a);
        random(&mut b);
        assert!(a != b);
    }
}
