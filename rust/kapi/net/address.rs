// SPDX-License-Identifier: GPL-2.0-only

//! Where to connect to.
//!
//! C headers: [`include/uapi/linux/in.h`](srctree/include/uapi/linux/in.h),
//! [`include/uapi/linux/in6.h`](srctree/include/uapi/linux/in6.h)

use crate::bindings;
use core::{
    mem::size_of,
    net::SocketAddr,
    ptr, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    fmt,
    prelude::*, //
};

/// An IPv4 or IPv6 address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Address {
    /// `AF_INET` or `AF_INET6`.
    pub(super) fn family(self) -> c_int {
        match self.0 {
            SocketAddr::V4(_) => bindings::AF_INET as c_int,
            SocketAddr::V6(_) => bindings::AF_INET6 as c_int,
        }
    }

    /// `kernel_connect()` without waiting; `Err(EINPROGRESS)` is the usual answer.
    ///
    /// # Safety
    ///
    /// `socket` must be a valid socket of this address's [`family`](Self::family).
    pub(super) unsafe fn connect(self, socket: *mut bindings::socket) -> Result {
        match self.0 {
            SocketAddr::V4(v4) => {
                let raw = bindings::sockaddr_in {
                    sin_family: bindings::AF_INET as u16,
                    sin_port: v4.port().to_be(),
                    sin_addr: bindings::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    ..Default::default()
                };
                // SAFETY: By this function's requirement.
                unsafe { connect(socket, &raw) }
            }
            SocketAddr::V6(v6) => {
                let raw = bindings::sockaddr_in6 {
                    sin6_family: bindings::AF_INET6 as u16,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo().to_be(),
                    sin6_addr: bindings::in6_addr {
                        in6_u: bindings::in6_addr__bindgen_ty_1 {
                            u6_addr8: v6.ip().octets(),
                        },
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: By this function's requirement.
                unsafe { connect(socket, &raw) }
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// # Safety
///
/// - `socket` must be valid.
/// - `A` must be the C structure of an address of its family.
unsafe fn connect<A>(socket: *mut bindings::socket, address: &A) -> Result {
    let address = ptr::from_ref(address).cast_mut().cast();
    let flags = bindings::O_NONBLOCK as c_int;
    // SAFETY: By this function's requirements; `address` is readable for its size and is only read.
    to_result(unsafe { bindings::kernel_connect(socket, address, size_of::<A>() as c_int, flags) })
}
