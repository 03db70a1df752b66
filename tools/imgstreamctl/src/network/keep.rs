// SPDX-License-Identifier: GPL-2.0-only
//! Keeps whatever manages interfaces in the target away from the one that the
//! root file system arrives through: until the last write it stays as the
//! initramfs set it up.
//!
//! Everything goes to `/run`, which the initramfs hands over to the target: no
//! file of the image is touched, and nothing is left after a commit.

use std::path::Path;

use imgstream_proto::disk::settings::{Method, Network};

use super::mac_text;
use crate::error::{Error, Result};

/// The files, relative to `/run`, and what they say.
fn files(network: &Network, interface: &str) -> Vec<(String, String)> {
    let exclude = format!("--exclude=lo --exclude={interface}");
    vec![
        // ifupdown: neither brought up again nor taken down.
        (
            "systemd/system/networking.service.d/imgstream.conf".into(),
            format!(
                "[Service]\nExecStart=\nExecStart=/sbin/ifup -a --read-environment {exclude}\n\
                 ExecStop=\nExecStop=/sbin/ifdown -a --read-environment {exclude}\n"
            ),
        ),
        (
            format!("systemd/system/ifup@{interface}.service.d/imgstream.conf"),
            "[Unit]\nConditionPathExists=!/run/imgstream/interface\n".into(),
        ),
        // systemd-networkd: takes it over as it is and leaves it as it is.
        (
            "systemd/network/00-imgstream.network".into(),
            networkd(network, interface),
        ),
        // NetworkManager: not its business.
        (
            "NetworkManager/conf.d/00-imgstream.conf".into(),
            format!(
                "[keyfile]\nunmanaged-devices+=mac:{};interface-name:{interface}\n",
                mac_text(&network.mac)
            ),
        ),
        ("imgstream/interface".into(), format!("{interface}\n")),
    ]
}

fn networkd(network: &Network, interface: &str) -> String {
    let mut text = format!("[Match]\nName={interface}\n\n[Network]\nKeepConfiguration=yes\n");
    for server in network.dns.iter().flatten() {
        text.push_str(&format!("DNS={server}\n"));
    }
    match network.method {
        Method::Dhcp => text.push_str("DHCP=ipv4\n"),
        Method::Static {
            address,
            prefix_len,
            gateway,
        } => {
            text.push_str(&format!("Address={address}/{prefix_len}\n"));
            if let Some(gateway) = gateway {
                text.push_str(&format!(
                    "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\n"
                ));
            }
        }
    }
    text
}

/// Writes them below `run` (`/run`).
pub fn write(run: &Path, network: &Network, interface: &str) -> Result<()> {
    for (name, text) in files(network, interface) {
        let path = run.join(name);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
        }
        std::fs::write(&path, text).map_err(Error::io("writing", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgstream_proto::disk::settings::Hostname;

    #[test]
    fn every_manager_is_told() {
        let network = Network {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            method: Method::Static {
                address: "192.0.2.7".parse().unwrap(),
                prefix_len: 24,
                gateway: Some("192.0.2.1".parse().unwrap()),
            },
            dns: [Some("192.0.2.53".parse().unwrap()), None],
            mtu: 0,
            vlan: 0,
            hostname: Hostname::EMPTY,
        };
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &network, "ens3").unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let networkd = read("systemd/network/00-imgstream.network");
        for line in [
            "KeepConfiguration=yes",
            "Address=192.0.2.7/24",
            "Gateway=192.0.2.1",
            "DNS=192.0.2.53",
        ] {
            assert!(networkd.lines().any(|l| l == line), "{line} in {networkd}");
        }
        assert!(read("NetworkManager/conf.d/00-imgstream.conf").contains("mac:52:54:00:12:34:56"));
        assert!(read("systemd/system/networking.service.d/imgstream.conf")
            .contains("ifdown -a --read-environment --exclude=lo --exclude=ens3"));
        assert_eq!(read("imgstream/interface"), "ens3\n");
    }
}
