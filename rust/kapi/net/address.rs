// SPDX-License-Identifier: GPL-2.0-only

//! Where to connect to.
//!
//! C headers: [`include/uapi/linux/in.h`](srctree/include/uapi/linux/in.h),
//! [`include/uapi/linux/in6.h`](srctree/include/uapi/linux/in6.h)

use crate::bindings;
use core::{
    mem::size_of,
    net::{
        SocketAddr,
        SocketAddrV4,
        SocketAddrV6, //
    },
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
    /// `kernel_bind()`.
    ///
    /// # Safety
    ///
    /// `socket` must be a valid socket of this address's [`family`](Self::family).
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) unsafe fn bind(self, socket: *mut bindings::socket) -> Result {
        let v6;
        let v4;
        let (raw, len): (*const c_void, _) = match self.0 {
            SocketAddr::V4(address) => {
                v4 = raw_v4(address);
                (ptr::from_ref(&v4).cast(), size_of_val(&v4))
            }
            SocketAddr::V6(address) => {
                v6 = raw_v6(address);
                (ptr::from_ref(&v6).cast(), size_of_val(&v6))
            }
        };
        // SAFETY: By this function's requirement; the address is of the socket's family, and only read.
        to_result(unsafe { bindings::kernel_bind(socket, raw.cast_mut().cast(), len as c_int) })
    }

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
            // SAFETY: By this function's requirement.
            SocketAddr::V4(v4) => unsafe { connect(socket, &raw_v4(v4)) },
            // SAFETY: As above.
            SocketAddr::V6(v6) => unsafe { connect(socket, &raw_v6(v6)) },
        }
    }
}

fn raw_v4(v4: SocketAddrV4) -> bindings::sockaddr_in {
    bindings::sockaddr_in {
        sin_family: bindings::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: bindings::in_addr {
            s_addr: u32::from_ne_bytes(v4.ip().octets()),
        },
        ..Default::default()
    }
}

fn raw_v6(v6: SocketAddrV6) -> bindings::sockaddr_in6 {
    bindings::sockaddr_in6 {
        sin6_family: bindings::AF_INET6 as u16,
        sin6_port: v6.port().to_be(),
        sin6_flowinfo: v6.flowinfo().to_be(),
        sin6_addr: bindings::in6_addr {
            in6_u: bindings::in6_addr__bindgen_ty_1 {
                u6_addr8: v6.ip().octets(),
            },
        },
        sin6_scope_id: v6.scope_id(),
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

#[kunit_tests(imgstream_address)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use core::{
        fmt::Write,
        mem::align_of,
        net::{
            Ipv4Addr,
            Ipv6Addr, //
        }, //
    };

    const DOCUMENTATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0xff34);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn v4(octets: [u8; 4], port: u16) -> Address {
        Address(SocketAddr::V4(SocketAddrV4::new(octets.into(), port)))
    }

    fn v6(ip: Ipv6Addr, port: u16, scope: u32) -> Address {
        Address(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
    }

    /// Text of at most 64 bytes.
    struct Text([u8; 64], usize);

    impl Write for Text {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            let end = self.1 + text.len();
            let to = self.0.get_mut(self.1..end).ok_or(core::fmt::Error)?;
            to.copy_from_slice(text.as_bytes());
            self.1 = end;
            Ok(())
        }
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let table = [
            (v4([192, 0, 2, 1], 3260), "192.0.2.1:3260"),
            (v4([0, 0, 0, 0], 0), "0.0.0.0:0"),
            (v4([255; 4], u16::MAX), "255.255.255.255:65535"),
            (v6(Ipv6Addr::LOCALHOST, 3260, 0), "[::1]:3260"),
            (v6(DOCUMENTATION, 1, 0), "[2001:db8::12:ff34]:1"),
            (v6(LINK_LOCAL, 3260, 2), "[fe80::1%2]:3260"),
        ];
        assert!(every(table, |(address, expected)| {
            let mut text = Text([0; 64], 0);
            let written = write!(text, "{}", address.0).is_ok();
            written && text.0.get(..text.1) == Some(expected.as_bytes())
        }));
    }

    /// The bytes of a C structure without padding.
    fn bytes_of<A>(raw: &A) -> &[u8] {
        // SAFETY: All bytes of both address structures are initialised; the borrow keeps them.
        unsafe { core::slice::from_raw_parts(ptr::from_ref(raw).cast(), size_of::<A>()) }
    }

    #[test]
    fn an_ipv4_address_is_the_networks_structure() {
        let raw = raw_v4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 3260));
        let mut expected = [0; 16];
        let (family, rest) = expected.split_at_mut(2);
        family.copy_from_slice(&2u16.to_ne_bytes());
        let (address, _) = rest.split_at_mut(6);
        address.copy_from_slice(&[0x0c, 0xbc, 192, 0, 2, 1]);
        assert_eq!(bytes_of(&raw), expected);
    }

    #[test]
    fn an_ipv6_address_is_the_networks_structure() {
        let raw = raw_v6(SocketAddrV6::new(DOCUMENTATION, 3260, 0x01_2345, 7));
        let mut expected = [0; 28];
        let parts: [&[u8]; 5] = [
            &10u16.to_ne_bytes(),
            &[0x0c, 0xbc],
            &[0, 0x01, 0x23, 0x45],
            &DOCUMENTATION.octets(),
            &7u32.to_ne_bytes(),
        ];
        let mut bytes = parts.iter().flat_map(|part| part.iter());
        expected.fill_with(|| bytes.next().copied().unwrap_or(0xff));
        assert_eq!(bytes_of(&raw), expected);
        assert!(align_of::<bindings::sockaddr_in6>() == 4 && bytes.next().is_none());
    }

    #[test]
    fn the_family_fits_the_address() {
        assert_eq!(v4([192, 0, 2, 1], 1).family(), 2);
        assert_eq!(v6(LINK_LOCAL, 1, 0).family(), 10);
    }
}
