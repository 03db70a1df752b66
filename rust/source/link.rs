// SPDX-License-Identifier: GPL-2.0-only

//! The object that the network, the clock and the readers wake, and the one work item that then does what is due.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    driver::Driver,
    fetch::FetchQueue,
    links::Links,
    repository::Repository,
    status::{
        Line,
        Route,
        Status, //
    },
};
use crate::kapi::{
    net::Wake,
    noio::NoIo,
    sync::Completion,
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
use imgstream_proto::abi::status::Connection;
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

/// See the module.
#[pin_data]
pub(super) struct Link {
    /// Its place among the links, and the number of its session. The first one is 0.
    number: u8,
    links: Arc<Links>,
    queue: Arc<Queue>,
    #[pin]
    driver: Mutex<KBox<Driver>>,
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
    pub(super) fn new(
        number: u8,
        repository: &Repository,
        links: Arc<Links>,
        queue: Arc<Queue>,
    ) -> Result<Arc<Self>> {
        // A session of 5 KiB on its way into its box does not fit every stack.
        let repository = repository.clone();
        let driver = queue.call(move || Driver::new(&repository, number))??;
        Arc::pin_init(
            pin_init!(Self {
                number,
                links,
                queue,
                driver <- new_mutex!(driver, "imgstream:source"),
                status <- Status::new(),
                closed <- Completion::new(),
                armed_ms: AtomicU64::new(0),
                io <- new_work!("imgstream:source_io"),
                timer <- new_delayed_work!("imgstream:source_timer"),
            }),
            GFP_KERNEL,
        )
    }

    /// Its number.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// What it shares with the others.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// What there is to say of this session.
    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    /// Whether this is the first session, which there always is.
    pub(super) fn is_first(&self) -> bool {
        self.number == 0
    }

    /// Whether there is to be a session.
    pub(super) fn is_wanted(&self) -> bool {
        self.number < self.links.wanted()
    }

    /// Whether others serve.
    pub(super) fn others_ready(&self) -> bool {
        self.links.others_ready(self.number)
    }

    /// The session is now in state `connection`; see `Status::enter`.
    pub(super) fn enter(&self, connection: Connection, route: Option<Route>, reason: Line) {
        self.status.enter(connection, route, reason);
        let ready = connection == Connection::Ready;
        self.links.set_ready(self.number, ready);
    }

    /// Lets the work item run, once more if it runs already. Any context.
    pub(super) fn kick(self: &Arc<Self>) {
        // An error says that it is queued already, which is as good.
        let _ = self.queue.enqueue::<_, IO>(self.clone());
    }

    /// Somebody waits for the fetch at `lba_bytes`; whether it is one that this link has, and that nobody waited for.
    pub(super) fn hurry(&self, lba_bytes: u64) -> bool {
        let mut driver = self.driver.lock();
        let raised = driver.hurry(lba_bytes);
        if raised {
            // Before it can end.
            self.links.count_demand(1);
        }
        raised
    }

    /// See `Source::reconnect`.
    pub(super) fn reconnect(self: &Arc<Self>) {
        self.driver.lock().hasten();
        self.kick();
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
        let Some(due) = driver.due(self) else {
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

    /// Begins the end; see `Driver::log_out`.
    pub(super) fn log_out(self: &Arc<Self>) {
        self.driver.lock().log_out(self);
        self.kick();
    }

    /// Waits for the end, for so long at most.
    pub(super) fn wait_until_closed(&self, ms: u32) {
        self.closed.wait_timeout(ms);
    }

    /// The end. From now on nothing is put back, and nothing wakes it but others.
    pub(super) fn close(self: &Arc<Self>, ended: &mut FetchQueue) {
        self.driver.lock().close(self, ended);
    }

    /// Waits until nothing of it runs any more.
    pub(super) fn cancel(self: &Arc<Self>) {
        // In this order: the clock queues the other item. Nobody else does any more, for there is no socket and no fetch, the
        // other links wake nobody, and nobody sets the clock.
        cancel_delayed_sync::<_, TIMER>(self);
        cancel_sync::<_, IO>(self);
    }
}
