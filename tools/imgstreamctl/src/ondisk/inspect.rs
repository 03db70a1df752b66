// SPDX-License-Identifier: GPL-2.0-only
//! Reads everything that a control area says, and finds what is wrong with it.
//! `check` prints the findings, `dump` the contents.

use std::sync::atomic::AtomicU64;

use imgstream_engine::bits::Bits;
use imgstream_engine::block::BlockState;
use imgstream_engine::load::Loader;
use imgstream_engine::map::{Counts, Map};
use imgstream_engine::{journal, plan};
use imgstream_proto::disk::boot_list::{BootEntry, BootList, BootState};
use imgstream_proto::disk::journal::Record;
use imgstream_proto::disk::segment::{Segment, SEGMENTS_PER_PAGE, SEGMENT_LEN};
use imgstream_proto::disk::settings::{Settings, SETTINGS_LEN};
use imgstream_proto::disk::superblock::{Checkpoint, Superblock};
use imgstream_proto::disk::{Copy2, Extent, State, BLOCK_BYTES};

use super::{find, Found};
use crate::error::Result;
use crate::medium::Medium;
use crate::refusal::Refusal;

/// A longer structure is not read: no disk that exists has one.
const LEN_MAX: u64 = 8 << 30;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// One of two copies is bad: the next write of it repairs it.
    Copy,
    /// It cannot be used.
    Damage,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad.
    pub grade: Grade,
    /// In a sentence.
    pub what: String,
}

/// Blocks in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Blocks {
    /// To be fetched yet.
    pub absent: u64,
    /// As in the image.
    pub clean: u64,
    /// Written here.
    pub dirty: u64,
    /// Zeroes.
    pub zero: u64,
}

/// The journal after replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Journal {
    /// Transactions since the checkpoint.
    pub transactions: u64,
    /// Their records.
    pub records: u64,
    /// Number of the next one.
    pub next_sequence: u64,
    /// Where it goes.
    pub next_position_bytes: u64,
}

/// Everything that a control area says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The superblock that counts.
    pub superblock: Superblock,
    /// The boot list; empty if both copies are bad.
    pub boot_list: Vec<BootEntry>,
    /// The settings.
    pub settings: Option<Settings>,
    /// The map with the journal applied.
    pub blocks: Option<Blocks>,
    /// The journal.
    pub journal: Option<Journal>,
    /// The copy counter with the journal applied.
    pub copied_blocks: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Reads all of it. Refuses only when there is no superblock to begin with.
pub fn inspect(disk: &mut dyn Medium, place: &str) -> Result<Area> {
    let found = find(disk, place)?.ok_or_else(|| Refusal::NoSuperblock {
        place: place.to_string(),
    })?;
    let Found { superblock, stale } = found;
    let mut area = Area {
        superblock: superblock.clone(),
        boot_list: Vec::new(),
        settings: None,
        blocks: None,
        journal: None,
        copied_blocks: superblock.copy_counter_blocks,
        findings: Vec::new(),
    };
    if let Some(copy) = stale {
        area.note(
            Grade::Copy,
            format!("superblock {copy:?} is damaged or older"),
        );
    }
    if superblock.geometry.disk_bytes != disk.size_bytes() {
        let what = format!(
            "the superblock was made for a disk of {} bytes, this one has {}",
            superblock.geometry.disk_bytes,
            disk.size_bytes()
        );
        area.note(Grade::Damage, what);
    }
    if let Err(misplaced) = plan::check(&superblock.geometry, &superblock.places) {
        area.note(
            Grade::Damage,
            format!("places make no sense: {misplaced:?}"),
        );
        return Ok(area);
    }
    area.read_boot_list(disk)?;
    area.read_settings(disk)?;
    area.read_map(disk)?;
    Ok(area)
}

impl Area {
    fn note(&mut self, grade: Grade, what: String) {
        self.findings.push(Finding { grade, what });
    }

    /// The worst finding.
    pub fn worst(&self) -> Option<Grade> {
        self.findings.iter().map(|finding| finding.grade).max()
    }

    fn read_boot_list(&mut self, disk: &mut dyn Medium) -> Result<()> {
        let uuid = self.superblock.uuid;
        let mut copies = Vec::new();
        for copy in Copy2::BOTH {
            let place = *copy.of(&self.superblock.places.boot_list);
            let bytes = read(disk, place)?;
            match BootList::decode(&uuid, place.start_bytes, &bytes, crc32c::crc32c) {
                Ok(list) => copies.push(list.entries().collect::<Vec<_>>()),
                Err(error) => self.note(Grade::Copy, format!("boot list {copy:?}: {error}")),
            }
        }
        match copies.as_slice() {
            [] => self.note(Grade::Damage, "both boot lists are damaged".into()),
            [a, b] if a != b => self.note(Grade::Copy, "the boot lists differ".into()),
            _ => {}
        }
        self.boot_list = copies.into_iter().next().unwrap_or_default();
        self.check_boot_list();
        Ok(())
    }

    fn check_boot_list(&mut self) {
        let geometry = self.superblock.geometry;
        let relocated = geometry.relocated_start_bytes..=geometry.useful_start_bytes;
        let outside = self.boot_list.iter().any(|entry| {
            let len = u64::from(entry.blocks) * BLOCK_BYTES;
            let home_end = entry
                .image_block
                .saturating_mul(BLOCK_BYTES)
                .saturating_add(len);
            !relocated.contains(&entry.relocated_bytes)
                || !relocated.contains(&(entry.relocated_bytes.saturating_add(len)))
                || home_end > geometry.source_bytes
        });
        if outside {
            self.note(
                Grade::Damage,
                "the boot list leads outside of its places".into(),
            );
        }
        let saved = self.boot_list.iter().any(|e| e.state == BootState::Saved);
        if saved && matches!(self.superblock.state, State::Streaming | State::Committing) {
            self.note(
                Grade::Damage,
                "boot blocks are not stored although the target runs".into(),
            );
        }
    }

    fn read_settings(&mut self, disk: &mut dyn Medium) -> Result<()> {
        let uuid = self.superblock.uuid;
        for copy in Copy2::BOTH {
            let place = *copy.of(&self.superblock.places.settings);
            let mut bytes = [0; SETTINGS_LEN];
            disk.read(place.start_bytes, &mut bytes)?;
            match Settings::decode(&uuid, place.start_bytes, &bytes, crc32c::crc32c) {
                Ok(new)
                    if self
                        .settings
                        .is_none_or(|old| new.generation > old.generation) =>
                {
                    self.settings = Some(new);
                }
                Ok(_) => {}
                Err(error) => self.note(Grade::Copy, format!("settings {copy:?}: {error}")),
            }
        }
        if self.settings.is_none() {
            self.note(Grade::Damage, "both settings are damaged".into());
        }
        Ok(())
    }

    /// As an attach does it, on words of our own.
    fn read_map(&mut self, disk: &mut dyn Medium) -> Result<()> {
        let superblock = self.superblock.clone();
        let blocks = superblock.geometry.image_blocks();
        let words = atomics(Map::words_for(blocks));
        let changed = atomics(Map::changed_words_for(blocks));
        let counts = Counts::new();
        let Some(map) = Map::new(blocks, &words, &changed, &counts) else {
            self.note(Grade::Damage, "the map has an impossible size".into());
            return Ok(());
        };
        let pages = atomics(Bits::words_for(map.segments().div_ceil(SEGMENTS_PER_PAGE)));
        let mut sequences = vec![0; map.segments() as usize];
        let mut loader = Loader::new(
            &superblock.uuid,
            map,
            &mut sequences,
            Bits::new(&pages),
            superblock.copy_counter_blocks,
        );
        self.feed_segments(disk, &map, &mut loader)?;
        if !self.feed_journal(disk, &mut loader)? {
            return Ok(());
        }
        match loader.finish() {
            Ok(loaded) => {
                self.copied_blocks = loaded.counter;
                self.blocks = Some(Blocks {
                    absent: counts.get(BlockState::Absent),
                    clean: counts.get(BlockState::Clean),
                    dirty: counts.get(BlockState::Dirty),
                    zero: counts.get(BlockState::Zero),
                });
            }
            Err(damage) => self.note(Grade::Damage, format!("the map is damaged: {damage:?}")),
        }
        Ok(())
    }

    fn feed_segments(
        &mut self,
        disk: &mut dyn Medium,
        map: &Map<'_>,
        loader: &mut Loader<'_>,
    ) -> Result<()> {
        let [a, b] = self.superblock.places.map;
        let (a, b) = (read(disk, a)?, read(disk, b)?);
        let mut bad = [0u64; 2];
        for index in 0..map.segments() {
            let at = index as usize * SEGMENT_LEN;
            let copies = [&a, &b].map(|bytes| bytes.get(at..at + SEGMENT_LEN));
            for (bad, copy) in bad.iter_mut().zip(copies) {
                let uuid = &self.superblock.uuid;
                let valid = copy.is_some_and(|bytes| {
                    Segment::decode_at(uuid, index, bytes, crc32c::crc32c).is_ok()
                });
                *bad += u64::from(!valid);
            }
            loader.segment(index, copies[0], copies[1], crc32c::crc32c);
        }
        for (name, bad) in ["A", "B"].iter().zip(bad) {
            if bad > 0 {
                self.note(
                    Grade::Copy,
                    format!("map {name}: {bad} segments are damaged"),
                );
            }
        }
        Ok(())
    }

    /// Whether the journal can be believed.
    fn feed_journal(&mut self, disk: &mut dyn Medium, loader: &mut Loader<'_>) -> Result<bool> {
        let [a, b] = self.superblock.places.journal;
        let (a, b) = (read(disk, a)?, read(disk, b)?);
        let from: Checkpoint = self.superblock.checkpoint;
        let mut records = 0;
        let mut apply = |record: &Record| {
            records += 1;
            loader.record(record);
        };
        let uuid = &self.superblock.uuid;
        match journal::replay(uuid, from, &a, &b, crc32c::crc32c, &mut apply) {
            Ok(replayed) => {
                self.journal = Some(Journal {
                    transactions: replayed.transactions,
                    records,
                    next_sequence: replayed.head.sequence,
                    next_position_bytes: replayed.head.position_bytes,
                });
                let end = replayed.head.position_bytes as usize;
                let live = from.position_bytes as usize..end;
                if a.get(live.clone()) != b.get(live) {
                    self.note(Grade::Copy, "the journals differ".into());
                }
                Ok(true)
            }
            Err(damage) => {
                self.note(Grade::Damage, format!("the journal is damaged: {damage:?}"));
                Ok(false)
            }
        }
    }
}

fn atomics(count: u64) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn read(disk: &mut dyn Medium, place: Extent) -> Result<Vec<u8>> {
    let len = place.len_bytes.min(LEN_MAX);
    let mut bytes = vec![0; len as usize];
    disk.read(place.start_bytes, &mut bytes)?;
    Ok(bytes)
}
