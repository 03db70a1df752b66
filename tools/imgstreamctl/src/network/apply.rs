// SPDX-License-Identifier: GPL-2.0-only
//! Sets the network up in the target's initramfs.
//!
//! A fixed address is set by `ip`, DHCP is asked by klibc's `ipconfig`, which
//! every initramfs of Debian contains.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use imgstream_proto::disk::settings::{Method, Network};

use super::{mac_text, parse_mac};
use crate::error::{Error, Result};
use crate::program;

const SYS_NET: &str = "/sys/class/net";

/// One run of a program.
type Step = (&'static str, Vec<String>);

/// Waits for the interface, sets it up and says its name.
pub fn apply(network: &Network, patience: Duration) -> Result<String> {
    wait_for(&network.mac, patience)?;
    // udev gives the interface its name a moment after it has appeared.
    let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    let hardware = wait_for(&network.mac, patience)?;
    for (name, arguments) in steps(network, &hardware) {
        run_step(name, &arguments)?;
    }
    write_resolv_conf(network)?;
    Ok(interface(network, &hardware))
}

/// The interface that gets the address.
fn interface(network: &Network, hardware: &str) -> String {
    match network.vlan {
        0 => hardware.to_string(),
        vlan => format!("{hardware}.{vlan}"),
    }
}

/// What has to be run, in this order. Each may be run again.
fn steps(network: &Network, hardware: &str) -> Vec<Step> {
    let words = |text: String| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    let name = interface(network, hardware);
    let mut steps: Vec<Step> = vec![("ip", words(format!("link set dev {hardware} up")))];
    if network.vlan != 0 {
        let id = network.vlan;
        steps.push((
            "ip",
            words(format!(
                "link add link {hardware} name {name} type vlan id {id}"
            )),
        ));
    }
    if network.mtu != 0 {
        let mtu = network.mtu;
        steps.push(("ip", words(format!("link set dev {name} mtu {mtu}"))));
    }
    steps.push(("ip", words(format!("link set dev {name} up"))));
    match network.method {
        Method::Dhcp => steps.push(("ipconfig", words(format!("-t 60 -c dhcp -d {name}")))),
        Method::Static {
            address,
            prefix_len,
            gateway,
        } => {
            steps.push((
                "ip",
                words(format!("addr replace {address}/{prefix_len} dev {name}")),
            ));
            if let Some(gateway) = gateway {
                steps.extend(router(&name, address, gateway).map(|text| ("ip", words(text))));
            }
        }
    }
    steps
}

/// The router may lie outside of the prefix (hosting providers do that), so
/// the way to it is set first.
fn router(name: &str, address: IpAddr, gateway: IpAddr) -> [String; 2] {
    let (family, bits) = if address.is_ipv4() {
        ("-4", 32)
    } else {
        ("-6", 128)
    };
    [
        format!("{family} route replace {gateway}/{bits} dev {name}"),
        format!("{family} route replace default via {gateway} dev {name} src {address}"),
    ]
}

/// Runs a step. An interface that is there already is what was wanted.
fn run_step(name: &'static str, arguments: &[String]) -> Result<()> {
    let package = if name == "ip" {
        "iproute2"
    } else {
        "klibc-utils"
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = program::run(name, package, &words)?;
    let exists = String::from_utf8_lossy(&output.stderr).contains("File exists");
    if output.status.success() || exists {
        return Ok(());
    }
    Err(program::failed(name, &output).into())
}

/// Waits until an interface with this address exists.
fn wait_for(mac: &[u8; 6], patience: Duration) -> Result<String> {
    let begin = Instant::now();
    loop {
        if let Some(name) = find(Path::new(SYS_NET), mac) {
            return Ok(name);
        }
        if begin.elapsed() >= patience {
            return Err(Error::Io {
                doing: "waiting for the network interface",
                path: PathBuf::from(mac_text(mac)),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The hardware interface with this address: one with a device, which VLANs
/// and bridges on top of it have not.
fn find(sys: &Path, mac: &[u8; 6]) -> Option<String> {
    let mut names: Vec<_> = std::fs::read_dir(sys)
        .ok()?
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("device").exists())
        .filter(|entry| {
            let text = std::fs::read_to_string(entry.path().join("address"));
            text.ok().and_then(|text| parse_mac(&text)).as_ref() == Some(mac)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().next()
}

/// Names are not needed to reach the portal, but whoever looks around in the
/// initramfs wants them.
fn write_resolv_conf(network: &Network) -> Result<()> {
    let text: String = network
        .dns
        .iter()
        .flatten()
        .map(|server| format!("nameserver {server}\n"))
        .collect::<Vec<String>>()
        .concat();
    if text.is_empty() {
        return Ok(());
    }
    let path = Path::new("/etc/resolv.conf");
    std::fs::write(path, text).map_err(Error::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgstream_proto::disk::settings::Hostname;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn network(method: Method, vlan: u16, mtu: u16) -> Network {
        Network {
            mac: MAC,
            method,
            dns: [None; 2],
            mtu,
            vlan,
            hostname: Hostname::EMPTY,
        }
    }

    fn lines(network: &Network) -> Vec<String> {
        steps(network, "ens3")
            .into_iter()
            .map(|(name, arguments)| format!("{name} {}", arguments.join(" ")))
            .collect()
    }

    #[test]
    fn dhcp_asks_on_the_interface() {
        let lines = lines(&network(Method::Dhcp, 0, 0));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 up",
                "ip link set dev ens3 up",
                "ipconfig -t 60 -c dhcp -d ens3"
            ]
        );
    }

    #[test]
    fn a_fixed_address_on_a_vlan() {
        let method = Method::Static {
            address: "192.0.2.7".parse().unwrap(),
            prefix_len: 24,
            gateway: Some("192.0.2.1".parse().unwrap()),
        };
        let lines = lines(&network(method, 5, 9000));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 up",
                "ip link add link ens3 name ens3.5 type vlan id 5",
                "ip link set dev ens3.5 mtu 9000",
                "ip link set dev ens3.5 up",
                "ip addr replace 192.0.2.7/24 dev ens3.5",
                "ip -4 route replace 192.0.2.1/32 dev ens3.5",
                "ip -4 route replace default via 192.0.2.1 dev ens3.5 src 192.0.2.7"
            ]
        );
    }

    #[test]
    fn hardware_is_found_by_address() {
        let dir = tempfile::tempdir().unwrap();
        for (name, device) in [("br0", false), ("ens4", true), ("ens3", true)] {
            let interface = dir.path().join(name);
            std::fs::create_dir_all(&interface).unwrap();
            if device {
                std::fs::create_dir(interface.join("device")).unwrap();
            }
            let mac = if name == "ens4" { [2; 6] } else { MAC };
            std::fs::write(interface.join("address"), mac_text(&mac) + "\n").unwrap();
        }
        assert_eq!(find(dir.path(), &MAC).as_deref(), Some("ens3"));
        assert_eq!(find(dir.path(), &[9; 6]), None);
    }
}
