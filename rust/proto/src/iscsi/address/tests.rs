// SPDX-License-Identifier: GPL-2.0-only

use std::format;
use std::string::ToString;

use super::*;
use proptest::prelude::*;

fn ip(text: &str, socket: &str, group: Option<u16>) {
    let found = TargetAddress::parse(text).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(found.socket(), Some(socket.parse().unwrap()), "{text}");
    assert_eq!(found.group, group, "{text}");
    assert_eq!(found.to_string(), socket);
}

#[test]
fn addresses_come_with_and_without_port_and_tag() {
    ip("192.0.2.1", "192.0.2.1:3260", None);
    ip("192.0.2.1,1", "192.0.2.1:3260", Some(1));
    ip("10.0.0.1:5003,1", "10.0.0.1:5003", Some(1));
    ip("10.0.0.1:0x138b,0xffff", "10.0.0.1:5003", Some(0xffff));
    ip("[2001:db8::1]", "[2001:db8::1]:3260", None);
    ip(
        "[1080::8:800:200C:417A]:5003,1",
        "[1080::8:800:200c:417a]:5003",
        Some(1),
    );
    ip(
        "[1080:0:0:0:8:800:200C:417A],65",
        "[1080::8:800:200c:417a]:3260",
        Some(65),
    );
}

#[test]
fn names_are_told_from_addresses() {
    let found = TargetAddress::parse("san-1.example.org:860,2").unwrap();
    assert_eq!(found.host, Host::Name("san-1.example.org"));
    assert_eq!(
        (found.port, found.group, found.socket()),
        (860, Some(2), None)
    );
    assert_eq!(found.to_string(), "san-1.example.org:860");
    let long = "a".repeat(64);
    let many = "a.".repeat(128);
    for bad in [
        "1.2.3",
        "300.1.1.1",
        "1.2.3.4.5",
        "a..b",
        ".a",
        "a.",
        &long,
        &many,
        "a b",
        "ä",
    ] {
        assert_eq!(TargetAddress::parse(bad), None, "{bad}");
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in [
        "",
        ",",
        ":",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:1:2",
        "192.0.2.1,",
        "192.0.2.1,65536",
        "192.0.2.1,-1",
        "192.0.2.1:+1",
        "192.0.2.1:3260,1,2",
        "2001:db8::1",
        "[2001:db8::1",
        "[2001:db8::1]1",
        "[2001:db8::1]:",
        "[192.0.2.1]",
        "[fe80::1%eth0]:3260",
        "[]",
        "[host]",
        " 192.0.2.1",
        "192.0.2.1 ",
        "iscsi://192.0.2.1",
    ] {
        assert_eq!(TargetAddress::parse(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_without_harm(text in ".*") {
        if let Some(found) = TargetAddress::parse(&text) {
            prop_assert!(found.port != 0);
            let again = format!("{found}");
            prop_assert_eq!(TargetAddress::parse(&again).map(|a| (a.host, a.port)), Some((found.host, found.port)));
        }
    }

    #[test]
    fn every_socket_is_read_back(address: std::net::SocketAddr, tag: u16) {
        let plain = SocketAddr::new(address.ip(), address.port().max(1));
        let text = format!("{plain},{tag}");
        let found = TargetAddress::parse(&text).map(|a| (a.socket(), a.group));
        prop_assert_eq!(found, Some((Some(plain), Some(tag))));
    }
}
