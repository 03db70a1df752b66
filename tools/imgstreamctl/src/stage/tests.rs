// SPDX-License-Identifier: GPL-2.0-only
//! The switch and the way back on a disk that loses power at every write and
//! every flush, with all, some or none of what was not flushed.

use std::io;

use imgstream_engine::plan::{plan, Demand};
use imgstream_proto::disk::boot_list::{BootEntry, BootState};
use imgstream_proto::disk::settings::{Settings, Tunables};
use imgstream_proto::disk::superblock::{Checkpoint, Superblock};
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use super::drive::Drive;
use super::{control_area, stored, Report};
use crate::error::Result;
use crate::medium::Medium;
use crate::ondisk::{self, inspect, Found};
use crate::switch::payload::{self, boot_entries, After, Control, Facts, Payload};
use crate::volatile::{cut_everywhere, Fate, Volatile};

const MIB: u64 = 1 << 20;

pub(crate) struct World {
    pub(crate) payload: Payload,
    pub(crate) source: Volatile,
    _dir: tempfile::TempDir,
}

fn source_block(number: u64) -> Vec<u8> {
    let mut block = vec![b's'; BLOCK_LEN];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

fn target_block(number: u64) -> Vec<u8> {
    let mut block = vec![b't'; BLOCK_LEN];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

/// The runs of the boot region: first block and length.
const BOOT: [(u64, u64); 4] = [(0, 3), (9, 1), (100, 30), (5000, 2)];

/// Of a source of 32 MiB on a disk of 130 MiB, and an image of 24 MiB.
pub(crate) fn superblock(state: State) -> Superblock {
    let fitted = plan(&Demand {
        disk_bytes: 130 * MIB,
        disk_logical_bytes: 512,
        image_bytes: 24 * MIB,
        image_logical_bytes: 512,
        boot_blocks: 36,
        boot_end_block: 5002,
        boot_entries: 4,
        source_bytes: 129 * MIB,
        source_min_bytes: 21 * MIB,
        source_granule_bytes: 4096,
        source_base_bytes: 2 * MIB,
    })
    .unwrap();
    let mut superblock = Superblock::new([7; 16], state, fitted.geometry);
    superblock.places = fitted.places;
    superblock.checkpoint = Checkpoint {
        sequence: 1,
        position_bytes: 0,
    };
    superblock
}

pub(crate) fn world() -> World {
    let superblock = superblock(State::Relocating);
    let control = Control {
        boot_list: boot_entries(BOOT, superblock.geometry.relocated_start_bytes),
        superblock,
        settings: Settings {
            generation: 1,
            network: None,
            tunables: Tunables::default(),
        },
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payload");
    payload::write(&path, &facts(), &control, &mut |entry, to| {
        for (number, to) in (entry.image_block..).zip(to.chunks_mut(BLOCK_LEN)) {
            to.copy_from_slice(&target_block(number));
        }
        Ok(())
    })
    .unwrap();
    let mut source = Volatile::new(130 * MIB);
    for number in (0..200).chain(4990..5010) {
        source.durable.insert(number, source_block(number).into());
    }
    World {
        payload: Payload::open(&path).unwrap(),
        source,
        _dir: dir,
    }
}

fn facts() -> Facts {
    Facts {
        disk_bytes: 130 * MIB,
        lba0_crc32c: 0,
        root_number: 2,
        root_start_bytes: 2 * MIB,
        root_uuid: "6b29".into(),
        filesystem_block_bytes: 4096,
        filesystem_blocks_before: 1,
        filesystem_blocks_after: 1,
        hash_source: false,
        after: After::Reboot,
    }
}

/// One power-on of the stage: creates the control area or goes on.
fn stage(disk: &mut Volatile, payload: &Payload) -> Result<()> {
    let mut found = match ondisk::find(disk, "disk")? {
        Some(found) => found,
        None => control_area::create(disk, &payload.control)?,
    };
    drive(disk, &mut found, Some(payload))
}

fn drive(disk: &mut Volatile, found: &mut Found, payload: Option<&Payload>) -> Result<()> {
    let list = control_area::read_boot_list(disk, &found.superblock)?;
    let mut report = Report::to(|_| {});
    let mut drive = Drive {
        disk,
        found,
        list: &list,
        payload,
        report: &mut report,
    };
    drive.run()?;
    if found.superblock.state == State::RolledBack {
        crate::ondisk::pair::wipe_pair(disk, found)?;
    }
    Ok(())
}

fn blocks_of(list: &[BootEntry]) -> impl Iterator<Item = u64> + '_ {
    list.iter()
        .flat_map(|e| e.image_block..e.image_block + u64::from(e.blocks))
}

fn assert_source_whole(disk: &Volatile, world: &World, when: &str) {
    for (number, block) in &world.source.durable {
        assert_eq!(disk.block(*number)[..], block[..], "{when}: block {number}");
    }
}

fn assert_switched(disk: &mut Volatile, world: &World) {
    let area = inspect::inspect(disk, "disk").unwrap();
    // A cut between both copies of the last superblock leaves an older one; the attach writes it again.
    let older = |f: &inspect::Finding| f.what.starts_with("superblock");
    assert!(area.findings.iter().all(older), "{:?}", area.findings);
    assert_eq!(area.superblock.state, State::Streaming);
    assert!(area.superblock.clean);
    assert!(area.boot_list.iter().all(|e| e.state == BootState::Live));
    let blocks = area.blocks.unwrap();
    assert_eq!(blocks.absent, 24 * MIB / BLOCK_BYTES);
    let list = &world.payload.control.boot_list;
    for number in blocks_of(list) {
        assert_eq!(disk.block(number), target_block(number), "block {number}");
    }
    for (number, block) in &world.source.durable {
        if !blocks_of(list).any(|boot| boot == *number) {
            assert_eq!(disk.block(*number)[..], block[..], "block {number}");
        }
    }
}

#[test]
fn the_switch_survives_a_cut_at_every_step() {
    let world = world();
    let steps = cut_everywhere(&world.source, |disk, cut, fate| {
        let whole = stage(disk, &world.payload).is_ok();
        disk.restart(fate);
        let when = format!("cut {cut}, {fate:?}");
        let state = ondisk::find(disk, "disk")
            .unwrap()
            .map(|f| f.superblock.state);
        if matches!(state, None | Some(State::Relocating)) {
            assert_source_whole(disk, &world, &when);
        }
        stage(disk, &world.payload).unwrap();
        assert_switched(disk, &world);
        whole
    });
    assert!(steps > 30, "only {steps} steps were cut");
}

/// A disk on which everything is ready for the first boot block.
fn storing(world: &World) -> Volatile {
    let mut disk = world.source.clone();
    let mut cut = 0;
    loop {
        disk.left = Some(cut);
        let _ = stage(&mut disk, &world.payload);
        disk.restart(Fate::Kept);
        let found = ondisk::find(&mut disk, "disk").unwrap();
        if found.is_some_and(|found| found.superblock.state == State::Storing) {
            return disk;
        }
        (disk, cut) = (world.source.clone(), cut + 1);
    }
}

fn is_the_targets(disk: &Volatile, world: &World) -> bool {
    let list = &world.payload.control.boot_list;
    blocks_of(list).all(|number| disk.block(number) == target_block(number))
}

/// One start of an initramfs with imgstream that is cut, and one that is not;
/// whether the first came to its end.
fn started_twice(disk: &mut Volatile, fate: Fate) -> bool {
    let mut report = Report::to(|_| {});
    let mut start = |disk: &mut Volatile| -> Result<()> {
        let Some(mut found) = ondisk::find(disk, "disk")? else {
            return Ok(());
        };
        if found.superblock.state == State::Storing {
            stored::end(disk, &mut found, &mut report)?;
        }
        drive(disk, &mut found, None)
    };
    let whole = start(disk).is_ok();
    disk.restart(fate);
    start(disk).unwrap();
    whole
}

#[test]
fn a_cut_store_is_ended_only_if_every_block_is_the_targets() {
    let world = world();
    let (mut ended, mut back) = (0, 0);
    cut_everywhere(&storing(&world), |disk, cut, fate| {
        let whole = stage(disk, &world.payload).is_ok();
        disk.restart(fate);
        let storing = ondisk::find(disk, "disk").unwrap().unwrap();
        let complete = is_the_targets(disk, &world);
        assert!(complete || storing.superblock.state == State::Storing);
        for again in 0.. {
            let mut disk = disk.clone();
            disk.left = Some(again);
            let uncut = started_twice(&mut disk, fate);
            if complete {
                ended += 1;
                assert_switched(&mut disk, &world);
            } else {
                back += 1;
                assert_source_whole(&disk, &world, &format!("cut {cut}, {fate:?}, {again}"));
                assert_eq!(ondisk::find(&mut disk, "disk").unwrap(), None);
            }
            if uncut {
                break;
            }
        }
        whole
    });
    assert!(ended > 300 && back > 1000, "{ended}, {back}");
}

/// The source has run since, and its file system was grown over one place.
#[test]
fn after_a_roll_back_a_superblocks_place_may_be_the_sources() {
    let world = world();
    let places = imgstream_engine::pair::locations(&superblock(State::RolledBack)).unwrap();
    for at in places {
        let mut disk = world.source.clone();
        stage(&mut disk, &world.payload).unwrap();
        let mut found = ondisk::find(&mut disk, "disk").unwrap().unwrap();
        for state in [State::RollingBack, State::RolledBack] {
            found.set_state(&mut disk, state, 0).unwrap();
        }
        disk.write(at, &[b's'; BLOCK_LEN]).unwrap();
        stage(&mut disk, &world.payload).unwrap();
        assert_eq!(disk.block(at / BLOCK_BYTES), [b's'; BLOCK_LEN]);
        assert_eq!(ondisk::find(&mut disk, "disk").unwrap(), None);
    }
}

#[test]
fn a_store_of_which_no_checksum_is_known_is_not_ended() {
    let world = world();
    let mut disk = world.source.clone();
    stage(&mut disk, &world.payload).unwrap();
    let mut found = ondisk::find(&mut disk, "disk").unwrap().unwrap();
    for (crc, state) in [
        (found.superblock.boot_blocks_crc32c, State::Streaming),
        (found.superblock.boot_blocks_crc32c ^ 1, State::RollingBack),
        (0, State::RollingBack),
    ] {
        let next = Superblock {
            state: State::Storing,
            boot_blocks_crc32c: crc,
            ..found.superblock.clone()
        };
        found.replace(&mut disk, next).unwrap();
        let mut report = Report::to(|_| {});
        stored::end(&mut disk, &mut found, &mut report).unwrap();
        assert_eq!(found.superblock.state, state);
    }
}

#[test]
fn a_source_that_may_be_overwritten_is_not_shrunk_again() {
    let world = world();
    let superblock = world.payload.control.superblock.clone();
    let [a, b] = imgstream_engine::pair::locations(&superblock).unwrap();
    let lists = superblock.places.boot_list.map(|list| list.start_bytes);
    let (mut again, mut refused) = (0, 0);
    cut_everywhere(&world.source, |disk, cut, fate| {
        let whole = stage(disk, &world.payload).is_ok();
        disk.restart(fate);
        let when = format!("cut {cut}, {fate:?}");
        if ondisk::find(disk, "disk").unwrap().is_none() {
            // What a cut alone leads to is never refused.
            control_area::refuse_stored(disk, &superblock).unwrap();
        }
        // Now the superblocks are lost, and one copy of the boot list.
        for lost in [[a, b, lists[0]], [a, b, lists[1]]] {
            let mut disk = disk.clone();
            for place in lost {
                disk.durable
                    .insert(place / BLOCK_BYTES, [0; BLOCK_LEN].into());
            }
            if control_area::refuse_stored(&mut disk, &superblock).is_err() {
                refused += 1;
                continue;
            }
            again += 1;
            assert_source_whole(&disk, &world, &when);
            stage(&mut disk, &world.payload).unwrap();
            assert_switched(&mut disk, &world);
        }
        whole
    });
    assert!(again > 20 && refused > 20, "{again}, {refused}");
}

#[test]
fn roll_back_survives_a_cut_at_every_step() {
    let world = world();
    let mut switched = world.source.clone();
    stage(&mut switched, &world.payload).unwrap();
    let mut found = ondisk::find(&mut switched, "disk").unwrap().unwrap();
    found
        .set_state(&mut switched, State::RollingBack, 0)
        .unwrap();
    let steps = cut_everywhere(&switched, |disk, cut, fate| {
        let mut whole = false;
        if let Ok(Some(mut found)) = ondisk::find(disk, "disk") {
            whole = drive(disk, &mut found, None).is_ok();
        }
        disk.restart(fate);
        let when = format!("cut {cut}, {fate:?}");
        // Until the state says so, block 0 may be either's, but the superblock leads back here.
        match ondisk::find(disk, "disk").unwrap() {
            Some(mut found) => drive(disk, &mut found, None).unwrap(),
            None => assert_source_whole(disk, &world, &when),
        }
        assert_source_whole(disk, &world, &when);
        assert_eq!(ondisk::find(disk, "disk").unwrap(), None, "{when}");
        whole
    });
    assert!(steps > 10, "only {steps} steps were cut");
}

#[test]
fn a_source_that_changed_since_is_noticed() {
    let world = world();
    let mut disk = world.source.clone();
    let mut control = world.payload.control.clone();
    let mut said = Report::to(|_| {});
    let len = control.superblock.geometry.source_bytes;
    control.superblock.source_hash = super::identity::hash(&mut disk, len, &mut said).unwrap();
    let mut found = control_area::create(&mut disk, &control).unwrap();
    drive(&mut disk, &mut found, Some(&world.payload)).unwrap();
    found.set_state(&mut disk, State::RollingBack, 0).unwrap();
    // A block of the source that is no boot block.
    disk.durable.insert(190, [0; BLOCK_LEN].into());
    let lines = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
    let sink = lines.clone();
    let mut report = Report::to(move |line| sink.borrow_mut().push_str(line));
    let list = control_area::read_boot_list(&mut disk, &found.superblock).unwrap();
    let mut drive = Drive {
        disk: &mut disk,
        found: &mut found,
        list: &list,
        payload: None,
        report: &mut report,
    };
    drive.run().unwrap();
    assert!(
        lines.borrow().contains("WARNING: the source differs"),
        "{}",
        lines.borrow()
    );
}

#[test]
fn a_disk_that_keeps_nothing_is_noticed() {
    /// Loses every write to one block.
    struct Forgetful(Volatile, u64);
    impl Medium for Forgetful {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
        fn read(&mut self, at: u64, to: &mut [u8]) -> io::Result<()> {
            self.0.read(at, to)
        }
        fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
            let kept = self.0.block(self.1);
            self.0.write(at, from)?;
            self.0.cached.insert(self.1, kept.into());
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    let world = world();
    // A block that is relocated to, one that a boot block goes to, block 0.
    let relocated = world.payload.control.boot_list[2].relocated_bytes / BLOCK_BYTES;
    for victim in [relocated, 101, 0] {
        let mut disk = Forgetful(world.source.clone(), victim);
        let mut found = control_area::create(&mut disk, &world.payload.control).unwrap();
        let mut report = Report::to(|_| {});
        let mut drive = Drive {
            disk: &mut disk,
            found: &mut found,
            list: &world.payload.control.boot_list,
            payload: Some(&world.payload),
            report: &mut report,
        };
        let error = drive.run().unwrap_err();
        assert!(
            error.to_string().contains("other bytes"),
            "{victim}: {error}"
        );
    }
}

#[test]
fn damaged_control_areas_are_found_out() {
    use crate::ondisk::inspect::Grade;
    let world = world();
    let mut disk = world.source.clone();
    stage(&mut disk, &world.payload).unwrap();
    let superblock = ondisk::find(&mut disk, "disk").unwrap().unwrap().superblock;
    let places = superblock.places;
    let pairs = [places.boot_list, places.map, places.settings];
    for [a, b] in pairs {
        for (damaged, expected) in [
            (vec![a], Grade::Copy),
            (vec![b], Grade::Copy),
            (vec![a, b], Grade::Damage),
        ] {
            let mut disk = disk.clone();
            for place in &damaged {
                let number = place.start_bytes / BLOCK_BYTES;
                let mut block = disk.block(number);
                block[100] ^= 1;
                disk.durable.insert(number, block.into());
            }
            let area = inspect::inspect(&mut disk, "disk").unwrap();
            assert_eq!(
                area.worst(),
                Some(expected),
                "{damaged:?}: {:?}",
                area.findings
            );
        }
    }
}

#[test]
fn of_two_copies_one_need_not_be_readable() {
    /// Cannot read some blocks.
    struct Unreadable(Volatile, Vec<u64>);
    impl Medium for Unreadable {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
        fn read(&mut self, at: u64, to: &mut [u8]) -> io::Result<()> {
            match self.1.contains(&at) {
                true => Err(io::Error::other("unreadable")),
                false => self.0.read(at, to),
            }
        }
        fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
            self.0.write(at, from)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    let world = world();
    let mut disk = world.source.clone();
    stage(&mut disk, &world.payload).unwrap();
    let superblock = world.payload.control.superblock.clone();
    let (lists, settings) = (superblock.places.boot_list, superblock.places.settings);
    for copy in [0, 1] {
        let bad = vec![lists[copy].start_bytes, settings[copy].start_bytes];
        let mut disk = Unreadable(disk.clone(), bad);
        control_area::read_boot_list(&mut disk, &superblock).unwrap();
        control_area::read_settings(&mut disk, &superblock).unwrap();
    }
    let both = lists.iter().chain(&settings).map(|place| place.start_bytes);
    let mut disk = Unreadable(disk, both.collect());
    assert!(control_area::read_boot_list(&mut disk, &superblock).is_err());
    assert!(control_area::read_settings(&mut disk, &superblock).is_err());
}

#[test]
fn damaged_superblocks_are_found_out() {
    let world = world();
    let mut disk = world.source.clone();
    stage(&mut disk, &world.payload).unwrap();
    let superblock = ondisk::find(&mut disk, "disk").unwrap().unwrap().superblock;
    let [a, b] = imgstream_engine::pair::locations(&superblock).unwrap();
    for byte in (0..BLOCK_LEN).step_by(61) {
        for (places, fatal) in [(vec![a], false), (vec![b], false), (vec![a, b], true)] {
            let mut disk = disk.clone();
            for place in &places {
                let mut block = disk.block(place / BLOCK_BYTES);
                block[byte] ^= 0x10;
                disk.durable.insert(place / BLOCK_BYTES, block.into());
            }
            let found = ondisk::find(&mut disk, "disk");
            match found {
                Ok(Some(found)) => {
                    assert!(!fatal, "byte {byte}");
                    assert_eq!(found.superblock, superblock);
                    assert!(found.stale.is_some(), "byte {byte}");
                }
                // A superblock whose magic is gone is none.
                Ok(None) => assert!(fatal && byte < 8, "byte {byte}"),
                Err(error) => assert!(fatal, "byte {byte}: {error}"),
            }
        }
    }
}

/// The exit code of looking for a superblock after `change` was done to both copies.
fn exit_after(change: impl Fn(u64, &mut [u8])) -> Option<crate::Exit> {
    let world = world();
    let mut disk = world.source.clone();
    stage(&mut disk, &world.payload).unwrap();
    let superblock = ondisk::find(&mut disk, "disk").unwrap().unwrap().superblock;
    for place in imgstream_engine::pair::locations(&superblock).unwrap() {
        let mut block = disk.block(place / BLOCK_BYTES);
        change(place, &mut block);
        disk.durable.insert(place / BLOCK_BYTES, block.into());
    }
    ondisk::find(&mut disk, "disk")
        .err()
        .map(|error| error.exit())
}

#[test]
fn superblocks_of_others_are_named() {
    use crate::Exit;
    let newer = exit_after(|_, block| {
        block[12] = 2;
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(newer, Some(Exit::NewerSuperblock));
    let feature = exit_after(|_, block| {
        block[24] = 1;
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(feature, Some(Exit::NewerSuperblock));
    // Copied from another disk, where it stood somewhere else.
    let foreign = exit_after(|place, block| {
        block[48..56].copy_from_slice(&(place + 4096).to_le_bytes());
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(foreign, Some(Exit::ForeignSuperblock));
    // Each copy of another migration.
    let two = exit_after(|place, block| {
        block[32] = (place / BLOCK_BYTES) as u8;
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(two, Some(Exit::DamagedSuperblock));
    assert_eq!(exit_after(|_, _| {}), None);
}

#[test]
fn a_damaged_payload_is_refused() {
    let world = world();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payload");
    payload::write(&path, &facts(), &world.payload.control, &mut |_, to| {
        to.fill(b't');
        Ok(())
    })
    .unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in [0, 9, 40, 4096 + 70, 3 * 4096 + 80, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = Payload::open(&path).unwrap_err();
        assert!(error.to_string().contains("payload"), "byte {at}: {error}");
    }
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(Payload::open(&path).is_err());
}
