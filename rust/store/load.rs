// SPDX-License-Identifier: GPL-2.0-only

//! Attach: boot list, map and journal into memory.

use super::{
    journal::{
        Journal,
        BUFFER_BYTES, //
    },
    superblocks::Found,
    tables::{
        zeroed,
        Tables, //
    },
};
use crate::kapi::{
    bdev::Bdev,
    crypto::crc32c, //
};
use imgstream_engine::{
    bits::Bits,
    journal::replay,
    load::{
        Loaded,
        Loader, //
    },
    locate::BootRun,
    map::Map, //
};
use imgstream_proto::{
    abi::refusal::Refusal,
    disk::{
        segment::SEGMENTS_PER_PAGE,
        BootList,
        Extent,
        Superblock,
        BLOCK_LEN,
        SEGMENT_LEN, //
    },
};
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::Arc, //
};

/// Loads what `found` names; writes nothing.
pub(super) fn load(disk: Arc<Bdev>, found: Found) -> Result<(Arc<Tables>, Journal), Refusal> {
    let superblock = &found.superblock;
    let boot = boot_runs(&disk, superblock)?;
    let tables = Tables::new(superblock.geometry, boot, superblock.copy_counter_blocks)
        .map_err(|_| Refusal::Memory)?;
    let segments = tables.map().segments();
    let pages = zeroed(Bits::words_for(segments.div_ceil(SEGMENTS_PER_PAGE)))
        .map_err(|_| Refusal::Memory)?;
    let mut buffer = buffer()?;
    let (loaded, replayed) = map(&disk, superblock, &tables, &Bits::new(&pages), &mut buffer)?;
    tables.locator().raise_counter(loaded.counter);
    let [journal, _] = superblock.places.journal;
    let writer = loaded.writer(journal.len_bytes, &replayed);
    let Found { superblock, stale } = found;
    let journal = Journal::new(disk, superblock, stale, writer, pages, buffer)
        .map_err(|_| Refusal::Memory)?;
    Ok((tables, journal))
}

fn buffer() -> Result<KVec<u8>, Refusal> {
    KVec::from_elem(0, BUFFER_BYTES, GFP_KERNEL).map_err(|_| Refusal::Memory)
}

/// The boot list, from the first copy that is whole.
fn boot_runs(disk: &Bdev, superblock: &Superblock) -> Result<KVVec<BootRun>, Refusal> {
    for place in superblock.places.boot_list {
        let bytes = read_place(disk, place)?;
        match BootList::decode(&superblock.uuid, place.start_bytes, &bytes, crc32c) {
            Ok(list) => return collect(&list).map_err(|_| Refusal::Memory),
            Err(error) => {
                pr_warn!(
                    "a copy of the boot list is damaged: {}\n",
                    format_args!("{error}")
                );
            }
        }
    }
    pr_err!("both copies of the boot list are damaged\n");
    Err(Refusal::Damaged)
}

fn collect(list: &BootList<'_>) -> Result<KVVec<BootRun>> {
    let mut runs = KVVec::with_capacity(list.len(), GFP_KERNEL)?;
    for entry in list.entries() {
        runs.push(entry.into(), GFP_KERNEL)?;
    }
    Ok(runs)
}

/// Map and journal into `tables`.
fn map(
    disk: &Bdev,
    superblock: &Superblock,
    tables: &Tables,
    pages: &Bits<'_>,
    buffer: &mut KVec<u8>,
) -> Result<(Loaded, imgstream_engine::journal::Replayed), Refusal> {
    let map = tables.map();
    let segments = usize::try_from(map.segments()).map_err(|_| Refusal::Memory)?;
    let mut sequences =
        KVVec::from_elem(0u64, segments, GFP_KERNEL).map_err(|_| Refusal::Memory)?;
    let counter = superblock.copy_counter_blocks;
    let mut loader = Loader::new(&superblock.uuid, map, &mut sequences, *pages, counter);
    segments_into(disk, superblock, &map, &mut loader, buffer)?;
    let [a, b] = superblock.places.journal;
    let (a, b) = (read_place(disk, a)?, read_place(disk, b)?);
    let from = superblock.checkpoint;
    let replayed = replay(&superblock.uuid, from, &a, &b, crc32c, |record| {
        loader.record(record)
    })
    .map_err(|damage| {
        pr_err!("the journal is damaged: {damage:?}\n");
        Refusal::Damaged
    })?;
    let loaded = loader.finish().map_err(|damage| {
        pr_err!("the map is damaged: {damage:?}\n");
        Refusal::Damaged
    })?;
    Ok((loaded, replayed))
}

/// Feeds the loader all segments of both copies, as many at a time as fit in `buffer`.
fn segments_into(
    disk: &Bdev,
    superblock: &Superblock,
    map: &Map<'_>,
    loader: &mut Loader<'_>,
    buffer: &mut KVec<u8>,
) -> Result<(), Refusal> {
    let mut other = self::buffer()?;
    let [a, b] = superblock.places.map;
    let mut index = 0;
    while index < map.segments() {
        let first = index.saturating_mul(SEGMENT_LEN as u64);
        let a = Chunk::read(disk, a, first, buffer);
        let b = Chunk::read(disk, b, first, &mut other);
        for at in 0..BUFFER_BYTES / SEGMENT_LEN {
            if index >= map.segments() {
                break;
            }
            loader.segment(index, a.segment(at), b.segment(at), crc32c);
            index = index.saturating_add(1);
        }
    }
    Ok(())
}

/// A part of a map copy in memory; parts that cannot be read are zeroes, which are no segment.
struct Chunk<'a>(&'a [u8]);

impl<'a> Chunk<'a> {
    fn read(disk: &Bdev, place: Extent, from: u64, buffer: &'a mut KVec<u8>) -> Self {
        let rest = place.len_bytes.saturating_sub(from);
        let len = usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let start = place.start_bytes.saturating_add(from);
        let bytes = buffer.get_mut(..len).unwrap_or(&mut []);
        read_what_can_be(disk, start, bytes);
        Self(bytes)
    }

    fn segment(&self, at: usize) -> Option<&'a [u8]> {
        let start = at.checked_mul(SEGMENT_LEN)?;
        self.0.get(start..start.checked_add(SEGMENT_LEN)?)
    }
}

/// Reads a whole place; parts that cannot be read are zeroes.
fn read_place(disk: &Bdev, place: Extent) -> Result<KVVec<u8>, Refusal> {
    let len = usize::try_from(place.len_bytes).map_err(|_| Refusal::Geometry)?;
    let mut all = KVVec::from_elem(0u8, len, GFP_KERNEL).map_err(|_| Refusal::Memory)?;
    // The disk is read through memory that is physically contiguous.
    let mut buffer = buffer()?;
    let mut at = place.start_bytes;
    for part in all.chunks_mut(BUFFER_BYTES) {
        let bytes = buffer.get_mut(..part.len()).unwrap_or(&mut []);
        read_what_can_be(disk, at, bytes);
        part.copy_from_slice(bytes);
        at = at.saturating_add(part.len() as u64);
    }
    Ok(all)
}

/// Reads; where that fails, block by block, with zeroes for the blocks that cannot be read.
fn read_what_can_be(disk: &Bdev, start: u64, bytes: &mut [u8]) {
    if disk.read(start, bytes).is_ok() {
        return;
    }
    let mut at = start;
    for block in bytes.chunks_mut(BLOCK_LEN) {
        if disk.read(at, block).is_err() {
            pr_warn!("the control area cannot be read at byte {at}\n");
            block.fill(0);
        }
        at = at.saturating_add(BLOCK_LEN as u64);
    }
}

#[kunit_tests(imgstream_load)]
mod tests {
    use super::*;
    use crate::kapi::testing::{
        every,
        MemoryDisk, //
    };

    /// A disk whose blocks 0 to 63 are full of their number plus one, of which block 5 cannot be read.
    fn disk() -> Result<MemoryDisk> {
        let disk = MemoryDisk::plain(c"imgstream_kunit")?;
        for block in 0..64 {
            let bytes = KVec::from_elem(block as u8 + 1, BLOCK_LEN, GFP_KERNEL)?;
            disk.data().copy_from_slice(block * BLOCK_LEN, &bytes)?;
        }
        disk.break_sectors(5 * 8 + 3..5 * 8 + 4);
        Ok(disk)
    }

    /// Whether bytes are those of the disk from `start` on, zeroes where it cannot be read.
    fn is_disk(bytes: &[u8], start: usize) -> bool {
        bytes
            .iter()
            .zip(start..)
            .all(|(&byte, at)| match at / BLOCK_LEN {
                5 => byte == 0,
                block => byte == block as u8 + 1,
            })
    }

    #[test]
    fn what_cannot_be_read_is_zeroes_block_by_block() -> Result {
        let disk = disk()?;
        // Blocks: first and number.
        let table = [(0, 5), (6, 2), (5, 1), (4, 3), (0, 16), (63, 1)];
        assert!(every(table, |&(first, blocks)| {
            let Ok(mut bytes) = KVec::from_elem(0xeeu8, blocks * BLOCK_LEN, GFP_KERNEL) else {
                return false;
            };
            let start = first * BLOCK_LEN;
            let read = disk
                .bdev()
                .map(|disk| read_what_can_be(disk, start as u64, &mut bytes));
            read.is_ok() && is_disk(&bytes, start)
        }));
        Ok(())
    }

    #[test]
    fn a_place_is_read_as_a_whole_in_pieces() -> Result {
        let disk = disk()?;
        let lengths = [
            512,
            BLOCK_LEN,
            BUFFER_BYTES,
            BUFFER_BYTES + 512,
            3 * BUFFER_BYTES,
        ];
        assert!(every(lengths, |&len| {
            let place = Extent::new(BLOCK_LEN as u64, len as u64);
            let Ok(bytes) = disk
                .bdev()
                .and_then(|disk| read_place(disk, place).map_err(|_| EIO))
            else {
                return false;
            };
            bytes.len() == len && is_disk(&bytes, BLOCK_LEN)
        }));
        Ok(())
    }

    #[test]
    fn a_chunk_has_whole_segments_up_to_the_end_of_its_place() -> Result {
        let disk = disk()?;
        let mut buffer = KVec::from_elem(0u8, 4 * SEGMENT_LEN, GFP_KERNEL)?;
        let place = Extent::new(0, 10 * SEGMENT_LEN as u64);
        // Where in the place it begins, and how many segments it has.
        let table = [(0, 4), (6, 4), (7, 3), (9, 1), (10, 0), (11, 0)];
        assert!(every(table, |&(first, segments)| {
            let from = (first * SEGMENT_LEN) as u64;
            let Ok(bdev) = disk.bdev() else {
                return false;
            };
            let chunk = Chunk::read(bdev, place, from, &mut buffer);
            let there = |at| {
                chunk
                    .segment(at)
                    .is_some_and(|bytes| bytes.len() == SEGMENT_LEN)
            };
            (0..segments).all(there)
                && chunk.segment(segments).is_none()
                && chunk.segment(usize::MAX).is_none()
        }));
        Ok(())
    }
}
