// SPDX-License-Identifier: GPL-2.0-only
//! Reads the settings of the interface that leads to a portal.
//!
//! `ip` is asked instead of the configuration files of this or that network
//! manager: what counts is how the portal is reached now.

use std::net::IpAddr;

use imgstream_proto::disk::settings::{Hostname, Method, Network};
use serde::Deserialize;

use super::{parse_mac, DEFAULT_MTU};
use crate::error::Result;
use crate::program;
use crate::refusal::Refusal;

/// How a portal is reached.
#[derive(Debug, Deserialize)]
pub struct Route {
    /// The interface. Left out by `ip` when it was asked for one device.
    #[serde(default)]
    pub dev: String,
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
    protocol: Option<String>,
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
        if gateway.is_some_and(|gateway: IpAddr| gateway.is_ipv4() != address.is_ipv4()) {
            return Err("the router's address is of another kind".into());
        }
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

impl Route {
    /// Asks the kernel.
    pub fn to(portal: IpAddr) -> Result<Route> {
        let portal = portal.to_string();
        let answer = ip(&["route", "get", &portal])
            .map_err(|error| unusable(&portal, &error.to_string()))?;
        let route: Route = first(&answer)?;
        if route.dev == "lo" {
            return Err(unusable(&route.dev, "the portal is on this computer").into());
        }
        Ok(route)
    }

    /// What the target needs to reach `portal` the same way.
    pub fn settings(&self, portal: IpAddr, fixed: Option<&StaticAddress>) -> Result<Network> {
        let family = if portal.is_ipv6() { "-6" } else { "-4" };
        let defaults = ip(&[family, "route", "show", "default", "dev", &self.dev])?;
        let link: Link = first(&ip(&["-d", "addr", "show", "dev", &self.dev])?)?;
        let parent = match &link.link {
            Some(name) => Some(first(&ip(&["-d", "link", "show", "dev", name])?)?),
            None => None,
        };
        let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut network = settings(self, first(&defaults).ok(), &link, parent.as_ref())?;
        network.dns = name_servers(&resolv);
        network.hostname = Hostname::new(hostname.trim().as_bytes()).unwrap_or_default();
        if let Some(fixed) = fixed {
            set_static(&mut network, portal, fixed)?;
        }
        Ok(network)
    }
}

fn set_static(network: &mut Network, portal: IpAddr, fixed: &StaticAddress) -> Result<()> {
    if fixed.address.is_ipv4() != portal.is_ipv4() {
        let address = fixed.address.to_string();
        let why = format!("the portal {portal} cannot be reached from that address");
        return Err(unusable(&address, &why).into());
    }
    network.method = Method::Static {
        address: fixed.address,
        prefix_len: fixed.prefix_len,
        gateway: fixed.gateway,
    };
    if fixed.dns != [None, None] {
        network.dns = fixed.dns;
    }
    Ok(())
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
        (Some("vlan"), Some(parent)) => (link.vlan_id(&route.dev)?, parent),
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
        mtu: match u16::try_from(link.mtu) {
            Ok(DEFAULT_MTU) | Err(_) => 0,
            Ok(mtu) => mtu,
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

    fn vlan_id(&self, dev: &str) -> Result<u16> {
        let data = self.linkinfo.as_ref().and_then(|i| i.info_data.as_ref());
        match data.map(|data| (data.protocol.as_deref(), data.id)) {
            Some((None | Some("802.1Q"), Some(id))) => Ok(id),
            _ => Err(unusable(dev, "it is a VLAN of another kind than 802.1Q").into()),
        }
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
    fn a_portal_with_ipv6() {
        let get = r#"[{"dst":"2001:db8:5::1","from":"::","gateway":"fe80::1","dev":"ens3","protocol":"ra",
            "prefsrc":"2001:db8::8","metric":1024,"flags":[],"pref":"medium"}]"#;
        let addr = r#"[{"ifname":"ens3","mtu":1500,"address":"52:54:00:12:34:56","addr_info":[
            {"family":"inet","local":"192.0.2.7","prefixlen":24,"dynamic":true},
            {"family":"inet6","local":"2001:db8::8","prefixlen":64,"scope":"global","dynamic":true,"mngtmpaddr":true},
            {"family":"inet6","local":"fe80::406f:94ff:fe73:b61","prefixlen":64,"scope":"link"}]}]"#;
        let route: Route = first(get).unwrap();
        assert_eq!(route.dev, "ens3");
        let network = made(get, "[]", addr, None).unwrap();
        let expected = Method::Static {
            address: "2001:db8::8".parse().unwrap(),
            prefix_len: 64,
            gateway: Some("fe80::1".parse().unwrap()),
        };
        assert_eq!(network.method, expected);
    }

    #[test]
    fn a_fixed_address_has_to_reach_the_portal() {
        let mut network = made(GET, DEFAULT, &addr("", 1500), None).unwrap();
        let fixed: StaticAddress = "2001:db8::7/64".parse().unwrap();
        let v4 = "192.0.2.1".parse().unwrap();
        let error = set_static(&mut network, v4, &fixed).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::Network);
        let v6 = "2001:db8::1".parse().unwrap();
        set_static(&mut network, v6, &fixed).unwrap();
        assert!(matches!(
            network.method,
            Method::Static { prefix_len: 64, .. }
        ));
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
    fn a_service_vlan_is_refused() {
        let vlan = r#"[{"ifname":"ens3.5","link":"ens3","mtu":1500,"address":"52:54:00:00:00:99",
            "linkinfo":{"info_kind":"vlan","info_data":{"protocol":"802.1ad","id":5}},
            "addr_info":[{"local":"10.0.2.15","prefixlen":24}]}]"#;
        let parent = r#"[{"ifname":"ens3","mtu":1500,"address":"52:54:00:12:34:56"}]"#;
        let error = made(GET, "[]", vlan, Some(parent)).unwrap_err();
        assert!(error.to_string().contains("802.1Q"), "{error}");
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
            "192.0.2.7/24,2001:db8::1",
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
