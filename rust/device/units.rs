// SPDX-License-Identifier: GPL-2.0-only

//! Fetches under way: one for a block, however many readers wait for it.
//!
//! A [`Unit`] goes through: asked for -> arrived: readers are answered -> stored, block by block as far as nobody else
//! has claimed them -> writers of parts of blocks and the background are answered -> gone. Its pages are the ones that
//! were received into and are stored from; readers get copies (rule 6). Nothing is claimed and no lock is held while the
//! network is waited for (rule 4).
//!
//! Locks: `Units::list`, then nothing; `Unit::phase`, then nothing. Process context only.

use crate::{
    device::{
        inner::{
            AtomicRun,
            Core,
            PIECE_BLOCKS, //
        },
        local::{
            LocalIo,
            Purpose, //
        },
        waiter::{
            Phase,
            Waiter, //
        },
    },
    kapi::{
        bio::Op,
        blk::SECTOR_BYTES,
        noio::NoIo,
        page::{
            PageBuf,
            PAGE_BYTES, //
        },
    },
    source::{
        Fetch,
        FetchDone,
        Priority, //
    },
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    Ordering, //
};
use imgstream_engine::{
    block::Run,
    fetch::{
        plan,
        Plan, //
    },
    locate::Place,
    sweep::Answer, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        CondVar,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// A fetch.
#[pin_data]
pub(super) struct Unit {
    run: Run,
    /// Whether somebody waits for it, be it since later. Set once.
    urgent: AtomicBool,
    /// Whether the blocks are stored. Not if a bad clean block is read again: its slot may have been written meanwhile.
    store: bool,
    buf: PageBuf,
    #[pin]
    phase: Mutex<Phase>,
    /// From the first to the last block that could not be stored; empty if there is none.
    unstored: AtomicRun,
    /// Stores under way, and one while they are being started.
    storing: AtomicU32,
    #[pin]
    work: Work<Unit>,
    core: Arc<Core>,
}

impl_has_work! { impl HasWork<Self> for Unit { self.work } }

/// All of them.
#[pin_data]
pub(super) struct Units {
    #[pin]
    list: Mutex<KVec<Arc<Unit>>>,
    #[pin]
    fewer: CondVar,
}

impl Units {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_mutex!(KVec::new(), "imgstream:units"),
            fewer <- new_condvar!("imgstream:units"),
        })
    }

    /// Fetches under way.
    pub(super) fn len(&self) -> usize {
        self.list.lock().len()
    }

    /// Waits until at most `count` are under way. Process context.
    pub(super) fn wait_until_at_most(&self, count: usize) {
        let mut list = self.list.lock();
        while list.len() > count {
            self.fewer.wait(&mut list);
        }
    }

    /// What to do for the first blocks of `run`. A unit that does not store is of no use to those who want it stored.
    fn plan(list: &[Arc<Unit>], run: Run, store: bool) -> Plan<&Arc<Unit>> {
        let of_use = list.iter().filter(|unit| unit.store || !store);
        let run = Run::new(run.start, run.blocks.min(PIECE_BLOCKS));
        plan(of_use.map(|unit| (unit, unit.run)), run)
    }

    /// Adds a unit unless another one brings a part of it already.
    fn add(&self, unit: &Arc<Unit>) -> Result<bool> {
        let mut list = self.list.lock();
        let all = unit.run.blocks;
        match Self::plan(&list, unit.run, unit.store) {
            Plan::Start { blocks } if blocks == all => {}
            _ => return Ok(false),
        }
        list.push(unit.clone(), GFP_KERNEL)?;
        Ok(true)
    }

    fn remove(&self, unit: &Arc<Unit>) {
        let mut list = self.list.lock();
        if let Some(index) = list.iter().position(|other| Arc::ptr_eq(other, unit)) {
            // The index was found just now.
            let _ = list.remove(index);
        }
        drop(list);
        self.fewer.notify_all();
    }
}

/// Lets `waiter` wait for the first blocks of `run`, joining a fetch or starting one; how many blocks that are.
/// Process context; does not wait for the network.
pub(super) fn want(
    core: &Arc<Core>,
    run: Run,
    waiter: Waiter,
    priority: Priority,
    store: bool,
) -> Result<u64> {
    loop {
        let plan = match Units::plan(&core.units.list.lock(), run, store) {
            Plan::Join(unit) => Plan::Join(unit.clone()),
            Plan::Start { blocks } => Plan::Start { blocks },
        };
        let blocks = match plan {
            Plan::Join(unit) => {
                unit.hurry(priority);
                return unit.join(run, waiter);
            }
            Plan::Start { blocks } => blocks,
        };
        // Allocated without the lock, so somebody else may be faster: then look again.
        let unit = Unit::new(core, Run::new(run.start, blocks), priority, store)?;
        if core.units.add(&unit)? {
            // Started whether or not the waiter finds room: others may have joined.
            let joined = unit.join(run, waiter);
            unit.start();
            return joined;
        }
    }
}

impl Unit {
    fn new(core: &Arc<Core>, run: Run, priority: Priority, store: bool) -> Result<Arc<Self>> {
        let buf = PageBuf::new(&core.pool, usize::try_from(run.blocks)?)?;
        let waiters = KVec::with_capacity(4, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                run,
                urgent: AtomicBool::new(priority == Priority::Demand),
                store,
                buf,
                phase <- new_mutex!(Phase::Waiting(waiters, KVec::new()), "imgstream:unit"),
                unstored: AtomicRun::new(),
                storing: AtomicU32::new(1),
                work <- new_work!("imgstream:unit"),
                core: core.clone(),
            }),
            GFP_KERNEL,
        )
    }

    fn start(self: Arc<Self>) {
        let urgent = self.urgent.load(Ordering::SeqCst);
        let priority = match urgent {
            true => Priority::Demand,
            false => Priority::Background,
        };
        let at = self.run.start_bytes();
        let fetch = Fetch::new(at, self.buf.clone(), priority, self.clone());
        match (fetch, &self.core.source) {
            (Ok(fetch), Some(source)) => {
                source.fetch(fetch);
                // Whoever joined meanwhile found nothing to hurry.
                if !urgent && self.urgent.load(Ordering::SeqCst) {
                    source.hurry(at);
                }
            }
            (Ok(_), None) => self.clone().fetched(self.buf.clone(), Err(EIO)),
            (Err(error), _) => self.clone().fetched(self.buf.clone(), Err(error)),
        }
    }

    /// Somebody waits for what so far nobody waited for.
    fn hurry(&self, priority: Priority) {
        if priority == Priority::Demand && !self.urgent.swap(true, Ordering::SeqCst) {
            if let Some(source) = &self.core.source {
                source.hurry(self.run.start_bytes());
            }
        }
    }

    /// Adds a waiter for what this unit brings of `run`, from its start on; answers it at once if that is here.
    fn join(&self, run: Run, waiter: Waiter) -> Result<u64> {
        let part = run.intersection(&self.run);
        // Not in the condition below, where the lock would be held to the end.
        let early = self.phase.lock().join(waiter, part)?;
        if let Some((waiter, result)) = early {
            self.answer(&waiter, part, result);
        }
        Ok(part.blocks)
    }

    fn answer(&self, waiter: &Waiter, part: Run, result: Result) {
        waiter.answer(&self.core, part, self.run, result.map(|()| &self.buf));
    }

    /// The same when it is stored, as far as it could be.
    fn answer_stored(&self, waiter: &Waiter, part: Run) {
        let unstored = self.unstored.get();
        match waiter {
            Waiter::Batch(asked) if !unstored.is_empty() => {
                asked.answer(Answer::Unstored(unstored))
            }
            _ => self.answer(waiter, part, Ok(())),
        }
    }

    /// Stores what is still absent and nobody has claimed; the rest is dropped.
    fn store(self: &Arc<Self>) {
        let mut at = self.run.start;
        while at < self.run.end() {
            let Some(piece) = self
                .core
                .locate(at, Run::from_to(at, self.run.end()).blocks)
            else {
                return;
            };
            if piece.place != Place::Absent {
                at = at.saturating_add(piece.blocks);
                continue;
            }
            let taken = self.claim(Run::new(at, piece.blocks));
            if !taken.is_empty() && self.write(taken).is_err() {
                self.core.unclaim(taken);
            }
            // The block behind what was taken is somebody else's, unless the piece ends there.
            let more = u64::from(taken.blocks < piece.blocks);
            at = taken.end().saturating_add(more);
        }
    }

    /// Claims what may be stored from the start of `run` on.
    fn claim(&self, run: Run) -> Run {
        let tables = &self.core.tables;
        let taken = tables.claims().try_claim_absent(&tables.map(), run);
        if taken.blocks < run.blocks {
            // The block behind may have been claimed for a moment.
            self.core.retry.wake();
        }
        taken
    }

    fn write(self: &Arc<Self>, run: Run) -> Result {
        let member = self.core.enter();
        let piece = member.locate(run.start, run.blocks).ok_or(EINVAL)?;
        // Home meanwhile, or being moved: then this is not needed any more, or the commit asks again.
        if piece.place != Place::Absent || piece.blocks < run.blocks || member.is_excluded(run) {
            return Err(EBUSY);
        }
        let offset = Run::from_to(self.run.start, run.start).bytes() as usize;
        let disk = self.core.disk.clone();
        let mut bio = self.core.own.over(
            &disk,
            Op::Write,
            &self.buf,
            offset,
            run.bytes() as usize, //
        )?;
        bio.set_sector(piece.disk_bytes / SECTOR_BYTES);
        self.storing.fetch_add(1, Ordering::Relaxed);
        let purpose = Purpose::Fill(self.clone(), run);
        bio.submit(LocalIo { member, purpose });
        Ok(())
    }

    /// The disk has refused to store these blocks. Any context.
    pub(super) fn not_stored(&self, run: Run) {
        self.unstored.extend(run);
    }

    /// A store has completed, or starting them is through. Any context.
    pub(super) fn part_stored(self: Arc<Self>) {
        if self.storing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let queues = self.core.queues.clone();
            let _ = queues.store.enqueue(self);
        }
    }
}

impl FetchDone for Unit {
    fn fetched(self: Arc<Self>, _buf: PageBuf, result: Result) {
        let (early, late) = self.phase.lock().arrive(result);
        for (waiter, part) in Iterator::chain(early.into_iter(), late) {
            self.answer(&waiter, part, result);
        }
        if result.is_err() {
            self.core
                .counters
                .errors_read
                .fetch_add(1, Ordering::Relaxed);
        } else if self.store && self.core.may_change_state() {
            self.store();
        }
        self.part_stored();
    }
}

impl WorkItem for Unit {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        // Stored by now as far as that went, so most writes are plain writes to a present block.
        let waiters = this.phase.lock().stored();
        for (waiter, part) in &waiters {
            this.answer_stored(waiter, *part);
        }
        this.core.units.remove(&this);
    }
}

const _: () = assert!(PAGE_BYTES == imgstream_proto::disk::BLOCK_LEN);
