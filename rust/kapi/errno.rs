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
    /// This computer does not have the address that the connection would come from.
    AddressNotAvailable = EADDRNOTAVAIL;
    /// This computer has given the connection up.
    ConnectionAborted = ECONNABORTED;
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
    /// The network has no memory.
    NoBuffers = ENOBUFS;
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

#[kunit_tests(imgstream_errno)]
mod tests {
    use super::*;
    use crate::kapi::{
        blk::BlkStatus,
        testing::every, //
    };

    /// The numbers of the ABI, which `bindings` are generated from.
    const NUMBERS: [(i32, Errno); 14] = [
        (61, Errno::NoData),
        (71, Errno::Protocol),
        (95, Errno::NotSupported),
        (99, Errno::AddressNotAvailable),
        (100, Errno::NetworkDown),
        (101, Errno::NetworkUnreachable),
        (103, Errno::ConnectionAborted),
        (104, Errno::ConnectionReset),
        (105, Errno::NoBuffers),
        (108, Errno::Shutdown),
        (111, Errno::ConnectionRefused),
        (113, Errno::HostUnreachable),
        (115, Errno::InProgress),
        (121, Errno::RemoteIo),
    ];

    fn name(number: i32) -> Option<Errno> {
        let found = NUMBERS.iter().find(|(known, _)| *known == number);
        found.map(|(_, errno)| *errno)
    }

    #[test]
    fn each_error_is_its_number() {
        assert!(every(NUMBERS.map(|(number, _)| number), |&number| {
            name(number).map(|errno| Error::from(errno).to_errno()) == Some(-number)
        }));
    }

    #[test]
    fn each_number_is_its_error_and_the_others_are_none() {
        assert!(every(1..4096, |&number| {
            Errno::from_error(Error::from_errno(-number)) == name(number)
        }));
    }

    #[test]
    fn what_readers_are_told_is_a_medium_or_a_target_error() {
        let status = |errno: Errno| BlkStatus::from(Error::from(errno)).as_raw();
        assert_eq!(status(Errno::NoData), 7); // BLK_STS_MEDIUM
        assert_eq!(status(Errno::RemoteIo), 5); // BLK_STS_TARGET
    }

    #[test]
    fn a_status_and_its_error_are_the_same() {
        let errors = [
            ENOMEM,
            ENOSPC,
            ETIMEDOUT,
            EIO,
            Errno::NoData.into(),
            Errno::NotSupported.into(),
            Errno::RemoteIo.into(),
        ];
        assert!(every(errors, |&error| {
            BlkStatus::from(error).to_result() == Err(error)
        }));
        assert!(BlkStatus::from(Ok(())).is_ok() && BlkStatus::OK.to_result() == Ok(()));
        // What the block layer has no status for.
        assert!(BlkStatus::from(EPERM) == BlkStatus::IOERR);
    }
}
