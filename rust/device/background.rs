// SPDX-License-Identifier: GPL-2.0-only

//! The background work: fill, then independence; and commit. One worker does both, one after the other, so that they
//! need no lock between them: a commit fetches what its batches lack by the same means.

use crate::{
    device::{
        asked::Asked,
        commit,
        inner::{
            Core,
            Queues, //
        },
        rescue::Rescue, //
    },
    kapi::{
        noio::NoIo,
        sysfs::announce_change,
        time::now_ms,
        workqueue::cancel_delayed_sync, //
    },
    source::{
        Line,
        Priority,
        Source, //
    },
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use imgstream_engine::{
    block::Run,
    fill::{
        is_independent,
        Pace, //
    },
    sweep::Next,
    trouble::Trouble, //
};
use imgstream_proto::disk::State;
use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

/// Fetches that the fill has under way at most: enough for a gigabit at 30 ms, little enough to leave the disk alone.
const WINDOW: usize = 4;
/// When to look again after there was nothing to do, in milliseconds.
const IDLE_MS: u32 = 200;
/// When to look again while fetches are under way.
const BUSY_MS: u32 = 5;
/// What the fill may always do however busy the guest is, unless told otherwise: a hundred gigabytes in half a day.
const DEFAULT_MIN_KIB_S: u32 = 2048;

/// What was asked of the fill.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// At least this rate, however busy the guest is; 0 for what is usual.
    pub(crate) min_kib_s: u32,
    /// At most this rate; 0 for no limit.
    pub(crate) max_kib_s: u32,
}

impl Rates {
    /// A pace with these rates. Never without a minimum: a guest that does not rest must not stop the work for ever.
    fn pace(self) -> Pace {
        let min_kib_s = match (self.min_kib_s, self.max_kib_s) {
            (0, 0) => DEFAULT_MIN_KIB_S,
            (0, max) => DEFAULT_MIN_KIB_S.min(max),
            (min, _) => min,
        };
        Pace::new(min_kib_s, self.max_kib_s, now_ms())
    }
}

/// What the commit does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitMode {
    /// Nothing.
    Idle,
    /// Moves blocks home.
    Running,
    /// Was told to wait.
    Paused,
    /// Cannot go on by itself.
    Stopped(Trouble),
    /// Everything is home.
    Done,
}

/// Settings and progress of the background work.
pub(super) struct Plan {
    pub(super) fill: bool,
    pub(super) fill_rates: Rates,
    pub(super) commit: CommitMode,
    pub(super) commit_rates: Rates,
    /// At full speed, whatever the guest does.
    pub(super) now: bool,
    pace: Pace,
    guest_ios: u64,
    /// Set when a setting changed and the pace has to follow.
    fresh: bool,
    /// What fill or commit has asked for.
    asked: Option<Arc<Asked>>,
    /// What keeps the fill from its end.
    pub(super) fill_stuck: Option<Trouble>,
    /// What the commit could not read here; only while it runs, as the pages are those of all fetches.
    rescue: Option<Arc<Rescue>>,
}

impl Plan {
    /// The commit waits until it is told to go on.
    pub(super) fn pause(&mut self) {
        self.commit = CommitMode::Paused;
        self.rescue = None;
    }

    /// Whatever could not be had is asked for again, now.
    pub(super) fn ask_anew(&mut self) {
        self.asked = None;
        self.fill_stuck = None;
        self.rescue = None;
    }
}

/// The worker.
#[pin_data]
pub(super) struct Background {
    pub(super) core: Arc<Core>,
    queues: Arc<Queues>,
    #[pin]
    plan: Mutex<Plan>,
    /// Whose events tell of changes.
    #[pin]
    disk: Mutex<Option<ARef<Device>>>,
    stop: AtomicBool,
    #[pin]
    work: DelayedWork<Background>,
}

impl_has_delayed_work! { impl HasDelayedWork<Self> for Background { self.work } }

impl Background {
    pub(super) fn new(
        core: Arc<Core>,
        queues: Arc<Queues>,
        commit: CommitMode,
    ) -> Result<Arc<Self>> {
        let rates = Rates {
            min_kib_s: DEFAULT_MIN_KIB_S,
            max_kib_s: 0,
        };
        let plan = Plan {
            fill: true,
            fill_rates: rates,
            commit,
            commit_rates: rates,
            now: false,
            pace: rates.pace(),
            guest_ios: 0,
            fresh: true,
            asked: None,
            fill_stuck: None,
            rescue: None,
        };
        Arc::pin_init(
            pin_init!(Self {
                core,
                queues,
                plan <- new_mutex!(plan, "imgstream:background"),
                disk <- new_mutex!(None, "imgstream:announced"),
                stop: AtomicBool::new(false),
                work <- new_delayed_work!("imgstream:background"),
            }),
            GFP_KERNEL,
        )
    }

    /// Looks for work now.
    pub(super) fn kick(self: &Arc<Self>) {
        if !self.stop.load(Ordering::SeqCst) {
            self.queues.background.enqueue_at(self.clone(), 0);
        }
    }

    /// No work begins any more; what runs may still wait for the pages of a fetch, and so for the network.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// After [`end`](Self::end), and only when fetches end by themselves: returns when no work is running. Fetches may still be
    /// under way.
    pub(super) fn wait_for_end(self: &Arc<Self>) {
        let _ = cancel_delayed_sync(self);
        *self.disk.lock() = None;
    }

    /// Whether the device is being torn down.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Reads the plan.
    pub(super) fn look<R>(&self, f: impl FnOnce(&Plan) -> R) -> R {
        f(&self.plan.lock())
    }

    /// Changes the plan and looks for work.
    pub(super) fn change<R>(self: &Arc<Self>, f: impl FnOnce(&mut Plan) -> R) -> R {
        let result = {
            let mut plan = self.plan.lock();
            plan.fresh = true;
            f(&mut plan)
        };
        self.kick();
        result
    }

    /// Asks the pace for `blocks`; `Err`: ask again in so many milliseconds.
    pub(super) fn take(&self, blocks: u64) -> Result<(), u64> {
        let ios = self.core.counters.guest_ios.load(Ordering::Relaxed);
        let mut plan = self.plan.lock();
        let committing = plan.commit == CommitMode::Running;
        if committing && plan.now {
            return Ok(());
        }
        if plan.fresh {
            let rates = if committing {
                plan.commit_rates
            } else {
                plan.fill_rates
            };
            plan.pace = rates.pace();
            plan.fresh = false;
        }
        let busy = plan.guest_ios != ios;
        plan.guest_ios = ios;
        let bytes = Run::new(0, blocks).bytes();
        plan.pace.take(now_ms(), busy, bytes)
    }

    /// One step of the fill; when to come again.
    fn fill(&self) -> u32 {
        let core = &self.core;
        if !core.may_change_state() || !core.connected() || !self.look(|plan| plan.fill) {
            return IDLE_MS;
        }
        let all = Run::new(0, core.tables.blocks());
        let pace = |blocks| self.take(blocks);
        match self
            .asked(all)
            .and_then(|asked| asked.go_on(core, WINDOW, pace))
        {
            Ok(Next::Ask(_) | Next::Wait) => BUSY_MS,
            Ok(Next::Pause(ms)) => u32::try_from(ms).map_or(IDLE_MS, |ms| ms.min(IDLE_MS)),
            Ok(Next::Stuck(trouble)) => self.fill_is_stuck(trouble),
            Ok(Next::Done) => self.became_independent(),
            Err(_) => IDLE_MS,
        }
    }

    /// All is here that can be had. What cannot is asked for again, and said once.
    fn fill_is_stuck(&self, trouble: Trouble) -> u32 {
        if self.plan.lock().fill_stuck.replace(trouble) != Some(trouble) {
            let sentence = Line::of(trouble);
            let sentence = sentence.as_str();
            pr_warn!("everything else is here: {sentence}; the fill tries again\n");
        }
        IDLE_MS
    }

    /// Nothing is absent: the repository is never contacted again.
    fn became_independent(&self) -> u32 {
        if self.core.units.len() != 0 || !is_independent(&self.core.tables.locator()) {
            return BUSY_MS;
        }
        if !self.core.independent.swap(true, Ordering::SeqCst) {
            if let Some(source) = &self.core.source {
                Source::stop(source);
            }
            self.plan.lock().fill_stuck = None;
            pr_info!("everything is here: independent of the repository\n");
        }
        IDLE_MS
    }

    fn step(&self) -> Option<u32> {
        let mode = self.look(|plan| plan.commit);
        match mode {
            CommitMode::Running => Some(commit::step(self)),
            CommitMode::Paused => Some(IDLE_MS),
            // Whoever wants it to go on kicks.
            CommitMode::Stopped(_) => None,
            CommitMode::Idle | CommitMode::Done if self.core.independent.load(Ordering::SeqCst) => {
                None
            }
            CommitMode::Idle => Some(self.fill()),
            CommitMode::Done => Some(self.became_independent()),
        }
    }

    /// What was asked for of `range`; other ranges are forgotten.
    pub(super) fn asked(&self, range: Run) -> Result<Arc<Asked>> {
        let mut plan = self.plan.lock();
        if let Some(asked) = plan.asked.as_ref().filter(|asked| asked.range() == range) {
            return Ok(asked.clone());
        }
        let asked = Asked::new(range, Priority::Background)?;
        // Another batch, or the commit after the fill.
        plan.fill_stuck = None;
        plan.asked = Some(asked.clone());
        Ok(asked)
    }

    /// What the commit could not read here and has asked the repository for.
    pub(super) fn rescue(&self) -> Option<Arc<Rescue>> {
        self.look(|plan| plan.rescue.clone())
    }

    /// Keeps, or forgets, what was asked for. A commit that was paused meanwhile keeps nothing.
    pub(super) fn set_rescue(&self, rescue: Option<Arc<Rescue>>) {
        let mut plan = self.plan.lock();
        plan.rescue = rescue.filter(|_| plan.commit == CommitMode::Running);
    }

    /// The commit cannot go on by itself; it stays where it is until it is told to.
    pub(super) fn stopped(&self, trouble: Trouble) {
        {
            let mut plan = self.plan.lock();
            plan.commit = CommitMode::Stopped(trouble);
            // For when somebody tells it to go on.
            plan.ask_anew();
        }
        let sentence = Line::of(trouble);
        let sentence = sentence.as_str();
        let hope = match self.core.may_change_state() {
            true => "`imgstreamctl resume` tries again",
            false => "the next start tries again",
        };
        pr_err!("the commit has stopped: {sentence}; {hope}\n");
        self.announce();
    }

    /// Everything is home.
    pub(super) fn committed(&self) {
        self.plan.lock().commit = CommitMode::Done;
        self.became_independent();
        self.announce();
    }

    /// From now on `disk` has events when the state changes.
    pub(super) fn announce_on(&self, disk: &Device) {
        *self.disk.lock() = Some(disk.into());
    }

    /// An event of the device that carries the state. A failure is of no consequence: who misses it can read the file.
    pub(super) fn announce(&self) {
        let Some(disk) = self.disk.lock().clone() else {
            return;
        };
        let state = self.core.store.state().name();
        if let Ok(variable) = CString::try_from_fmt(fmt!("IMGSTREAM_STATE={state}")) {
            let _ = announce_change(&disk, &variable);
        }
    }
}

impl WorkItem for Background {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        if this.stopping() {
            return;
        }
        if let Some(ms) = this.step() {
            let queues = this.queues.clone();
            queues.background.enqueue_at(this, ms);
        }
    }
}

/// Whether a migration in this state goes on committing at attach.
pub(super) fn mode_at_attach(state: State) -> CommitMode {
    match state {
        State::Committing => CommitMode::Running,
        State::Committed => CommitMode::Done,
        _ => CommitMode::Idle,
    }
}
