// SPDX-License-Identifier: GPL-2.0-only

//! Structures as version 1 wrote them. These files never change: whoever has such a disk must be able to read it.

use std::vec;
use std::vec::Vec;

use super::boot_list::BootList;
use super::settings::SETTINGS_LEN;
use super::superblock::SUPERBLOCK_LEN;
use super::tests::{
    crc, sample_entries, sample_segment, sample_settings, sample_superblock, sample_trailer,
    sample_transaction,
};
use super::trailer::TRAILER_LEN;
use super::{Header, SEGMENT_LEN};

/// Name, bytes in the tree, bytes as this code writes them.
fn all() -> [(&'static str, &'static [u8], Vec<u8>); 6] {
    let mut superblock = [0; SUPERBLOCK_LEN];
    sample_superblock()
        .encode(4096, &mut superblock, crc)
        .unwrap();
    let mut settings = [0; SETTINGS_LEN];
    sample_settings()
        .encode(&[7; 16], 8192, &mut settings, crc)
        .unwrap();
    let mut trailer = [0; TRAILER_LEN];
    sample_trailer().encode(&mut trailer, crc).unwrap();
    let mut list = vec![0; 144];
    let header = Header::new([7; 16], 4096, 1);
    BootList::encode(&header, &sample_entries(), &mut list, crc).unwrap();
    let mut segment = vec![0; SEGMENT_LEN];
    sample_segment()
        .encode(&[7; 16], &mut segment, crc)
        .unwrap();
    let mut buffer = [0; 65536];
    let transaction = sample_transaction(&mut buffer).to_vec();
    [
        (
            "superblock",
            include_bytes!("golden/superblock-v1.bin"),
            superblock.to_vec(),
        ),
        (
            "settings",
            include_bytes!("golden/settings-v1.bin"),
            settings.to_vec(),
        ),
        (
            "trailer",
            include_bytes!("golden/trailer-v1.bin"),
            trailer.to_vec(),
        ),
        ("boot list", include_bytes!("golden/boot-list-v1.bin"), list),
        ("segment", include_bytes!("golden/segment-v1.bin"), segment),
        (
            "transaction",
            include_bytes!("golden/transaction-v1.bin"),
            transaction,
        ),
    ]
}

#[test]
fn version_1_is_written_as_it_always_was() {
    for (name, golden, now) in all() {
        assert!(golden == now.as_slice(), "{name} changed");
    }
}
