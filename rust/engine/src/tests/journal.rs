// SPDX-License-Identifier: GPL-2.0-only

//! Journal writer and replay, rounds and checkpoints without cuts, loading, the superblock pair.

use std::vec;
use std::vec::Vec;

use core::sync::atomic::AtomicU64;

use imgstream_proto::disk::journal::{Builder, Record};
use imgstream_proto::disk::superblock::Checkpoint;
use imgstream_proto::disk::{
    Copy2, Error, Geometry, Segment, State, Superblock, BLOCK_LEN, SEGMENT_LEN,
};

use super::{zeroes, Words};
use crate::bits::Bits;
use crate::block::{BlockState, Run};
use crate::checkpoint;
use crate::health::{Health, HealthCell};
use crate::journal::{replay, Damage, Writer};
use crate::load::{self, attach, Loader};
use crate::map::Change;
use crate::pair::{choose, places, scan, Choice, Step, Update};
use crate::round;
use crate::state::{attachable, ended, transition};
use crate::trust::Trust;

const UUID: [u8; 16] = [7; 16];
const JOURNAL: u64 = 64 << 10;

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

fn start() -> Checkpoint {
    Checkpoint {
        sequence: 1,
        position_bytes: 0,
    }
}

/// Writes a transaction with one counter into `copies`, where the writer says.
fn put(writer: &mut Writer, copies: &mut [Vec<u8>], records: u64) -> u64 {
    let mut buffer = vec![0; 16 << 10];
    let mut builder = Builder::new(&UUID, &mut buffer, crc);
    for _ in 0..records {
        builder
            .push(&Record::Counter(writer.head().sequence))
            .unwrap();
    }
    let len = imgstream_proto::disk::journal::transaction_bytes(builder.records()).unwrap();
    let slot = writer.place(len).unwrap();
    let bytes = builder.seal(slot.sequence, slot.position_bytes).unwrap();
    let at = usize::try_from(slot.position_bytes).unwrap();
    for copy in copies {
        copy[at..at + bytes.len()].copy_from_slice(bytes);
    }
    writer.written(&slot, None);
    slot.position_bytes
}

fn counters(from: Checkpoint, a: &[u8], b: &[u8]) -> Result<Vec<u64>, Damage> {
    let mut found = Vec::new();
    let replayed = replay(&UUID, from, a, b, crc, |record| {
        if let Record::Counter(counter) = record {
            found.push(*counter);
        }
    })?;
    found.dedup();
    assert_eq!(replayed.transactions, found.len() as u64);
    Ok(found)
}

#[test]
fn replay_goes_round_the_end_and_stops_at_the_newest() {
    let mut copies = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let mut writer = Writer::new(JOURNAL, start(), 0);
    let mut from = start();
    for records in [1, 8, 20, 30, 1, 9].repeat(20) {
        if writer.half_full() {
            let before = writer.used_bytes();
            from = writer.head();
            writer.checkpointed(before);
            assert_eq!(writer.used_bytes(), 0);
        }
        put(&mut writer, &mut copies, records);
        let [a, b] = &copies;
        let expected: Vec<u64> = (from.sequence..writer.head().sequence).collect();
        assert_eq!(counters(from, a, b).unwrap(), expected);
    }
}

#[test]
fn a_full_journal_asks_for_a_checkpoint() {
    let mut copies = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let mut writer = Writer::new(JOURNAL, start(), 0);
    for _ in 0..4 {
        put(&mut writer, &mut copies, 31);
    }
    assert_eq!(writer.place(4096), None);
    assert!(writer.half_full());
    assert_eq!(writer.transaction_max(), JOURNAL / 4);
    let used = writer.used_bytes();
    writer.checkpointed(used);
    assert_eq!(writer.place(JOURNAL / 4).unwrap().position_bytes, 0);
    assert_eq!(writer.place(JOURNAL / 4 + 4096), None);
}

#[test]
fn one_good_copy_of_each_transaction_is_enough() {
    let mut copies = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let mut writer = Writer::new(JOURNAL, start(), 0);
    let first = put(&mut writer, &mut copies, 1);
    let second = put(&mut writer, &mut copies, 1);
    let [a, b] = &mut copies;
    a[usize::try_from(first).unwrap() + 600] ^= 1;
    b[usize::try_from(second).unwrap() + 600] ^= 1;
    assert_eq!(counters(start(), a, b).unwrap(), [1, 2]);
}

#[test]
fn a_hole_is_damage_but_a_missing_end_is_not() {
    let mut copies = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let mut writer = Writer::new(JOURNAL, start(), 0);
    put(&mut writer, &mut copies, 1);
    let second = put(&mut writer, &mut copies, 1);
    let third = put(&mut writer, &mut copies, 1);
    let [mut a, mut b] = copies;
    let spoil = |copy: &mut Vec<u8>, at: u64| copy[usize::try_from(at).unwrap() + 520] ^= 0x80;
    spoil(&mut a, third);
    spoil(&mut b, third);
    assert_eq!(counters(start(), &a, &b).unwrap(), [1, 2]);
    spoil(&mut b, third);
    spoil(&mut a, second);
    spoil(&mut b, second);
    let damage = Damage::Hole {
        missing: 2,
        found: 3,
        position_bytes: third,
    };
    assert_eq!(counters(start(), &a, &b), Err(damage));
}

#[test]
fn another_migrations_journal_is_nothing() {
    let mut copies = [vec![0; 64 << 10], vec![0; 64 << 10]];
    let mut writer = Writer::new(JOURNAL, start(), 0);
    put(&mut writer, &mut copies, 1);
    let [a, b] = &copies;
    let replayed = replay(&[8; 16], start(), a, b, crc, |_| panic!("not ours")).unwrap();
    assert_eq!(replayed.head, start());
}

/// A map with its control area in memory.
struct Store {
    words: Words,
    pages: Vec<AtomicU64>,
    maps: [Vec<u8>; 2],
    journals: [Vec<u8>; 2],
    writer: Writer,
    from: Checkpoint,
    flushes: u64,
}

impl Store {
    fn new(blocks: u64) -> Self {
        let words = Words::new(blocks);
        let len = usize::try_from(imgstream_proto::disk::segment::map_bytes(blocks)).unwrap();
        let mut map = vec![0; len];
        for (page, to) in (0..).zip(map.chunks_exact_mut(4096)) {
            checkpoint::encode_page(&words.map(), page, 0, &UUID, to, crc).unwrap();
        }
        Self {
            words,
            pages: zeroes(4),
            maps: [map.clone(), map],
            journals: [vec![0; 64 << 10], vec![0; 64 << 10]],
            writer: Writer::new(JOURNAL, start(), 0),
            from: start(),
            flushes: 0,
        }
    }

    fn round(&mut self, counter: Option<u64>) {
        let mut buffer = vec![0; 4096];
        let mut round = round::Round::new(counter, &self.writer, 4096);
        let map = self.words.map();
        loop {
            match round.next(&self.writer) {
                round::Step::TakeWaiters => {}
                round::Step::Checkpoint => {
                    let (pages, writer) = (&self.pages, &mut self.writer);
                    self.from = run_checkpoint(&map, pages, writer, &mut self.maps);
                    continue;
                }
                round::Step::Snapshot => round
                    .snapshot(
                        &map,
                        &Bits::new(&self.pages),
                        &self.writer,
                        &UUID,
                        &mut buffer,
                        crc,
                    )
                    .unwrap(),
                round::Step::FlushData | round::Step::FlushJournal => self.flushes += 1,
                round::Step::WriteJournal {
                    copy,
                    position_bytes,
                    len_bytes,
                } => {
                    let at = usize::try_from(position_bytes).unwrap();
                    let len = usize::try_from(len_bytes).unwrap();
                    copy.of_mut(&mut self.journals)[at..at + len].copy_from_slice(&buffer[..len]);
                }
                round::Step::Done => return,
            }
            round.advance(&map, &mut self.writer);
        }
    }

    fn load(
        &self,
        superblock_counter: u64,
    ) -> Result<(Words, load::Loaded, Vec<AtomicU64>), load::Damage> {
        let words = Words::new(self.words.blocks);
        let pages = zeroes(4);
        let mut sequences = vec![0; usize::try_from(words.map().segments()).unwrap()];
        let loaded = {
            let bits = Bits::new(&pages);
            let mut loader =
                Loader::new(&UUID, words.map(), &mut sequences, bits, superblock_counter);
            let [a, b] = &self.maps;
            let both = a.chunks_exact(SEGMENT_LEN).zip(b.chunks_exact(SEGMENT_LEN));
            for (index, (a, b)) in (0..words.map().segments()).zip(both) {
                loader.segment(index, Some(a), Some(b), crc);
            }
            let [a, b] = &self.journals;
            replay(&UUID, self.from, a, b, crc, |record| loader.record(record)).unwrap();
            loader.finish()?
        };
        Ok((words, loaded, pages))
    }
}

fn run_checkpoint(
    map: &crate::map::Map<'_>,
    pages: &[AtomicU64],
    writer: &mut Writer,
    maps: &mut [Vec<u8>; 2],
) -> Checkpoint {
    let mut buffer = vec![0; 8192];
    let mut from = None;
    let pages = Bits::new(pages);
    let mut checkpoint = checkpoint::Checkpoint::new(writer);
    loop {
        match checkpoint.next() {
            checkpoint::Step::Snapshot => checkpoint
                .snapshot(map, &pages, writer, &UUID, &mut buffer, crc)
                .unwrap(),
            checkpoint::Step::FlushData | checkpoint::Step::FlushMap => {}
            checkpoint::Step::WriteMap {
                copy,
                to_bytes,
                from,
                len,
            } => {
                let to = usize::try_from(to_bytes).unwrap();
                copy.of_mut(maps)[to..to + len].copy_from_slice(&buffer[from..from + len]);
            }
            checkpoint::Step::Superblock(at) => from = Some(at),
            checkpoint::Step::Done => return from.unwrap(),
        }
        checkpoint.advance(&pages, writer);
    }
}

#[test]
fn rounds_and_checkpoints_bring_back_the_map() {
    let mut store = Store::new(60_000);
    for step in 0u64..300 {
        let run = Run::new(step * 7919 % 59_000, 1 + step % 40);
        let change = [Change::Written, Change::Filled, Change::Zeroed];
        store
            .words
            .map()
            .apply(run, change[usize::try_from(step % 3).unwrap()]);
        if step % 3 == 0 {
            store.round((step % 6 == 0).then_some(step));
        }
    }
    store.round(None);
    assert!(store.words.map().changed().is_empty());
    assert_ne!(store.from, start(), "the journal went round");
    let (words, loaded, _) = store.load(store.writer.counter()).unwrap();
    for block in 0..60_000 {
        assert_eq!(words.map().state(block), store.words.map().state(block));
    }
    assert_eq!(loaded.counter, 294);
    assert_eq!(
        words.map().counts().get(BlockState::Dirty),
        store.words.map().counts().get(BlockState::Dirty)
    );
}

#[test]
fn a_round_without_changes_only_flushes() {
    let mut store = Store::new(100);
    store.round(None);
    assert_eq!((store.flushes, store.writer.head()), (1, start()));
    store.words.map().apply(Run::new(0, 1), Change::Written);
    store.round(None);
    assert_eq!((store.flushes, store.writer.head().sequence), (3, 2));
}

#[test]
fn a_damaged_map_copy_is_replaced_and_two_are_damage() {
    let mut store = Store::new(4000);
    store.maps[0][700] ^= 1;
    let (_, _, pages) = store.load(0).unwrap();
    assert!(Bits::new(&pages).get(0), "the piece will be written again");
    store.maps[1][700] ^= 1;
    assert_eq!(
        store.load(0).err(),
        Some(load::Damage::Segment { index: 1 })
    );
    // A record of the journal is an image like any other.
    store.words.map().apply(Run::new(1920, 1), Change::Written);
    store.round(None);
    let (words, _, _) = store.load(0).unwrap();
    assert_eq!(words.map().state(1920), BlockState::Dirty);
}

#[test]
fn impossible_counters_and_segments_are_damage() {
    let mut store = Store::new(100);
    let too_large = load::Damage::Counter {
        found: 101,
        blocks: 100,
    };
    assert_eq!(store.load(101).err(), Some(too_large));
    let mut buffer = vec![0; 4096];
    let mut builder = Builder::new(&UUID, &mut buffer, crc);
    builder
        .push(&Record::Segment(Segment::absent(5, 1)))
        .unwrap();
    let bytes = builder.seal(1, 0).unwrap();
    store.journals[0][..bytes.len()].copy_from_slice(bytes);
    assert_eq!(
        store.load(0).err(),
        Some(load::Damage::NoSuchSegment { index: 5 })
    );
}

fn superblock(generation: u64) -> Superblock {
    let mut superblock = Superblock::new(UUID, State::Streaming, Geometry::default());
    superblock.generation = generation;
    superblock
}

#[test]
fn the_newest_valid_superblock_counts() {
    let bad = || Err(Error::Incompat { unknown: 1 });
    let found = |copy, stale| Choice::Found { copy, stale };
    let (a, b) = (Copy2::A, Copy2::B);
    assert_eq!(
        choose(&Ok(superblock(3)), &Ok(superblock(3))),
        found(a, None)
    );
    assert_eq!(
        choose(&Ok(superblock(4)), &Ok(superblock(3))),
        found(a, Some(b))
    );
    assert_eq!(
        choose(&Ok(superblock(3)), &Ok(superblock(4))),
        found(b, Some(a))
    );
    assert_eq!(choose(&bad(), &Ok(superblock(1))), found(b, Some(a)));
    assert_eq!(choose(&Ok(superblock(1)), &bad()), found(a, Some(b)));
    assert!(matches!(choose(&bad(), &bad()), Choice::None { .. }));
    let mut other = superblock(3);
    other.cursor = 1;
    assert_eq!(
        choose(&Ok(superblock(3)), &Ok(other.clone())),
        Choice::Conflict { generation: 3 }
    );
    other.uuid = [9; 16];
    assert_eq!(
        choose(&Ok(superblock(3)), &Ok(other.clone())),
        Choice::TwoMigrations
    );
}

#[test]
fn the_copy_in_need_is_written_first_and_flushed_before_the_other() {
    for (stale, first) in [(None, Copy2::B), (Some(Copy2::A), Copy2::A)] {
        let mut update = Update::new(stale);
        for step in [
            Step::Write(first),
            Step::Flush,
            Step::Write(first.other()),
            Step::Flush,
            Step::Done,
            Step::Done,
        ] {
            assert_eq!(update.next(), step);
            update.advance();
        }
    }
}

#[test]
fn scanning_begins_at_the_end() {
    let mib = 1u64 << 20;
    let places: Vec<u64> = scan(200 * mib).collect();
    assert_eq!(
        places,
        [199 * mib - 4096, 192 * mib, 128 * mib, 64 * mib, 0]
    );
    assert_eq!(scan(4096).count(), 0);
}

/// The first block of a disk with an MBR that has one partition of this kind, from sector 2048 to there.
fn mbr(kind: u8, end_bytes: u64) -> [u8; BLOCK_LEN] {
    let mut head = [0; BLOCK_LEN];
    head[510..512].copy_from_slice(&[0x55, 0xaa]);
    head[450] = kind;
    head[454..458].copy_from_slice(&2048u32.to_le_bytes());
    let count = u32::try_from(end_bytes / 512 - 2048).unwrap_or(u32::MAX);
    head[458..462].copy_from_slice(&count.to_le_bytes());
    head
}

#[test]
fn a_used_disk_is_looked_at_near_its_end_only() {
    let size = 16u64 << 40;
    let all = scan(size).count();
    let gpt = |end_bytes: u64| {
        let mut head = mbr(0xee, end_bytes);
        head[512..520].copy_from_slice(b"EFI PART");
        head[544..552].copy_from_slice(&(end_bytes / 512 - 1).to_le_bytes());
        head
    };
    let count = |head| places(size, &head).count();
    assert_eq!(count([0; BLOCK_LEN]), 37);
    assert_eq!(count(gpt(size)), 37);
    // A GPT that lost its header, and a table that says nothing at all, leave no bound or the last one.
    assert_eq!(count(mbr(0xee, size)), all);
    assert_eq!(count(mbr(0, size)), 37);
    // It has grown since.
    let old = size / 2;
    for head in [gpt(old), mbr(0x83, 1 << 40)] {
        assert!(places(size, &head).any(|at| at == old - (64 << 20)));
    }
    assert_eq!(places(4096, &[0; BLOCK_LEN]).count(), 0);
}

#[test]
fn an_unclean_attach_is_never_forgotten() {
    let mut found = superblock(1);
    found.clean = true;
    assert_eq!(Trust::at_attach(&found), Trust::Proven);
    attach(&mut found, 5, start());
    let running = found;
    assert!(!running.clean && !running.suspect && running.generation == 2);
    assert_eq!(running.copy_counter_blocks, 5);
    let mut again = running;
    attach(&mut again, 5, start());
    assert!(again.suspect);
    again.clean = true;
    assert_eq!(Trust::at_attach(&again), Trust::Suspect);
    attach(&mut again, 5, start());
    assert!(again.suspect);
    for state in [BlockState::Dirty, BlockState::Zero] {
        assert!(!Trust::Proven.may_fetch(state));
    }
    assert!(Trust::Suspect.may_fetch(BlockState::Absent));
    assert!(!Trust::Suspect.may_fetch(BlockState::Clean));
    assert!(Trust::Proven.may_fetch(BlockState::Clean));
}

#[test]
fn health_only_gets_worse() {
    let cell = HealthCell::new();
    assert!(cell.get().may_fill() && cell.get().may_flush() && cell.get().may_change_state());
    assert!(cell.degrade(Health::Degraded));
    assert!(!cell.degrade(Health::Degraded));
    assert!(!cell.get().may_fill() && !cell.get().may_flush() && cell.get().may_read());
    assert!(cell.degrade(Health::Failed));
    assert!(!cell.degrade(Health::Sound));
    assert!(!cell.get().may_read());
}

/// The whole table, so that a new arrow is a decision.
#[test]
fn states_follow_the_table() {
    use State::*;
    let arrows = [
        (Staged, vec![Armed, Cancelled]),
        (Armed, vec![Shrinking, Cancelled]),
        (Shrinking, vec![Relocating, Cancelled]),
        (Relocating, vec![Storing, Cancelled]),
        (Storing, vec![Trial, Streaming, RollingBack]),
        (Trial, vec![Streaming, RollingBack]),
        (Streaming, vec![Committing, RollingBack]),
        (Committing, vec![Committed]),
        (Committed, vec![]),
        (RollingBack, vec![RolledBack]),
        (RolledBack, vec![]),
        (Cancelled, vec![]),
    ];
    for (from, next) in arrows {
        for to in State::ALL {
            let legal = from == to || next.contains(&to);
            assert_eq!(transition(from, to).is_ok(), legal, "{from} -> {to}");
        }
    }
    assert!(attachable(Streaming) && attachable(Committing) && !attachable(Storing));
    assert!(ended(Committed) && !ended(Committing));
}
