// SPDX-License-Identifier: GPL-2.0-only

//! What is asked of the repository, and queues of it that need no memory.

use crate::kapi::page::PageBuf;
use imgstream_engine::session::Strikes;
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
    /// How often it has ended a connection, on sessions that had it before.
    pub(super) strikes: Strikes,
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
            strikes: Strikes::NONE,
            result: Ok(()),
            next: None,
        };
        Ok(KBox::new(fetch, GFP_KERNEL)?)
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.buf.len()).unwrap_or(u32::MAX)
    }

    /// Ends it without having asked anybody.
    pub(crate) fn fail(mut self: KBox<Self>, error: Error) {
        self.result = Err(error);
        self.report();
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

#[cfg(CONFIG_KUNIT = "y")]
pub(super) mod testing {
    //! Fetches whose end is written down.

    use super::*;
    use crate::kapi::page::PagePool;
    use kernel::{
        new_mutex,
        sync::Mutex, //
    };

    /// Who asks for them, and notes the order and the results.
    #[pin_data]
    pub(in crate::source) struct Asker {
        #[pin]
        ended: Mutex<KVec<(usize, Result)>>,
        pool: Arc<PagePool>,
    }

    impl FetchDone for Asker {
        fn fetched(self: Arc<Self>, buf: PageBuf, result: Result) {
            // Without memory it is missing, which a test sees.
            let _ = self
                .ended
                .lock()
                .push((buf.pages().len(), result), GFP_KERNEL);
        }
    }

    impl Asker {
        pub(in crate::source) fn new() -> Result<Arc<Self>> {
            let pool = PagePool::new(16)?;
            let init = pin_init!(Self {
                ended <- new_mutex!(KVec::new(), "imgstream:kunit"),
                pool,
            });
            Arc::pin_init(init, GFP_KERNEL)
        }

        /// A fetch at byte 512 * `number`, with so many pages.
        pub(in crate::source) fn fetch(
            self: &Arc<Self>,
            number: usize,
            priority: Priority,
        ) -> Result<KBox<Fetch>> {
            let buf = PageBuf::new(&self.pool, number)?;
            Fetch::new(512 * number as u64, buf, priority, self.clone())
        }

        /// What has ended since it was asked last, in order.
        pub(in crate::source) fn ended(&self) -> KVec<(usize, Result)> {
            core::mem::take(&mut self.ended.lock())
        }
    }
}

#[kunit_tests(imgstream_fetch)]
mod tests {
    use super::{
        testing::Asker,
        Priority::Background,
        *, //
    };
    use crate::kapi::testing::every;

    const AT: fn(u64) -> u64 = |number| 512 * number;

    /// A queue of fetches 1 to `count`.
    fn queue_of(asker: &Arc<Asker>, count: usize) -> Result<FetchQueue> {
        let mut queue = FetchQueue::new();
        for number in 1..=count {
            queue.push(asker.fetch(number, Background)?);
        }
        Ok(queue)
    }

    fn pop(queue: &mut FetchQueue) -> Option<u64> {
        queue.pop().map(|fetch| fetch.lba_bytes / 512)
    }

    fn is(mut queue: FetchQueue, numbers: &[u64]) -> bool {
        let right = numbers
            .iter()
            .all(|&number| pop(&mut queue) == Some(number));
        right && queue.is_empty() && queue.pop().is_none()
    }

    #[test]
    fn first_in_is_first_out() -> Result {
        let asker = Asker::new()?;
        assert!(FetchQueue::new().is_empty());
        assert!(is(queue_of(&asker, 0)?, &[]));
        assert!(is(queue_of(&asker, 1)?, &[1]));
        assert!(is(queue_of(&asker, 5)?, &[1, 2, 3, 4, 5]));
        Ok(())
    }

    #[test]
    fn it_stays_so_with_takes_in_between() -> Result {
        let asker = Asker::new()?;
        let mut queue = queue_of(&asker, 3)?;
        assert_eq!(pop(&mut queue), Some(1));
        queue.push(asker.fetch(4, Background)?);
        assert_eq!(pop(&mut queue), Some(2));
        queue.push(asker.fetch(5, Background)?);
        queue.push_front(asker.fetch(6, Background)?);
        assert!(!queue.is_empty());
        assert!(is(queue, &[6, 3, 4, 5]));
        Ok(())
    }

    #[test]
    fn one_can_be_taken_out_and_the_others_keep_their_order() -> Result {
        let asker = Asker::new()?;
        let table: [(u64, &[u64]); 5] = [
            (1, &[6, 2, 3, 4]),
            (3, &[6, 1, 2, 4]),
            (4, &[6, 1, 2, 3]),
            (6, &[1, 2, 3, 4]),
            (9, &[6, 1, 2, 3, 4]),
        ];
        assert!(every(table, |&(number, others)| {
            let Ok(mut queue) = queue_of(&asker, 4) else {
                return false;
            };
            // Some stand in front, some in the back.
            let Ok(first) = asker.fetch(6, Background) else {
                return false;
            };
            queue.push_front(first);
            let taken = queue.take(AT(number)).map(|fetch| fetch.lba_bytes);
            taken == (others.len() == 4).then_some(AT(number)) && is(queue, others)
        }));
        Ok(())
    }

    #[test]
    fn of_two_at_one_place_the_first_is_taken() -> Result {
        let asker = Asker::new()?;
        let mut queue = queue_of(&asker, 2)?;
        let mut twin = asker.fetch(3, Background)?;
        twin.lba_bytes = AT(1);
        queue.push(twin);
        let pages = queue.take(AT(1)).map(|fetch| fetch.buf.pages().len());
        assert_eq!(pages, Some(1));
        assert!(is(queue, &[2, 1]));
        Ok(())
    }

    #[test]
    fn callbacks_get_buffer_and_result_in_order_and_once() -> Result {
        let asker = Asker::new()?;
        let mut ended = FetchQueue::new();
        let results = [Ok(()), Err(EIO), Ok(()), Err(EINVAL)];
        for (number, result) in (1..).zip(results) {
            ended.push_ended(asker.fetch(number, Background)?, result);
        }
        assert!(asker.ended().is_empty());
        ended.report();
        let expected = [(1, Ok(())), (2, Err(EIO)), (3, Ok(())), (4, Err(EINVAL))];
        assert_eq!(*asker.ended(), expected);
        Ok(())
    }

    #[test]
    fn a_long_queue_is_dropped_one_by_one() -> Result {
        // By recursion this would be more than the stack.
        let asker = Asker::new()?;
        let mut queue = FetchQueue::new();
        for _ in 0..2_000 {
            queue.push(asker.fetch(0, Background)?);
        }
        drop(queue);
        assert!(asker.ended().is_empty());
        Ok(())
    }

    #[test]
    fn a_fetch_is_as_long_as_its_buffer() -> Result {
        let asker = Asker::new()?;
        assert!(every([0, 1, 16], |&pages| {
            let fetch = asker.fetch(pages, Background);
            fetch.is_ok_and(|fetch| fetch.len() == 4096 * pages as u32)
        }));
        Ok(())
    }
}
