// SPDX-License-Identifier: GPL-2.0-only
//! Sets the network up in the target's initramfs.
//!
//! A fixed address is set by `ip`, DHCP is asked by klibc's `ipconfig`, which
//! every initramfs of Debian contains.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use imgstream_proto::disk::settings::{Method, Network};

use super::{mac_text, parse_mac, Interface, DEFAULT_MTU};
use crate::error::{Error, Result};
use crate::program;

const SYS_NET: &str = "/sys/class/net";

/// Waits for the interface, sets it up and says what it is called.
pub fn apply(network: &Network, patience: Duration) -> Result<Interface> {
    wait_for(&network.mac, patience)?;
    // udev gives the interface its name a moment after it has appeared.
    let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    let interface = Interface::on(wait_for(&network.mac, patience)?, network.vlan);
    for line in steps(network, &interface) {
        run_step(&line)?;
    }
    write_resolv_conf(network)?;
    Ok(interface)
}

/// The commands, in this order. Each may be run again.
fn steps(network: &Network, interface: &Interface) -> Vec<String> {
    let Interface { name, hardware } = interface;
    let mut lines = Vec::new();
    let (mtu, vlan) = (network.mtu, network.vlan);
    // A VLAN cannot have a larger MTU than what it is on.
    if mtu != 0 && (vlan == 0 || mtu > DEFAULT_MTU) {
        lines.push(format!("ip link set dev {hardware} mtu {mtu}"));
    }
    lines.push(format!("ip link set dev {hardware} up"));
    if vlan != 0 {
        lines.push(format!(
            "ip link add link {hardware} name {name} type vlan id {vlan}"
        ));
        if mtu != 0 {
            lines.push(format!("ip link set dev {name} mtu {mtu}"));
        }
        lines.push(format!("ip link set dev {name} up"));
    }
    match network.method {
        Method::Dhcp => lines.push(format!("ipconfig -t 60 -c dhcp -d {name}")),
        Method::Static {
            address,
            prefix_len,
            gateway,
        } => {
            lines.push(with_address(name, address, prefix_len));
            lines.extend(
                gateway
                    .map(|g| router(name, address, g))
                    .into_iter()
                    .flatten(),
            );
        }
    }
    lines
}

/// Nobody is asked whether an IPv6 address is free: it was this computer's a
/// minute ago, and until the answer it could not be the source of a route.
fn with_address(name: &str, address: IpAddr, prefix_len: u8) -> String {
    let nodad = if address.is_ipv6() { " nodad" } else { "" };
    format!("ip addr replace {address}/{prefix_len} dev {name}{nodad}")
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
        format!("ip {family} route replace {gateway}/{bits} dev {name}"),
        format!("ip {family} route replace default via {gateway} dev {name} src {address}"),
    ]
}

/// Which program a command is, and its package. In an initramfs with busybox
/// that one's `ip` is found first, and knows less.
fn program_of(line: &str) -> (&'static str, &'static str) {
    match line.starts_with("ip ") {
        true => ("/usr/bin/ip", "iproute2"),
        false => ("ipconfig", "klibc-utils"),
    }
}

/// Runs a command. An interface that is there already is what was wanted.
fn run_step(line: &str) -> Result<()> {
    let (name, package) = program_of(line);
    let words: Vec<&str> = line.split(' ').skip(1).collect();
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
/// and bridges on top of it have not, and no part of another one, as the
/// virtual function below a virtual machine's card is.
fn find(sys: &Path, mac: &[u8; 6]) -> Option<String> {
    let mut names: Vec<_> = std::fs::read_dir(sys)
        .ok()?
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("device").exists())
        .filter(|entry| entry.path().join("master").symlink_metadata().is_err())
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
        let interface = Interface::on("ens3".into(), network.vlan);
        steps(network, &interface)
    }

    fn fixed(address: &str, prefix_len: u8, gateway: &str) -> Method {
        Method::Static {
            address: address.parse().unwrap(),
            prefix_len,
            gateway: gateway.parse().ok(),
        }
    }

    /// The hook of the initramfs puts it there.
    #[test]
    fn busyboxs_ip_is_not_asked() {
        const HOOK: &str = include_str!("../../../../initramfs/hooks/imgstream");
        for line in lines(&network(fixed("2001:db8::7", 64, "2001:db8::1"), 5, 9000)) {
            assert_eq!(program_of(&line), ("/usr/bin/ip", "iproute2"), "{line}");
        }
        assert!(HOOK.contains("copy_exec \"$(command -v ip)\" /usr/bin\n"));
        let dhcp = lines(&network(Method::Dhcp, 0, 0)).pop().unwrap();
        assert_eq!(program_of(&dhcp).0, "ipconfig");
    }

    #[test]
    fn dhcp_asks_on_the_interface() {
        let lines = lines(&network(Method::Dhcp, 0, 0));
        assert_eq!(
            lines,
            ["ip link set dev ens3 up", "ipconfig -t 60 -c dhcp -d ens3"]
        );
    }

    #[test]
    fn the_mtu_is_set_before_anything_is_sent() {
        let lines = lines(&network(Method::Dhcp, 0, 9000));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 mtu 9000",
                "ip link set dev ens3 up",
                "ipconfig -t 60 -c dhcp -d ens3"
            ]
        );
    }

    #[test]
    fn a_fixed_address_on_a_vlan_with_large_frames() {
        let lines = lines(&network(fixed("192.0.2.7", 24, "192.0.2.1"), 5, 9000));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 mtu 9000",
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
    fn small_frames_of_a_vlan_leave_what_it_is_on_alone() {
        let lines = lines(&network(Method::Dhcp, 5, 1400));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 up",
                "ip link add link ens3 name ens3.5 type vlan id 5",
                "ip link set dev ens3.5 mtu 1400",
                "ip link set dev ens3.5 up",
                "ipconfig -t 60 -c dhcp -d ens3.5"
            ]
        );
    }

    #[test]
    fn a_fixed_ipv6_address_can_be_a_source_at_once() {
        let lines = lines(&network(fixed("2001:db8::7", 64, "fe80::1"), 0, 0));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 up",
                "ip addr replace 2001:db8::7/64 dev ens3 nodad",
                "ip -6 route replace fe80::1/128 dev ens3",
                "ip -6 route replace default via fe80::1 dev ens3 src 2001:db8::7"
            ]
        );
    }

    #[test]
    fn without_a_router_there_is_no_route() {
        let lines = lines(&network(fixed("192.0.2.7", 24, "none"), 0, 0));
        assert_eq!(
            lines,
            [
                "ip link set dev ens3 up",
                "ip addr replace 192.0.2.7/24 dev ens3"
            ]
        );
    }

    #[test]
    fn hardware_is_found_by_address() {
        let dir = tempfile::tempdir().unwrap();
        for (name, device) in [
            ("br0", false),
            ("ens4", true),
            ("ens3", true),
            ("enP1s2", true),
        ] {
            let interface = dir.path().join(name);
            std::fs::create_dir_all(&interface).unwrap();
            if device {
                std::fs::create_dir(interface.join("device")).unwrap();
            }
            let mac = if name == "ens4" { [2; 6] } else { MAC };
            std::fs::write(interface.join("address"), mac_text(&mac) + "\n").unwrap();
        }
        std::os::unix::fs::symlink("../ens3", dir.path().join("enP1s2/master")).unwrap();
        assert_eq!(find(dir.path(), &MAC).as_deref(), Some("ens3"));
        assert_eq!(find(dir.path(), &[9; 6]), None);
    }
}
