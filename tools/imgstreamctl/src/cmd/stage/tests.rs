// SPDX-License-Identifier: GPL-2.0-only
//! When the stage leaves for the source, when it stops, and when superblocks
//! are wiped: on a disk in a file, with a boot entry that is made up.

use std::fs::File;
use std::os::unix::fs::FileExt;

use imgstream_proto::disk::boot_list::BootState;
use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN};

use super::*;
use crate::stage::shrink::tests::{half_shrunk, tear};
use crate::stage::tests::{world, World};
use crate::Exit;

/// A boot entry that is there or not, and can be taken out or not.
struct Entry {
    stands: bool,
    goes: bool,
    /// Whether it can be looked for.
    is_seen: bool,
    /// How often it was looked for.
    asked: usize,
    /// The reasons that were given; "" for none.
    left: Vec<String>,
}

impl Entry {
    fn new(stands: bool, goes: bool) -> Self {
        Self {
            stands,
            goes,
            is_seen: true,
            asked: 0,
            left: Vec::new(),
        }
    }
}

impl WayBack for Entry {
    fn stands(&mut self) -> Result<bool> {
        self.asked += 1;
        match self.is_seen {
            true => Ok(self.stands),
            false => Err(Error::Other("the entry cannot be looked for".into())),
        }
    }

    fn leave(&mut self, reason: Option<&str>, _: &mut Report) -> Result<()> {
        self.left.push(reason.unwrap_or_default().to_string());
        if self.goes {
            self.stands = false;
            return Ok(());
        }
        Err(Error::Other("the entry stays".into()))
    }
}

/// A disk of the source in a file.
struct Computer {
    world: World,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Computer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let world = world();
        let file = File::create(&path).unwrap();
        file.set_len(world.source.size_bytes).unwrap();
        for (number, block) in &world.source.durable {
            file.write_all_at(block, number * BLOCK_BYTES).unwrap();
        }
        Self {
            world,
            path,
            _dir: dir,
        }
    }

    /// One whose migration has come as far as `state`.
    fn in_state(state: State) -> Self {
        let computer = Self::new();
        let mut disk = computer.disk();
        let control = &computer.world.payload.control;
        let mut found = control_area::create(&mut disk, control).unwrap();
        if state == State::Relocating {
            return computer;
        }
        let list = &control.boot_list;
        if state == State::Storing {
            let saved = BootState::Saved;
            control_area::set_boot_state(&mut disk, &found.superblock, list, saved).unwrap();
            found.set_state(&mut disk, State::Storing, 0).unwrap();
            return computer;
        }
        let payload = Some(&computer.world.payload);
        drive(&computer.path, &mut found, payload, &mut quiet()).unwrap();
        found.set_state(&mut disk, State::RollingBack, 0).unwrap();
        computer
    }

    fn disk(&self) -> DiskMedium {
        DiskMedium::open_alone(&self.path).unwrap()
    }

    fn found(&self) -> Option<Found> {
        ondisk::find(&mut self.disk(), "disk").unwrap()
    }

    fn migrate(&self, entry: &mut Entry) -> Result<After> {
        migrate(&self.path, &self.world.payload, entry, &mut quiet())
    }

    fn zero(&self, places: [u64; 2]) {
        for place in places {
            self.disk().write(place, &[0; BLOCK_LEN]).unwrap();
        }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    fn source_is_back(&self) -> bool {
        let bytes = self.bytes();
        self.world.source.durable.iter().all(|(number, block)| {
            let at = (number * BLOCK_BYTES) as usize;
            bytes[at..at + BLOCK_LEN] == block[..]
        })
    }
}

fn quiet() -> Report {
    Report::to(|_| {})
}

#[test]
fn a_disk_that_changed_since_the_plan_is_left_as_it_is() {
    let mut computer = Computer::new();
    let before = computer.bytes();
    let refused = |computer: &Computer, sentence: &str| {
        let payload = &computer.world.payload;
        let error = begin(&computer.path, payload, None, &mut quiet()).unwrap_err();
        assert_eq!(error.exit(), Exit::Changed);
        assert!(error.to_string().ends_with(sentence), "{error}");
    };
    refused(&computer, "its first sector is another one");
    let found = identity::lba0_crc32c(&mut computer.disk()).unwrap();
    computer.world.payload.facts.lba0_crc32c = found;
    refused(&computer, "the root partition is not there");
    assert!(computer.bytes() == before);
}

#[test]
fn what_is_refused_before_the_first_overwrite_leads_back_to_the_source() {
    // The payload's facts are those of another disk.
    for state in [None, Some(State::Relocating)] {
        let computer = state.map_or_else(Computer::new, Computer::in_state);
        let before = computer.bytes();
        let mut entry = Entry::new(true, true);
        assert_eq!(computer.migrate(&mut entry).unwrap(), After::Reboot);
        assert_eq!(entry.left.len(), 1);
        assert!(entry.left[0].contains("first sector"), "{:?}", entry.left);
        assert!(computer.bytes() == before);
    }
}

#[test]
fn any_failure_before_the_first_overwrite_leads_back_to_the_source() {
    let broken = || Error::Disk(std::io::Error::other("unreadable"));
    let half = Error::HalfShrunk(Box::new(broken()));
    for (state, error, leaves) in [
        (State::Relocating, broken(), true),
        (State::Relocating, Error::Other("other bytes".into()), true),
        (State::Relocating, half, false),
        (State::Storing, broken(), false),
    ] {
        let computer = Computer::in_state(state);
        let (said, mut entry) = (error.to_string(), Entry::new(true, true));
        let payload = &computer.world.payload;
        let ended = back(&computer.path, payload, error, &mut entry, &mut quiet());
        assert_eq!(ended.is_ok(), leaves, "{said}");
        assert_eq!(entry.left, vec![said; usize::from(leaves)]);
    }
}

#[test]
fn an_entry_that_cannot_be_looked_for_leads_back_to_the_source_or_stops() {
    for (state, goes) in [(None, true), (Some(State::Relocating), true), (None, false)] {
        let computer = state.map_or_else(Computer::new, Computer::in_state);
        let before = computer.bytes();
        let mut entry = Entry::new(true, goes);
        entry.is_seen = false;
        assert_eq!(computer.migrate(&mut entry).is_ok(), goes);
        assert_eq!(entry.left, ["the entry cannot be looked for"]);
        assert!(computer.bytes() == before);
    }
}

#[test]
fn a_way_back_that_cannot_be_seen_after_the_last_overwrite_stops_the_stage() {
    let computer = Computer::in_state(State::RollingBack);
    let mut entry = Entry::new(true, false);
    entry.is_seen = false;
    let error = computer.migrate(&mut entry).unwrap_err();
    assert!(
        error.to_string().contains("cannot be looked for"),
        "{error}"
    );
    assert!(computer.source_is_back());
    // The next start of the stage does what is left.
    assert_eq!(
        computer.found().unwrap().superblock.state,
        State::RolledBack
    );
    let mut entry = Entry::new(true, true);
    computer.migrate(&mut entry).unwrap();
    assert_eq!((entry.left, computer.found()), (vec![String::new()], None));
}

/// An entry in a file system in a file: seen only while that is clean.
struct Inside<'a>(&'a Path, usize);

impl WayBack for Inside<'_> {
    fn stands(&mut self) -> Result<bool> {
        self.1 += 1;
        let output = crate::program::e2fs("e2fsck", &["-n", &self.0.to_string_lossy()]).unwrap();
        match output.status.success() {
            true => Ok(true),
            false => Err(Error::Other("it cannot be mounted".into())),
        }
    }

    fn leave(&mut self, _: Option<&str>, _: &mut Report) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_system_that_cannot_be_mounted_is_checked_first() {
    let (_dir, path, before) = half_shrunk();
    tear(&path, &before, 1);
    let mut way = Inside(&path, 0);
    let root = || Some(path.clone());
    assert!(stands(root, &mut way, &mut quiet()).unwrap());
    assert_eq!(way.1, 2);
    // Now there is nothing to do first.
    assert!(stands(root, &mut way, &mut quiet()).unwrap());
    assert_eq!(way.1, 3);
}

#[test]
fn an_entry_is_looked_for_again_only_where_resize2fs_was_cut() {
    let (_dir, path, _) = half_shrunk();
    let root = || Some(path.clone());
    // Not there in either case; the second time nothing is checked.
    for asked in [2, 1] {
        let mut entry = Entry::new(false, false);
        assert!(!stands(root, &mut entry, &mut quiet()).unwrap());
        assert_eq!(entry.asked, asked);
    }
}

#[test]
fn while_the_entry_cannot_be_removed_the_computer_does_not_start_again() {
    let computer = Computer::new();
    let error = computer.migrate(&mut Entry::new(true, false)).unwrap_err();
    assert!(error.to_string().contains("the entry stays"), "{error}");
}

#[test]
fn without_its_entry_the_migration_was_cancelled() {
    for state in [None, Some(State::Relocating)] {
        let computer = state.map_or_else(Computer::new, Computer::in_state);
        let before = computer.bytes();
        let mut entry = Entry::new(false, false);
        assert_eq!(computer.migrate(&mut entry).unwrap(), After::Reboot);
        assert!(entry.left.is_empty());
        assert!(computer.bytes() == before);
    }
}

#[test]
fn what_fails_later_never_leads_to_the_source() {
    let computer = Computer::in_state(State::Storing);
    let places = computer.world.payload.control.superblock.places;
    computer.zero(places.boot_list.map(|list| list.start_bytes));
    let mut entry = Entry::new(true, true);
    let error = computer.migrate(&mut entry).unwrap_err();
    assert_eq!(error.exit(), Exit::DamagedSuperblock, "{error}");
    assert!(entry.left.is_empty());
}

#[test]
fn without_superblocks_a_source_that_may_be_overwritten_is_left_alone() {
    let computer = Computer::in_state(State::Storing);
    let superblock = computer.world.payload.control.superblock.clone();
    computer.zero(imgstream_engine::pair::locations(&superblock).unwrap());
    let before = computer.bytes();
    let mut entry = Entry::new(true, true);
    let error = computer.migrate(&mut entry).unwrap_err();
    assert_eq!(error.exit(), Exit::DamagedSuperblock, "{error}");
    assert!(
        error.to_string().contains("lost both superblocks"),
        "{error}"
    );
    assert!(entry.left.is_empty());
    assert!(computer.bytes() == before);
}

#[test]
fn superblocks_are_wiped_only_when_the_entry_is_gone() {
    for (in_stage, goes) in [(true, true), (true, false), (false, true), (false, false)] {
        let when = format!("in the stage: {in_stage}, the entry goes: {goes}");
        let computer = Computer::in_state(State::RollingBack);
        let mut entry = Entry::new(true, goes);
        let mut found = computer.found().unwrap();
        let payload = in_stage.then_some(&computer.world.payload);
        let path = &computer.path;
        let done = go_on(path, &mut found, payload, &mut entry, &mut quiet());
        assert_eq!(done.is_err(), in_stage && !goes, "{when}");
        assert_eq!(entry.left, [""], "{when}");
        assert!(computer.source_is_back(), "{when}");
        let left = computer.found().map(|found| found.superblock.state);
        assert_eq!(left, (!goes).then_some(State::RolledBack), "{when}");
        if !goes {
            // The next boot is the stage's: it ends what was begun, and nothing else.
            entry.goes = true;
            computer.migrate(&mut entry).unwrap();
            assert_eq!(computer.found(), None, "{when}");
            assert!(computer.source_is_back(), "{when}");
        }
    }
}

#[test]
fn an_entry_that_a_cut_had_taken_out_already_does_not_stop_the_stage() {
    let computer = Computer::in_state(State::RollingBack);
    let mut entry = Entry::new(false, false);
    let mut found = computer.found().unwrap();
    let payload = Some(&computer.world.payload);
    go_on(
        &computer.path,
        &mut found,
        payload,
        &mut entry,
        &mut quiet(),
    )
    .unwrap();
    assert_eq!(computer.found(), None);
    assert!(computer.source_is_back());
}
