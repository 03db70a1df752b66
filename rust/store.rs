// SPDX-License-Identifier: GPL-2.0-only

//! The control area of the attached disk: superblocks, map and journal, read once and kept true.
//!
//! What has to be written, and in which order, the machines of `imgstream_engine` decide; this room reads and writes for
//! them. The crash simulator drives the same machines.
//!
//! Lock order: `journal` (a mutex, process context, held over disk I/O), then `waiters` (a spinlock, any context).
//! Nothing waits for the network here, and no fill or guest I/O is waited for, so that a flush ends when the disk allows.

mod journal;
mod load;
mod superblocks;
pub(crate) mod tables;

use crate::kapi::{
    bdev::Bdev,
    bio::{
        Bio,
        BioList, //
    },
    noio::NoIo,
    sync::{
        new_irq_spinlock,
        IrqSpinLock, //
    },
    workqueue::{
        cancel_delayed_sync,
        cancel_sync,
        Queue, //
    },
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use imgstream_engine::health::Health;
use imgstream_proto::{
    abi::refusal::Refusal,
    disk::{
        State,
        Superblock, //
    },
};
use journal::Journal;
use kernel::{
    impl_has_delayed_work,
    impl_has_work,
    new_delayed_work,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};
use tables::Tables;

/// Changes are recorded at the latest after this time (design: commit at least every 5 s).
const COMMIT_MS: u32 = 5_000;

/// Work item of flush rounds.
const ROUND: u64 = 0;
/// Work item of the periodic commit.
const PERIODIC: u64 = 1;

/// Called in process context when a bio given to [`Store::flush`] is covered by a round, or cannot be.
pub(crate) type Flushed = fn(Bio, Result);

/// See the module.
#[pin_data]
pub(crate) struct Store {
    tables: Arc<Tables>,
    queue: Arc<Queue>,
    flushed: Flushed,
    /// Bios that want a round.
    #[pin]
    waiters: IrqSpinLock<BioList>,
    #[pin]
    journal: Mutex<Journal>,
    /// No periodic commits any more.
    closed: AtomicBool,
    #[pin]
    round: Work<Self, ROUND>,
    #[pin]
    periodic: DelayedWork<Self, PERIODIC>,
}

impl_has_work! { impl HasWork<Self, ROUND> for Store { self.round } }
impl_has_delayed_work! { impl HasDelayedWork<Self, PERIODIC> for Store { self.periodic } }

impl Store {
    /// Reads the control area of `disk` and checks all of it; writes nothing. [`Store::attach`] comes before any other use.
    ///
    /// `queue` must have a rescuer and may be used by others; rounds run on it. Process context.
    pub(crate) fn load(
        disk: Arc<Bdev>,
        queue: Arc<Queue>,
        flushed: Flushed,
    ) -> Result<Arc<Self>, Refusal> {
        let found = superblocks::find(&disk)?;
        let (tables, journal) = load::load(disk, found)?;
        Self::new(tables, journal, queue, flushed).map_err(|_| Refusal::Memory)
    }

    /// Takes the disk into use: when this returns, both superblocks say durably that the next attach is unclean unless
    /// [`Store::close`] comes first (rule 3). Process context.
    pub(crate) fn attach(self: &Arc<Self>) -> Result<(), Refusal> {
        self.journal.lock().attach(&self.tables).map_err(|error| {
            pr_err!("the control area cannot be written ({error:?})\n");
            Refusal::DiskError
        })?;
        self.arm();
        Ok(())
    }

    fn new(
        tables: Arc<Tables>,
        journal: Journal,
        queue: Arc<Queue>,
        flushed: Flushed,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                tables,
                queue,
                flushed,
                waiters <- new_irq_spinlock!(BioList::new(), c"imgstream:flush_waiters"),
                journal <- new_mutex!(journal, "imgstream:journal"),
                closed: AtomicBool::new(false),
                round <- new_work!("imgstream:flush_round"),
                periodic <- new_delayed_work!("imgstream:commit"),
            }),
            GFP_KERNEL,
        )
    }

    fn arm(self: &Arc<Self>) {
        if !self.closed.load(Ordering::Acquire) {
            self.queue
                .enqueue_at::<Self, PERIODIC>(self.clone(), COMMIT_MS);
        }
    }

    /// The map and what goes with it.
    pub(crate) fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The superblock as it is on the disk now. Sleeps.
    pub(crate) fn superblock(&self) -> Result<KBox<Superblock>> {
        // Nothing is allocated with the journal locked.
        let room = KBox::new_uninit(GFP_KERNEL)?;
        Ok(superblocks::twin(self.journal.lock().superblock(), room))
    }

    /// The migration's state. Sleeps.
    pub(crate) fn state(&self) -> State {
        self.journal.lock().superblock().state
    }

    /// Has everything that completed before this call made durable; then `flushed` gets the bio. Any context.
    pub(crate) fn flush(self: &Arc<Self>, bio: Bio) {
        self.waiters.lock().push(bio);
        let _ = self.queue.enqueue::<Arc<Self>, ROUND>(self.clone());
    }

    /// Makes the copy counter durable, after all that completed before. Only then I/O may be routed by it: rule 9.
    /// Sleeps.
    pub(crate) fn record_counter(&self, blocks: u64) -> Result {
        self.round(Some(blocks))
    }

    /// Makes durable what the disk has written, and records nothing. A disk may say only once that it lost something, so
    /// a failure ends all flushes: under the lock, so that none comes between and succeeds. Sleeps.
    pub(crate) fn flush_disk(&self) -> Result {
        let _noio = NoIo::enter();
        let journal = self.journal.lock();
        self.sound()?;
        self.degrade_unless(journal.flush_disk(), "disk's cache")
    }

    /// Makes the state durable in both copies. `EINVAL` if the present state does not allow it. Sleeps.
    ///
    /// After `committed` the control area is not written any more: it may be wiped while the device is in use.
    pub(crate) fn set_state(&self, to: State) -> Result {
        let _noio = NoIo::enter();
        let mut journal = self.journal.lock();
        self.sound()?;
        journal.may_become(to)?;
        let result = journal.set_state(to);
        self.degrade_unless(result, "state")
    }

    /// A last round, and the mark that the detach was clean. No I/O may be under way or come later. Sleeps.
    pub(crate) fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        cancel_delayed_sync::<Self, PERIODIC>(self);
        cancel_sync::<Self, ROUND>(self);
        let closed = self.round(None).and_then(|()| {
            let result = self.journal.lock().mark_clean();
            self.degrade_unless(result, "superblock")
        });
        if closed.is_err() {
            pr_warn!("detached without a clean mark: fetched blocks will be suspect\n");
        }
    }

    /// Whether states can still be recorded: rule 10.
    fn sound(&self) -> Result {
        match self.tables.health.get().may_flush() {
            true => Ok(()),
            false => Err(EIO),
        }
    }

    /// One flush round for everybody who waits by its first step.
    fn round(&self, counter: Option<u64>) -> Result {
        let _noio = NoIo::enter();
        let mut covered = BioList::new();
        let result = {
            let mut journal = self.journal.lock();
            self.sound().and_then(|()| {
                let take = || covered = self.waiters.lock().take();
                let result = journal.round(&self.tables, counter, take);
                self.degrade_unless(result, "journal")
            })
        };
        if result.is_err() {
            // A round that failed early has not taken them: they need an answer as well.
            let mut late = self.waiters.lock().take();
            while let Some(bio) = late.pop() {
                (self.flushed)(bio, result);
            }
        }
        while let Some(bio) = covered.pop() {
            (self.flushed)(bio, result);
        }
        result
    }

    fn degrade_unless(&self, result: Result, what: &str) -> Result {
        if let Err(error) = result {
            if self.tables.health.degrade(Health::Degraded) {
                pr_err!("writing the {what} failed ({error:?}): nothing is kept or flushed any more, reads go on\n");
            }
        }
        result
    }

    /// After the rounds of a batch the waiters have been told; the long work comes afterwards.
    fn checkpoint_if_due(&self) {
        let _noio = NoIo::enter();
        let mut journal = self.journal.lock();
        if self.sound().is_ok() {
            let result = journal.checkpoint_if_due(&self.tables);
            let _ = self.degrade_unless(result, "map");
        }
    }
}

impl WorkItem<ROUND> for Store {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Another round may have covered them meanwhile.
        if !this.waiters.lock().is_empty() {
            let _ = this.round(None);
        }
        this.checkpoint_if_due();
    }
}

impl WorkItem<PERIODIC> for Store {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.tables.map().changed().next_set(0).is_some() && this.sound().is_ok() {
            let _ = this.round(None);
            this.checkpoint_if_due();
        }
        this.arm();
    }
}
