// SPDX-License-Identifier: GPL-2.0-only

//! Checksums: CRC-32C as iSCSI and our own structures have it, and SHA-256.
//!
//! C headers: [`include/linux/crc32.h`](srctree/include/linux/crc32.h),
//! [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

use crate::bindings;
use core::mem::MaybeUninit;

/// The standard CRC-32C: `crc32c(b"123456789") == 0xe306_9283`.
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    // The kernel's function leaves both inversions to its caller.
    // SAFETY: `data` is readable for its length.
    !unsafe { bindings::crc32c(!0, data.as_ptr().cast(), data.len()) }
}

/// A SHA-256 in the making.
pub(crate) struct Sha256 {
    context: bindings::sha256_ctx,
}

#[expect(
    dead_code,
    reason = "the hash tree has its place in the format and comes later"
)]
impl Sha256 {
    /// Nothing hashed yet.
    pub(crate) fn new() -> Self {
        let mut context = MaybeUninit::<bindings::sha256_ctx>::zeroed();
        // SAFETY: Fills in the context.
        unsafe { bindings::sha256_init(context.as_mut_ptr()) };
        Self {
            // SAFETY: Every field is an integer, and all were set, to zero or by `sha256_init`.
            context: unsafe { context.assume_init() },
        }
    }

    /// Adds `data`.
    pub(crate) fn update(&mut self, data: &[u8]) {
        // SAFETY: The context is initialised, `data` is readable for its length.
        unsafe { bindings::__sha256_update(&mut self.context.ctx, data.as_ptr(), data.len()) };
    }

    /// The hash of everything added.
    pub(crate) fn finish(mut self) -> [u8; 32] {
        let mut hash = [0; 32];
        // SAFETY: The context is initialised, `hash` has the 32 bytes that are written.
        unsafe { bindings::sha256_final(&mut self.context, hash.as_mut_ptr()) };
        hash
    }
}
