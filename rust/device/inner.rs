// SPDX-License-Identifier: GPL-2.0-only

//! What all parts of the device share, used in epochs: who is inside of an epoch may look locations up and use them.

use crate::{
    device::{
        durable::Whole,
        head::Streamed,
        local::LocalIo,
        retry::Retry,
        units::Units, //
    },
    kapi::{
        bdev::Bdev,
        bio::BioSet,
        blk::{
            BlkStatus,
            SECTOR_BYTES, //
        },
        epoch::{
            Epochs,
            Guard, //
        },
        page::{
            PageBuf,
            PagePool, //
        },
        workqueue::Queue, //
    },
    source::Source,
    store::{
        tables::Tables,
        Store, //
    },
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU64,
    Ordering, //
};
use imgstream_engine::{
    block::Run,
    locate::Piece,
    trust::Trust, //
};
use imgstream_proto::disk::BLOCK_BYTES;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Sectors of a block.
pub(super) const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;
/// Blocks that are fetched, or moved, in one piece at most: a mebibyte.
pub(super) const PIECE_BLOCKS: u64 = 256;
/// Pages kept in reserve for what is moved: one piece.
const RESERVE_MOVES: usize = PIECE_BLOCKS as usize;
/// The same for fetches: two pieces, as a commit keeps one that it had to fetch until it has moved it, while it and others
/// fetch more; and the block of zeroes.
const RESERVE_FETCHES: usize = 2 * PIECE_BLOCKS as usize + 1;
/// Pages kept in reserve for writes that are merged, one each: a reserve of their own, as what they would wait for may
/// be freed only when they are through, or when the network is back.
const RESERVE_MERGES: usize = 32;
/// Bios kept in reserve in each set.
pub(super) const RESERVE_BIOS: u32 = 64;

/// The shared part, in epochs.
pub(super) type Core = Epochs<Inner>;
/// Membership in an epoch.
pub(super) type Member = Guard<Inner>;

/// Counters that only grow.
#[derive(Default)]
pub(super) struct Counters {
    /// Bytes of fetched data stored.
    pub(super) stored_bytes: AtomicU64,
    /// Reads of the disk or of the repository that failed.
    pub(super) errors_read: AtomicU64,
    /// Writes to the disk that failed.
    pub(super) errors_write: AtomicU64,
    /// Guest I/O seen by the head; its growth is what the background work is paced by.
    pub(super) guest_ios: AtomicU64,
}

/// The work queues of the device. The device drops them last, after everything that could use them is idle.
pub(super) struct Queues {
    /// What is for the stream queue and waits for its tags.
    pub(super) feed: Queue,
    /// Requests of the stream queue.
    pub(super) stream: Queue,
    /// Bios that have to be submitted again. Nobody here waits for the network.
    pub(super) again: Queue,
    /// The end of fetches that were stored.
    pub(super) store: Queue,
    /// Fill and commit.
    pub(super) background: Queue,
}

impl Queues {
    pub(super) fn new() -> Result<Arc<Self>> {
        let queues = Self {
            feed: Queue::new(c"imgstream_feed")?,
            stream: Queue::new(c"imgstream_stream")?,
            again: Queue::new(c"imgstream_again")?,
            store: Queue::new(c"imgstream_store")?,
            background: Queue::new(c"imgstream_bg")?,
        };
        Ok(Arc::new(queues, GFP_KERNEL)?)
    }
}

/// The shared part.
#[pin_data]
pub(super) struct Inner {
    /// The disk.
    pub(super) disk: Arc<Bdev>,
    /// Map, claims, boot list, counter.
    pub(super) tables: Arc<Tables>,
    /// What makes states durable.
    pub(super) store: Arc<Store>,
    /// The repository; none if nothing was absent at attach.
    pub(super) source: Option<Source>,
    /// Whether clean blocks may be fetched again.
    pub(super) trust: Trust,
    /// Work queues.
    pub(super) queues: Arc<Queues>,
    /// Bios that wait for something.
    pub(super) retry: Arc<Retry>,
    /// Fetches under way.
    #[pin]
    pub(super) units: Units,
    /// Pages for them.
    pub(super) pool: Arc<PagePool>,
    /// Pages for writes that are merged.
    pub(super) merges: Arc<PagePool>,
    /// Pages for writes to parts of blocks of zeroes, one each: a reserve of their own, as those of `merges` may be held for
    /// as long as a batch of a commit takes.
    pub(super) pads: Arc<PagePool>,
    /// Pages for what a commit moves: one piece. Those of a fetch it would wait for as long as the network is dead.
    pub(super) moves: Arc<PagePool>,
    /// One block of zeroes.
    pub(super) zeroes: PageBuf,
    /// Front parts of bios that were split; only for as long as the disk takes.
    #[pin]
    pub(super) splits: BioSet<()>,
    /// The same of reads, which wait for the network where the disk cannot read.
    #[pin]
    pub(super) read_splits: BioSet<()>,
    /// The same of what goes to the stream queue, and may wait there for the network.
    #[pin]
    pub(super) stream_splits: BioSet<()>,
    /// Clones sent to the stream queue, where they may wait for the network. Only the feeder waits for one, as for a tag.
    #[pin]
    pub(super) streamed: BioSet<Streamed>,
    /// Clones sent to the disk.
    #[pin]
    pub(super) clones: BioSet<LocalIo>,
    /// Copies of writes that have to be durable at completion, without that demand; see [`durable`](super::durable).
    #[pin]
    pub(super) wholes: BioSet<Whole>,
    /// The same of what is merged, and may wait for the network.
    #[pin]
    pub(super) merged_wholes: BioSet<Whole>,
    /// Bios over our own pages.
    #[pin]
    pub(super) own: BioSet<LocalIo>,
    /// The blocks that `settle` is moving.
    excluded: AtomicRun,
    /// Set when the repository is not needed any more.
    pub(super) independent: AtomicBool,
    /// Counters.
    pub(super) counters: Counters,
}

impl Inner {
    /// Puts the parts together.
    pub(super) fn new(
        disk: Arc<Bdev>,
        store: Arc<Store>,
        source: Option<Source>,
        trust: Trust,
        queues: Arc<Queues>,
        retry: Arc<Retry>,
    ) -> Result<impl PinInit<Self, Error>> {
        let pool = PagePool::with_longest(RESERVE_FETCHES, PIECE_BLOCKS as usize)?;
        let zeroes = PageBuf::new(&pool, 1)?;
        zeroes.fill_zero(0, zeroes.len())?;
        let tables = store.tables().clone();
        let independent = AtomicBool::new(source.is_none());
        Ok(try_pin_init!(Self {
            disk,
            tables,
            store,
            source,
            trust,
            queues,
            retry,
            units <- Units::new(),
            pool,
            merges: PagePool::new(RESERVE_MERGES)?,
            pads: PagePool::new(RESERVE_MERGES)?,
            moves: PagePool::new(RESERVE_MOVES)?,
            zeroes,
            splits <- BioSet::new(RESERVE_BIOS, false),
            read_splits <- BioSet::new(RESERVE_BIOS, false),
            stream_splits <- BioSet::new(RESERVE_BIOS, false),
            streamed <- BioSet::new(RESERVE_BIOS, false),
            clones <- BioSet::new(RESERVE_BIOS, false),
            wholes <- BioSet::new(RESERVE_BIOS, false),
            merged_wholes <- BioSet::new(RESERVE_BIOS, false),
            own <- BioSet::new(RESERVE_BIOS, true),
            excluded: AtomicRun::new(),
            independent,
            counters: Counters::default(),
        }))
    }

    /// Where a block is; see `Locator::locate`. Only members of an epoch may act on the answer.
    pub(super) fn locate(&self, block: u64, max_blocks: u64) -> Option<Piece> {
        self.tables.locator().locate(block, max_blocks)
    }

    /// Whether states may change and be recorded: rule 10.
    pub(super) fn may_change_state(&self) -> bool {
        self.tables.health.get().may_change_state()
    }

    /// Whether the repository answers right now.
    pub(super) fn connected(&self) -> bool {
        self.source.as_ref().is_some_and(Source::ready)
    }

    /// Keeps guest writes out of `run` from the next epoch on; an empty run keeps nothing out.
    pub(super) fn exclude(&self, run: Run) {
        self.excluded.set(run);
    }

    /// Whether `settle` is at work on a part of `run`. For members of an epoch only: who entered after `exclude` sees
    /// it, and who entered before is waited for.
    pub(super) fn is_excluded(&self, run: Run) -> bool {
        self.excluded.get().overlaps(&run)
    }

    /// Gives the claim of a run back: who waits for it tries again. Any context.
    pub(super) fn unclaim(&self, run: Run) {
        self.tables.claims().release_run(run);
        self.retry.wake();
    }
}

/// A run of less than 2^20 blocks in one word, so that nobody sees one half of an old and one half of a new one.
pub(super) struct AtomicRun(AtomicU64);

const LEN_BITS: u32 = 20;
const LEN_MASK: u64 = (1 << LEN_BITS) - 1;

impl AtomicRun {
    /// The empty run.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Changes it. Any context.
    pub(super) fn set(&self, run: Run) {
        self.0.store(pack(run), Ordering::SeqCst);
    }

    /// Makes it reach over `run`, too. Any context.
    pub(super) fn extend(&self, run: Run) {
        let mut old = self.0.load(Ordering::SeqCst);
        loop {
            let new = pack(unpack(old).hull(&run));
            match self
                .0
                .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// What it is. Any context.
    pub(super) fn get(&self) -> Run {
        unpack(self.0.load(Ordering::SeqCst))
    }
}

fn pack(run: Run) -> u64 {
    if run.is_empty() {
        return 0;
    }
    (run.start << LEN_BITS) | (run.blocks & LEN_MASK)
}

fn unpack(packed: u64) -> Run {
    Run::new(packed >> LEN_BITS, packed & LEN_MASK)
}

/// The blocks that a range of sectors touches.
pub(super) fn covering(sector: u64, sectors: u32) -> Run {
    let end = sector.saturating_add(sectors.into());
    Run::from_to(sector / BLOCK_SECTORS, end.div_ceil(BLOCK_SECTORS))
}

/// The status of an error, and of a sum that does not work out.
pub(super) fn status(result: Result) -> BlkStatus {
    BlkStatus::from(result)
}

#[kunit_tests(imgstream_inner)]
mod tests {
    use super::*;
    use crate::kapi::testing::{
        begin,
        every,
        queue,
        HANG_MS, //
    };

    /// The largest block that a run can start at.
    const LAST: u64 = u64::MAX >> LEN_BITS;

    #[test]
    fn a_run_in_a_word_is_the_run() {
        let table = [
            Run::new(0, 1),
            Run::new(0, LEN_MASK),
            Run::new(1, 1),
            Run::new(LEN_MASK, PIECE_BLOCKS),
            Run::new(LAST, 1),
            Run::new(LAST, LEN_MASK),
        ];
        assert!(every(table, |&run| {
            let word = AtomicRun::new();
            let was_empty = word.get().is_empty();
            word.set(run);
            let is_set = word.get() == run;
            word.set(Run::new(run.start, 0));
            was_empty && is_set && word.get().is_empty()
        }));
    }

    #[test]
    fn a_run_reaches_over_all_it_was_extended_by() {
        let none = Run::new(0, 0);
        let table = [
            (none, none, none),
            (none, Run::new(5, 2), Run::new(5, 2)),
            (Run::new(5, 2), none, Run::new(5, 2)),
            (Run::new(5, 2), Run::new(7, 1), Run::new(5, 3)),
            (Run::new(5, 2), Run::new(20, 1), Run::new(5, 16)),
            (Run::new(5, 2), Run::new(0, 1), Run::new(0, 7)),
            (Run::new(5, 9), Run::new(6, 1), Run::new(5, 9)),
        ];
        assert!(every(table, |&(first, second, both)| {
            let word = AtomicRun::new();
            word.extend(first);
            word.extend(second);
            word.get() == both
        }));
    }

    #[test]
    fn nothing_that_two_threads_extend_by_is_lost() -> Result {
        const TIMES: u64 = 500;
        let queue = queue()?;
        let word = Arc::new(AtomicRun::new(), GFP_KERNEL)?;
        let threads = [1, -1].map(|direction: i64| {
            let word = word.clone();
            begin(&queue, move || {
                for step in 0..TIMES {
                    let start = TIMES.wrapping_add_signed(direction * step as i64);
                    word.extend(Run::new(start, 1));
                }
            })
        });
        for over in threads {
            assert!(over?.wait_timeout(HANG_MS));
        }
        assert_eq!(word.get(), Run::from_to(1, 2 * TIMES));
        Ok(())
    }

    #[test]
    fn sectors_are_covered_by_whole_blocks() {
        let table = [
            ((0, 1), Run::new(0, 1)),
            ((0, 8), Run::new(0, 1)),
            ((0, 9), Run::new(0, 2)),
            ((7, 1), Run::new(0, 1)),
            ((7, 2), Run::new(0, 2)),
            ((8, 8), Run::new(1, 1)),
            ((8, 16), Run::new(1, 2)),
            ((15, 10), Run::new(1, 3)),
            ((8, 0), Run::new(1, 0)),
            ((8, u32::MAX), Run::new(1, 1 << 29)),
        ];
        assert!(every(table, |&((sector, sectors), run)| {
            covering(sector, sectors) == run
        }));
    }
}
