// SPDX-License-Identifier: GPL-2.0-only

//! What the parallel sessions of a source share: the fetches that none of them has taken up, and how they see each other.
//!
//! A fetch is a box that has one owner at a time: a queue here; the driver of one link, from [`Links::next`] to its end or to
//! [`Links::put_back`]; or the list of those that have ended, whose callbacks are then called. So each ends once, whichever
//! way it went. It changes hands under `Links::shared`, and under the driver's lock as well where a link takes it or puts it
//! back.
//!
//! A link takes one only in its turn ([`choose`]), else it wakes the one whose turn it is. One that is not ready puts back what
//! it has when another one is ready, so each change of that wakes all others.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    fetch::{
        Fetch,
        FetchQueue,
        Priority,
        PRIORITIES, //
    },
    link::Link,
    status::Counters, //
};
use crate::kapi::{
    errno::Errno,
    sync::{
        new_irq_spinlock,
        IrqSpinLock, //
    },
    time::now_ms, //
};
use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    AtomicU8,
    Ordering, //
};
use imgstream_engine::parallel::{
    choose,
    Load,
    MAX_SESSIONS, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Links that there can be.
pub(super) const MAX_LINKS: usize = MAX_SESSIONS as usize;

/// All links, by their numbers; those that were wanted once stay to the end.
pub(super) type Roster = [Option<Arc<Link>>; MAX_LINKS];

/// What somebody else may want at the same time.
struct Shared {
    /// What readers have asked for and no link has taken up.
    queues: [FetchQueue; PRIORITIES],
    /// Fetches that links have put back.
    returns: u64,
    open: bool,
    links: Roster,
}

/// What a link has under way, as it says itself.
struct Post {
    /// [`UNABLE`]: it cannot take another fetch.
    bytes: AtomicU64,
    heard_ms: AtomicU64,
}

const UNABLE: u64 = u64::MAX;

impl Post {
    const fn new() -> Self {
        Self {
            bytes: AtomicU64::new(UNABLE),
            heard_ms: AtomicU64::new(0),
        }
    }

    fn load(&self) -> Option<Load> {
        let bytes = self.bytes.load(Ordering::Acquire);
        (bytes != UNABLE).then(|| Load {
            bytes,
            heard_ms: self.heard_ms.load(Ordering::Relaxed),
        })
    }
}

/// See the module.
#[pin_data]
pub(super) struct Links {
    #[pin]
    shared: IrqSpinLock<Shared>,
    /// How many sessions there are to be: the links from this number on are not needed.
    wanted: AtomicU8,
    /// A bit for each link that is ready.
    ready: AtomicU8,
    /// When the last one that was ready was lost.
    none_since_ms: AtomicU64,
    /// Grows whenever a link has met another image.
    doubts: AtomicU32,
    /// Grows whenever a session that is not wanted has ended.
    vacancies: AtomicU32,
    posts: [Post; MAX_LINKS],
    counters: Counters,
}

impl Links {
    /// No link yet, and one that is wanted.
    pub(super) fn new() -> Result<Arc<Self>> {
        let shared = Shared {
            queues: [const { FetchQueue::new() }; PRIORITIES],
            returns: 0,
            open: true,
            links: [const { None }; MAX_LINKS],
        };
        Arc::pin_init(
            pin_init!(Self {
                shared <- new_irq_spinlock!(shared, c"imgstream:source_links"),
                wanted: AtomicU8::new(1),
                ready: AtomicU8::new(0),
                none_since_ms: AtomicU64::new(0),
                doubts: AtomicU32::new(0),
                vacancies: AtomicU32::new(0),
                posts: [const { Post::new() }; MAX_LINKS],
                counters: Counters::default(),
            }),
            GFP_KERNEL,
        )
    }

    /// The counters of all links together.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The links that there are. Not under a spinlock: who drops the last reference may sleep.
    pub(super) fn roster(&self) -> Roster {
        self.shared.lock().links.clone()
    }

    /// Adds `link`, unless everything has been closed. Whether it is there now.
    pub(super) fn add(&self, link: &Arc<Link>) -> bool {
        let mut shared = self.shared.lock();
        let open = shared.open;
        let place = shared.links.get_mut(usize::from(link.number()));
        match place.filter(|place| open && place.is_none()) {
            Some(place) => {
                *place = Some(link.clone());
                true
            }
            None => false,
        }
    }

    /// Whether anything is still to be fetched.
    pub(super) fn is_open(&self) -> bool {
        self.shared.lock().open
    }

    /// Whether there is a link of that number.
    pub(super) fn has(&self, number: u8) -> bool {
        let shared = self.shared.lock();
        let link = shared.links.get(usize::from(number));
        link.is_some_and(Option::is_some)
    }

    /// Forgets the links, which know us as we know them.
    pub(super) fn forget(&self) {
        let links = core::mem::replace(&mut self.shared.lock().links, [const { None }; MAX_LINKS]);
        drop(links);
    }

    /// How many sessions there are to be.
    pub(super) fn wanted(&self) -> u8 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Changes it; whoever does so wakes the links.
    pub(super) fn want(&self, sessions: u8) {
        self.wanted.store(sessions, Ordering::SeqCst);
    }

    /// Whether any session is ready. Any context.
    pub(super) fn any_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst) != 0
    }

    /// Whether another one than that of this link is.
    pub(super) fn others_ready(&self, number: u8) -> bool {
        self.ready.load(Ordering::SeqCst) & !bit(number) != 0
    }

    /// How many are.
    pub(super) fn ready_count(&self) -> u32 {
        self.ready.load(Ordering::SeqCst).count_ones()
    }

    /// When the last one that was ready was lost.
    pub(super) fn none_since_ms(&self) -> u64 {
        self.none_since_ms.load(Ordering::Relaxed)
    }

    /// Says whether this link is ready. If that is news the others are woken: they may have fetches for it, may connect now, or
    /// may find some of its.
    pub(super) fn set_ready(&self, number: u8, ready: bool) {
        let bit = bit(number);
        let before = match ready {
            true => self.ready.fetch_or(bit, Ordering::SeqCst),
            false => self.ready.fetch_and(!bit, Ordering::SeqCst),
        };
        if !ready {
            self.post(number, None);
        }
        if (before & bit != 0) == ready {
            return;
        }
        if before & !bit == 0 && !ready {
            self.none_since_ms.store(now_ms(), Ordering::Relaxed);
        }
        self.wake_others(number);
    }

    /// How often another image was met.
    pub(super) fn doubts(&self) -> u32 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// This link has met another image: the others look whether theirs is right. Returns how often that
    /// has happened.
    pub(super) fn doubt(&self, number: u8) -> u32 {
        let doubts = self.doubts.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.wake_others(number);
        doubts
    }

    /// How often a session that is not wanted has ended.
    pub(super) fn vacancies(&self) -> u32 {
        self.vacancies.load(Ordering::SeqCst)
    }

    /// The session of this link has ended, as it is not wanted: the target may have room now for one that is.
    pub(super) fn vacate(&self, number: u8) {
        self.vacancies.fetch_add(1, Ordering::SeqCst);
        self.wake_others(number);
    }

    /// What this link has under way; `None`: it cannot take another fetch. If it could before, what waits is for others now.
    pub(super) fn post(&self, number: u8, bytes: Option<u64>) {
        let Some(post) = self.posts.get(usize::from(number)) else {
            return;
        };
        let before = post.bytes.load(Ordering::Relaxed);
        if before == 0 || before == UNABLE {
            post.heard_ms.store(now_ms(), Ordering::Relaxed);
        }
        post.bytes.store(bytes.unwrap_or(UNABLE), Ordering::Release);
        if bytes.is_none() && before != UNABLE {
            self.wake_turn();
        }
    }

    /// A byte has come over this link.
    pub(super) fn heard(&self, number: u8, now_ms: u64) {
        if let Some(post) = self.posts.get(usize::from(number)) {
            post.heard_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// The link whose turn it is.
    fn turn(&self) -> Option<usize> {
        choose(self.posts.iter().map(Post::load), now_ms())
    }

    /// Wakes all links but that one. Once the source is closed nobody is woken so any more: under the same lock, so that who
    /// stops the links one by one is not overtaken.
    fn wake_others(&self, number: u8) {
        let shared = self.shared.lock();
        let links = shared.links.iter().flatten();
        for link in links.filter(|link| shared.open && link.number() != number) {
            link.kick();
        }
    }

    /// Takes `fetch` and wakes the link whose turn it is. After [`close`](Self::close) it is given back.
    pub(super) fn push(&self, fetch: KBox<Fetch>) -> Result<(), KBox<Fetch>> {
        self.count(&fetch, true);
        let mut shared = self.shared.lock();
        if !shared.open {
            return Err(fetch);
        }
        if let Some(queue) = shared.queues.get_mut(fetch.priority as usize) {
            queue.push(fetch);
        }
        // If nobody can take it, it is found by the first who can.
        shared.wake(self.turn().unwrap_or(0));
        Ok(())
    }

    /// Takes the most urgent fetch for a link, if it is its turn; one that nobody waits for only if it is `idle`.
    pub(super) fn next(&self, number: u8, idle: bool) -> Option<KBox<Fetch>> {
        let mut shared = self.shared.lock();
        let turn = self.turn();
        let [demand, rest @ ..] = &mut shared.queues;
        if turn.is_none_or(|turn| turn == usize::from(number)) {
            return demand.pop().or_else(|| {
                if !idle {
                    return None;
                }
                rest.iter_mut().find_map(FetchQueue::pop)
            });
        }
        let waits = !demand.is_empty() || idle && !rest.iter().all(FetchQueue::is_empty);
        if let Some(turn) = turn.filter(|_| waits && shared.open) {
            shared.wake(turn);
        }
        None
    }

    /// Puts a fetch back that was taken too early, or that another link is to take.
    pub(super) fn put_back(&self, fetch: KBox<Fetch>) {
        let mut shared = self.shared.lock();
        shared.returns = shared.returns.wrapping_add(1);
        if let Some(queue) = shared.queues.get_mut(fetch.priority as usize) {
            queue.push_front(fetch);
        }
    }

    /// Wakes the link whose turn it is, if fetches wait.
    pub(super) fn wake_turn(&self) {
        let shared = self.shared.lock();
        let waits = !shared.queues.iter().all(FetchQueue::is_empty);
        if let Some(turn) = self.turn().filter(|_| waits && shared.open) {
            shared.wake(turn);
        }
    }

    /// Somebody waits for what is at `lba_bytes` now. If that is in the queue it is put among the readers' fetches; else how
    /// many have been put back so far, so that the caller can tell whether it may have missed it.
    pub(super) fn hurry(&self, lba_bytes: u64) -> Result<(), u64> {
        let mut shared = self.shared.lock();
        let [demand, rest @ ..] = &mut shared.queues;
        let found = rest.iter_mut().find_map(|queue| queue.take(lba_bytes));
        let Some(mut fetch) = found else {
            return Err(shared.returns);
        };
        fetch.priority = Priority::Demand;
        demand.push(fetch);
        self.count_demand(1);
        Ok(())
    }

    /// How many fetches have been put back.
    pub(super) fn returns(&self) -> u64 {
        self.shared.lock().returns
    }

    /// Nothing is taken any more, and nobody is woken but by the network and the clock.
    pub(super) fn close(&self) {
        self.shared.lock().open = false;
    }

    /// Ends all that no link has. To be called when no link puts anything back any more.
    pub(super) fn end_all(&self, ended: &mut FetchQueue) {
        loop {
            let fetch = {
                let mut shared = self.shared.lock();
                shared.queues.iter_mut().find_map(FetchQueue::pop)
            };
            match fetch {
                Some(fetch) => self.end(fetch, Err(Errno::Shutdown.into()), ended),
                None => return,
            }
        }
    }

    /// Notes how `fetch` ended; its callback is called when `ended` is reported.
    pub(super) fn end(&self, fetch: KBox<Fetch>, result: Result, ended: &mut FetchQueue) {
        self.count(&fetch, false);
        let counters = &self.counters;
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

    pub(super) fn count(&self, fetch: &Fetch, begins: bool) {
        let change = if begins { 1 } else { 1_u64.wrapping_neg() };
        self.counters
            .fetches_inflight
            .fetch_add(change, Ordering::Relaxed);
        if fetch.priority == Priority::Demand {
            self.count_demand(change);
        }
    }

    /// So many more, or fewer, are waited for.
    pub(super) fn count_demand(&self, change: u64) {
        self.counters
            .demand_inflight
            .fetch_add(change, Ordering::Relaxed);
    }
}

impl Shared {
    /// Lets that link run, if there is one.
    fn wake(&self, number: usize) {
        if let Some(Some(link)) = self.links.get(number) {
            link.kick();
        }
    }
}

fn bit(number: u8) -> u8 {
    1_u8.checked_shl(number.into()).unwrap_or(0)
}
