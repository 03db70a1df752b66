// SPDX-License-Identifier: GPL-2.0-only

//! Block devices that this module offers: bio-based ones and blk-mq ones.
//!
//! `kernel::block::mq` cannot carry this driver (no errors, no request data, no limits, no owner), so this is a wrapper
//! beside it, shaped after the downstream rnull tree.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/blk-mq.h`](srctree/include/linux/blk-mq.h).

pub(crate) mod disk;
mod door;
pub(crate) mod limits;
pub(crate) mod mq;

use crate::bindings;
use kernel::error::Error;

/// Bytes in a sector, the unit of the block layer whatever the disk's own is.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// How an I/O ended. The table from errno to status is the block layer's own, `blk_errors[]` in `block/blk-core.c`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlkStatus(bindings::blk_status_t);

impl BlkStatus {
    /// Fine.
    pub(crate) const OK: Self = Self(0);
    /// Not supported.
    pub(crate) const NOTSUPP: Self = Self(bindings::BLK_STS_NOTSUPP);
    /// Failed for any other reason.
    pub(crate) const IOERR: Self = Self(bindings::BLK_STS_IOERR);
    /// It would have to wait, and was asked not to.
    pub(crate) const AGAIN: Self = Self(bindings::BLK_STS_AGAIN);

    pub(in crate::kapi) fn from_raw(raw: bindings::blk_status_t) -> Self {
        Self(raw)
    }

    pub(in crate::kapi) fn from_errno(errno: i32) -> Self {
        // SAFETY: A table lookup; unknown numbers become an I/O error.
        Self(unsafe { bindings::errno_to_blk_status(errno) })
    }

    pub(in crate::kapi) fn as_raw(self) -> bindings::blk_status_t {
        self.0
    }

    /// Whether it succeeded.
    pub(crate) fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// As an error number.
    pub(crate) fn to_result(self) -> Result<(), Error> {
        // SAFETY: A table lookup that bounds its index.
        kernel::error::to_result(unsafe { bindings::blk_status_to_errno(self.0) })
    }
}

impl From<Error> for BlkStatus {
    fn from(error: Error) -> Self {
        // SAFETY: A table lookup; unknown numbers become an I/O error.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

impl From<Result<(), Error>> for BlkStatus {
    fn from(result: Result<(), Error>) -> Self {
        result.map_or_else(Self::from, |()| Self::OK)
    }
}
