// SPDX-License-Identifier: GPL-2.0-only
//! The switch and the way back on a disk that loses power at every write and
//! every flush, with and without what was not flushed.

use std::collections::BTreeMap;
use std::io;

use imgstream_engine::plan::{plan, Demand};
use imgstream_proto::disk::boot_list::{BootEntry, BootState};
use imgstream_proto::disk::settings::{Settings, Tunables};
use imgstream_proto::disk::superblock::{Checkpoint, Superblock};
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use super::drive::Drive;
use super::{control_area, Report};
use crate::error::Result;
use crate::medium::Medium;
use crate::ondisk::{self, inspect, Found};
use crate::switch::payload::{self, boot_entries, After, Control, Facts, Payload};

const MIB: u64 = 1 << 20;

/// A sparse disk in memory. Blocks that were never written are zero.
#[derive(Clone, Default)]
struct Sparse {
    size_bytes: u64,
    durable: BTreeMap<u64, Vec<u8>>,
    /// Written, not flushed.
    cached: BTreeMap<u64, Vec<u8>>,
    /// Writes and flushes until the power fails.
    left: Option<usize>,
}

impl Sparse {
    fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            ..Self::default()
        }
    }

    fn step(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("power cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Power is back. The disk's cache survived or it did not.
    fn restart(&mut self, cache_survives: bool) {
        let cached = std::mem::take(&mut self.cached);
        if cache_survives {
            self.durable.extend(cached);
        }
        self.left = None;
    }

    fn block(&self, number: u64) -> Vec<u8> {
        let found = self
            .cached
            .get(&number)
            .or_else(|| self.durable.get(&number));
        found.cloned().unwrap_or_else(|| vec![0; BLOCK_LEN])
    }
}

impl Medium for Sparse {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()> {
        assert_eq!(at_bytes % BLOCK_BYTES, 0);
        for (number, to) in (at_bytes / BLOCK_BYTES..).zip(to.chunks_mut(BLOCK_LEN)) {
            to.copy_from_slice(&self.block(number)[..to.len()]);
        }
        Ok(())
    }

    fn write(&mut self, at_bytes: u64, from: &[u8]) -> io::Result<()> {
        assert_eq!((at_bytes % BLOCK_BYTES, from.len() % BLOCK_LEN), (0, 0));
        self.step()?;
        for (number, from) in (at_bytes / BLOCK_BYTES..).zip(from.chunks(BLOCK_LEN)) {
            self.cached.insert(number, from.to_vec());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        self.durable.append(&mut self.cached);
        Ok(())
    }
}

struct World {
    payload: Payload,
    source: Sparse,
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

/// A source of 32 MiB on a disk of 130 MiB, an image of 24 MiB whose boot
/// region has four runs.
fn world() -> World {
    let runs = [(0, 3), (9, 1), (100, 30), (5000, 2)];
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
    let mut superblock = Superblock::new([7; 16], State::Relocating, fitted.geometry);
    superblock.places = fitted.places;
    superblock.checkpoint = Checkpoint {
        sequence: 1,
        position_bytes: 0,
    };
    let control = Control {
        boot_list: boot_entries(runs, fitted.geometry.relocated_start_bytes),
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
    let mut source = Sparse::new(130 * MIB);
    for number in (0..200).chain(4990..5010) {
        source.durable.insert(number, source_block(number));
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
fn stage(disk: &mut Sparse, payload: &Payload) -> Result<()> {
    let mut found = match ondisk::find(disk, "disk")? {
        Some(found) => found,
        None => control_area::create(disk, &payload.control)?,
    };
    drive(disk, &mut found, Some(payload))
}

fn drive(disk: &mut Sparse, found: &mut Found, payload: Option<&Payload>) -> Result<()> {
    let list = control_area::read_boot_list(disk, &found.superblock)?;
    let mut report = Report::to(|_| {});
    let mut drive = Drive {
        disk,
        found,
        list: &list,
        payload,
        report: &mut report,
    };
    drive.run(&mut |_| Ok(true))
}

fn blocks_of(list: &[BootEntry]) -> impl Iterator<Item = u64> + '_ {
    list.iter()
        .flat_map(|e| e.image_block..e.image_block + u64::from(e.blocks))
}

fn assert_source_whole(disk: &Sparse, world: &World, when: &str) {
    for (number, block) in &world.source.durable {
        assert_eq!(&disk.block(*number), block, "{when}: block {number}");
    }
}

fn assert_switched(disk: &mut Sparse, world: &World) {
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
            assert_eq!(&disk.block(*number), block, "block {number}");
        }
    }
}

/// Runs `work` with a cut at every step until one run needs no cut.
fn cut_everywhere(start: &Sparse, mut work: impl FnMut(&mut Sparse, usize, bool) -> bool) -> usize {
    for cut in 0.. {
        let mut whole = true;
        for cache_survives in [false, true] {
            let mut disk = start.clone();
            disk.left = Some(cut);
            whole &= work(&mut disk, cut, cache_survives);
        }
        if whole {
            return cut;
        }
    }
    0
}

#[test]
fn the_switch_survives_a_cut_at_every_step() {
    let world = world();
    let steps = cut_everywhere(&world.source, |disk, cut, cache_survives| {
        let whole = stage(disk, &world.payload).is_ok();
        disk.restart(cache_survives);
        let when = format!("cut {cut}, cache {cache_survives}");
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

#[test]
fn roll_back_survives_a_cut_at_every_step() {
    let world = world();
    let mut switched = world.source.clone();
    stage(&mut switched, &world.payload).unwrap();
    let mut found = ondisk::find(&mut switched, "disk").unwrap().unwrap();
    found
        .set_state(&mut switched, State::RollingBack, 0)
        .unwrap();
    let steps = cut_everywhere(&switched, |disk, cut, cache_survives| {
        let mut whole = false;
        if let Ok(Some(mut found)) = ondisk::find(disk, "disk") {
            whole = drive(disk, &mut found, None).is_ok();
        }
        disk.restart(cache_survives);
        let when = format!("cut {cut}, cache {cache_survives}");
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
    disk.durable.insert(190, vec![0; BLOCK_LEN]);
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
    drive.run(&mut |_| Ok(true)).unwrap();
    assert!(
        lines.borrow().contains("WARNING: the source differs"),
        "{}",
        lines.borrow()
    );
}

#[test]
fn a_disk_that_keeps_nothing_is_noticed() {
    /// Loses every write to one block.
    struct Forgetful(Sparse, u64);
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
            self.0.cached.insert(self.1, kept);
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
        let error = drive.run(&mut |_| Ok(true)).unwrap_err();
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
                disk.durable.insert(number, block);
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
                disk.durable.insert(place / BLOCK_BYTES, block);
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
        disk.durable.insert(place / BLOCK_BYTES, block);
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
