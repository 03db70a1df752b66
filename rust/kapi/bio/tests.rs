// SPDX-License-Identifier: GPL-2.0-only

//! Tests of bios that came in.

#[kernel::prelude::kunit_tests(imgstream_bio)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        page::PagePool,
        testing::{
            every,
            Bench, //
        }, //
    };
    use kernel::{
        prelude::*,
        sync::Arc, //
    };

    const OK: u32 = 0;
    const IOERR: u32 = bindings::BLK_STS_IOERR as u32;
    const AGAIN: u32 = bindings::BLK_STS_AGAIN as u32;

    #[test]
    fn operations_are_told_by_the_low_bits() {
        let table = [
            (bindings::req_op_REQ_OP_READ, Op::Read),
            (bindings::req_op_REQ_OP_WRITE, Op::Write),
            (bindings::req_op_REQ_OP_FLUSH, Op::Flush),
            (bindings::req_op_REQ_OP_DISCARD, Op::Discard),
            (bindings::req_op_REQ_OP_WRITE_ZEROES, Op::WriteZeroes),
            (bindings::req_op_REQ_OP_SECURE_ERASE, Op::Other),
            (bindings::req_op_REQ_OP_ZONE_RESET, Op::Other),
        ];
        let flags = bindings::REQ_FUA | bindings::REQ_PREFLUSH | bindings::REQ_SYNC;
        assert!(table
            .into_iter()
            .all(|(raw, op)| { Op::from_flags(raw) == op && Op::from_flags(raw | flags) == op }));
    }

    /// What a bio is asked, in the order of [`FLAGS`].
    fn answers(bio: &Bio) -> [bool; 5] {
        [
            bio.is_preflush(),
            bio.is_fua(),
            bio.is_nowait(),
            bio.is_readahead(),
            bio.is_marked(),
        ]
    }

    const FLAGS: [bindings::blk_opf_t; 5] = [
        bindings::REQ_PREFLUSH,
        bindings::REQ_FUA,
        bindings::REQ_NOWAIT,
        bindings::REQ_RAHEAD,
        bindings::REQ_DRV,
    ];

    fn set_flags(bio: &Bio, flags: bindings::blk_opf_t) {
        // SAFETY: Owed here, and nobody else looks at it.
        unsafe { (*bio.as_ptr()).bi_opf |= flags };
    }

    #[test]
    fn each_flag_is_answered_by_itself() -> Result {
        let bench = Bench::new()?;
        assert!(every(0..FLAGS.len(), |&index| {
            let Ok((bio, _)) = bench.incoming(Op::Write, 0, 1) else {
                return false;
            };
            let before = answers(&bio);
            set_flags(&bio, FLAGS.get(index).copied().unwrap_or(0));
            let mut expected = [false; 5];
            expected
                .iter_mut()
                .skip(index)
                .take(1)
                .for_each(|flag| *flag = true);
            before == [false; 5] && answers(&bio) == expected
        }));
        Ok(())
    }

    #[test]
    fn a_mark_and_a_flush_that_is_done_change_nothing_else() -> Result {
        let bench = Bench::new()?;
        let (mut bio, _) = bench.incoming(Op::Write, 5, 7)?;
        set_flags(&bio, FLAGS.into_iter().fold(0, |all, flag| all | flag));
        bio.clear_preflush();
        assert_eq!(answers(&bio), [false, true, true, true, true]);
        assert!(bio.op() == Op::Write && (bio.sector(), bio.sectors()) == (5, 7));
        let (mut other, _) = bench.incoming(Op::Read, 0, 1)?;
        other.mark();
        assert_eq!(answers(&other), [false, false, false, false, true]);
        assert!(other.op() == Op::Read);
        Ok(())
    }

    #[test]
    fn a_bio_ends_once_whatever_is_done_with_it() -> Result {
        let bench = Bench::new()?;
        let table: [(fn(Bio), u32); 6] = [
            (|bio| bio.end(BlkStatus::OK), OK),
            (|bio| bio.end(BlkStatus::IOERR), IOERR),
            (|bio| bio.end(BlkStatus::AGAIN), AGAIN),
            (|bio| bio.end_zeroed(), OK),
            // Forgotten.
            (drop, IOERR),
            // A part of it had failed before.
            (
                |bio| {
                    // SAFETY: Owed here, and nobody else looks at it.
                    unsafe { (*bio.as_ptr()).bi_status = BlkStatus::AGAIN.as_raw() };
                    bio.end(BlkStatus::OK);
                },
                AGAIN,
            ),
        ];
        assert!(every(table, |&(end, status)| {
            let Ok((bio, ends)) = bench.incoming(Op::Read, 0, 1) else {
                return false;
            };
            let before = ends.seen();
            end(bio);
            before == (0, OK) && ends.seen() == (1, status)
        }));
        Ok(())
    }

    #[test]
    fn zeroes_go_to_the_bytes_that_are_read() -> Result {
        let bench = Bench::new()?;
        bench.buf.copy_from_slice(0, &[0xff; 1536])?;
        let (bio, _) = bench.incoming(Op::Read, 0, 2)?;
        bio.end_zeroed();
        let mut bytes = [0; 1536];
        bench.buf.copy_to_slice(0, &mut bytes)?;
        let (zeroed, rest) = bytes.split_at(1024);
        assert!(zeroed.iter().all(|&byte| byte == 0) && rest.iter().all(|&byte| byte == 0xff));
        Ok(())
    }

    #[test]
    fn the_data_of_a_write_is_copied_to_its_place() -> Result {
        let bench = Bench::new()?;
        bench.buf.copy_from_slice(0, &[0x5a; 1536])?;
        let page = PageBuf::new(&PagePool::new(1)?, 1)?;
        page.fill_zero(0, page.len())?;
        let (bio, _) = bench.incoming(Op::Write, 0, 3)?;
        assert!(bio.copy_out(&page, 512).is_ok());
        let mut bytes = KVec::from_elem(0u8, page.len(), GFP_KERNEL)?;
        page.copy_to_slice(0, &mut bytes)?;
        let (before, rest) = bytes.split_at(512);
        let (data, behind) = rest.split_at(1536);
        assert!(data.iter().all(|&byte| byte == 0x5a));
        assert!([before, behind]
            .iter()
            .all(|part| part.iter().all(|&byte| byte == 0)));
        // Not all of it fits there; a read has no data.
        assert_eq!(bio.copy_out(&page, page.len() - 1024), Err(EINVAL));
        let (bio, _) = bench.incoming(Op::Read, 0, 1)?;
        assert_eq!(bio.copy_out(&page, 0), Err(EINVAL));
        Ok(())
    }

    /// Splits a bio of 8 sectors; whether both parts are right, and end as they should.
    fn splits(bench: &Bench, at: u32, with: [BlkStatus; 2], expected: u32) -> Result<bool> {
        let (bio, ends) = bench.incoming(Op::Write, 16, 8)?;
        let front = bio.split_front(at, &bench.set).ok_or(EIO)?;
        let rest = bench.disk.take().ok_or(EIO)?;
        let places = [&front, &rest].map(|bio| (bio.sector(), bio.sectors()));
        let [first, second] = with;
        front.end(first);
        let between = ends.seen();
        rest.end(second);
        let right = places == [(16, at), (16 + u64::from(at), 8 - at)];
        Ok(right && between.0 == 0 && ends.seen() == (1, expected))
    }

    #[test]
    fn a_bio_is_split_anywhere_and_ends_with_its_last_part() -> Result {
        let bench = Bench::new()?;
        let good = [BlkStatus::OK; 2];
        assert!(every(1..8, |&at| splits(&bench, at, good, OK) == Ok(true)));
        Ok(())
    }

    #[test]
    fn an_error_of_any_part_is_the_whole_bios() -> Result {
        let bench = Bench::new()?;
        let table = [
            ([BlkStatus::IOERR, BlkStatus::OK], IOERR),
            ([BlkStatus::OK, BlkStatus::IOERR], IOERR),
            ([BlkStatus::AGAIN, BlkStatus::AGAIN], AGAIN),
        ];
        assert!(table
            .into_iter()
            .all(|(with, expected)| splits(&bench, 3, with, expected) == Ok(true)));
        Ok(())
    }

    #[test]
    fn one_place_in_reserve_is_enough_for_any_number_of_parts() -> Result {
        let bench = Bench::new()?;
        let set = Arc::pin_init(BioSet::<()>::new(1, false), GFP_KERNEL)?;
        let (mut bio, ends) = bench.incoming(Op::Write, 0, 24)?;
        for sector in 0..23 {
            let front = bio.split_front(1, &set).ok_or(EIO)?;
            let right = set.has_made(&front) && front.sector() == sector;
            front.end(BlkStatus::OK);
            bio = bench.disk.take().ok_or(EIO)?;
            assert!(right && !set.has_made(&bio) && ends.seen().0 == 0);
        }
        bio.end(BlkStatus::OK);
        assert_eq!(ends.seen(), (1, OK));
        Ok(())
    }

    #[test]
    fn what_is_submitted_again_comes_again() -> Result {
        let bench = Bench::new()?;
        let (bio, ends) = bench.incoming(Op::Write, 3, 2)?;
        bio.submit_again();
        let again = bench.disk.take().ok_or(EIO)?;
        assert!((again.sector(), again.sectors()) == (3, 2) && ends.seen().0 == 0);
        bench.disk.hold(false);
        again.submit_again();
        assert_eq!(ends.seen(), (1, OK));
        Ok(())
    }

    #[test]
    fn lists_keep_the_order() -> Result {
        let bench = Bench::new()?;
        let mut list = BioList::new();
        assert!(list.is_empty() && list.pop().is_none());
        for round in [1, 3] {
            for sector in 0..round {
                let (bio, _) = bench.incoming(Op::Read, sector, 1)?;
                list.push(bio);
            }
            let mut taken = list.take();
            assert!(list.is_empty() && !taken.is_empty());
            for sector in 0..round {
                let found = taken.pop().map(|bio| bio.sector());
                assert_eq!(found, Some(sector));
            }
            assert!(taken.is_empty() && taken.pop().is_none());
        }
        Ok(())
    }

    #[test]
    fn a_list_that_is_forgotten_ends_its_bios() -> Result {
        let bench = Bench::new()?;
        let mut list = BioList::new();
        let mut all = KVec::new();
        for sector in 0..3 {
            let (bio, ends) = bench.incoming(Op::Read, sector, 1)?;
            list.push(bio);
            all.push(ends, GFP_KERNEL)?;
        }
        drop(list);
        assert!(all.iter().all(|ends| ends.seen() == (1, IOERR)));
        Ok(())
    }
}
