// SPDX-License-Identifier: GPL-2.0-only
//! Keeps whatever manages interfaces in the target away from the one that the
//! root file system arrives through: until the last write it stays as the
//! initramfs set it up.
//!
//! Everything goes to `/run`, which the initramfs hands over to the target: no
//! file of the image is touched, and nothing is left after a commit.

use std::path::Path;

use imgstream_proto::disk::settings::{Method, Network};

use super::{mac_text, Interface};
use crate::error::{Error, Result};

/// The files, relative to `/run`, and what they say.
fn files(network: &Network, interface: &Interface) -> Vec<(String, String)> {
    let mut files = vec![
        (
            "systemd/system/networking.service.d/imgstream.conf".into(),
            networking_service(interface),
        ),
        (
            "systemd/network/00-imgstream.network".into(),
            networkd(network, &interface.name),
        ),
        (
            "NetworkManager/conf.d/00-imgstream.conf".into(),
            network_manager(network, interface),
        ),
        (
            "imgstream/interface".into(),
            format!("{}\n", interface.name),
        ),
    ];
    files.extend(interface.devices().map(|device| {
        (
            format!("systemd/system/ifup@{device}.service.d/imgstream.conf"),
            "[Unit]\nConditionPathExists=!/run/imgstream/interface\n".into(),
        )
    }));
    files.extend(interface.lower().map(|lower| {
        (
            "systemd/network/00-imgstream-lower.network".into(),
            format!("[Match]\nName={lower}\n\n[Link]\nUnmanaged=yes\n"),
        )
    }));
    files
}

/// ifupdown: neither brought up again nor taken down. These are the commands of
/// Debian's unit, each with one more thing to leave out.
fn networking_service(interface: &Interface) -> String {
    let exclude = interface
        .devices()
        .map(|device| format!(" --exclude={device}"))
        .collect::<Vec<String>>()
        .concat();
    format!(
        "[Service]\nExecStart=\nExecStart=/sbin/ifup -a --read-environment{exclude}\n\
         ExecStart=-/bin/sh -c 'if [ -f /run/network/restart-hotplug ]; then \
         /sbin/ifup -a --read-environment --allow=hotplug{exclude}; fi'\n\
         ExecStop=\nExecStop=/sbin/ifdown -a --read-environment --exclude=lo{exclude}\n"
    )
}

/// NetworkManager: not its business. The list may be replaced by a file of the
/// image's, the section may not.
fn network_manager(network: &Network, interface: &Interface) -> String {
    let names = interface
        .devices()
        .map(|device| format!(";interface-name:{device}"))
        .collect::<Vec<String>>()
        .concat();
    let devices = format!("mac:{}{names}", mac_text(&network.mac));
    format!(
        "[keyfile]\nunmanaged-devices+={devices}\n\n\
         [device-imgstream]\nmatch-device={devices}\nmanaged=0\n"
    )
}

/// systemd-networkd: takes it over as it is and leaves it as it is.
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
pub fn write(run: &Path, network: &Network, interface: &Interface) -> Result<()> {
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
mod tests;
