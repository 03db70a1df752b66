// SPDX-License-Identifier: GPL-2.0-only

use std::io::Write;

use super::*;

/// A newc archive of files with empty or given content.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let all = members.iter().copied().chain([("TRAILER!!!", &b""[..])]);
    for (name, data) in all {
        let mut header = String::from("070701");
        for (i, value) in [
            0,
            0o100_644,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ]
        .iter()
        .enumerate()
        {
            assert!(i < 13);
            header += &format!("{value:08X}");
        }
        out.extend(header.as_bytes());
        out.extend(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

const COMPLETE: [(&str, &[u8]); 5] = [
    ("usr/lib/modules/7.2/updates/imgstream.ko", b"elf"),
    (
        "usr/lib/modules/7.2/kernel/drivers/net/virtio_net.ko.xz",
        b"",
    ),
    ("usr/lib/modules/7.2/kernel/drivers/net/phy/libphy.ko", b""),
    ("usr/sbin/imgstreamctl", b""),
    ("scripts/local-top/imgstream", b"#!/bin/sh"),
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_complete_one_behind_microcode_and_padding() {
    let mut bytes = archive(&[("kernel/x86/microcode/GenuineIntel.bin", &[0; 7])]);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(gzip(&archive(&COMPLETE)));
    let found = Initramfs::read("i", &bytes).unwrap();
    assert_eq!(found.imgstream_kernels(), ["7.2"]);
    assert_eq!(found.nic_drivers(), ["virtio_net"]);
    assert_eq!(found.lacks(Some("7.2")), None);
    assert_eq!(found.lacks(None), None);
}

#[test]
fn all_compressions_give_the_same() {
    let plain = archive(&COMPLETE);
    let expected = Initramfs::read("i", &plain).unwrap();
    let mut xz = Vec::new();
    lzma_rs::xz_compress(&mut &plain[..], &mut xz).unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    for packed in [gzip(&plain), xz, zstd] {
        assert_eq!(Initramfs::read("i", &packed).unwrap(), expected);
    }
}

#[test]
fn what_lacks_is_named() {
    let without = |i: usize| {
        let mut members = COMPLETE.to_vec();
        members.remove(i);
        Initramfs::read("i", &archive(&members)).unwrap()
    };
    assert_eq!(without(0).lacks(None).unwrap(), "imgstream.ko");
    assert!(without(1).nic_drivers().is_empty());
    assert_eq!(without(3).lacks(None).unwrap(), "imgstreamctl");
    assert_eq!(without(4).lacks(None).unwrap(), SCRIPT);
    let found = Initramfs::read("i", &archive(&COMPLETE)).unwrap();
    assert_eq!(
        found.lacks(Some("6.1")).unwrap(),
        "imgstream.ko for kernel 6.1"
    );
}

#[test]
fn drivers_built_into_the_kernel_count() {
    let list = b"kernel/drivers/net/virtio_net.ko\nkernel/fs/ext4/ext4.ko\n";
    let bytes = archive(&[("lib/modules/7.2/modules.builtin", list)]);
    let found = Initramfs::read("i", &bytes).unwrap();
    assert_eq!(found.nic_drivers(), ["virtio_net"]);
}

#[test]
fn damage_and_unknown_packing_are_told_apart() {
    let plain = archive(&COMPLETE);
    for len in 1..plain.len() - 4 {
        let error = Initramfs::read("i", &plain[..len]).unwrap_err();
        assert!(matches!(
            error,
            Error::Damaged { .. } | Error::Unknown { .. }
        ));
    }
    let error = Initramfs::read("i", b"\x02\x21\x4c\x18 lz4").unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    let cut = &gzip(&plain)[..40];
    assert!(matches!(
        Initramfs::read("i", cut),
        Err(Error::Damaged { .. })
    ));
}
