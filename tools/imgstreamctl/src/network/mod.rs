// SPDX-License-Identifier: GPL-2.0-only
//! The network that the image is reached by: read off the running source, kept
//! in the control area, set up again by the target's initramfs, and left alone
//! by whatever manages interfaces in the target.

pub mod apply;
pub mod capture;
pub mod keep;

use imgstream_proto::disk::settings::{Method, Network};

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
    let vlan = match network.vlan {
        0 => String::new(),
        id => format!(", VLAN {id}"),
    };
    format!("interface {}, {method}{vlan}", mac_text(&network.mac))
}

#[cfg(test)]
mod tests {
    use super::*;

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
