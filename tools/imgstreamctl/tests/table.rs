// SPDX-License-Identifier: GPL-2.0-only
//! Damaged partition tables: every byte of one has a stated outcome.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{make, write_at, Recipe};
use imgstreamctl::disk::Disk;
use imgstreamctl::table::{Kind, Table};
use imgstreamctl::{Error, Exit};

const HEADER: std::ops::Range<u64> = 512..512 + 92;
const ENTRIES: std::ops::Range<u64> = 1024..1024 + 128 * 128;

fn kind(path: &Path) -> Result<Kind, Error> {
    Kind::of(&Disk::open(path)?)
}

/// Neither half of a GPT makes an MBR: what follows from "it is an MBR" would
/// be done to a disk that has another half.
#[test]
fn half_a_gpt_is_never_an_mbr() {
    let mbr = make(&Recipe {
        gpt: false,
        ..Recipe::default()
    });
    assert_eq!(kind(&mbr.image).unwrap(), Kind::Mbr);
    let made = make(&Recipe::default());
    assert_eq!(kind(&made.image).unwrap(), Kind::Gpt);
    let halves: [(u64, &[u8]); 2] = [(512, &[0; 92]), (446 + 4, &[0x83])];
    for (at, bytes) in halves {
        let half = made.path("half.img");
        std::fs::copy(&made.image, &half).unwrap();
        write_at(&half, at, bytes);
        let error = kind(&half).unwrap_err();
        assert_eq!(error.exit(), Exit::PartitionTable);
        assert!(error.to_string().contains("the GPT is damaged"), "{error}");
        assert_eq!(read(&half).unwrap_err(), Exit::PartitionTable);
    }
}

fn read(path: &Path) -> Result<Table, Exit> {
    let read = || Table::read(&Disk::open(path)?);
    read().map_err(|error| error.exit())
}

#[test]
fn every_damaged_byte_of_a_gpt_is_noticed() {
    let made = make(&Recipe::default());
    let whole = read(&made.image).unwrap();
    assert_eq!(whole.kind, Kind::Gpt);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&made.image)
        .unwrap();
    for at in 0..ENTRIES.end {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        let found = read(&made.image);
        if HEADER.contains(&at) || ENTRIES.contains(&at) {
            assert_eq!(found.unwrap_err(), Exit::PartitionTable, "byte {at}");
        } else if !(446..512).contains(&at) {
            // Boot code and the rest of the header's sector.
            assert_eq!(found.unwrap().partitions, whole.partitions, "byte {at}");
        }
        // Bytes 446 to 511 are the protective MBR: whatever they say, nothing
        // panics, and a table that is taken lies within the disk.
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn every_damaged_byte_of_an_mbr_leaves_partitions_on_the_disk() {
    let made = make(&Recipe {
        gpt: false,
        swap: true,
        ..Recipe::default()
    });
    let size = std::fs::metadata(&made.image).unwrap().len();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&made.image)
        .unwrap();
    let chain = 63 * common::MIB;
    for at in (446..512).chain(chain + 446..chain + 512) {
        for flip in [0x01, 0x80, 0xff] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ flip], at).unwrap();
            if let Ok(table) = read(&made.image) {
                assert!(table.data().all(|p| p.end_bytes() <= size), "byte {at}");
            }
            file.write_all_at(&byte, at).unwrap();
        }
    }
    assert_eq!(read(&made.image).unwrap().partitions.len(), 3);
}
