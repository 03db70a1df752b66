// SPDX-License-Identifier: GPL-2.0-only
//! The network that the image is reached by: read off the running source, kept
//! in the control area, set up again by the target's initramfs, and left alone
//! by whatever manages interfaces in the target.

pub mod apply;
pub mod capture;
pub mod keep;
pub mod nic;

use imgstream_proto::disk::settings::{Method, Network};

/// MTU of Ethernet, which need not be set.
const DEFAULT_MTU: u16 = 1500;

/// An interface that was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The one with the address.
    pub name: String,
    /// What it is on; the same, unless it is a VLAN.
    pub hardware: String,
}

impl Interface {
    fn on(hardware: String, vlan: u16) -> Self {
        let name = match vlan {
            0 => hardware.clone(),
            vlan => format!("{hardware}.{vlan}"),
        };
        Self { name, hardware }
    }

    /// What it is on, if that is another device.
    fn lower(&self) -> Option<&str> {
        (self.hardware != self.name).then_some(&*self.hardware)
    }

    /// Each of its devices: all of them have to stay up.
    fn devices(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.name).chain(self.lower())
    }
}

/// A MAC address as sysfs writes it.
pub fn mac_text(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address that `text` says.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// One line for a person.
pub fn describe(network: &Network) -> String {
    let method = match network.method {
        Method::Dhcp => "DHCP".to_string(),
        Method::Static {
            address,
            prefix_len,
            gateway,
        } => {
            let router = gateway.map_or(String::new(), |g| format!(" through {g}"));
            format!("{address}/{prefix_len}{router}")
        }
    };
    let number = |name: &str, number: u16| match number {
        0 => String::new(),
        number => format!(", {name} {number}"),
    };
    let dns = network
        .dns
        .iter()
        .flatten()
        .map(|server| format!(", DNS {server}"))
        .collect::<Vec<String>>()
        .concat();
    format!(
        "interface {}, {method}{}{}{dns}",
        mac_text(&network.mac),
        number("VLAN", network.vlan),
        number("MTU", network.mtu)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_kept_is_said() {
        let mut network = Network {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0xff],
            method: Method::Dhcp,
            dns: [None; 2],
            mtu: 0,
            vlan: 0,
            hostname: Default::default(),
        };
        assert_eq!(describe(&network), "interface 52:54:00:12:34:ff, DHCP");
        network.method = Method::Static {
            address: "192.0.2.7".parse().unwrap(),
            prefix_len: 24,
            gateway: Some("192.0.2.1".parse().unwrap()),
        };
        network.dns = ["192.0.2.53", "2001:db8::53"].map(|server| server.parse().ok());
        (network.mtu, network.vlan) = (9000, 5);
        assert_eq!(
            describe(&network),
            "interface 52:54:00:12:34:ff, 192.0.2.7/24 through 192.0.2.1, VLAN 5, MTU 9000, \
             DNS 192.0.2.53, DNS 2001:db8::53"
        );
    }

    #[test]
    fn a_vlan_is_two_devices() {
        let plain = Interface::on("ens3".into(), 0);
        assert_eq!(plain.devices().collect::<Vec<_>>(), ["ens3"]);
        let vlan = Interface::on("ens3".into(), 5);
        assert_eq!(vlan.devices().collect::<Vec<_>>(), ["ens3.5", "ens3"]);
    }

    #[test]
    fn mac_goes_both_ways() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0xff];
        assert_eq!(mac_text(&mac), "52:54:00:12:34:ff");
        assert_eq!(parse_mac("52:54:00:12:34:ff\n"), Some(mac));
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:ff:00",
            "52:54:0:12:34:ff",
            "zz:54:00:12:34:ff",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
