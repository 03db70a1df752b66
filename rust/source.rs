// SPDX-License-Identifier: GPL-2.0-only

//! The repository as the device sees it: something to fetch bytes of the image from.
//!
//! The protocol is `imgstream_engine::session`, which does no I/O; here it is driven over a socket. A gone network makes
//! fetches wait, for ever if need be, and says so; a fetch fails only if the target itself says that the bytes cannot be
//! read, or when the source is stopped.
//!
//! Everything that touches the connection runs in one work item ([`link`]) on a queue of its own with a rescuer, so that
//! it goes on when memory is short. Locks: `Link::driver` (mutex), inside of it `Link::incoming` and `Status` (spinlocks,
//! never both). Callbacks of fetches run without any of them.

mod driver;
mod errors;
mod fetch;
mod link;
mod repository;
mod status;
mod transport;

use crate::kapi::workqueue::Queue;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use link::Link;

pub(crate) use errors::is_refusal;
pub(crate) use fetch::{
    Fetch,
    FetchDone,
    Priority, //
};
pub(crate) use repository::Repository;
pub(crate) use status::{
    Line,
    Status, //
};

/// A repository that is connected to, reconnected to and read.
///
/// Dropping it [stops](Self::stop) it, so it must not be dropped by the callback of a fetch.
pub(crate) struct Source {
    // Dropped before `queue`, which waits for the last work item.
    link: Arc<Link>,
    _queue: Arc<Queue>,
}

impl Source {
    /// Starts to connect to `repository` and returns at once.
    pub(crate) fn start(repository: &Repository) -> Result<Self> {
        let queue = Arc::new(Queue::new(c"imgstream_net")?, GFP_KERNEL)?;
        let link = Link::new(repository, queue.clone())?;
        link.kick();
        Ok(Self {
            link,
            _queue: queue,
        })
    }

    /// Fetches `fetch.buf.len()` bytes at `fetch.lba_bytes` into `fetch.buf`, then calls `fetch.done` on our queue.
    /// Process context; does not sleep. After [`stop`](Self::stop) the callback is called at once, by the caller.
    pub(crate) fn fetch(&self, fetch: KBox<Fetch>) {
        self.link.fetch(fetch);
    }

    /// Somebody waits for the fetch at `lba_bytes` that nobody waited for when it was asked for: it is put before those
    /// that still nobody waits for. Does nothing if there is none. Process context; not for a fetch's callback.
    pub(crate) fn hurry(&self, lba_bytes: u64) {
        self.link.hurry(lba_bytes);
    }

    /// The next attempt to connect is due now. Does nothing while there is a connection, or an attempt at one. May sleep; not
    /// for a fetch's callback.
    pub(crate) fn reconnect(&self) {
        self.link.reconnect();
    }

    /// Whether a fetch would be sent at once. Any context.
    pub(crate) fn ready(&self) -> bool {
        self.link.status().ready()
    }

    /// What there is to say about the connection, and the counters.
    pub(crate) fn status(&self) -> &Status {
        self.link.status()
    }

    /// Ends the connection for good. Fetches that are under way end with `ESHUTDOWN`, and their callbacks have returned
    /// when this returns: after a few seconds at most, also if the network is dead. Not for a fetch's callback.
    pub(crate) fn stop(&self) {
        self.link.stop();
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
    }
}
