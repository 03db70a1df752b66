// SPDX-License-Identifier: GPL-2.0-only

//! Tests of bios of our own and of clones, over a disk in memory.

use kernel::prelude::*;

#[kunit_tests(imgstream_bio_set)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        page::PagePool,
        testing::{
            every,
            note,
            Bench,
            MemoryDisk,
            PAGES, //
        }, //
    };

    const OK: u32 = 0;
    const IOERR: u32 = bindings::BLK_STS_IOERR as u32;
    const BYTES: usize = PAGES * PAGE_BYTES;

    #[test]
    fn own_bios_are_whole_sectors_of_the_buffer() -> Result {
        let bench = Bench::new()?;
        let disk = bench.disk.bdev()?;
        let table = [
            (0, 512, true),
            (0, BYTES, true),
            (512, BYTES - 512, true),
            (BYTES - 512, 512, true),
            (PAGE_BYTES - 512, 1024, true),
            (0, 0, false),
            (0, 511, false),
            (0, 513, false),
            (1, 512, false),
            (0, BYTES + 512, false),
            (BYTES, 512, false),
            (512, BYTES, false),
            (usize::MAX - 511, 512, false),
            (0, usize::MAX - 511, false),
            (usize::MAX - 511, usize::MAX - 511, false),
        ];
        assert!(every(table, |&(offset, len, right)| {
            match bench.set.over(disk, Op::Write, &bench.buf, offset, len) {
                Ok(_) => right,
                Err(error) => !right && error == EINVAL,
            }
        }));
        Ok(())
    }

    #[test]
    fn own_bios_have_at_most_as_many_pages_as_a_bio_can() -> Result {
        const MOST: usize = bindings::BIO_MAX_VECS as usize;
        let bench = Bench::new()?;
        let disk = bench.disk.bdev()?;
        let buf = PageBuf::new(&PagePool::new(MOST + 1)?, MOST + 1)?;
        let table = [
            (0, MOST * PAGE_BYTES, true),
            (PAGE_BYTES, MOST * PAGE_BYTES, true),
            (512, MOST * PAGE_BYTES - 512, true),
            (512, MOST * PAGE_BYTES, false),
            (0, MOST * PAGE_BYTES + 512, false),
        ];
        assert!(every(table, |&(offset, len, right)| {
            bench.set.over(disk, Op::Read, &buf, offset, len).is_ok() == right
        }));
        Ok(())
    }

    #[test]
    fn own_bios_read_or_write() -> Result {
        let bench = Bench::new()?;
        let disk = bench.disk.bdev()?;
        let makes = |op| bench.set.over(disk, op, &bench.buf, 0, 512).is_ok();
        assert!(makes(Op::Read) && makes(Op::Write));
        let others = [Op::Flush, Op::Discard, Op::WriteZeroes, Op::Other];
        assert!(others.into_iter().all(|op| !makes(op)));
        Ok(())
    }

    fn bytes(buf: &PageBuf, offset: usize, len: usize) -> Result<KVec<u8>> {
        let mut bytes = KVec::from_elem(0, len, GFP_KERNEL)?;
        buf.copy_to_slice(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a part of the buffer to a sector and reads it back elsewhere; whether nothing else was touched.
    fn moves(bench: &Bench, offset: usize, len: usize, sector: u64) -> Result<bool> {
        let (disk, data) = (bench.disk.bdev()?, bench.disk.data());
        data.fill_zero(0, data.len())?;
        let mut write = bench.set.over(disk, Op::Write, &bench.buf, offset, len)?;
        write.set_sector(sector);
        if !write.submit_and_wait().is_ok() {
            return Ok(false);
        }
        let mut expected = KVec::from_elem(0u8, data.len(), GFP_KERNEL)?;
        let start = (sector * SECTOR_BYTES) as usize;
        let to = expected.get_mut(start..start + len).ok_or(EINVAL)?;
        bench.buf.copy_to_slice(offset, to)?;
        let back = PageBuf::new(&PagePool::new(PAGES)?, PAGES)?;
        back.fill_zero(0, BYTES)?;
        let mut read = bench.set.over(disk, Op::Read, &back, offset, len)?;
        read.set_sector(sector);
        let status = read.submit_and_wait();
        Ok(status.is_ok()
            && *bytes(data, 0, data.len())? == *expected
            && *bytes(&back, offset, len)? == *bytes(&bench.buf, offset, len)?)
    }

    #[test]
    fn bytes_go_where_they_belong_and_come_back() -> Result {
        let bench = Bench::new()?;
        for at in (0..BYTES).step_by(512) {
            bench
                .buf
                .copy_from_slice(at, &[(at / 512) as u8 + 1; 512])?;
        }
        let table = [
            (0, 512, 0),
            (512, 512, 1),
            (0, BYTES, 8),
            (PAGE_BYTES - 512, 1024, 7),
            (512, BYTES - 1024, 511 - 22 + 1),
        ];
        assert!(every(table, |&(offset, len, sector)| {
            moves(&bench, offset, len, sector) == Ok(true)
        }));
        Ok(())
    }

    /// Writes so many zeroes to a disk of ones; whether they are where they belong, and nowhere else.
    fn zeroes(bench: &Bench, page: &PageBuf, len: usize, sector: u64) -> Result<bool> {
        let (disk, data) = (bench.disk.bdev()?, bench.disk.data());
        for at in (0..data.len()).step_by(512) {
            data.copy_from_slice(at, &[0xff; 512])?;
        }
        let mut write = bench.set.zeroes(disk, page, len)?;
        write.set_sector(sector);
        let written = write.submit_and_wait().is_ok();
        let start = (sector * SECTOR_BYTES) as usize;
        let zeroed = start..start + len;
        let found = bytes(data, 0, data.len())?;
        let mut all = found.iter().enumerate();
        Ok(written && all.all(|(at, &byte)| (byte == 0) == zeroed.contains(&at)))
    }

    #[test]
    fn zeroes_are_written_from_one_page() -> Result {
        let bench = Bench::new()?;
        let page = PageBuf::new(&PagePool::new(1)?, 1)?;
        page.fill_zero(0, PAGE_BYTES)?;
        let table = [
            (512, 0),
            (PAGE_BYTES, 8),
            (PAGE_BYTES + 512, 1),
            (BYTES + 512, 7),
            (9 * PAGE_BYTES - 512, 3),
        ];
        assert!(every(table, |&(len, sector)| {
            zeroes(&bench, &page, len, sector) == Ok(true)
        }));
        let most = bindings::BIO_MAX_VECS as usize * PAGE_BYTES;
        let table = [
            (most, true),
            (most + 512, false),
            (usize::MAX - 511, false),
            (0, false),
            (511, false),
        ];
        let disk = bench.disk.bdev()?;
        assert!(every(table, |&(len, right)| {
            bench.set.zeroes(disk, &page, len).is_ok() == right
        }));
        Ok(())
    }

    #[test]
    fn what_is_done_in_place_of_a_bio_ends_it() -> Result {
        let (bench, below) = (Bench::new()?, MemoryDisk::plain(c"imgstream_below")?);
        below.break_sectors(8..9);
        for (sector, status) in [(0, OK), (8, IOERR)] {
            let (bio, original) = bench.incoming(Op::Write, 2, 2)?;
            let mut own = bench
                .set
                .over(below.bdev()?, Op::Write, &bench.buf, 0, 512)?;
            own.set_sector(sector);
            let (note, ends) = note()?;
            own.instead_of(bio).submit(note);
            assert_eq!((ends.seen(), ends.originals()), ((1, status), 1));
            assert_eq!(original.seen(), (1, status));
        }
        // One that is not sent is not forgotten.
        let (bio, original) = bench.incoming(Op::Write, 2, 2)?;
        let own = bench
            .set
            .over(below.bdev()?, Op::Write, &bench.buf, 0, 512)?;
        drop(own.instead_of(bio));
        assert_eq!(original.seen(), (1, IOERR));
        Ok(())
    }

    #[test]
    fn errors_of_the_disk_are_told_once() -> Result {
        let bench = Bench::new()?;
        bench.disk.break_sectors(8..9);
        // First sector, number, and what becomes of it.
        let table = [
            (0, 8, OK),
            (1, 8, IOERR),
            (8, 1, IOERR),
            (0, 16, IOERR),
            (9, 8, OK),
        ];
        assert!(every(table, |&(sector, sectors, status)| {
            let ends = bench.send(Op::Read, sector, sectors);
            ends.is_ok_and(|ends| ends.seen() == (1, status))
        }));
        let mut bio = bench
            .set
            .over(bench.disk.bdev()?, Op::Read, &bench.buf, 0, 512)?;
        bio.set_sector(8);
        assert!(bio.submit_and_wait() == BlkStatus::IOERR);
        Ok(())
    }

    #[test]
    fn a_bio_keeps_its_pages() -> Result {
        let Bench { set, buf, disk } = Bench::new()?;
        buf.copy_from_slice(0, &[0x3c; 512])?;
        disk.hold(true);
        let (note, ends) = note()?;
        set.over(disk.bdev()?, Op::Write, &buf, 0, 512)?
            .submit(note);
        drop(buf);
        disk.hold(false);
        disk.take().ok_or(EIO)?.submit_again();
        assert_eq!(ends.seen(), (1, OK));
        assert_eq!(*bytes(disk.data(), 0, 512)?, [0x3c; 512]);
        Ok(())
    }

    #[test]
    fn a_clone_goes_elsewhere_and_its_original_ends_with_it() -> Result {
        let (bench, below) = (Bench::new()?, MemoryDisk::plain(c"imgstream_below")?);
        bench.buf.copy_from_slice(0, &[0x5a; 1024])?;
        below.break_sectors(100..101);
        for (sector, status) in [(40, OK), (99, IOERR)] {
            let (bio, original) = bench.incoming(Op::Write, 2, 2)?;
            let clone = bench.set.clone_of(below.bdev()?, bio);
            let mut clone = clone.map_err(|_| ENOMEM)?;
            clone.set_sector(sector);
            let (note, ends) = note()?;
            clone.submit(note);
            assert_eq!((ends.seen(), ends.originals()), ((1, status), 1));
            assert_eq!(original.seen(), (1, status));
        }
        assert_eq!(*bytes(below.data(), 40 * 512, 1024)?, [0x5a; 1024]);
        // Where the original pointed to nothing was written.
        assert!(bytes(bench.disk.data(), 0, 4096)?
            .iter()
            .all(|&byte| byte == 0));
        Ok(())
    }

    #[test]
    fn a_clone_that_is_not_sent_fails_its_original() -> Result {
        let bench = Bench::new()?;
        let (bio, original) = bench.incoming(Op::Write, 0, 1)?;
        let clone = bench.set.clone_of(bench.disk.bdev()?, bio);
        assert_eq!(original.seen().0, 0);
        drop(clone);
        assert_eq!(original.seen(), (1, IOERR));
        assert!(bench.disk.take().is_none());
        Ok(())
    }

    #[test]
    fn what_is_sent_beside_asks_for_no_durability() -> Result {
        let (bench, below) = (Bench::new()?, MemoryDisk::plain(c"imgstream_below")?);
        let (bio, original) = bench.incoming(Op::Write, 9, 1)?;
        let flags = bindings::REQ_PREFLUSH | bindings::REQ_FUA | bindings::REQ_SYNC;
        // SAFETY: Owed here, and nobody else looks at it.
        unsafe { (*bio.as_ptr()).bi_opf |= flags };
        let clone = bench.set.clone_of(below.bdev()?, bio).map_err(|_| ENOMEM)?;
        let (note, ends) = note()?;
        clone.submit_beside_without_durability(note);
        // To the device of the original, not to the disk below.
        let beside = bench.disk.take().ok_or(EIO)?;
        assert!(beside.sector() == 9 && bench.set.has_made(&beside));
        assert!(!beside.is_fua() && !beside.is_preflush() && beside.has(bindings::REQ_SYNC));
        beside.end(BlkStatus::OK);
        assert!(ends.seen() == (1, OK) && original.seen() == (1, OK));
        Ok(())
    }
}
