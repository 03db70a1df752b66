// SPDX-License-Identifier: GPL-2.0-only
//! What Debian's managers of interfaces make of the files, with configurations
//! as the installer, cloud images and netplan write them.

use super::*;
use imgstream_proto::disk::settings::Hostname;

/// What runs ifupdown in `networking.service` of Debian 12.
const DEBIAN_12: [&str; 3] = [
    "ExecStart=/sbin/ifup -a --read-environment",
    "ExecStart=-/bin/sh -c 'if [ -f /run/network/restart-hotplug ]; then /sbin/ifup -a --read-environment --allow=hotplug; fi'",
    "ExecStop=/sbin/ifdown -a --read-environment --exclude=lo",
];
/// And of Debian 13.
const DEBIAN_13: [&str; 3] = [
    "ExecStart=/usr/sbin/ifup -a --read-environment",
    "ExecStart=-/bin/sh -c 'if [ -f /run/network/restart-hotplug ]; then /usr/sbin/ifup -a --read-environment --allow=hotplug; fi'",
    "ExecStop=/usr/sbin/ifdown -a --read-environment --exclude=lo",
];

const INSTALLER_DHCP: &str = "\
# This file describes the network interfaces available on your system
# and how to activate them. For more information, see interfaces(5).

source /etc/network/interfaces.d/*

# The loopback network interface
auto lo
iface lo inet loopback

# The primary network interface
allow-hotplug ens3
iface ens3 inet dhcp
# This is an autoconfigured IPv6 interface
iface ens3 inet6 auto
";
const SERVER_STATIC: &str = "\
auto lo ens3
iface lo inet loopback
iface ens3 inet static
\taddress 192.0.2.7/24
\tgateway 192.0.2.1
\tdns-nameservers 192.0.2.53

auto ens4
iface ens4 inet dhcp
";
const VLAN: &str = "\
auto lo
iface lo inet loopback
auto ens3
iface ens3 inet manual
auto ens3.5
iface ens3.5 inet static
\taddress 192.0.2.7/24
";

fn network() -> Network {
    Network {
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
    }
}

/// A directory that stands in for /run after the files were written.
struct Run(tempfile::TempDir);

impl Run {
    fn with(vlan: u16) -> Run {
        let run = Run(tempfile::tempdir().unwrap());
        let interface = Interface::on("ens3".into(), vlan);
        write(run.0.path(), &network(), &interface).unwrap();
        run
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    /// The drop-in's lines that start ifupdown or stop it.
    fn commands(&self) -> Vec<String> {
        let text = self.read("systemd/system/networking.service.d/imgstream.conf");
        text.lines()
            .filter(|line| line.contains("if"))
            .map(str::to_string)
            .collect()
    }
}

/// A drop-in that did anything else than the unit would be a change of the
/// image's behaviour that nobody asked for.
#[test]
fn debians_commands_with_one_more_thing_left_out() {
    let plain = |line: &str| line.replace("/usr/sbin/", "/sbin/");
    let run = Run::with(0);
    for unit in [DEBIAN_12, DEBIAN_13] {
        let without: Vec<String> = run
            .commands()
            .iter()
            .map(|line| line.replace(" --exclude=ens3", ""))
            .collect();
        assert_eq!(without, unit.map(plain));
    }
    assert!(run
        .commands()
        .iter()
        .all(|line| line.contains(" --exclude=ens3")));
    let text = run.read("systemd/system/networking.service.d/imgstream.conf");
    for reset in ["ExecStart=", "ExecStop="] {
        assert!(text.lines().any(|line| line == reset), "{reset}: {text}");
    }
}

/// The interfaces of `class` (`auto`, `allow-hotplug`) that a command of
/// ifupdown with `-a` works on, as interfaces(5) and ifup(8) say.
fn worked_on(interfaces: &str, command: &str) -> Vec<String> {
    let class: &[&str] = if command.contains("--allow=hotplug") {
        &["allow-hotplug"]
    } else {
        &["auto", "allow-auto"]
    };
    let left_out: Vec<&str> = command
        .split([' ', ';'])
        .filter_map(|word| word.strip_prefix("--exclude="))
        .collect();
    interfaces
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(first, _)| class.contains(first))
        .flat_map(|(_, names)| names.split_whitespace())
        .filter(|name| !left_out.contains(name))
        .map(str::to_string)
        .collect()
}

#[test]
fn ifupdown_touches_every_other_interface_only() {
    let expected: [(&str, u16, [&[&str]; 3]); 3] = [
        (INSTALLER_DHCP, 0, [&["lo"], &[], &[]]),
        (SERVER_STATIC, 0, [&["lo", "ens4"], &[], &["ens4"]]),
        (VLAN, 5, [&["lo"], &[], &[]]),
    ];
    for (interfaces, vlan, expected) in expected {
        let commands = Run::with(vlan).commands();
        for (command, expected) in commands.iter().zip(expected) {
            assert_eq!(worked_on(interfaces, command), expected, "{command}");
        }
    }
    // The model sees what the unit itself would do.
    assert_eq!(worked_on(INSTALLER_DHCP, DEBIAN_12[1]), ["ens3"]);
    assert_eq!(worked_on(SERVER_STATIC, DEBIAN_12[2]), ["ens3", "ens4"]);
}

/// udev starts `ifup@.service` for what is `allow-hotplug`; it stops with the
/// shutdown, and would take its interface down.
#[test]
fn the_hotplug_unit_of_each_device_never_starts() {
    for (vlan, devices) in [(0, &["ens3"][..]), (5, &["ens3.5", "ens3"])] {
        let run = Run::with(vlan);
        for device in devices {
            let text = run.read(&format!(
                "systemd/system/ifup@{device}.service.d/imgstream.conf"
            ));
            assert!(text.contains("ConditionPathExists=!/run/imgstream/interface"));
        }
        assert_eq!(run.read("imgstream/interface"), format!("{}\n", devices[0]));
    }
}

/// networkd sorts all files by name, wherever they are, and the first that
/// matches an interface counts.
#[test]
fn networkd_finds_ours_first() {
    let others = [
        "05-lan.network",
        "10-cloud-init-ens3.network",
        "10-netplan-ens3.network",
        "20-wired.network",
        "80-container-host0.network",
        "en.network",
    ];
    let run = Run::with(5);
    let directory = std::fs::read_dir(run.0.path().join("systemd/network")).unwrap();
    let ours: Vec<String> = directory
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(ours.len(), 2);
    for name in ours {
        assert!(others.iter().all(|other| name.as_str() < *other), "{name}");
    }
}

#[test]
fn networkd_keeps_what_it_finds() {
    let text = Run::with(0).read("systemd/network/00-imgstream.network");
    for line in [
        "Name=ens3",
        "KeepConfiguration=yes",
        "Address=192.0.2.7/24",
        "Gateway=192.0.2.1",
        "GatewayOnLink=yes",
        "DNS=192.0.2.53",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}

#[test]
fn networkd_leaves_what_a_vlan_is_on_alone() {
    let run = Run::with(5);
    let text = run.read("systemd/network/00-imgstream.network");
    assert!(text.contains("Name=ens3.5\n"), "{text}");
    let text = run.read("systemd/network/00-imgstream-lower.network");
    assert_eq!(text, "[Match]\nName=ens3\n\n[Link]\nUnmanaged=yes\n");
}

#[test]
fn network_manager_is_told_twice() {
    let text = Run::with(5).read("NetworkManager/conf.d/00-imgstream.conf");
    let devices = "mac:52:54:00:12:34:56;interface-name:ens3.5;interface-name:ens3";
    // Added to the image's own list ...
    assert!(text.contains(&format!("[keyfile]\nunmanaged-devices+={devices}\n")));
    // ... and said where a list that replaces ours does not count.
    let section = format!("[device-imgstream]\nmatch-device={devices}\nmanaged=0\n");
    assert!(text.contains(&section), "{text}");
}
