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
const DISK: u64 = 130 * MIB;
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
    let sectors = 40960;
    table(label, IMAGE, sectors)
}

/// A disk with a table of which the last partition has so many sectors.
fn table(label: &str, disk_bytes: u64, sectors: u64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(disk_bytes).unwrap();
    let mut child = Command::new("/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sfdisk has to be installed");
    let script = format!("label: {label}\nstart=2048, size=2048\nstart=4096, size={sectors}\n");
    let mut input = child.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    std::fs::read(file.path()).unwrap()
}

/// A disk after its last block went home. The control area is full of it.
fn committed(label: &str) -> Volatile {
    with_table(&partitioned(label))
}

/// A disk whose last partition and the file system in it were grown to its
/// end, and on GPT the backup moved there, when it was `committed`.
fn grown(label: &str) -> Volatile {
    let sectors = DISK / SECTOR as u64 - 4096 - 34;
    let mut disk = with_table(&table(label, DISK, sectors));
    disk.flush().unwrap();
    disk
}

fn with_table(image: &[u8]) -> Volatile {
    let mut disk = Volatile::new(DISK);
    let superblock = superblock(State::Committed);
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
fn finish(disk: &mut Volatile) -> Result<Area> {
    let dir = tempfile::tempdir().unwrap();
    let table = dumped(disk, &dir.path().join("disk"));
    let disk = RefCell::new(disk);
    finish_medium(
        &mut Shared(&disk),
        &mut Shared(&disk),
        &table,
        "disk",
        Reach::Disk,
    )
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
        ..found.superblock.clone()
    };
    found.replace(&mut disk, alive).unwrap();
    let before = disk.clone();
    let error = finish(&mut disk).unwrap_err();
    assert_eq!(error.exit(), Exit::WrongState);
    assert!(disk.durable == before.durable && disk.cached == before.cached);
}

/// Where the copies of the superblock stand, in blocks.
fn copies() -> [u64; 2] {
    let places = imgstream_engine::pair::locations(&superblock(State::Committed));
    places.unwrap().map(|at| at / BLOCK_BYTES)
}

/// All blocks that are not what they were.
fn changed(before: &Volatile, after: &Volatile) -> Vec<u64> {
    let written = after.durable.keys().chain(after.cached.keys());
    let written = written.filter(|number| before.block(**number) != after.block(**number));
    written.copied().collect()
}

#[test]
fn a_partition_that_was_grown_keeps_every_byte() {
    for label in ["gpt", "dos"] {
        let start = grown(label);
        cut_everywhere(&start, |disk, cut, fate| {
            let when = format!("{label}, cut {cut}, {fate:?}");
            let whole = finish(disk).is_ok();
            disk.restart(fate);
            let late = changed(&start, disk);
            assert!(
                late.iter().all(|n| copies().contains(n)),
                "{when}: {late:?}"
            );
            finish(disk).unwrap();
            assert_eq!(state(disk), None, "{when}");
            let late = changed(&start, disk);
            assert!(
                late.iter().all(|n| copies().contains(n)),
                "{when}: {late:?}"
            );
            whole
        });
        assert_eq!(finish(&mut start.clone()).unwrap(), Area::TakenOver);
    }
}

#[test]
fn a_file_system_in_a_superblocks_place_keeps_every_byte() {
    for label in ["gpt", "dos"] {
        for [taken, other] in [copies(), [copies()[1], copies()[0]]] {
            let mut disk = grown(label);
            disk.durable.insert(taken, vec![b'f'; BLOCK_LEN].into());
            let before = disk.clone();
            assert_eq!(finish(&mut disk).unwrap(), Area::TakenOver);
            assert_eq!(changed(&before, &disk), [other], "{label}");
            assert_eq!(state(&mut disk), None);
        }
    }
}

#[test]
fn a_partition_that_ends_before_the_control_area_takes_nothing_over() {
    let start = superblock(State::Committed).geometry.control_start_bytes;
    for label in ["gpt", "dos"] {
        for (more, area) in [(0, Area::Ours), (1, Area::TakenOver)] {
            let sectors = start / SECTOR as u64 - 4096 + more;
            let mut disk = with_table(&table(label, DISK, sectors));
            assert_eq!(finish(&mut disk).unwrap(), area, "{label}");
            assert_eq!(state(&mut disk), None);
            if area == Area::Ours {
                assert_control_area_is_zero(&disk, label);
            }
        }
    }
}

#[test]
fn a_cut_end_is_ended_although_the_disk_has_grown() {
    let start = committed("gpt");
    cut_everywhere(&start, |disk, cut, fate| {
        let whole = finish(disk).is_ok();
        disk.restart(fate);
        // The table goes with it, as `sgdisk -e` does.
        let mut grown = disk.clone();
        grown.size_bytes = 1000 * DISK;
        let dir = tempfile::tempdir().unwrap();
        let table = dumped(&grown, &dir.path().join("disk"));
        let shared = RefCell::new(&mut grown);
        move_backup(&mut Shared(&shared), &mut Shared(&shared), &table).unwrap();
        finish(&mut grown).unwrap();
        let when = format!("cut {cut}, {fate:?}");
        for at in copies() {
            let left = Superblock::decode(at * BLOCK_BYTES, &grown.block(at), crc32c::crc32c);
            assert!(left.is_err(), "{when}");
        }
        whole
    });
}

/// `newer` alone says that the commit is at its end.
fn half_committed(newer: usize) -> Volatile {
    let mut disk = committed("gpt");
    let mut found = ondisk::find(&mut disk, "disk").unwrap().unwrap();
    let older = Superblock {
        state: State::Committing,
        ..found.superblock.clone()
    };
    found.replace(&mut disk, older).unwrap();
    let old = disk.block(copies()[1 - newer]);
    found.set_state(&mut disk, State::Committed, 0).unwrap();
    disk.durable.insert(copies()[1 - newer], old.into());
    disk
}

/// What each copy would say if the other were lost.
fn says(disk: &Volatile, number: u64) -> Option<State> {
    let block = disk.block(number);
    let superblock = Superblock::decode(number * BLOCK_BYTES, &block, crc32c::crc32c);
    superblock.ok().map(|superblock| superblock.state)
}

#[test]
fn no_copy_says_committing_when_anything_else_has_changed() {
    for newer in [0, 1] {
        let start = half_committed(newer);
        assert_eq!(says(&start, copies()[newer]), Some(State::Committed));
        assert_eq!(says(&start, copies()[1 - newer]), Some(State::Committing));
        let mut later = 0;
        cut_everywhere(&start, |disk, cut, fate| {
            let when = format!("copy {newer}, cut {cut}, {fate:?}");
            let whole = finish(disk).is_ok();
            disk.restart(fate);
            if changed(&start, disk).iter().any(|n| !copies().contains(n)) {
                later += 1;
                let said = copies().map(|number| says(disk, number));
                assert!(!said.contains(&Some(State::Committing)), "{when}: {said:?}");
            }
            finish(disk).unwrap();
            assert_eq!(state(disk), None, "{when}");
            assert_control_area_is_zero(disk, &when);
            whole
        });
        assert!(later > 20, "only {later}");
    }
}

/// Moves the backup with power for so many writes and flushes.
fn backup_moved(disk: &mut Volatile, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let table = dumped(disk, &dir.path().join("disk"));
    disk.left = Some(steps);
    let disk = RefCell::new(disk);
    move_backup(&mut Shared(&disk), &mut Shared(&disk), &table).unwrap();
}

#[test]
fn a_backup_that_was_moved_already_is_not_written_again() {
    let mut disk = grown("gpt");
    let last = DISK / SECTOR as u64 - 1;
    assert_eq!(assert_gpt_whole(&disk, "grown"), last);
    let before = disk.clone();
    // Two flushes.
    backup_moved(&mut disk, 2);
    assert!(changed(&before, &disk).is_empty());
}

#[test]
fn a_backup_is_not_written_into_a_partition() {
    let mut disk = committed("gpt");
    disk.flush().unwrap();
    // The second entry ends in the sectors that a backup would take.
    let mut block = disk.block(0);
    let last = DISK / SECTOR as u64 - 20;
    let entry = 2 * SECTOR + 128 + 40;
    block[entry..entry + 8].copy_from_slice(&last.to_le_bytes());
    disk.durable.insert(0, block.into());
    let mut array = Vec::new();
    (0..32).for_each(|i| array.extend(sector(&disk, 2 + i)));
    let mut block = disk.block(0);
    let header = &mut block[SECTOR..SECTOR + 92];
    header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
    header[16..20].fill(0);
    let crc = crc32fast::hash(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk.durable.insert(0, block.into());
    let before = disk.clone();
    backup_moved(&mut disk, 0);
    assert!(changed(&before, &disk).is_empty());
}
