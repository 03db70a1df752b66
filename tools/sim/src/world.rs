// SPDX-License-Identifier: GPL-2.0-only

//! The device of the model: what the driver keeps in memory, and its ways to disk and network.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use imgstream_engine::bits::Bits;
use imgstream_engine::block::Run;
use imgstream_engine::claim::Claims;
use imgstream_engine::health::HealthCell;
use imgstream_engine::journal::Writer;
use imgstream_engine::locate::{BootRun, Locator};
use imgstream_engine::map::{Counts, Map};
use imgstream_engine::trust::Trust;
use imgstream_proto::disk::segment::{segments, SEGMENTS_PER_PAGE};
use imgstream_proto::disk::{Copy2, Geometry, Superblock, BLOCK_BYTES, SECTOR_BYTES};

use crate::config::{Config, SECTORS};
use crate::disk::{bytes_of, image, sectors_of, Disk, OpId, Outcome, Sector, POISON};
use crate::exec::until;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::rules::Broken;

/// The checksum that the tools use.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// What is written of the control area while attached.
pub struct Control {
    /// What both superblock copies say.
    pub superblock: Superblock,
    /// The copy that must be written first.
    pub stale: Option<Copy2>,
    /// Where the journal goes on.
    pub writer: Writer,
}

/// Who waits for a flush.
#[derive(Default)]
pub struct Waiters {
    /// Tickets given out.
    pub given: Cell<u64>,
    /// Tickets whose round has ended well.
    pub covered: Cell<u64>,
}

/// See the module.
pub struct World {
    /// What happens in this run.
    pub config: Config,
    /// What is done wrong on purpose.
    pub broken: Broken,
    /// The one source of chance.
    pub rng: Rc<Rng>,
    /// The disk.
    pub disk: RefCell<Disk>,
    /// What may be seen.
    pub oracle: RefCell<Oracle>,
    /// Places.
    pub geometry: Geometry,
    /// The boot list as loaded.
    pub boot: RefCell<Vec<BootRun>>,
    words: Vec<AtomicU64>,
    changed: Vec<AtomicU64>,
    claims: Vec<AtomicU64>,
    pages: Vec<AtomicU64>,
    counts: Counts,
    counter: AtomicU64,
    /// Rule 10.
    pub health: HealthCell,
    /// Rule 3.
    pub trust: Cell<Trust>,
    /// After the attach.
    pub control: RefCell<Option<Control>>,
    /// Rounds, checkpoints and superblock writes exclude each other.
    pub journal_busy: Cell<bool>,
    /// Who waits for a flush.
    pub waiters: Waiters,
    /// Blocks that are being settled.
    pub excluded: Cell<Option<Run>>,
    /// I/O under way that has looked something up, by number.
    lookups: RefCell<BTreeSet<u64>>,
    next_lookup: Cell<u64>,
    /// Blocks that are being fetched.
    pub fetches: RefCell<BTreeSet<u64>>,
    /// What fetches brought, by block.
    pub arrived: RefCell<BTreeMap<u64, Vec<Sector>>>,
    /// Guest workers still at it.
    pub workers: Cell<u64>,
    /// The life is to end with a detach: nobody starts anything new.
    pub stopping: Cell<bool>,
    /// The disk is a plain one now.
    pub committed: Cell<bool>,
    /// The device is there.
    pub attached: Cell<bool>,
    /// Tasks to start.
    pub spawned: RefCell<Vec<crate::exec::Task>>,
}

fn words(count: u64) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl World {
    /// The device before it is attached.
    pub fn new(
        config: Config,
        broken: Broken,
        rng: Rc<Rng>,
        disk: Disk,
        oracle: Oracle,
    ) -> Rc<Self> {
        let blocks = config.image_blocks;
        let pages = segments(blocks).div_ceil(SEGMENTS_PER_PAGE);
        Rc::new(Self {
            geometry: config.geometry(),
            broken,
            rng,
            disk: RefCell::new(disk),
            oracle: RefCell::new(oracle),
            boot: RefCell::new(Vec::new()),
            words: words(Map::words_for(blocks)),
            changed: words(Map::changed_words_for(blocks)),
            claims: words(Claims::words_for(blocks)),
            pages: words(Bits::words_for(pages)),
            counts: Counts::new(),
            counter: AtomicU64::new(0),
            health: HealthCell::new(),
            trust: Cell::new(Trust::Suspect),
            control: RefCell::new(None),
            journal_busy: Cell::new(false),
            waiters: Waiters::default(),
            excluded: Cell::new(None),
            lookups: RefCell::new(BTreeSet::new()),
            next_lookup: Cell::new(0),
            fetches: RefCell::new(BTreeSet::new()),
            arrived: RefCell::new(BTreeMap::new()),
            workers: Cell::new(0),
            stopping: Cell::new(false),
            committed: Cell::new(false),
            attached: Cell::new(false),
            spawned: RefCell::new(Vec::new()),
            config,
        })
    }

    /// Whether this is what the model does wrong.
    pub fn without(&self, rule: Broken) -> bool {
        self.broken == rule
    }

    /// The map.
    pub fn map(&self) -> Map<'_> {
        Map::new(
            self.config.image_blocks,
            &self.words,
            &self.changed,
            &self.counts,
        )
        .expect("the words were made for it")
    }

    /// The claims.
    pub fn claims(&self) -> Claims<'_> {
        Claims::new(self.config.image_blocks, &self.claims).expect("the words were made for it")
    }

    /// Pieces of the map that the journal knows better.
    pub fn pages(&self) -> Bits<'_> {
        Bits::new(&self.pages)
    }

    /// Calls `f` with the locator.
    pub fn locate<T>(&self, f: impl FnOnce(&Locator<'_>) -> T) -> T {
        let boot = self.boot.borrow();
        f(&Locator::new(
            self.map(),
            &boot,
            &self.counter,
            &self.geometry,
        ))
    }

    async fn done(&self, op: OpId) -> Outcome {
        until(|| self.disk.borrow_mut().take_outcome(op)).await
    }

    /// Reads sectors of the disk.
    pub async fn read(&self, start: u64, sectors: u64) -> Outcome {
        let op = self.disk.borrow_mut().read(start, sectors);
        self.done(op).await
    }

    /// Writes sectors of the disk.
    pub async fn write(&self, start: u64, values: &[Sector]) -> Result<(), ()> {
        let op = self.disk.borrow_mut().write(start, values, false);
        self.done(op).await.map(drop)
    }

    /// Flushes the disk.
    pub async fn flush_disk(&self) -> Result<(), ()> {
        let op = self.disk.borrow_mut().flush();
        self.done(op).await.map(drop)
    }

    /// Lets time pass, as much as any disk operation may take.
    pub async fn a_while(&self) {
        let op = self.disk.borrow_mut().wait();
        let _ = self.done(op).await;
    }

    /// Writes bytes of the control area.
    pub async fn write_bytes(&self, start_bytes: u64, bytes: &[u8]) -> Result<(), ()> {
        self.write(start_bytes / SECTOR_BYTES, &sectors_of(bytes))
            .await
    }

    /// Bytes of the control area as they are now.
    pub fn bytes(&self, start_bytes: u64, len_bytes: u64) -> Vec<u8> {
        let disk = self.disk.borrow();
        let start = start_bytes / SECTOR_BYTES;
        bytes_of((start..start + len_bytes / SECTOR_BYTES).map(|sector| disk.peek(sector)))
    }

    /// Asks the image's source for a block. What the target does not deliver is missing from the answer, although it
    /// says that all is well.
    async fn ask(&self, block: u64) -> Vec<Option<Sector>> {
        self.a_while().await;
        let missing = self
            .rng
            .chance(self.config.short)
            .then(|| self.rng.below(SECTORS));
        (0..SECTORS)
            .map(|sector| (missing != Some(sector)).then(|| image(block * SECTORS + sector)))
            .collect()
    }

    /// Fetches a block. Rule 7: what has not come is counted, and the answer thrown away.
    pub async fn fetch(&self, block: u64) -> Vec<Sector> {
        loop {
            let answer = self.ask(block).await;
            if answer.iter().all(Option::is_some) || self.without(Broken::BytesNotCounted) {
                return answer
                    .into_iter()
                    .map(|sector| sector.unwrap_or(POISON))
                    .collect();
            }
        }
    }

    /// Waits until the block is not being settled, and notes that I/O to it is under way from now on.
    pub async fn enter(self: &Rc<Self>, block: u64) -> Lookup {
        until(|| {
            let held = self.excluded.get().is_some_and(|run| run.contains(block));
            (!held).then_some(())
        })
        .await;
        self.enter_read()
    }

    /// Notes that I/O is under way from now on. Reads do not wait for a settle: it only copies what they read, and later
    /// batches drain them before anything is overwritten.
    pub fn enter_read(self: &Rc<Self>) -> Lookup {
        let id = self.next_lookup.get();
        self.next_lookup.set(id + 1);
        self.lookups.borrow_mut().insert(id);
        Lookup {
            world: self.clone(),
            id,
        }
    }

    /// The number of the next I/O; see [`World::drained`].
    pub fn epoch(&self) -> u64 {
        self.next_lookup.get()
    }

    /// Whether all I/O that began before `epoch` has finished.
    pub fn drained(&self, epoch: u64) -> bool {
        self.lookups
            .borrow()
            .first()
            .is_none_or(|first| *first >= epoch)
    }

    /// First sector of a block's slot.
    pub fn slot(&self, block: u64) -> u64 {
        (block + self.config.offset_blocks) * SECTORS
    }

    /// Notes something that must not be.
    pub fn fail(&self, what: String) {
        self.oracle.borrow_mut().fail(what);
    }
}

/// I/O under way.
pub struct Lookup {
    world: Rc<World>,
    id: u64,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.world.lookups.borrow_mut().remove(&self.id);
    }
}

/// Sectors of a place of the disk.
pub fn sectors(bytes: u64) -> u64 {
    bytes / SECTOR_BYTES
}

/// Sectors of a block at home.
pub fn home(block: u64) -> u64 {
    block * (BLOCK_BYTES / SECTOR_BYTES)
}
