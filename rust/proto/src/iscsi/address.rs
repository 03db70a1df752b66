// SPDX-License-Identifier: GPL-2.0-only

//! TargetAddress (RFC 7143 section 13.8): `host[:port][,portal-group-tag]`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::text::parse_number;

/// The port where none is named (13.8).
pub const DEFAULT_PORT: u16 = 3260;
/// Longest name of a host, and of a part of it (RFC 1035 section 2.3.4).
const HOST_BYTES: usize = 255;
const LABEL_BYTES: usize = 63;

/// Where a portal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// At this address.
    Ip(IpAddr),
    /// At the address of this name, which a resolver has to find out.
    Name(&'a str),
}

/// A portal as a target names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetAddress<'a> {
    /// Host.
    pub host: Host<'a>,
    /// TCP port.
    pub port: u16,
    /// Tag of its portal group, where one is named.
    pub group: Option<u16>,
}

impl<'a> TargetAddress<'a> {
    /// The portal that `value` names.
    pub fn parse(value: &'a str) -> Option<Self> {
        let (place, group) = match split(value, b',') {
            Some((place, group)) => (place, Some(number(group)?)),
            None => (value, None),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => bracketed(rest)?,
            None => plain(place)?,
        };
        let port = port.map_or(Some(DEFAULT_PORT), number)?;
        (port != 0).then_some(Self { host, port, group })
    }

    /// The address to connect to; `None` if there is only a name.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for TargetAddress<'_> {
    /// Host and port, which is what people type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Ip(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Port and tag are numbers of 16 bits.
fn number(text: &str) -> Option<u16> {
    u16::try_from(parse_number(text)?).ok()
}

/// What follows an opening bracket. No zone: an interface of the target's means nothing here.
fn bracketed(text: &str) -> Option<(Host<'_>, Option<&str>)> {
    let (host, rest) = split(text, b']')?;
    let ip: Ipv6Addr = host.parse().ok()?;
    let port = match rest.strip_prefix(':') {
        None if !rest.is_empty() => return None,
        port => port,
    };
    Some((Host::Ip(ip.into()), port))
}

fn plain(text: &str) -> Option<(Host<'_>, Option<&str>)> {
    let (host, port) = match split(text, b':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Some((Host::Ip(ip.into()), port));
    }
    is_host_name(host).then_some((Host::Name(host), port))
}

/// What stands before and behind the first `byte`, which is ASCII. (`str::split_once` can panic as far as compilers know.)
fn split(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == byte)?;
    Some((text.get(..at)?, text.get(at.checked_add(1)?..)?))
}

/// A name of the DNS. What ends in a number would be an address, and is none.
fn is_host_name(host: &str) -> bool {
    let usual = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
    let label = |label: &[u8]| (1..=LABEL_BYTES).contains(&label.len()) && label.iter().all(usual);
    let mut labels = host.as_bytes().split(|b| *b == b'.');
    let last = labels.clone().last().unwrap_or(&[]);
    let number = last.iter().all(u8::is_ascii_digit);
    host.len() <= HOST_BYTES && labels.all(label) && !number
}

#[cfg(test)]
mod tests;
