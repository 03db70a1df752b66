// SPDX-License-Identifier: GPL-2.0-only

//! Safe wrappers over the kernel's C interfaces that the `kernel` crate lacks.
//!
//! All unsafe code of the module is here, and no policy: nothing below knows what an image or a migration is. Each file
//! says which interface of the kernel crate it imitates or which C header it wraps, so that it can go when the kernel
//! has the same.

pub(crate) mod bdev;
pub(crate) mod bio;
pub(crate) mod blk;
pub(crate) mod crash;
pub(crate) mod crypto;
pub(crate) mod epoch;
pub(crate) mod errno;
pub(crate) mod mempool;
pub(crate) mod misc;
pub(crate) mod net;
pub(crate) mod noio;
pub(crate) mod page;
pub(crate) mod param;
pub(crate) mod pm;
pub(crate) mod sync;
pub(crate) mod sysfs;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing;
pub(crate) mod time;
pub(crate) mod workqueue;
