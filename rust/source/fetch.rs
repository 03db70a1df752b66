// SPDX-License-Identifier: GPL-2.0-only

//! What is asked of the repository, and queues of it that need no memory.

use crate::kapi::page::PageBuf;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Who is told that a fetch has ended.
pub(crate) trait FetchDone: Send + Sync {
    /// Gives the buffer back, filled if `result` is `Ok`; otherwise its contents are undefined.
    ///
    /// Process context with no lock held. May wait for the local disk, never for the network; what takes long belongs
    /// on another queue, because nothing is received meanwhile.
    fn fetched(self: Arc<Self>, buf: PageBuf, result: Result);
}

/// Who waits for a fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A reader.
    Demand = 0,
    /// Nobody: the background fill, the commit.
    Background = 1,
}

/// Number of [`Priority`]s.
pub(super) const PRIORITIES: usize = 2;

/// One read of the image.
pub(crate) struct Fetch {
    /// Where in the logical unit, a multiple of 512.
    pub(crate) lba_bytes: u64,
    /// Where to: all of it is filled. At most a mebibyte.
    pub(crate) buf: PageBuf,
    /// How urgent.
    pub(crate) priority: Priority,
    /// Who is told.
    pub(crate) done: Arc<dyn FetchDone>,
    result: Result,
    next: Option<KBox<Fetch>>,
}

impl Fetch {
    /// A fetch, not begun.
    pub(crate) fn new(
        lba_bytes: u64,
        buf: PageBuf,
        priority: Priority,
        done: Arc<dyn FetchDone>,
    ) -> Result<KBox<Self>> {
        let fetch = Self {
            lba_bytes,
            buf,
            priority,
            done,
            result: Ok(()),
            next: None,
        };
        Ok(KBox::new(fetch, GFP_KERNEL)?)
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.buf.len()).unwrap_or(u32::MAX)
    }

    /// Calls the callback.
    pub(super) fn report(self: KBox<Self>) {
        let Self {
            buf, done, result, ..
        } = KBox::into_inner(self);
        done.fetched(buf, result);
    }
}

/// First in, first out; a list through the fetches themselves, so that queueing cannot fail.
pub(super) struct FetchQueue {
    // What is taken next comes from `front`; what was added last is first in `back`.
    front: Option<KBox<Fetch>>,
    back: Option<KBox<Fetch>>,
}

impl FetchQueue {
    /// An empty queue.
    pub(super) const fn new() -> Self {
        Self {
            front: None,
            back: None,
        }
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none() && self.back.is_none()
    }

    /// Adds `fetch` as the last one.
    pub(super) fn push(&mut self, mut fetch: KBox<Fetch>) {
        fetch.next = self.back.take();
        self.back = Some(fetch);
    }

    /// Adds `fetch` as the last one, with how it ended.
    pub(super) fn push_ended(&mut self, mut fetch: KBox<Fetch>, result: Result) {
        fetch.result = result;
        self.push(fetch);
    }

    /// Puts `fetch` back as the first one.
    pub(super) fn push_front(&mut self, mut fetch: KBox<Fetch>) {
        fetch.next = self.front.take();
        self.front = Some(fetch);
    }

    /// Takes the first one.
    pub(super) fn pop(&mut self) -> Option<KBox<Fetch>> {
        if self.front.is_none() {
            self.turn();
        }
        let mut first = self.front.take()?;
        self.front = first.next.take();
        Some(first)
    }

    /// Takes the one at `lba_bytes`; the others keep their order.
    pub(super) fn take(&mut self, lba_bytes: u64) -> Option<KBox<Fetch>> {
        let mut found = None;
        let mut others = Self::new();
        while let Some(fetch) = self.pop() {
            if found.is_none() && fetch.lba_bytes == lba_bytes {
                found = Some(fetch);
            } else {
                others.push(fetch);
            }
        }
        *self = others;
        found
    }

    fn turn(&mut self) {
        while let Some(mut fetch) = self.back.take() {
            self.back = fetch.next.take();
            self.push_front(fetch);
        }
    }

    /// Calls the callbacks of all, in order.
    pub(super) fn report(mut self) {
        while let Some(fetch) = self.pop() {
            fetch.report();
        }
    }
}

impl Drop for FetchQueue {
    // One after the other: the list would otherwise be dropped by recursion.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
