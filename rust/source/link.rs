// SPDX-License-Identifier: GPL-2.0-only

//! The object that the network, the clock and the readers wake, and the one work item that then does what is due.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    driver::Driver,
    fetch::{
        Fetch,
        FetchQueue,
        Priority,
        PRIORITIES, //
    },
    repository::Repository,
    status::Status, //
};
use crate::kapi::{
    errno::Errno,
    net::Wake,
    noio::NoIo,
    sync::{
        new_irq_spinlock,
        Completion,
        IrqSpinLock, //
    },
    time::now_ms,
    workqueue::{
        cancel_delayed_sync,
        cancel_sync,
        Queue, //
    }, //
};
use core::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use kernel::{
    impl_has_delayed_work,
    impl_has_work,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    workqueue::{
        new_delayed_work,
        new_work,
        DelayedWork,
        Work,
        WorkItem, //
    }, //
};

/// Work item that moves bytes.
const IO: u64 = 0;
/// Work item of the clock.
const TIMER: u64 = 1;

/// Rounds until other work of the queue has its turn: with `driver::ROUND_BYTES` this is some 20 ms of a fast network.
const ROUNDS: u32 = 16;

/// How long a logout may take when the source is stopped. It is a courtesy to the target.
const LOGOUT_MS: u32 = 2_000;

/// What readers have asked for and has not been taken up.
struct Incoming {
    queues: [FetchQueue; PRIORITIES],
    open: bool,
}

/// See the module.
#[pin_data]
pub(super) struct Link {
    queue: Arc<Queue>,
    #[pin]
    driver: Mutex<KBox<Driver>>,
    #[pin]
    incoming: IrqSpinLock<Incoming>,
    #[pin]
    status: Status,
    #[pin]
    closed: Completion,
    /// When the timer fires, on our clock; 0: it is not set, or is firing.
    armed_ms: AtomicU64,
    #[pin]
    io: Work<Link, IO>,
    #[pin]
    timer: DelayedWork<Link, TIMER>,
}

impl_has_work! {
    impl HasWork<Self, IO> for Link { self.io }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, TIMER> for Link { self.timer }
}

impl WorkItem<IO> for Link {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Nothing that is allocated here, by us or by the network, may wait for I/O: it may be our own.
        let _no_io = NoIo::enter();
        this.rounds();
    }
}

impl WorkItem<TIMER> for Link {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // Before the kick: what runs then must set the timer again.
        this.armed_ms.store(0, Ordering::Release);
        this.kick();
    }
}

impl Wake for Link {
    fn wake(this: ArcBorrow<'_, Self>) {
        Arc::from(this).kick();
    }
}

impl Link {
    /// A link that does nothing until it is kicked.
    pub(super) fn new(repository: &Repository, queue: Arc<Queue>) -> Result<Arc<Self>> {
        // A session of 5 KiB on its way into its box does not fit every stack.
        let repository = repository.clone();
        let driver = queue.call(move || Driver::new(&repository))??;
        let incoming = Incoming {
            queues: [const { FetchQueue::new() }; PRIORITIES],
            open: true,
        };
        Arc::pin_init(
            pin_init!(Self {
                queue,
                driver <- new_mutex!(driver, "imgstream:source"),
                incoming <- new_irq_spinlock!(incoming, c"imgstream:source_incoming"),
                status <- Status::new(),
                closed <- Completion::new(),
                armed_ms: AtomicU64::new(0),
                io <- new_work!("imgstream:source_io"),
                timer <- new_delayed_work!("imgstream:source_timer"),
            }),
            GFP_KERNEL,
        )
    }

    /// What there is to say.
    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// Lets the work item run, once more if it runs already. Any context.
    pub(super) fn kick(self: &Arc<Self>) {
        // An error says that it is queued already, which is as good.
        let _ = self.queue.enqueue::<_, IO>(self.clone());
    }

    /// See `Source::fetch`.
    pub(super) fn fetch(self: &Arc<Self>, fetch: KBox<Fetch>) {
        self.count(&fetch, true);
        let refused = {
            let mut incoming = self.incoming.lock();
            if incoming.open {
                if let Some(queue) = incoming.queues.get_mut(fetch.priority as usize) {
                    queue.push(fetch);
                }
                None
            } else {
                Some(fetch)
            }
        };
        match refused {
            None => self.kick(),
            Some(fetch) => {
                let mut ended = FetchQueue::new();
                self.end(fetch, Err(Errno::Shutdown.into()), &mut ended);
                ended.report();
            }
        }
    }

    /// See `Source::hurry`. With the driver held, a fetch is either queued or active.
    pub(super) fn hurry(&self, lba_bytes: u64) {
        let mut driver = self.driver.lock();
        let raised = driver.hurry(lba_bytes) || {
            let mut incoming = self.incoming.lock();
            let [demand, rest @ ..] = &mut incoming.queues;
            let fetch = rest.iter_mut().find_map(|queue| queue.take(lba_bytes));
            fetch
                .map(|mut fetch| {
                    fetch.priority = Priority::Demand;
                    demand.push(fetch);
                })
                .is_some()
        };
        if raised {
            self.status
                .counters()
                .demand_inflight
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// See `Source::reconnect`.
    pub(super) fn reconnect(self: &Arc<Self>) {
        self.driver.lock().hasten();
        self.kick();
    }

    /// Takes the most urgent fetch; one that nobody waits for only if `idle`.
    pub(super) fn next(&self, idle: bool) -> Option<KBox<Fetch>> {
        let mut incoming = self.incoming.lock();
        let [demand, rest @ ..] = &mut incoming.queues;
        demand.pop().or_else(|| {
            if !idle {
                return None;
            }
            rest.iter_mut().find_map(FetchQueue::pop)
        })
    }

    /// Puts a fetch back that was taken too early.
    pub(super) fn put_back(&self, fetch: KBox<Fetch>) {
        let mut incoming = self.incoming.lock();
        if let Some(queue) = incoming.queues.get_mut(fetch.priority as usize) {
            queue.push_front(fetch);
        }
    }

    /// Notes how `fetch` ended; its callback is called when `ended` is reported.
    pub(super) fn end(&self, fetch: KBox<Fetch>, result: Result, ended: &mut FetchQueue) {
        self.count(&fetch, false);
        let counters = self.status.counters();
        match result {
            Ok(()) => {
                counters.fetches_done.fetch_add(1, Ordering::Relaxed);
                let bytes = u64::from(fetch.len());
                counters.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) if Errno::from_error(error) == Some(Errno::Shutdown) => {}
            Err(_) => {
                counters.fetches_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        ended.push_ended(fetch, result);
    }

    fn count(&self, fetch: &Fetch, begins: bool) {
        let change = if begins { 1 } else { 1_u64.wrapping_neg() };
        let counters = self.status.counters();
        counters
            .fetches_inflight
            .fetch_add(change, Ordering::Relaxed);
        if fetch.priority == Priority::Demand {
            counters
                .demand_inflight
                .fetch_add(change, Ordering::Relaxed);
        }
    }

    /// The connection is closed for good.
    pub(super) fn closed(&self) {
        self.closed.complete_all();
    }

    fn rounds(self: &Arc<Self>) {
        for _ in 0..ROUNDS {
            let mut ended = FetchQueue::new();
            let more = self.driver.lock().round(self, &mut ended);
            // A callback may have asked for more.
            let again = more || !ended.is_empty();
            ended.report();
            if !again {
                return self.arm();
            }
        }
        self.kick();
    }

    /// Sets the timer. One that fires too early does no harm, one that is moved with every read costs.
    fn arm(self: &Arc<Self>) {
        // Held to the end, so that nobody sets the timer after `close` has had the driver.
        let driver = self.driver.lock();
        let Some(due) = driver.due() else {
            return;
        };
        let armed = self.armed_ms.load(Ordering::Acquire);
        if armed != 0 && armed <= due {
            return;
        }
        self.armed_ms.store(due, Ordering::Release);
        let delay = u32::try_from(due.saturating_sub(now_ms())).unwrap_or(u32::MAX);
        self.queue.enqueue_at::<_, TIMER>(self.clone(), delay);
    }

    /// See `Source::stop`.
    pub(super) fn stop(self: &Arc<Self>) {
        self.incoming.lock().open = false;
        self.driver.lock().log_out(self);
        self.kick();
        self.closed.wait_timeout(LOGOUT_MS);
        let mut ended = FetchQueue::new();
        self.driver.lock().close(self, &mut ended);
        // In this order: the clock queues the other item. Nobody else does any more, for there is no socket and no fetch,
        // and nobody sets the clock.
        cancel_delayed_sync::<_, TIMER>(self);
        cancel_sync::<_, IO>(self);
        ended.report();
    }
}
