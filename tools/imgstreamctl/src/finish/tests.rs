// SPDX-License-Identifier: GPL-2.0-only
//! The end of a commit on a disk that loses power at every write and flush.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::stage::tests::superblock;
use crate::volatile::{cut_everywhere, Volatile};
use crate::Exit;

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 24 * MIB;
const SECTOR: usize = 512;

/// One disk for two openers, as the imgstream device shows the raw disk.
struct Shared<'a>(&'a RefCell<&'a mut Volatile>);

impl Medium for Shared<'_> {
    fn size_bytes(&self) -> u64 {
        self.0.borrow().size_bytes
    }
    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()> {
        self.0.borrow_mut().read(at_bytes, to)
    }
    fn write(&mut self, at_bytes: u64, from: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().write(at_bytes, from)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// The image's partition table, made by sfdisk on a disk of its size.
fn partitioned(label: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(IMAGE).unwrap();
    let mut child = Command::new("/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sfdisk has to be installed");
    let script = format!("label: {label}\nstart=2048, size=2048\nstart=4096, size=40960\n");
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    std::fs::read(file.path()).unwrap()
}

/// A disk after its last block went home. The control area is full of it.
fn committed(label: &str) -> Volatile {
    let mut disk = Volatile::new(130 * MIB);
    let superblock = superblock(State::Committed);
    let image = partitioned(label);
    for (number, block) in (0..).zip(image.chunks(BLOCK_LEN)) {
        if block.iter().any(|byte| *byte != 0) {
            disk.write(number * BLOCK_BYTES, block).unwrap();
        }
    }
    for place in superblock.places.all() {
        let junk = vec![b'j'; place.len_bytes as usize];
        disk.write(place.start_bytes, &junk).unwrap();
    }
    pair::create(&mut disk, &superblock).unwrap();
    disk
}

/// What the disk has below the control area, as a file.
fn dumped(disk: &Volatile, path: &Path) -> Disk {
    let file = File::create(path).unwrap();
    file.set_len(disk.size_bytes).unwrap();
    let written = disk.durable.keys().chain(disk.cached.keys());
    for number in written.filter(|number| **number < IMAGE / BLOCK_BYTES) {
        let at = number * BLOCK_BYTES;
        file.write_all_at(&disk.block(*number), at).unwrap();
    }
    Disk::open(path).unwrap()
}

/// One power-on: everything that is left to do.
fn finish(disk: &mut Volatile) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let table = dumped(disk, &dir.path().join("disk"));
    let disk = RefCell::new(disk);
    finish_medium(&mut Shared(&disk), &mut Shared(&disk), &table, "disk")
}

fn sector(disk: &Volatile, lba: u64) -> Vec<u8> {
    let at = lba as usize * SECTOR % BLOCK_LEN;
    disk.block(lba * SECTOR as u64 / BLOCK_BYTES)[at..at + SECTOR].to_vec()
}

/// The GPT header in a sector: where it says that the other one stands.
fn header(disk: &Volatile, lba: u64, when: &str) -> u64 {
    let mut header = sector(disk, lba);
    let crc = u32::from_le_bytes(header[16..20].try_into().unwrap());
    header[16..20].fill(0);
    assert_eq!(&header[..8], b"EFI PART", "{when}: sector {lba}");
    assert_eq!(crc32fast::hash(&header[..92]), crc, "{when}: sector {lba}");
    u64::from_le_bytes(header[32..40].try_into().unwrap())
}

/// Firmware, GRUB and the kernel find the partitions, and a backup.
fn assert_gpt_whole(disk: &Volatile, when: &str) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::read(&dumped(disk, &dir.path().join("disk"))).unwrap();
    assert_eq!((table.kind, table.partitions.len()), (Kind::Gpt, 2));
    let backup = header(disk, 1, when);
    assert_eq!(header(disk, backup, when), 1, "{when}");
    backup
}

/// Of the superblock that goes last a cut may leave all but the magic.
fn assert_control_area_is_zero(disk: &Volatile, when: &str) {
    for place in superblock(State::Committed).places.all() {
        for number in place.start_bytes / BLOCK_BYTES..place.end_bytes().unwrap() / BLOCK_BYTES {
            assert_zero(disk, number, when);
        }
    }
}

fn assert_zero(disk: &Volatile, number: u64, when: &str) {
    let block = disk.block(number);
    assert!(
        block.iter().all(|byte| *byte == 0),
        "{when}: block {number}"
    );
}

fn state(disk: &mut Volatile) -> Option<State> {
    let found = ondisk::find(disk, "disk").unwrap();
    found.map(|found| found.superblock.state)
}

#[test]
fn the_end_of_a_commit_survives_a_cut_at_every_step() {
    let last = 130 * MIB / SECTOR as u64 - 1;
    let start = committed("gpt");
    let mut seen = [0, 0];
    let steps = cut_everywhere(&start, |disk, cut, fate| {
        let whole = finish(disk).is_ok();
        disk.restart(fate);
        let when = format!("cut {cut}, {fate:?}");
        let backup = assert_gpt_whole(disk, &when);
        match state(disk) {
            // The next start finds it and goes on.
            Some(state) => assert_eq!(state, State::Committed, "{when}"),
            None => {
                assert_eq!(backup, last, "{when}");
                assert_control_area_is_zero(disk, &when);
            }
        }
        seen[usize::from(backup == last)] += 1;
        finish(disk).unwrap();
        assert_eq!(state(disk), None, "{when}");
        assert_eq!(assert_gpt_whole(disk, &when), last, "{when}");
        assert_control_area_is_zero(disk, &when);
        whole
    });
    assert!(steps > 15, "only {steps} steps were cut");
    assert!(seen.iter().all(|count| *count > 5), "{seen:?}");
}

#[test]
fn nothing_of_the_image_changes_but_the_table() {
    for (label, allowed) in [("gpt", &[0..SECTOR, SECTOR..2 * SECTOR][..]), ("dos", &[])] {
        let before = committed(label);
        let mut disk = before.clone();
        finish(&mut disk).unwrap();
        assert_control_area_is_zero(&disk, label);
        let superblock = superblock(State::Committed);
        for at in imgstream_engine::pair::locations(&superblock).unwrap() {
            assert_zero(&disk, at / BLOCK_BYTES, label);
        }
        for number in 0..IMAGE / BLOCK_BYTES {
            let (old, mut new) = (before.block(number), disk.block(number));
            if number == 0 {
                for range in allowed {
                    new[range.clone()].copy_from_slice(&old[range.clone()]);
                }
            }
            assert!(old == new, "{label}: block {number}");
        }
    }
}

#[test]
fn a_damaged_table_stays_with_all_that_could_mend_it() {
    // The protective partition, the header, its checksum, an entry.
    for byte in [450, SECTOR, SECTOR + 17, 2 * SECTOR + 40] {
        let mut disk = committed("gpt");
        disk.flush().unwrap();
        let mut block = disk.block(0);
        block[byte] ^= 0x11;
        disk.durable.insert(0, block.into());
        let before = disk.durable.clone();
        let error = finish(&mut disk).unwrap_err();
        assert_eq!(error.exit(), Exit::PartitionTable, "byte {byte}: {error}");
        assert!(disk.cached.is_empty() && disk.durable == before, "{byte}");
    }
}

#[test]
fn a_migration_that_is_alive_is_not_finished() {
    let mut disk = committed("gpt");
    let mut found = ondisk::find(&mut disk, "disk").unwrap().unwrap();
    let alive = Superblock {
        state: State::Committing,
        ..found.superblock
    };
    found.replace(&mut disk, alive).unwrap();
    let before = disk.clone();
    let error = finish(&mut disk).unwrap_err();
    assert_eq!(error.exit(), Exit::WrongState);
    assert!(disk.durable == before.durable && disk.cached == before.cached);
}
