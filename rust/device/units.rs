// SPDX-License-Identifier: GPL-2.0-only

//! Fetches under way: one for a block, however many readers wait for it.
//!
//! A [`Unit`] goes through: asked for -> arrived: readers are answered -> stored, block by block as far as nobody else
//! has claimed them -> gone: writers of parts of blocks and the background are answered; or: asked for -> failed -> gone:
//! all are answered, and those whom the failure may not concern ask again. The pages are the ones that were received into
//! and are stored from; readers get copies (rule 6). Nothing is claimed and no lock is held while the network is waited for
//! (rule 4).
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
            Joined,
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
        is_refusal,
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

/// A fetch that is under way; or a new one, with what starts it.
type Found = (Arc<Unit>, Option<KBox<Fetch>>);

/// Lets `waiter` wait for the first blocks of `run`, joining a fetch or starting one; how many blocks that are.
/// Process context; does not wait for the network.
pub(super) fn want(
    core: &Arc<Core>,
    run: Run,
    mut waiter: Waiter,
    priority: Priority,
    store: bool,
) -> Result<u64> {
    loop {
        let joined = match Unit::find_or_add(core, run, priority, store)? {
            None => continue,
            Some((unit, None)) => {
                unit.hurry(priority);
                unit.join(run, waiter)
            }
            Some((unit, Some(fetch))) => {
                let joined = unit.join(run, waiter);
                // Whether or not the waiter has found room: others may have joined.
                unit.start(fetch);
                joined
            }
        };
        waiter = match joined? {
            Ok(blocks) => return Ok(blocks),
            Err(over) => over,
        };
    }
}

impl Unit {
    /// The fetch that brings the first block of `run`. `None` if somebody else was faster than a new one: then it has to be
    /// looked for again.
    fn find_or_add(
        core: &Arc<Core>,
        run: Run,
        priority: Priority,
        store: bool,
    ) -> Result<Option<Found>> {
        let blocks = match Units::plan(&core.units.list.lock(), run, store) {
            Plan::Join(unit) => return Ok(Some((unit.clone(), None))),
            Plan::Start { blocks } => blocks,
        };
        // Without the lock. All that starting it takes is allocated before others can join: they do not pay for a failure.
        let unit = Self::new(core, Run::new(run.start, blocks), priority, store)?;
        let buf = PageBuf::new(&core.pool, usize::try_from(blocks)?)?;
        let fetch = Fetch::new(unit.run.start_bytes(), buf, priority, unit.clone())?;
        let added = core.units.add(&unit)?;
        Ok(added.then_some((unit, Some(fetch))))
    }

    fn new(core: &Arc<Core>, run: Run, priority: Priority, store: bool) -> Result<Arc<Self>> {
        let waiters = KVec::with_capacity(4, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                run,
                urgent: AtomicBool::new(priority == Priority::Demand),
                store,
                phase <- new_mutex!(Phase::Waiting([waiters, KVec::new()]), "imgstream:unit"),
                unstored: AtomicRun::new(),
                storing: AtomicU32::new(1),
                work <- new_work!("imgstream:unit"),
                core: core.clone(),
            }),
            GFP_KERNEL,
        )
    }

    fn start(&self, fetch: KBox<Fetch>) {
        let asked = fetch.priority;
        match &self.core.source {
            Some(source) => source.fetch(fetch),
            None => fetch.fail(EIO),
        }
        // Whoever joined meanwhile found nothing to hurry.
        if asked != Priority::Demand && self.urgent.load(Ordering::SeqCst) {
            self.hurry_source();
        }
    }

    /// Somebody waits for what so far nobody waited for.
    fn hurry(&self, priority: Priority) {
        if priority == Priority::Demand && !self.urgent.swap(true, Ordering::SeqCst) {
            self.hurry_source();
        }
    }

    fn hurry_source(&self) {
        if let Some(source) = &self.core.source {
            source.hurry(self.run.start_bytes());
        }
    }

    /// Adds a waiter for what this unit brings of `run`, from its start on; answers it at once if that is here. How many
    /// blocks that are, or the waiter if this unit is over.
    fn join(&self, run: Run, waiter: Waiter) -> Result<Result<u64, Waiter>> {
        let part = run.intersection(&self.run);
        // Not in the condition below, where the lock would be held to the end.
        let joined = self.phase.lock().join(waiter, part)?;
        match joined {
            Joined::Waits => {}
            Joined::Here(waiter, buf) => waiter.answer(&self.core, part, self.run, &buf),
            Joined::Over(waiter) => return Ok(Err(waiter)),
        }
        Ok(Ok(part.blocks))
    }

    /// It is stored, as far as it could be.
    fn answer_stored(&self, waiter: &Waiter, part: Run, buf: &PageBuf) {
        let unstored = self.unstored.get();
        match waiter {
            Waiter::Batch(asked) if !unstored.is_empty() => {
                asked.answer(Answer::Unstored(unstored))
            }
            _ => waiter.answer(&self.core, part, self.run, buf),
        }
    }

    /// It never arrives. One block that the target cannot read spoils a fetch of many: a request for others of them is not
    /// refused because of it.
    fn answer_failed(&self, waiter: &Waiter, part: Run, error: Error) {
        let spoilt = is_refusal(error) && waiter.is_request() && part.blocks < self.run.blocks;
        let result = match spoilt {
            true => self.ask_again(waiter, part),
            false => Err(error),
        };
        if let Err(error) = result {
            waiter.fail(self.run, error);
        }
    }

    fn ask_again(&self, waiter: &Waiter, part: Run) -> Result {
        let mut at = part.start;
        while at < part.end() {
            let left = Run::from_to(at, part.end());
            let priority = Priority::Demand;
            let blocks = want(&self.core, left, waiter.clone(), priority, self.store)?;
            at = at.saturating_add(blocks);
        }
        Ok(())
    }

    /// Stores what is still absent and nobody has claimed; the rest is dropped.
    fn store(self: &Arc<Self>, buf: &PageBuf) {
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
            if !taken.is_empty() && self.write(taken, buf).is_err() {
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

    fn write(self: &Arc<Self>, run: Run, buf: &PageBuf) -> Result {
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
            buf,
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
    fn fetched(self: Arc<Self>, buf: PageBuf, result: Result) {
        match result {
            Ok(()) => self.arrived(buf),
            Err(error) => {
                // Before anybody asks for pages again.
                drop(buf);
                self.failed(error);
            }
        }
    }
}

impl Unit {
    fn arrived(self: Arc<Self>, buf: PageBuf) {
        let early = self.phase.lock().arrive(&buf);
        for (waiter, part) in &early {
            waiter.answer(&self.core, *part, self.run, &buf);
        }
        if self.store && self.core.may_change_state() {
            self.store(&buf);
        }
        self.part_stored();
    }

    /// Who is told so may ask again, and wait for pages: not here, where nothing is received meanwhile, nor on the queue
    /// on which others give theirs back.
    fn failed(self: Arc<Self>, error: Error) {
        self.phase.lock().fail(error);
        let failures = &self.core.counters.errors_read;
        failures.fetch_add(1, Ordering::Relaxed);
        let queues = self.core.queues.clone();
        let _ = queues.stream.enqueue(self);
    }
}

impl WorkItem for Unit {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        // First: whoever asks for something of it from now on finds another fetch, or starts one. Where it was stored, most
        // writes that waited are plain writes to a present block now.
        this.core.units.remove(&this);
        let Some(ended) = this.phase.lock().end() else {
            return;
        };
        for (waiter, part) in ended.waiters.iter().flatten() {
            match &ended.result {
                Ok(buf) => this.answer_stored(waiter, *part, buf),
                Err(error) => this.answer_failed(waiter, *part, *error),
            }
        }
    }
}

const _: () = assert!(PAGE_BYTES == imgstream_proto::disk::BLOCK_LEN);
