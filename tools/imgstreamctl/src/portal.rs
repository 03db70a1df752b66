// SPDX-License-Identifier: GPL-2.0-only
//! Names and addresses of portals and targets, as people type them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use imgstream_engine::session::Name;

use crate::error::Result;
use crate::refusal::Refusal;

/// iSCSI's own port.
const PORT: u16 = 3260;

/// Takes `HOST`, `HOST:PORT`, an IPv6 address, or one in brackets; and the tag of its portal group, as `discover` prints it.
pub fn parse(text: &str) -> Result<String, String> {
    split(text).map(|_| text.to_string())
}

/// The portal group that has to be there, if `portal` names one.
pub fn group(portal: &str) -> Option<u16> {
    grouped(portal).ok()?.1
}

/// Takes the name of an iSCSI target.
pub fn parse_target(text: &str) -> Result<String, String> {
    match Name::new(text) {
        Some(_) => Ok(text.to_string()),
        None if text.is_empty() => Err("it is empty; the target's name is needed".into()),
        None => {
            let most = Name::MAX_BYTES;
            Err(format!(
                "no iSCSI name: at most {most} characters without spaces, for example \
                 iqn.2026-11.org.example:debian13"
            ))
        }
    }
}

/// RFC 7143 section 13.8: the tag stands behind a comma.
fn grouped(text: &str) -> Result<(&str, Option<u16>), String> {
    let Some((place, tag)) = text.split_once(',') else {
        return Ok((text, None));
    };
    let group = tag
        .parse()
        .map_err(|_| format!("the portal group \"{tag}\" is no number from 0 to 65535"))?;
    Ok((place, Some(group)))
}

/// Host and port.
fn split(text: &str) -> Result<(&str, u16), String> {
    let (text, _) = grouped(text)?;
    let (host, port) = match text.contains('/') {
        true => ("", None),
        false => parts(text)?,
    };
    let usual = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    if host.is_empty() || !host.chars().all(usual) {
        return Err("a host or its address is needed, and its port if that is not 3260".into());
    }
    Ok((host, port.map_or(Ok(PORT), port_number)?))
}

fn parts(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        return bracketed(rest);
    }
    Ok(match text.split_once(':') {
        Some((host, port)) if !is_v6(text) => (host, Some(port)),
        _ => (text, None),
    })
}

fn bracketed(text: &str) -> Result<(&str, Option<&str>), String> {
    let (host, rest) = text.split_once(']').ok_or("the bracket is not closed")?;
    if !is_v6(host) {
        return Err(format!("{host} is no IPv6 address"));
    }
    match rest.strip_prefix(':') {
        None if !rest.is_empty() => Err(format!("{rest} behind the bracket is no port")),
        port => Ok((host, port)),
    }
}

/// With or without the zone of a link-local address.
fn is_v6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

fn port_number(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| format!("the port \"{text}\" is no number from 1 to 65535"))
}

/// Every address of a portal.
pub fn resolve(portal: &str) -> Result<Vec<SocketAddr>> {
    let unreachable = |what: String| Refusal::PortalUnreachable {
        place: portal.to_string(),
        what,
    };
    let at = split(portal).map_err(unreachable)?;
    let found = at.to_socket_addrs();
    let found: Vec<SocketAddr> = found
        .map_err(|error| unreachable(format!("its address is not known: {error}")))?
        .collect();
    match found.iter().find(|address| is_link_local(address.ip())) {
        Some(address) => Err(link_local(address.ip()).into()),
        None => Ok(found),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Its zone is the number of an interface, which is another one in the target.
fn link_local(address: IpAddr) -> Refusal {
    Refusal::Network {
        interface: address.to_string(),
        why: "a link-local address leads nowhere without its interface, which may have another \
              number in the target; name the portal by another of its addresses"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_have_a_usual_port() {
        let one = |text: &str| resolve(text).unwrap()[0].to_string();
        assert_eq!(one("10.0.2.2"), "10.0.2.2:3260");
        assert_eq!(one("10.0.2.2:860"), "10.0.2.2:860");
        assert_eq!(one("2001:db8::1"), "[2001:db8::1]:3260");
        assert_eq!(one("[2001:db8::1]"), "[2001:db8::1]:3260");
        assert_eq!(one("[2001:db8::1]:860"), "[2001:db8::1]:860");
        assert!(resolve("no host at all").is_err());
    }

    #[test]
    fn portals_may_have_a_group() {
        for (text, place, expected) in [
            ("10.0.2.2", "10.0.2.2:3260", None),
            ("10.0.2.2,0", "10.0.2.2:3260", Some(0)),
            ("[2001:db8::1]:860,65535", "[2001:db8::1]:860", Some(65_535)),
        ] {
            assert_eq!(group(text), expected);
            assert_eq!(resolve(text).unwrap()[0].to_string(), place);
            assert_eq!(parse(text), Ok(text.into()));
        }
    }

    #[test]
    fn what_is_no_portal_is_said() {
        let wrong = |text: &str, words: &str| {
            let why = parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        };
        for port in ["0", "65536", "abc", "", "-1", "860:1"] {
            wrong(&format!("192.0.2.1:{port}"), "no number from 1 to 65535");
            wrong(
                &format!("[2001:db8::1]:{port}"),
                "no number from 1 to 65535",
            );
        }
        wrong("", "a host or its address");
        wrong(":3260", "a host or its address");
        wrong("my host", "a host or its address");
        wrong("iscsi://192.0.2.1", "a host or its address");
        wrong("[2001:db8::1", "not closed");
        wrong("[host]:3260", "host is no IPv6 address");
        wrong("[2001:db8::1]860", "is no port");
        for tag in ["", "one", "-1", "65536", "1,1"] {
            wrong(&format!("192.0.2.1:860,{tag}"), "no number from 0 to 65535");
        }
        assert!(parse("server.example:860").is_ok());
        assert!(parse("[fe80::1%eth0]:860").is_ok());
    }

    #[test]
    fn link_local_portals_are_refused_whatever_their_zone() {
        for portal in ["fe80::1", "[fe80::1]:860", "fe80::1%1"] {
            let error = resolve(portal).unwrap_err();
            assert_eq!(error.exit(), crate::Exit::Network, "{error}");
            assert!(error.to_string().contains("link-local"), "{error}");
        }
    }

    #[test]
    fn targets_have_names() {
        assert!(parse_target("iqn.2026-11.org.example:debian13").is_ok());
        assert!(parse_target("").unwrap_err().contains("empty"));
        assert!(parse_target("two words").is_err());
        assert!(parse_target(&"x".repeat(300)).is_err());
    }
}
