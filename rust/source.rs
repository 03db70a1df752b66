// SPDX-License-Identifier: GPL-2.0-only

//! The repository as the device sees it: something to fetch bytes of the image from.
//!
//! The protocol is `imgstream_engine::session`, which does no I/O; here it is driven over a socket. A gone network makes
//! fetches wait, for ever if need be, and says so; a fetch fails only if the target itself says that the bytes cannot be
//! read, or when the source is stopped.
//!
//! There are one or several sessions ([`links`]), each with a connection of its own. Everything that touches a connection runs
//! in one work item ([`link`]) on a queue with a rescuer, so that it goes on when memory is short. Locks: `Link::driver`
//! (mutex, never those of two links), inside of it `Links::shared` and `Status` (spinlocks, never both). Callbacks of fetches
//! run without any of them.

mod driver;
mod errors;
mod fetch;
mod link;
mod links;
mod repository;
mod status;
#[cfg(CONFIG_KUNIT = "y")]
mod testing;
mod transport;

use crate::kapi::{
    errno::Errno,
    time::now_ms,
    workqueue::Queue, //
};
use fetch::FetchQueue;
use imgstream_engine::parallel;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use link::Link;
use links::Links;

pub(crate) use errors::is_refusal;
pub(crate) use fetch::{
    Fetch,
    FetchDone,
    Priority, //
};
pub(crate) use repository::Repository;
pub(crate) use status::{
    Counters,
    Line,
    Sessions,
    Snapshot, //
};

/// How long the logouts may take together when the source is stopped. They are a courtesy to the target.
const LOGOUT_MS: u64 = 2_000;

/// A repository that is connected to, reconnected to and read.
///
/// Dropping it [stops](Self::stop) it, so it must not be dropped by the callback of a fetch.
pub(crate) struct Source {
    repository: KBox<Repository>,
    links: Arc<Links>,
    // Last, after all links: it waits for the last work item.
    queue: Arc<Queue>,
}

impl Source {
    /// Starts to connect to `repository`, over one session, and returns at once.
    pub(crate) fn start(repository: &Repository) -> Result<Self> {
        let this = Self::asleep(repository)?;
        this.wake();
        Ok(this)
    }

    /// The same that does nothing until it is woken.
    fn asleep(repository: &Repository) -> Result<Self> {
        let this = Self {
            repository: KBox::new(repository.clone(), GFP_KERNEL)?,
            links: Links::new()?,
            queue: Arc::new(Queue::new(c"imgstream_net")?, GFP_KERNEL)?,
        };
        this.add(0)?;
        Ok(this)
    }

    fn add(&self, number: u8) -> Result {
        let queue = self.queue.clone();
        let link = Link::new(number, &self.repository, self.links.clone(), queue)?;
        self.links.add(&link);
        Ok(())
    }

    fn wake(&self) {
        for link in self.links.roster().iter().flatten() {
            link.kick();
        }
    }

    /// There are to be so many sessions, [`parallel::MAX_SESSIONS`] at most. Those that are new begin when one is ready; those
    /// that are too many end what they have under way, and log out. Changes nothing if there is no memory, or once the source is
    /// stopped. One at a time; sleeps, but not for the network.
    pub(crate) fn want_sessions(&self, sessions: u8) -> Result {
        if !self.links.is_open() {
            return Ok(());
        }
        for number in 0..sessions.min(parallel::MAX_SESSIONS) {
            if !self.links.has(number) {
                self.add(number)?;
            }
        }
        self.links.want(sessions);
        self.wake();
        Ok(())
    }

    /// Fetches `fetch.buf.len()` bytes at `fetch.lba_bytes` into `fetch.buf`, then calls `fetch.done` on our queue.
    /// Process context; does not sleep. After [`stop`](Self::stop) the callback is called at once, by the caller.
    pub(crate) fn fetch(&self, fetch: KBox<Fetch>) {
        if let Err(refused) = self.links.push(fetch) {
            let mut ended = FetchQueue::new();
            self.links
                .end(refused, Err(Errno::Shutdown.into()), &mut ended);
            ended.report();
        }
    }

    /// Somebody waits for the fetch at `lba_bytes` that nobody waited for when it was asked for: it is put before those
    /// that still nobody waits for. Does nothing if there is none. Process context; not for a fetch's callback.
    pub(crate) fn hurry(&self, lba_bytes: u64) {
        // First the queue, then the links: what leaves the queue goes to a link, whose driver is locked until it has it. It can
        // only be missed if a link puts it back meanwhile.
        while let Err(returns) = self.links.hurry(lba_bytes) {
            let roster = self.links.roster();
            let raised = roster.iter().flatten().any(|link| link.hurry(lba_bytes));
            if raised || self.links.returns() == returns {
                return;
            }
        }
    }

    /// The next attempt to connect is due now. Does nothing while there is a connection, or an attempt at one. May sleep; not
    /// for a fetch's callback.
    pub(crate) fn reconnect(&self) {
        for link in self.links.roster().iter().flatten() {
            link.reconnect();
        }
    }

    /// Whether a fetch would be sent at once. Any context.
    pub(crate) fn ready(&self) -> bool {
        self.links.any_ready()
    }

    /// The counters.
    pub(crate) fn counters(&self) -> &Counters {
        self.links.counters()
    }

    /// What there is to say about the connection: that of the first session that is ready, else of the first one. What it is
    /// said to protect, all that are ready do.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let roster = self.links.roster();
        let snapshots = || roster.iter().flatten().map(|link| link.status().snapshot());
        let ready = snapshots().filter(Snapshot::is_ready);
        let shown = ready.reduce(Snapshot::with).or(snapshots().next());
        shown.unwrap_or(Snapshot::EMPTY)
    }

    /// How many sessions there are, and are to be: none once the source is stopped.
    pub(crate) fn sessions(&self) -> Sessions {
        if !self.links.is_open() {
            return Sessions::NONE;
        }
        let roster = self.links.roster();
        let missing = |link: &&Arc<Link>| link.is_wanted() && !link.status().ready();
        let missing = roster.iter().flatten().find(missing);
        let reason = missing.map(|link| link.status().snapshot().reason);
        let ready = self.links.ready_count();
        Sessions {
            wanted: self.links.wanted(),
            ready,
            reason: reason.filter(|_| ready > 0).unwrap_or(Line::EMPTY),
        }
    }

    /// Ends the connections for good. Fetches that are under way end with `ESHUTDOWN`, and their callbacks have returned
    /// when this returns: after a few seconds at most, also if the network is dead. Not for a fetch's callback. May be called
    /// by several at a time: each of its steps does nothing where another has been.
    pub(crate) fn stop(&self) {
        self.links.close();
        let roster = self.links.roster();
        let all = || roster.iter().flatten();
        all().for_each(Link::log_out);
        let until_ms = now_ms().saturating_add(LOGOUT_MS);
        for link in all() {
            let left_ms = until_ms.saturating_sub(now_ms());
            link.wait_until_closed(u32::try_from(left_ms).unwrap_or(u32::MAX));
        }
        let mut ended = FetchQueue::new();
        all().for_each(|link| link.close(&mut ended));
        // Only now: until its end a link may have put something back.
        self.links.end_all(&mut ended);
        all().for_each(Link::cancel);
        ended.report();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
        self.links.forget();
    }
}
