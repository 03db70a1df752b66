// SPDX-License-Identifier: GPL-2.0-only

//! The attached disk and what is offered of it: `/dev/imgstream0`, its partitions, and the view of the source.
//!
//! A *head* ([`head`]) takes all I/O and sends what is local straight to the disk; a hidden *stream queue* ([`stream`])
//! does what needs the repository. [`units`] are fetches under way, [`background`] fills and commits.
//!
//! How the rules of durability are kept is said where it is done; in short: data first, then the map, then (in the
//! store) the journal. Locks are few, because the map and the claims are atomic words: `Units::list`, `Unit::phase`,
//! `Background::plan` (mutexes, never nested), `Retry::lists`, `Retry::room` and `Stream::waiting` (spinlocks, innermost).

mod asked;
mod background;
mod commit;
mod durable;
mod head;
mod inner;
mod local;
mod merge;
mod rescue;
mod retry;
mod scan;
mod status;
mod stream;
mod units;
mod view;
mod waiter;

use crate::{
    kapi::{
        bdev::Bdev,
        blk::{
            disk::{
                BioDisk,
                Config,
                Visibility, //
            },
            limits::{
                Features,
                Limits, //
            },
            mq::MqDisk,
        },
        param,
        workqueue::Queue,
    },
    source::{
        Repository,
        Source, //
    },
    store::Store,
};
use background::{
    mode_at_attach,
    Background, //
};
use head::Head;
use imgstream_engine::{
    fill::is_independent,
    parallel,
    trust::Trust, //
};
use imgstream_proto::{
    abi::refusal::Refusal,
    disk::{
        State,
        Superblock, //
    },
};
use inner::{
    Core,
    Inner,
    Queues,
    PIECE_BLOCKS, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    types::ScopeGuard, //
};
use retry::Retry;
use scan::Scan;
use stream::Stream;
use view::View;

pub(crate) use background::{
    CommitMode,
    Rates, //
};

/// Largest discard or write-zeroes: they cost no I/O, but a claim per block.
const ZERO_MAX_BYTES: u32 = 64 << 20;

/// The attached disk.
#[pin_data]
pub(crate) struct Device {
    name: KVec<u8>,
    uuid: [u8; 16],
    core: Arc<Core>,
    store: Arc<Store>,
    background: Arc<Background>,
    scan: Arc<Scan>,
    #[pin]
    disks: Mutex<Disks>,
    // Work queues go last: their workers may hold references to all of the above.
    queues: Arc<Queues>,
    _store_queue: Arc<Queue>,
}

/// What is offered.
struct Disks {
    head: Option<BioDisk<Head>>,
    view: Option<BioDisk<View>>,
}

/// Why an errno of the way up became a refusal.
fn memory(_: impl Into<Error>) -> Refusal {
    Refusal::Memory
}

impl Device {
    /// Attaches the disk at `path` and offers it. Sleeps, but never for the repository: partitions appear later, see
    /// [`scan`].
    pub(crate) fn attach(path: &CStr) -> Result<Arc<Self>, Refusal> {
        let disk = open(path)?;
        let store_queue = Queue::new(c"imgstream_journal").map_err(memory)?;
        let store_queue = Arc::new(store_queue, GFP_KERNEL).map_err(memory)?;
        let store = Store::load(disk.clone(), store_queue.clone(), retry::flushed)?;
        let repository = repository(&store)?;
        // All that can be refused has been, and nothing was written.
        let hidden = hide(disk.clone())?;
        store.attach()?;
        let started = Self::start(path, disk, &store, repository, store_queue);
        match started {
            Ok(_) => {
                hidden.dismiss();
            }
            // Nothing was changed: the next attach need not suspect anything.
            Err(_) => store.close(),
        }
        started
    }

    fn start(
        path: &CStr,
        disk: Arc<Bdev>,
        store: &Arc<Store>,
        repository: Option<Repository>,
        store_queue: Arc<Queue>,
    ) -> Result<Arc<Self>, Refusal> {
        let superblock = store.superblock().map_err(memory)?;
        let source = repository.map(|repository| Source::start(&repository));
        let source = source.transpose().map_err(memory)?;
        if let Some(source) = &source {
            begin_sessions(source);
        }
        let device = Self::build(path, disk, store, &superblock, source, store_queue);
        let device = device.map_err(memory)?;
        if let Err(error) = device.offer(&superblock) {
            pr_err!("the device cannot be added ({error:?})\n");
            device.tear_down();
            return Err(Refusal::Memory);
        }
        device.background.kick();
        Ok(device)
    }

    fn build(
        path: &CStr,
        disk: Arc<Bdev>,
        store: &Arc<Store>,
        superblock: &Superblock,
        source: Option<Source>,
        store_queue: Arc<Queue>,
    ) -> Result<Arc<Self>> {
        let queues = Queues::new()?;
        let retry = Retry::new(queues.clone(), store.clone())?;
        let trust = match superblock.suspect {
            true => Trust::Suspect,
            false => Trust::Proven,
        };
        let inner = Inner::new(disk, store.clone(), source, trust, queues.clone(), retry)?;
        let core = Arc::pin_init(Core::new(inner), GFP_KERNEL)?;
        let mode = mode_at_attach(superblock.state);
        let background = Background::new(core.clone(), queues.clone(), mode)?;
        let scan = Scan::new(core.clone(), queues.clone())?;
        let mut name = KVec::new();
        name.extend_from_slice(base_name(path.to_bytes()), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                name,
                uuid: superblock.uuid,
                core,
                store: store.clone(),
                background,
                scan,
                disks <- new_mutex!(Disks { head: None, view: None }, "imgstream:disks"),
                queues,
                _store_queue: store_queue,
            }),
            GFP_KERNEL,
        )
    }

    /// Adds the disks.
    fn offer(&self, superblock: &Superblock) -> Result {
        let logical = superblock.geometry.logical_block_bytes;
        let size_bytes = superblock.geometry.image_bytes;
        let piece_bytes = u32::try_from(PIECE_BLOCKS * u64::from(BLOCK))?;
        let limits = Limits::copied(piece_bytes)
            .block_bytes(logical, BLOCK)
            .write_zeroes(piece_bytes)
            .features(Features::IO_STAT);
        let stream = Stream::new(self.core.clone(), self.queues.clone())?;
        let config = Config {
            name: c"imgstream0-stream",
            size_bytes,
            limits,
            visibility: Visibility::Hidden,
            read_only: false,
        };
        let stream = MqDisk::add(stream, config, stream::DEPTH)?;
        let features = Features::WRITE_CACHE | Features::FUA | Features::NOWAIT | Features::IO_STAT;
        let limits = Limits::stacked(&self.core.disk, features)
            .plain()
            .block_bytes(logical, BLOCK)
            .discard(ZERO_MAX_BYTES, BLOCK)
            .write_zeroes(ZERO_MAX_BYTES);
        let config = Config {
            name: c"imgstream0",
            size_bytes,
            limits,
            visibility: Visibility::Partitioned,
            read_only: false,
        };
        let head = BioDisk::add(
            Head::new(self.core.clone(), self.queues.clone(), stream)?,
            config,
        )?;
        if let Some(device) = head.device() {
            self.background.announce_on(device);
        }
        if let Some(scan) = head.partition_scan() {
            self.scan.begin(scan);
        }
        self.disks.lock().head = Some(head);
        Ok(())
    }

    /// Calls `f` with the device of `/dev/imgstream0`, if it is there.
    pub(crate) fn with_disk<R>(&self, f: impl FnOnce(&kernel::device::Device) -> R) -> Option<R> {
        let disks = self.disks.lock();
        disks.head.as_ref().and_then(BioDisk::device).map(f)
    }

    /// Tells user space what state the migration is in.
    pub(crate) fn announce(&self) {
        self.background.announce();
    }

    /// Detaches, unless it is in use. Nothing is left behind: no I/O, no work, no connection.
    pub(crate) fn detach(&self) -> Result<(), Refusal> {
        self.close_if_unused()?;
        self.tear_down();
        Ok(())
    }

    /// Detaches at the end of the module. Nobody has it open then, for who has holds the module; but whoever had, nothing of
    /// ours may go on.
    pub(crate) fn end(&self) {
        if let Err(refusal) = self.close_if_unused() {
            pr_err!("at the end: {}\n", refusal.sentence());
        }
        self.tear_down();
    }

    /// Lets nobody open the disks from now on, unless somebody has. A scan for partitions may be under way, and wait for the
    /// network with the disk's `open_mutex`: `tear_down` ends it, so nothing before takes that.
    fn close_if_unused(&self) -> Result<(), Refusal> {
        let disks = self.disks.lock();
        if !disks.head.as_ref().is_none_or(BioDisk::close_if_unused) {
            return Err(Refusal::InUse);
        }
        if !disks.view.as_ref().is_none_or(BioDisk::close_if_unused) {
            if let Some(head) = &disks.head {
                head.reopen();
            }
            return Err(Refusal::InUse);
        }
        Ok(())
    }

    /// Ends everything, in the order in which one part uses the other.
    fn tear_down(&self) {
        self.background.end();
        self.scan.end();
        // Fetches end now, with an error where somebody still waits for one.
        if let Some(source) = &self.core.source {
            source.stop();
        }
        // What these two may wait for has ended: a fetch, or the pages of one.
        self.background.wait_for_end();
        self.scan.wait_for_end();
        self.queues.feed.flush();
        self.core.units.wait_until_at_most(0);
        let Disks { head, view } = core::mem::replace(
            &mut *self.disks.lock(),
            Disks {
                head: None,
                view: None,
            },
        );
        drop(view);
        drop(head);
        self.queues.stream.flush();
        self.queues.again.flush();
        self.queues.store.flush();
        self.core.drain();
        self.store.close();
    }

    /// Switches the background fill.
    pub(crate) fn fill(&self, enable: bool, rates: Rates) -> Result<(), Refusal> {
        self.background.change(|plan| {
            plan.fill = enable;
            plan.fill_rates = rates;
            plan.ask_anew();
        });
        Ok(())
    }

    /// Begins the commit: the point of no return.
    pub(crate) fn commit(&self, now: bool, rates: Rates) -> Result<(), Refusal> {
        let disks = self.disks.lock();
        if disks.view.is_some() {
            return Err(Refusal::SourceViewOpen);
        }
        if self.background.look(|plan| plan.commit) == CommitMode::Done {
            return Err(Refusal::NotCommitting);
        }
        self.set_state(State::Committing)?;
        self.background.change(|plan| {
            plan.commit = CommitMode::Running;
            plan.commit_rates = rates;
            plan.now = now;
        });
        Ok(())
    }

    fn set_state(&self, state: State) -> Result<(), Refusal> {
        self.store.set_state(state).map_err(|error| {
            if error == EINVAL {
                Refusal::State
            } else {
                Refusal::Degraded
            }
        })
    }

    /// Pauses the commit.
    pub(crate) fn pause(&self) -> Result<(), Refusal> {
        self.background.change(|plan| match plan.commit {
            CommitMode::Running | CommitMode::Paused => {
                plan.pause();
                Ok(())
            }
            _ => Err(Refusal::NotCommitting),
        })
    }

    /// Goes on with a commit that was paused, or that stopped because of an error.
    pub(crate) fn resume(&self) -> Result<(), Refusal> {
        self.background.change(|plan| match plan.commit {
            CommitMode::Running | CommitMode::Paused | CommitMode::Stopped(_) => {
                plan.commit = CommitMode::Running;
                Ok(())
            }
            _ => Err(Refusal::NotCommitting),
        })
    }

    /// Looks for the repository now, if there is no connection. Nothing is left to do if it is needed no more.
    pub(crate) fn reconnect(&self) -> Result<(), Refusal> {
        if let Some(source) = &self.core.source {
            source.reconnect();
        }
        Ok(())
    }

    /// There are to be so many sessions with the repository. Nothing is left to do if it is needed no more.
    pub(crate) fn sessions(&self, count: u8) -> Result<(), Refusal> {
        match &self.core.source {
            Some(source) => source.want_sessions(count).map_err(memory),
            None => Ok(()),
        }
    }

    /// Has the next boot roll back.
    pub(crate) fn rollback(&self) -> Result<(), Refusal> {
        if self.background.look(|plan| plan.commit) != CommitMode::Idle {
            return Err(Refusal::Committing);
        }
        self.set_state(State::RollingBack)
    }

    /// Offers or removes the view of the source.
    pub(crate) fn source_view(&self, open: bool) -> Result<(), Refusal> {
        let mut disks = self.disks.lock();
        if open && self.background.look(|plan| plan.commit) != CommitMode::Idle {
            return Err(Refusal::Committing);
        }
        match (open, &disks.view) {
            (true, None) => {
                disks.view = Some(View::open(&self.core).map_err(memory)?);
                Ok(())
            }
            (false, Some(view)) if !view.close_if_unused() => Err(Refusal::InUse),
            (false, _) => {
                disks.view = None;
                Ok(())
            }
            (true, Some(_)) => Ok(()),
        }
    }
}

/// Bytes of a block, the physical block size of the device.
const BLOCK: u32 = 4096;

/// Has as many sessions begin as the module's parameter says. One is enough, so nothing of it keeps the disk from being attached.
fn begin_sessions(source: &Source) {
    let asked = param::sessions();
    let sessions = match parallel::sessions(asked) {
        Some(sessions) => sessions,
        None if asked == 0 => parallel::DEFAULT_SESSIONS,
        None => {
            let most = parallel::MAX_SESSIONS;
            pr_err!("sessions={asked} is not 1 to {most}: the default is used\n");
            parallel::DEFAULT_SESSIONS
        }
    };
    if source.want_sessions(sessions).is_err() {
        pr_warn!("one session with the repository: there is no memory for {sessions}\n");
    }
}

fn open(path: &CStr) -> Result<Arc<Bdev>, Refusal> {
    let disk = Bdev::open(path).map_err(|error| {
        if error == EBUSY {
            Refusal::DiskBusy
        } else if error == ENOMEM {
            Refusal::Memory
        } else {
            Refusal::NoDisk
        }
    })?;
    disk.sync_and_invalidate().map_err(|_| Refusal::DiskError)?;
    Arc::new(disk, GFP_KERNEL).map_err(memory)
}

/// A disk whose partitions are gone, and come back when this is dropped.
type Hidden = ScopeGuard<Arc<Bdev>, fn(Arc<Bdev>)>;

/// The raw partitions carry the target's file systems with most of their blocks missing: nobody is to mount them. Not
/// before it is certain that the disk is ours, so that a refusal leaves them.
fn hide(disk: Arc<Bdev>) -> Result<Hidden, Refusal> {
    disk.drop_partitions().map_err(|error| {
        if error == EBUSY {
            Refusal::DiskBusy
        } else {
            Refusal::DiskError
        }
    })?;
    Ok(ScopeGuard::new_with_data(disk, show))
}

fn show(disk: Arc<Bdev>) {
    if let Err(error) = disk.find_partitions() {
        pr_warn!("the disk's partitions cannot be found again ({error:?})\n");
    }
}

/// The repository, unless nothing of it is missing: then it is never contacted again.
fn repository(store: &Store) -> Result<Option<Repository>, Refusal> {
    if is_independent(&store.tables().locator()) {
        return Ok(None);
    }
    let superblock = store.superblock().map_err(memory)?;
    Repository::from_superblock(&superblock).map(Some)
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
