// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the writes of the control area: their order, and what a disk that fails leaves.

use kernel::prelude::*;

#[kunit_tests(imgstream_journal)]
mod suite {
    use super::super::*;
    use crate::{
        kapi::{
            bio::Op,
            testing::{
                every,
                MemoryDisk, //
            }, //
        },
        store::{
            load::load,
            superblocks::read_pair, //
        },
    };
    use imgstream_engine::{
        block::{
            BlockState,
            Run, //
        },
        checkpoint::encode_page,
        map::Change, //
    };
    use imgstream_proto::disk::{
        geometry::TAIL_BYTES,
        segment::BLOCKS_PER_SEGMENT,
        superblock::{
            Places,
            SUPERBLOCK_LEN, //
        },
        BootList,
        Geometry,
        BLOCK_BYTES,
        BLOCK_LEN, //
    };

    /// Segments of the map, in two pieces: more than a transaction has room for.
    const SEGMENTS: u64 = 12;
    const LAST: u64 = SEGMENTS * BLOCKS_PER_SEGMENT - 1;

    // Where things stand, in blocks of the disk.
    const SUPERBLOCKS: [u64; 2] = [16, 63];
    const BOOT_LISTS: [u64; 2] = [17, 18];
    const MAPS: [u64; 2] = [20, 24];
    const JOURNALS: [u64; 2] = [32, 40];
    const JOURNAL_BLOCKS: u64 = 4;

    const FLUSH: (Op, u64) = (Op::Flush, 0);

    fn write_of(block: u64) -> (Op, u64) {
        (Op::Write, block * 8)
    }

    fn places(blocks: [u64; 2], len: u64) -> [Extent; 2] {
        blocks.map(|block| Extent::new(block * BLOCK_BYTES, len * BLOCK_BYTES))
    }

    /// A superblock for a disk of 64 blocks, of which only the control area is looked at.
    #[inline(never)]
    fn superblock(state: State) -> Result<KBox<Superblock>> {
        let geometry = Geometry {
            disk_bytes: 64 * BLOCK_BYTES + TAIL_BYTES,
            control_start_bytes: 16 * BLOCK_BYTES,
            useful_start_bytes: BLOCK_BYTES,
            image_bytes: (LAST + 1) * BLOCK_BYTES,
            logical_block_bytes: 512,
            ..Geometry::default()
        };
        let mut superblock = KBox::new(Superblock::new([7; 16], state, geometry), GFP_KERNEL)?;
        superblock.clean = true;
        superblock.places = Places {
            boot_list: places(BOOT_LISTS, 1),
            map: places(MAPS, 2),
            journal: places(JOURNALS, JOURNAL_BLOCKS),
            ..Places::default()
        };
        Ok(superblock)
    }

    /// What `migrate` leaves: both superblocks, an empty boot list, a map of absent blocks, and an empty journal.
    fn format(disk: &MemoryDisk, superblock: &Superblock) -> Result {
        let bdev = disk.bdev()?;
        let mut buffer = KVec::from_elem(0u8, BUFFER_BYTES, GFP_KERNEL)?;
        write_pair(bdev, superblock, None, &mut buffer)?;
        let block = buffer.get_mut(..BLOCK_LEN).ok_or(EINVAL)?;
        for place in superblock.places.boot_list {
            let header = superblock.header(place.start_bytes);
            BootList::encode(&header, &[], block, crc32c).map_err(unencodable)?;
            bdev.write(place.start_bytes, block)?;
        }
        let tables = Tables::new(superblock.geometry, KVVec::new(), 0)?;
        for place in superblock.places.map {
            for page in 0..2 {
                encode_page(&tables.map(), page, 0, &superblock.uuid, block, crc32c)
                    .map_err(unencodable)?;
                bdev.write(place.start_bytes + page * BLOCK_BYTES, block)?;
            }
        }
        Ok(())
    }

    /// A control area that is loaded.
    struct Area {
        tables: Arc<Tables>,
        journal: Journal,
        // Closed last.
        disk: MemoryDisk,
    }

    impl Area {
        fn load(disk: MemoryDisk) -> Result<Self> {
            let mut buffer = KVec::from_elem(0u8, SUPERBLOCK_LEN, GFP_KERNEL)?;
            let bdev = disk.bdev()?;
            let pair = SUPERBLOCKS.map(|block| block * BLOCK_BYTES);
            let found = read_pair(bdev, pair, &mut buffer).map_err(|_| EIO)?;
            let (tables, journal) = load(bdev.clone(), found).map_err(|_| EIO)?;
            Ok(Self {
                tables,
                journal,
                disk,
            })
        }

        /// One that nobody has attached.
        fn loaded(state: State) -> Result<Self> {
            let disk = MemoryDisk::cached(c"imgstream_kunit")?;
            format(&disk, &*superblock(state)?)?;
            Self::load(disk)
        }

        fn attached() -> Result<Self> {
            let mut area = Self::loaded(State::Streaming)?;
            area.journal.attach(&area.tables)?;
            Ok(area)
        }

        /// After a cut, with a disk that works again.
        fn reloaded(self) -> Result<Self> {
            let Self { disk, journal, .. } = self;
            drop(journal);
            disk.fail_after(usize::MAX);
            Self::load(disk)
        }

        fn change(&self, block: u64) {
            let run = Run::new(block, 1);
            self.tables.map().apply(run, Change::Written);
        }

        fn has(&self, block: u64) -> bool {
            self.tables.map().state(block) == BlockState::Dirty
        }

        fn round(&mut self) -> Result {
            self.journal.round(&self.tables, None, || ())
        }

        /// What the disk is asked while `f` runs.
        fn asked(&mut self, f: impl FnOnce(&mut Self) -> Result) -> Result<KVec<(Op, u64)>> {
            self.disk.watch()?;
            f(self)?;
            Ok(self.disk.asked())
        }
    }

    #[test]
    fn a_round_flushes_before_it_records_and_after_both_copies() -> Result {
        let mut area = Area::attached()?;
        assert!(*area.asked(Area::round)? == [FLUSH]);
        area.change(LAST);
        let [a, b] = JOURNALS.map(write_of);
        assert!(*area.asked(Area::round)? == [FLUSH, a, b, FLUSH]);
        // Nothing is left to record.
        assert!(*area.asked(Area::round)? == [FLUSH]);
        Ok(())
    }

    #[test]
    fn who_waits_is_taken_before_anything_is_looked_at() -> Result {
        let Area {
            tables,
            mut journal,
            disk,
        } = Area::attached()?;
        disk.watch()?;
        let mut asked_before = None;
        journal.round(&tables, None, || {
            asked_before = Some(disk.asked().len());
            tables.map().apply(Run::new(0, 1), Change::Written);
        })?;
        assert_eq!(asked_before, Some(0));
        // What had completed before is covered.
        assert!(tables.map().changed().is_empty());
        drop(journal);
        assert!(Area::load(disk)?.has(0));
        Ok(())
    }

    #[test]
    fn what_a_round_has_recorded_is_there_after_a_cut() -> Result {
        let border = BLOCKS_PER_SEGMENT;
        let table: [&[u64]; 6] = [
            &[0],
            &[LAST],
            &[border - 1, border],
            // In the second piece of the map.
            &[8 * border - 1, 8 * border],
            &[0, LAST],
            // All segments: two transactions.
            &[
                0,
                border,
                2 * border,
                3 * border,
                4 * border,
                5 * border,
                6 * border,
                7 * border,
                8 * border,
                9 * border,
                10 * border,
                LAST,
            ],
        ];
        assert!(every(table, |blocks| survives(blocks) == Ok(true)));
        Ok(())
    }

    /// Whether these blocks, no others, and the counter are known after a cut.
    fn survives(blocks: &[u64]) -> Result<bool> {
        let mut area = Area::attached()?;
        blocks.iter().for_each(|&block| area.change(block));
        area.journal.round(&area.tables, Some(5), || ())?;
        let area = area.reloaded()?;
        let all = (0..=LAST).filter(|&block| area.has(block));
        Ok(all.eq(blocks.iter().copied()) && area.journal.writer.counter() == 5)
    }

    #[test]
    fn a_round_that_fails_says_so_and_loses_nothing_of_before() -> Result {
        // After how many I/Os the disk fails, and whether the change of that round is found.
        let table = [(0, false), (1, false), (2, true), (3, true)];
        assert!(every(table, |&(after, found)| {
            after_failed_round(after) == Ok((true, found, true))
        }));
        Ok(())
    }

    /// Whether the block of the round before and that of the failed round are there, and whether it can be gone on from there.
    fn after_failed_round(after: usize) -> Result<(bool, bool, bool)> {
        let mut area = Area::attached()?;
        area.change(0);
        area.round()?;
        area.change(LAST);
        area.disk.fail_after(after);
        let failed = area.journal.round(&area.tables, Some(5), || ());
        if failed != Err(EIO) || area.journal.writer.counter() != 0 {
            return Err(EINVAL);
        }
        let mut area = area.reloaded()?;
        let found = (area.has(0), area.has(LAST));
        area.journal.attach(&area.tables)?;
        area.change(1);
        area.round()?;
        let area = area.reloaded()?;
        Ok((found.0, found.1, area.has(1) && area.has(LAST) == found.1))
    }

    #[test]
    fn a_full_journal_is_emptied_into_the_map() -> Result {
        let mut area = Area::attached()?;
        let generation = area.journal.superblock().generation;
        for block in 0..20 {
            area.change(block);
            area.round()?;
        }
        assert!(area.journal.superblock().generation > generation + 1);
        let area = area.reloaded()?;
        assert!((0..20).all(|block| area.has(block)) && !area.has(20));
        Ok(())
    }

    #[test]
    fn a_checkpoint_is_due_when_the_journal_is_more_than_half_full() -> Result {
        // Transactions of a quarter of the journal.
        assert!(every(
            [(0, false), (1, false), (2, false), (3, true), (4, true)],
            |&(rounds, due)| was_due(rounds) == Ok(due)
        ));
        Ok(())
    }

    fn was_due(rounds: u64) -> Result<bool> {
        let mut area = Area::attached()?;
        for block in 0..rounds {
            area.change(block);
            area.round()?;
        }
        let asked = area.asked(|area| area.journal.checkpoint_if_due(&area.tables))?;
        Ok(!asked.is_empty())
    }

    #[test]
    fn a_checkpoint_leaves_a_whole_copy_at_any_time() -> Result {
        let mut area = Area::attached()?;
        area.change(0);
        area.change(LAST);
        area.round()?;
        let asked = area.asked(|area| area.journal.make_room(&area.tables))?;
        let [map_a, map_b] = MAPS.map(write_of);
        let [a, b] = SUPERBLOCKS.map(write_of);
        let expected = [FLUSH, map_a, FLUSH, map_b, FLUSH, b, FLUSH, a, FLUSH];
        assert!(*asked == expected);
        Ok(())
    }

    #[test]
    fn a_checkpoint_that_fails_says_so_and_loses_nothing() -> Result {
        assert!(every(0..9, |&after| failed_checkpoint(after) == Ok(true)));
        Ok(())
    }

    fn failed_checkpoint(after: usize) -> Result<bool> {
        let mut area = Area::attached()?;
        area.change(0);
        area.change(LAST);
        area.round()?;
        let generation = area.journal.superblock().generation;
        area.disk.fail_after(after);
        if area.journal.make_room(&area.tables) != Err(EIO) {
            return Ok(false);
        }
        let unchanged = area.journal.superblock().generation == generation;
        let area = area.reloaded()?;
        Ok(unchanged && area.has(0) && area.has(LAST) && !area.has(1))
    }

    #[test]
    fn an_attach_is_noted_before_anything_else() -> Result {
        let mut area = Area::loaded(State::Streaming)?;
        assert!(area.journal.superblock().clean);
        let [a, b] = SUPERBLOCKS.map(write_of);
        let asked = area.asked(|area| area.journal.attach(&area.tables))?;
        assert!(*asked == [b, FLUSH, a, FLUSH]);
        let superblock = area.journal.superblock();
        assert!(!superblock.clean && !superblock.suspect && superblock.generation == 1);
        // Nobody has detached.
        let mut area = area.reloaded()?;
        area.journal.attach(&area.tables)?;
        let superblock = area.journal.superblock();
        assert!(!superblock.clean && superblock.suspect && superblock.generation == 2);
        Ok(())
    }

    #[test]
    fn a_change_of_state_is_believed_when_both_copies_have_it() -> Result {
        // After how many I/Os the disk fails, and the state that is found then.
        let table = [
            (0, State::Streaming),
            (1, State::Committing),
            (2, State::Committing),
            (3, State::Committing),
        ];
        assert!(every(table, |&(after, found)| {
            failed_change(after) == Ok((State::Streaming, found))
        }));
        let mut area = Area::attached()?;
        let asked = area.asked(|area| area.journal.set_state(State::Committing))?;
        let [a, b] = SUPERBLOCKS.map(write_of);
        assert!(*asked == [b, FLUSH, a, FLUSH]);
        assert!(area.journal.superblock().state == State::Committing);
        Ok(())
    }

    /// The state in memory, and the one after a cut.
    fn failed_change(after: usize) -> Result<(State, State)> {
        let mut area = Area::attached()?;
        area.disk.fail_after(after);
        if area.journal.set_state(State::Committing) != Err(EIO) {
            return Err(EINVAL);
        }
        let state = area.journal.superblock().state;
        Ok((state, area.reloaded()?.journal.superblock().state))
    }

    #[test]
    fn only_states_that_may_follow_are_allowed() -> Result {
        let area = Area::attached()?;
        let table = [
            (State::Streaming, true),
            (State::Committing, true),
            (State::RollingBack, true),
            (State::Committed, false),
            (State::Trial, false),
        ];
        assert!(every(table, |&(to, may)| {
            area.journal.may_become(to) == if may { Ok(()) } else { Err(EINVAL) }
        }));
        Ok(())
    }

    #[test]
    fn a_copy_that_is_damaged_is_mended_first_and_once() -> Result {
        let area = Area::loaded(State::Streaming)?;
        let [a, b] = SUPERBLOCKS;
        area.disk
            .data()
            .fill_zero(a as usize * BLOCK_LEN, BLOCK_LEN)?;
        let mut area = area.reloaded()?;
        assert!(area.journal.stale == Some(Copy2::A));
        let mut order = || area.asked(|area| area.journal.mark_clean());
        let (first, second) = (order()?, order()?);
        assert!(*first == [write_of(a), FLUSH, write_of(b), FLUSH]);
        assert!(*second == [write_of(b), FLUSH, write_of(a), FLUSH]);
        assert!(area.reloaded()?.journal.stale.is_none());
        Ok(())
    }

    #[test]
    fn a_clean_detach_is_in_both_copies() -> Result {
        let mut area = Area::attached()?;
        area.journal.mark_clean()?;
        let mut area = area.reloaded()?;
        assert!(area.journal.superblock().clean && area.journal.stale.is_none());
        area.journal.attach(&area.tables)?;
        assert!(!area.journal.superblock().suspect);
        Ok(())
    }

    #[test]
    fn secrets_do_not_stay_in_the_buffer() -> Result {
        let mut area = Area::attached()?;
        for after in [0, 2, usize::MAX] {
            area.disk.fail_after(after);
            let _ = area.journal.mark_clean();
            let bytes = area.journal.buffer.iter().take(SUPERBLOCK_LEN);
            assert!(bytes.copied().all(|byte| byte == 0));
        }
        Ok(())
    }

    #[test]
    fn what_is_committed_is_flushed_and_not_written() -> Result {
        let mut area = Area::attached()?;
        for block in 0..4 {
            area.change(block);
            area.round()?;
        }
        area.journal.set_state(State::Committed)?;
        area.change(LAST);
        let mut taken = 0;
        let asked = area.asked(|area| {
            area.journal.round(&area.tables, Some(9), || taken += 1)?;
            area.journal.checkpoint_if_due(&area.tables)?;
            area.journal.mark_clean()
        })?;
        assert!(*asked == [FLUSH] && taken == 1);
        Ok(())
    }

    #[test]
    fn nothing_is_written_beside_its_place() -> Result {
        let area = Area::attached()?;
        let [place, _] = places(JOURNALS, JOURNAL_BLOCKS);
        let (end, buffer) = (place.len_bytes, BUFFER_BYTES);
        // Where in the place, from where in the buffer, and how much.
        let table = [
            (0, 0, 512, Ok(())),
            (0, 0, end as usize, Ok(())),
            (end - 512, 0, 512, Ok(())),
            (0, buffer - 512, 512, Ok(())),
            (end - 512, 0, 1024, Err(EIO)),
            (end, 0, 512, Err(EIO)),
            (0, 0, end as usize + 512, Err(EIO)),
            (u64::MAX - 511, 0, 512, Err(EIO)),
            (0, buffer - 512, 1024, Err(EIO)),
            (0, usize::MAX, 512, Err(EINVAL)),
        ];
        assert!(every(table, |&(position, from, len, expected)| {
            let watched = area.disk.watch();
            let written = area.journal.write(place, position, from, len);
            let asked = area.disk.asked().len();
            watched.is_ok() && written == expected && asked == usize::from(expected.is_ok())
        }));
        Ok(())
    }
}
