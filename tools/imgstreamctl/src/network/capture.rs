// SPDX-License-Identifier: GPL-2.0-only
//! Reads the settings of the interface that leads to a portal.
//!
//! `ip` is asked instead of the configuration files of this or that network
//! manager: what counts is how the portal is reached now.

use std::net::IpAddr;

use imgstream_proto::disk::settings::{Hostname, Method, Network};
use serde::Deserialize;

use super::parse_mac;
use crate::error::Result;
use crate::program;
use crate::refusal::Refusal;

/// MTU of Ethernet, which need not be set.
const DEFAULT_MTU: u32 = 1500;

#[derive(Debug, Deserialize)]
struct Route {
    /// Left out by `ip` when it was asked for one device.
    #[serde(default)]
    dev: String,
    gateway: Option<IpAddr>,
    prefsrc: Option<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct Link {
    mtu: u32,
    address: Option<String>,
    link: Option<String>,
    linkinfo: Option<LinkInfo>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    info_data: Option<InfoData>,
}

#[derive(Debug, Deserialize)]
struct InfoData {
    id: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Address {
    local: Option<IpAddr>,
    prefixlen: u8,
    #[serde(default)]
    dynamic: bool,
}

/// What `--static` says: `IP/PREFIX[,GATEWAY[,DNS[,DNS]]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    address: IpAddr,
    prefix_len: u8,
    gateway: Option<IpAddr>,
    dns: [Option<IpAddr>; 2],
}

impl std::str::FromStr for StaticAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (address, prefix) = parts
            .next()
            .and_then(|part| part.split_once('/'))
            .ok_or("an address with its prefix length is needed, for example 192.0.2.7/24")?;
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("{address} is no address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix
            .parse()
            .ok()
            .filter(|len| (1..=most).contains(len))
            .ok_or_else(|| format!("{prefix} is no prefix length"))?;
        let mut rest = parts.map(|part| match part {
            "" => Ok(None),
            _ => part
                .parse()
                .map(Some)
                .map_err(|_| format!("{part} is no address")),
        });
        let mut next = || rest.next().unwrap_or(Ok(None));
        let (gateway, dns) = (next()?, [next()?, next()?]);
        if rest.next().is_some() {
            return Err("too many addresses".into());
        }
        Ok(Self {
            address,
            prefix_len,
            gateway,
            dns,
        })
    }
}

/// Settings of the route to `portal`.
pub fn capture(portal: IpAddr, fixed: Option<&StaticAddress>) -> Result<Network> {
    let route: Route = first(&ip(&["route", "get", &portal.to_string()])?)?;
    if route.dev == "lo" {
        return Err(unusable(&route.dev, "the portal is on this computer").into());
    }
    let family = if portal.is_ipv6() { "-6" } else { "-4" };
    let defaults = ip(&[family, "route", "show", "default", "dev", &route.dev])?;
    let link: Link = first(&ip(&["-d", "addr", "show", "dev", &route.dev])?)?;
    let parent = match &link.link {
        Some(name) => Some(first(&ip(&["-d", "link", "show", "dev", name])?)?),
        None => None,
    };
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut network = settings(&route, first(&defaults).ok(), &link, parent.as_ref())?;
    network.dns = name_servers(&resolv);
    network.hostname = Hostname::new(hostname.trim().as_bytes()).unwrap_or_default();
    if let Some(fixed) = fixed {
        set_static(&mut network, fixed);
    }
    Ok(network)
}

fn set_static(network: &mut Network, fixed: &StaticAddress) {
    network.method = Method::Static {
        address: fixed.address,
        prefix_len: fixed.prefix_len,
        gateway: fixed.gateway,
    };
    if fixed.dns != [None, None] {
        network.dns = fixed.dns;
    }
}

/// `ip` with JSON output; iproute2 is installed on every Debian system.
fn ip(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = ["-j"].iter().chain(arguments).copied().collect();
    Ok(program::text("ip", program::run("ip", "iproute2", &all)?)?)
}

/// The first of the objects that `ip` printed.
fn first<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T> {
    let answer = || program::Error::Answer {
        program: "ip",
        asked: "-j".into(),
        said: json.chars().take(200).collect(),
    };
    let list: Vec<serde_json::Value> = serde_json::from_str(json).map_err(|_| answer())?;
    // iproute2 prints empty objects for what the filter left out.
    let value = list
        .into_iter()
        .find(|v| v.as_object().is_some_and(|o| !o.is_empty()));
    let value = value.ok_or_else(answer)?;
    Ok(serde_json::from_value(value).map_err(|_| answer())?)
}

fn settings(
    route: &Route,
    default: Option<Route>,
    link: &Link,
    parent: Option<&Link>,
) -> Result<Network> {
    let kind = link.kind();
    let (vlan, hardware) = match (kind, parent) {
        (Some("vlan"), Some(parent)) => (link.vlan_id().unwrap_or(0), parent),
        _ => (0, link),
    };
    if let Some(kind) = hardware.kind() {
        return Err(unusable(&route.dev, kind).into());
    }
    let mac = hardware
        .address
        .as_deref()
        .and_then(parse_mac)
        .ok_or_else(|| unusable(&route.dev, "it has no MAC address"))?;
    Ok(Network {
        mac,
        method: method(route, default, link)?,
        dns: [None; 2],
        mtu: match link.mtu {
            DEFAULT_MTU => 0,
            mtu => u16::try_from(mtu).unwrap_or(0),
        },
        vlan,
        hostname: Hostname::EMPTY,
    })
}

/// An address with a lifetime came by DHCP.
fn method(route: &Route, default: Option<Route>, link: &Link) -> Result<Method> {
    let address = link
        .addr_info
        .iter()
        .find(|a| a.local.is_some() && a.local == route.prefsrc)
        .ok_or_else(|| unusable(&route.dev, "its address is not known"))?;
    let local = address
        .local
        .ok_or_else(|| unusable(&route.dev, "its address is not known"))?;
    // There is no DHCPv6 client in Debian's initramfs: a dynamic IPv6 address is kept as it is.
    if address.dynamic && local.is_ipv4() {
        return Ok(Method::Dhcp);
    }
    Ok(Method::Static {
        address: local,
        prefix_len: address.prefixlen,
        gateway: route.gateway.or(default.and_then(|d| d.gateway)),
    })
}

impl Link {
    /// What it is made of; `None` for plain hardware.
    fn kind(&self) -> Option<&str> {
        self.linkinfo.as_ref()?.info_kind.as_deref()
    }

    fn vlan_id(&self) -> Option<u16> {
        self.linkinfo.as_ref()?.info_data.as_ref()?.id
    }
}

fn unusable(interface: &str, why: &str) -> Refusal {
    Refusal::Network {
        interface: interface.to_string(),
        why: why.to_string(),
    }
}

/// The first two name servers of a resolv.conf that are not on this computer.
fn name_servers(resolv: &str) -> [Option<IpAddr>; 2] {
    let mut found = resolv
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .filter(|address| !address.is_loopback());
    [found.next(), found.next()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str =
        r#"[{"dst":"10.0.2.2","dev":"ens3","prefsrc":"10.0.2.15","flags":[],"uid":0,"cache":[]}]"#;
    const DEFAULT: &str = r#"[{"dst":"default","gateway":"10.0.2.9","flags":["onlink"]}]"#;

    fn addr(extra: &str, mtu: u32) -> String {
        format!(
            r#"[{{}},{{"ifindex":2,"ifname":"ens3","mtu":{mtu},"link_type":"ether","address":"52:54:00:12:34:56",
            "addr_info":[{{"family":"inet6","local":"fe80::1","prefixlen":64}},
            {{"family":"inet","local":"10.0.2.15","prefixlen":24,"scope":"global"{extra}}}]}}]"#
        )
    }

    fn made(get: &str, default: &str, addr: &str, parent: Option<&str>) -> Result<Network> {
        let parent: Option<Link> = parent.map(|p| first(p).unwrap());
        settings(
            &first(get)?,
            first(default).ok(),
            &first(addr)?,
            parent.as_ref(),
        )
    }

    #[test]
    fn an_address_with_a_lifetime_is_dhcp() {
        let network = made(GET, DEFAULT, &addr(r#","dynamic":true"#, 1500), None).unwrap();
        assert_eq!(network.method, Method::Dhcp);
        assert_eq!(network.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!((network.mtu, network.vlan), (0, 0));
    }

    #[test]
    fn a_fixed_address_keeps_the_router() {
        let network = made(GET, DEFAULT, &addr("", 9000), None).unwrap();
        let expected = Method::Static {
            address: "10.0.2.15".parse().unwrap(),
            prefix_len: 24,
            gateway: Some("10.0.2.9".parse().unwrap()),
        };
        assert_eq!(network.method, expected);
        assert_eq!(network.mtu, 9000);
    }

    #[test]
    fn the_router_of_the_portal_comes_first() {
        let get =
            r#"[{"dst":"192.0.2.1","gateway":"10.0.2.2","dev":"ens3","prefsrc":"10.0.2.15"}]"#;
        let network = made(get, DEFAULT, &addr("", 1500), None).unwrap();
        let Method::Static { gateway, .. } = network.method else {
            panic!("not static")
        };
        assert_eq!(gateway, Some("10.0.2.2".parse().unwrap()));
    }

    #[test]
    fn no_router_is_no_error() {
        let network = made(GET, "[]", &addr("", 1500), None).unwrap();
        assert!(matches!(
            network.method,
            Method::Static { gateway: None, .. }
        ));
    }

    #[test]
    fn a_vlan_is_its_parents_mac_and_a_number() {
        let vlan = r#"[{"ifname":"ens3.5","link":"ens3","mtu":1500,"address":"52:54:00:00:00:99",
            "linkinfo":{"info_kind":"vlan","info_data":{"protocol":"802.1Q","id":5}},
            "addr_info":[{"local":"10.0.2.15","prefixlen":24}]}]"#;
        let parent = r#"[{"ifname":"ens3","mtu":1500,"address":"52:54:00:12:34:56"}]"#;
        let network = made(GET, "[]", vlan, Some(parent)).unwrap();
        assert_eq!(network.vlan, 5);
        assert_eq!(network.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn a_bond_is_refused_by_name() {
        let bond = r#"[{"ifname":"bond0","mtu":1500,"address":"52:54:00:00:00:99","linkinfo":{"info_kind":"bond"},
            "addr_info":[{"local":"10.0.2.15","prefixlen":24}]}]"#;
        let error = made(GET, "[]", bond, None).unwrap_err();
        assert!(error.to_string().contains("bond"), "{error}");
    }

    #[test]
    fn static_override_is_parsed_whole() {
        let full: StaticAddress = "192.0.2.7/24,192.0.2.1,192.0.2.53".parse().unwrap();
        assert_eq!(full.prefix_len, 24);
        assert_eq!(full.gateway, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(full.dns, [Some("192.0.2.53".parse().unwrap()), None]);
        let no_router: StaticAddress = "2001:db8::7/64,,2001:db8::53".parse().unwrap();
        assert_eq!(no_router.gateway, None);
        assert!(no_router.dns[0].is_some());
        for bad in [
            "",
            "192.0.2.7",
            "192.0.2.7/33",
            "192.0.2.7/0",
            "x/24",
            "192.0.2.7/24,x",
            "192.0.2.7/24,,,,",
        ] {
            assert!(bad.parse::<StaticAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn name_servers_on_this_computer_are_left_out() {
        let text = "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver 2001:db8::1\nsearch x\n";
        let found = name_servers(text);
        assert_eq!(found[0], Some("192.0.2.53".parse().unwrap()));
        assert_eq!(found[1], Some("2001:db8::1".parse().unwrap()));
    }
}
