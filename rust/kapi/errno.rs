// SPDX-License-Identifier: GPL-2.0-only

//! Errors of networks and disks, which `kernel::error::code` lacks.
//!
//! C header: [`include/uapi/asm-generic/errno.h`](srctree/include/uapi/asm-generic/errno.h)

use crate::bindings;
use kernel::prelude::*;

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $number:ident;)*) => {
        /// An error that `kernel::error::code` lacks. The block layer's table (`errno_to_blk_status()`) makes a medium
        /// error of [`NoData`](Self::NoData) and a target error of [`RemoteIo`](Self::RemoteIo).
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Errno {
            $($(#[$doc])* $name,)*
        }

        impl Errno {
            /// The one that `error` is.
            pub(crate) fn from_error(error: Error) -> Option<Self> {
                match error.to_errno().unsigned_abs() {
                    $(bindings::$number => Some(Self::$name),)*
                    _ => None,
                }
            }

            fn number(self) -> u32 {
                match self {
                    $(Self::$name => bindings::$number,)*
                }
            }
        }
    };
}

errors! {
    /// The other side refuses the connection.
    ConnectionRefused = ECONNREFUSED;
    /// The other side reset the connection.
    ConnectionReset = ECONNRESET;
    /// The host is not there.
    HostUnreachable = EHOSTUNREACH;
    /// The connection attempt goes on.
    InProgress = EINPROGRESS;
    /// The network device is down.
    NetworkDown = ENETDOWN;
    /// There is no route.
    NetworkUnreachable = ENETUNREACH;
    /// The medium has no such data.
    NoData = ENODATA;
    /// Not supported.
    NotSupported = EOPNOTSUPP;
    /// The other side broke the protocol.
    Protocol = EPROTO;
    /// The other side has an I/O error.
    RemoteIo = EREMOTEIO;
    /// Being shut down.
    Shutdown = ESHUTDOWN;
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        // Numbers are below 4096.
        Self::from_errno(-(errno.number() as i32))
    }
}
