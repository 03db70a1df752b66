// SPDX-License-Identifier: GPL-2.0-only

//! Tests of requests, from a bio that another disk has got to its end.

use kernel::prelude::*;

#[kunit_tests(imgstream_blk_mq)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        bdev::Bdev,
        blk::{
            disk::Visibility,
            limits::{
                Features,
                Limits, //
            }, //
        },
        page::PagePool,
        sync::{
            new_irq_spinlock,
            IrqSpinLock, //
        },
        testing::{
            begin,
            every,
            note,
            queue,
            until,
            watched,
            Bench,
            Ends,
            Note,
            Watch,
            Watched,
            HANG_MS,
            PAGES,
            SHORT_MS, //
        }, //
    };

    const OK: u32 = 0;
    const IOERR: u32 = bindings::BLK_STS_IOERR as u32;
    const AGAIN: u32 = bindings::BLK_STS_AGAIN as u32;
    const PAGE: u32 = 4096;
    const DEPTH: u32 = 64;

    /// Keeps its requests.
    #[pin_data]
    struct Keep {
        #[pin]
        kept: IrqSpinLock<KVec<Request>>,
        _watched: Watched,
    }

    impl MqDriver for Keep {
        fn queue(this: ArcBorrow<'_, Self>, request: Request) {
            // There is room for as many as there are tags.
            let _ = this.kept.lock().push_within_capacity(request);
        }
    }

    impl Keep {
        fn new() -> Result<(Arc<Self>, Watch)> {
            let (watched, watch) = watched()?;
            let kept = KVec::with_capacity(DEPTH as usize, GFP_KERNEL)?;
            let init = pin_init!(Self {
                kept <- new_irq_spinlock!(kept, c"imgstream:kunit_mq"),
                _watched: watched,
            });
            Ok((Arc::pin_init(init, GFP_KERNEL)?, watch))
        }

        fn count(&self) -> usize {
            self.kept.lock().len()
        }

        /// Waits for the first one, and takes the last.
        fn take(&self) -> Result<Request> {
            until(|| self.count() != 0);
            self.kept.lock().pop().ok_or(EIO)
        }
    }

    fn limits() -> Limits {
        Limits::copied(1 << 20)
            .block_bytes(512, 4096)
            .features(Features::WRITE_CACHE | Features::FUA)
            .discard(1 << 20, 4096)
            .write_zeroes(1 << 20)
    }

    fn add(driver: Arc<Keep>, limits: Limits, depth: u32) -> Result<MqDisk<Keep>> {
        let config = Config {
            name: c"imgstream_mq",
            size_bytes: 1 << 20,
            limits,
            visibility: Visibility::Whole,
            read_only: false,
        };
        MqDisk::add(driver, config, depth)
    }

    /// A disk with a queue, and one from which bios come to it.
    struct Queued {
        mq: MqDisk<Keep>,
        keep: Arc<Keep>,
        set: Arc<BioSet<Note>>,
        from: Bench,
    }

    impl Drop for Queued {
        fn drop(&mut self) {
            // The disk waits for them when it goes.
            let kept = core::mem::take(&mut *self.keep.kept.lock());
            drop(kept);
        }
    }

    impl Queued {
        fn new(depth: u32) -> Result<Self> {
            let (keep, _) = Keep::new()?;
            Ok(Self {
                mq: add(keep.clone(), limits(), depth)?,
                keep,
                set: Arc::pin_init(BioSet::new(4, true), GFP_KERNEL)?,
                from: Bench::new()?,
            })
        }

        /// Sends a bio over that page of the buffer, for that page of the disk; how its clone ends.
        fn send(&self, op: Op, page: usize) -> Result<Arc<Ends>> {
            let Bench { set, buf, disk } = &self.from;
            disk.hold(true);
            let at = page % PAGES * PAGE as usize;
            let mut own = set.over(disk.bdev()?, op, buf, at, PAGE as usize)?;
            own.set_sector(8 * page as u64);
            own.submit(note()?.0);
            let (private, ends) = note()?;
            let bio = disk.take().ok_or(EIO)?;
            self.mq.send(&self.set, bio, private);
            Ok(ends)
        }

        /// One request for all pages of the buffer: as many bios, which are merged.
        fn merged(&self, op: Op) -> Result<Request> {
            let mut plug = bindings::blk_plug::default();
            // SAFETY: The plug stays where it is until it is finished below.
            unsafe { bindings::blk_start_plug(&mut plug) };
            let sent = (0..PAGES).try_for_each(|page| self.send(op, page).map(|_| ()));
            // SAFETY: Started above by this thread.
            unsafe { bindings::blk_finish_plug(&mut plug) };
            sent?;
            self.keep.take()
        }

        fn open(&self) -> Result<Arc<Bdev>> {
            let part0 = self.mq.added.as_ref().ok_or(ENODEV)?.part0()?;
            Ok(Arc::new(Bdev::open_own(part0)?, GFP_KERNEL)?)
        }
    }

    #[test]
    fn a_request_ends_as_it_was_reported() -> Result {
        let queued = Queued::new(DEPTH)?;
        let table: [(&str, fn(&Request), u32); 9] = [
            ("all", |request| request.done(PAGE), OK),
            (
                "in parts",
                |request| {
                    request.done(512);
                    request.done(PAGE - 512);
                },
                OK,
            ),
            ("nothing", |_| (), IOERR),
            ("too little", |request| request.done(PAGE - 1), IOERR),
            ("too much", |request| request.done(PAGE + 1), IOERR),
            ("failed", |request| request.fail(BlkStatus::AGAIN), AGAIN),
            (
                "failed twice",
                |request| {
                    request.fail(BlkStatus::AGAIN);
                    request.fail(BlkStatus::IOERR);
                },
                AGAIN,
            ),
            (
                "failed and done",
                |request| {
                    request.done(PAGE);
                    request.fail(BlkStatus::AGAIN);
                },
                AGAIN,
            ),
            (
                "fine and done",
                |request| {
                    request.fail(BlkStatus::OK);
                    request.done(PAGE);
                },
                OK,
            ),
        ];
        for op in [Op::Read, Op::Write] {
            assert!(every(table, |&(_, report, status)| {
                ended(&queued, op, report) == Ok((1, status))
            }));
        }
        Ok(())
    }

    /// How often a bio ended, and how.
    fn ended(queued: &Queued, op: Op, report: fn(&Request)) -> Result<(u32, u32)> {
        let ends = queued.send(op, 1)?;
        let request = queued.keep.take()?;
        report(&request);
        if ends.seen() != (0, 0) {
            return Err(EINVAL);
        }
        drop(request);
        until(|| ends.seen().0 != 0);
        Ok(ends.seen())
    }

    #[test]
    fn a_request_ends_with_its_last_share() -> Result {
        let queued = Queued::new(DEPTH)?;
        let ends = queued.send(Op::Read, 0)?;
        let request = queued.keep.take()?;
        let shares = [request.clone(), request.clone()];
        request.done(PAGE);
        drop(request);
        let [second, last] = shares;
        drop(second);
        assert_eq!(ends.seen(), (0, 0));
        last.clone().fail(BlkStatus::AGAIN);
        assert_eq!(ends.seen(), (0, 0));
        drop(last);
        assert!(until(|| ends.seen().0 != 0));
        assert_eq!((ends.seen(), ends.originals()), ((1, AGAIN), 1));
        Ok(())
    }

    #[test]
    fn a_request_says_what_is_asked() -> Result {
        let queued = Queued::new(DEPTH)?;
        let (bdev, threads) = (queued.open()?, queue()?);
        // What is done, and the operation, place and length that come of it.
        let table: [(&str, fn(&Bdev) -> Result, Op, u64, u32); 5] = [
            ("flush", Bdev::flush, Op::Flush, 0, 0),
            (
                "read",
                |disk| disk.read(4096, &mut KVec::from_elem(0, 1024, GFP_KERNEL)?),
                Op::Read,
                4096,
                1024,
            ),
            (
                "write",
                |disk| disk.write((1 << 20) - 512, &KVec::from_elem(0, 512, GFP_KERNEL)?),
                Op::Write,
                (1 << 20) - 512,
                512,
            ),
            (
                "zeroes",
                |disk| disk.write_zeroes(0, 1 << 20),
                Op::WriteZeroes,
                0,
                1 << 20,
            ),
            ("discard", discard, Op::Discard, 8192, 4096),
        ];
        for (what, ask, op, offset, len) in table {
            let theirs = bdev.clone();
            let over = begin(&threads, move || {
                let _ = ask(&theirs);
            })?;
            let request = queued.keep.take()?;
            let found = (
                request.op() == op,
                // A flush is of no place.
                op == Op::Flush || request.offset_bytes() == offset,
                request.len_bytes(),
            );
            request.done(len);
            drop(request);
            assert!(every([what], |_| found == (true, true, len)));
            assert!(over.wait_timeout(HANG_MS));
        }
        drop(bdev);
        // SAFETY: In a kernel thread, whose files are closed later.
        unsafe { bindings::flush_delayed_fput() };
        Ok(())
    }

    fn discard(disk: &Bdev) -> Result {
        // SAFETY: Open.
        to_result(unsafe {
            bindings::blkdev_issue_discard(disk.as_ptr(), 16, 8, bindings::GFP_NOIO)
        })
    }

    /// Bytes that tell where they are from.
    fn pattern(len: usize) -> Result<KVec<u8>> {
        let mut bytes = KVec::with_capacity(len, GFP_KERNEL)?;
        for at in 0..len {
            bytes.push((at % 251) as u8 + 1, GFP_KERNEL)?;
        }
        Ok(bytes)
    }

    fn buffer(bytes: &[u8]) -> Result<PageBuf> {
        let pages = bytes.len().div_ceil(PAGE as usize);
        let buf = PageBuf::new(&PagePool::new(pages)?, pages)?;
        buf.copy_from_slice(0, bytes)?;
        Ok(buf)
    }

    const BYTES: u32 = PAGES as u32 * PAGE;

    /// Where in the request, where in the buffer, and how much.
    const COPIES: [(u32, usize, u32); 8] = [
        (0, 0, BYTES),
        (0, 0, 1),
        (PAGE - 1, 0, 2),
        (PAGE, 0, PAGE),
        (PAGE, 5, 1),
        (2 * PAGE, 0, PAGE),
        (100, 4000, 2 * PAGE),
        (BYTES - 1, 0, 1),
    ];

    #[test]
    fn what_is_copied_in_comes_to_its_place() {
        assert!(every(COPIES, |&(at, from, len)| copied_in(at, from, len)
            == Ok(true)));
    }

    fn copied_in(at: u32, from: usize, len: u32) -> Result<bool> {
        let queued = Queued::new(DEPTH)?;
        let buf = &queued.from.buf;
        buf.fill_zero(0, buf.len())?;
        let request = queued.merged(Op::Read)?;
        let bytes = pattern(BYTES as usize)?;
        request.copy_in(at, &buffer(&bytes)?, from, len)?;
        let (at, len) = (at as usize, len as usize);
        let mut expected = KVec::from_elem(0, BYTES as usize, GFP_KERNEL)?;
        let place = expected.get_mut(at..at + len).ok_or(EINVAL)?;
        place.copy_from_slice(bytes.get(from..from + len).ok_or(EINVAL)?);
        let mut found = KVec::from_elem(0xee, BYTES as usize, GFP_KERNEL)?;
        buf.copy_to_slice(0, &mut found)?;
        Ok(*found == *expected && request.len_bytes() == BYTES)
    }

    #[test]
    fn what_is_copied_out_comes_from_its_place() {
        assert!(every(COPIES, |&(at, to, len)| copied_out(at, to, len) == Ok(true)));
    }

    fn copied_out(at: u32, to: usize, len: u32) -> Result<bool> {
        let queued = Queued::new(DEPTH)?;
        let bytes = pattern(BYTES as usize)?;
        queued.from.buf.copy_from_slice(0, &bytes)?;
        let request = queued.merged(Op::Write)?;
        let zeroes = KVec::from_elem(0, BYTES as usize, GFP_KERNEL)?;
        let buf = buffer(&zeroes)?;
        request.copy_out(at, &buf, to, len)?;
        let (at, len) = (at as usize, len as usize);
        let mut expected = zeroes;
        let place = expected.get_mut(to..to + len).ok_or(EINVAL)?;
        place.copy_from_slice(bytes.get(at..at + len).ok_or(EINVAL)?);
        let mut found = KVec::from_elem(0xee, BYTES as usize, GFP_KERNEL)?;
        buf.copy_to_slice(0, &mut found)?;
        Ok(*found == *expected)
    }

    #[test]
    fn nothing_is_copied_beyond_the_end() -> Result {
        let queued = Queued::new(DEPTH)?;
        let request = queued.merged(Op::Read)?;
        let buf = buffer(&pattern(BYTES as usize + 1)?)?;
        let table = [
            (BYTES, 1),
            (BYTES - 1, 2),
            (0, BYTES + 1),
            (u32::MAX, 1),
            (1, u32::MAX),
        ];
        assert!(every(table, |&(at, len)| {
            request.copy_in(at, &buf, 0, len) == Err(EINVAL)
                && request.copy_out(at, &buf, 0, len) == Err(EINVAL)
        }));
        assert!(request.copy_in(BYTES, &buf, 0, 0).is_ok());
        Ok(())
    }

    #[test]
    fn as_many_writes_are_taken_as_there_are_tags() -> Result {
        let queued = Arc::new(Queued::new(DEPTH)?, GFP_KERNEL)?;
        let (theirs, threads) = (queued.clone(), queue()?);
        let over = begin(&threads, move || {
            for page in 0..DEPTH as usize {
                let _ = theirs.send(Op::Write, page);
            }
        })?;
        assert!(until(|| queued.keep.count() == DEPTH as usize));
        assert!(over.wait_timeout(HANG_MS));
        Ok(())
    }

    #[test]
    fn who_finds_no_tag_waits_for_the_end_of_a_request() -> Result {
        let queued = Arc::new(Queued::new(2)?, GFP_KERNEL)?;
        let (theirs, threads) = (queued.clone(), queue()?);
        let over = begin(&threads, move || {
            for page in 0..3 {
                let _ = theirs.send(Op::Write, page);
            }
        })?;
        assert!(until(|| queued.keep.count() == 2));
        assert!(!over.wait_timeout(SHORT_MS) && queued.keep.count() == 2);
        drop(queued.keep.take()?);
        assert!(over.wait_timeout(HANG_MS));
        assert!(until(|| queued.keep.count() == 2));
        Ok(())
    }

    #[test]
    fn the_driver_goes_with_its_disk_or_if_there_is_none() {
        let table: [(&str, fn() -> Limits, u32, bool); 3] = [
            ("fine", limits, 1, true),
            ("no tags", limits, 0, false),
            (
                "no block size",
                || limits().block_bytes(511, 4096),
                1,
                false,
            ),
        ];
        assert!(every(table, |&(_, limits, depth, fine)| {
            let Ok((keep, gone)) = Keep::new() else {
                return false;
            };
            let disk = add(keep, limits(), depth);
            let kept = disk.is_ok() == fine && gone.is_gone() != fine;
            drop(disk);
            kept && gone.is_gone()
        }));
    }
}
