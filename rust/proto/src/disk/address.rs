// SPDX-License-Identifier: GPL-2.0-only

//! Internet addresses in structures of the disk.

use core::net::{IpAddr, Ipv6Addr};

use super::error::{Error, Field};

/// An address as family (0: none, 4, 6) and 16 bytes, of which IPv4 uses the first four.
pub(crate) fn address_bytes(address: Option<IpAddr>) -> (u16, [u8; 16]) {
    match address {
        None => (0, [0; 16]),
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, d] = v4.octets();
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        Some(IpAddr::V6(v6)) => (6, v6.octets()),
    }
}

/// The address that [`address_bytes`] made these of.
pub(crate) fn address_from(family: u16, bytes: &[u8; 16]) -> Result<Option<IpAddr>, Error> {
    let [a, b, c, d, ..] = *bytes;
    match family {
        0 => Ok(None),
        4 => Ok(Some(IpAddr::from([a, b, c, d]))),
        6 => Ok(Some(IpAddr::V6(Ipv6Addr::from(*bytes)))),
        found => Err(Error::value(Field::Family, found.into())),
    }
}
