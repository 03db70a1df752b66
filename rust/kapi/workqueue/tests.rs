// SPDX-License-Identifier: GPL-2.0-only

//! Tests of work queues.

use kernel::prelude::*;

#[kunit_tests(imgstream_workqueue)]
mod suite {
    use super::super::*;
    use crate::kapi::testing::{
        begin,
        completion,
        every,
        queue,
        watched,
        Watch,
        Watched,
        HANG_MS,
        SHORT_MS, //
    };
    use core::sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    };
    use kernel::{
        impl_has_delayed_work,
        workqueue::{
            new_delayed_work,
            DelayedWork, //
        },
    };

    const HOUR_MS: u32 = 3_600_000;

    /// A work item that tells when it begins, and ends when it may.
    #[pin_data]
    struct Item {
        runs: AtomicU32,
        over: AtomicBool,
        begun: Arc<Completion>,
        may_end: Arc<Completion>,
        #[pin]
        work: DelayedWork<Self>,
        _watched: Watched,
    }

    impl_has_delayed_work! { impl HasDelayedWork<Self> for Item { self.work } }

    impl WorkItem for Item {
        type Pointer = Arc<Self>;

        fn run(this: Arc<Self>) {
            this.begun.complete_all();
            this.may_end.wait();
            this.runs.fetch_add(1, Ordering::SeqCst);
            this.over.store(true, Ordering::SeqCst);
        }
    }

    fn item() -> Result<(Arc<Item>, Watch)> {
        let (_watched, watch) = watched()?;
        let (begun, may_end) = (completion()?, completion()?);
        let item = Arc::pin_init(
            pin_init!(Item {
                runs: AtomicU32::new(0),
                over: AtomicBool::new(false),
                begun,
                may_end,
                work <- new_delayed_work!("imgstream:kunit"),
                _watched,
            }),
            GFP_KERNEL,
        )?;
        Ok((item, watch))
    }

    /// One that ends by itself.
    fn short_item() -> Result<(Arc<Item>, Watch)> {
        let (item, watch) = item()?;
        item.may_end.complete_all();
        Ok((item, watch))
    }

    /// In how many whole hours the item's timer fires, nearly; `None` if it is not set.
    fn due_in_hours(item: &Arc<Item>) -> Option<usize> {
        let delayed = delayed_work_of::<Item, 0>(Arc::as_ptr(item));
        // SAFETY: Initialised, and its timer is changed by nobody else in these tests.
        let (expires, is_set) = unsafe {
            let timer = &(*delayed).timer;
            (timer.expires, !timer.entry.pprev.is_null())
        };
        let left = expires.wrapping_sub(now());
        let hour = msecs_to_jiffies(HOUR_MS);
        is_set.then_some((left + hour / 2) / hour)
    }

    fn now() -> kernel::time::Jiffies {
        // SAFETY: A counter that is read as a word.
        unsafe { (&raw const bindings::jiffies).read_volatile() }
    }

    #[test]
    fn a_call_gives_what_the_function_gave_on_another_thread() -> Result {
        let queue = queue()?;
        // SAFETY: Asked for its address only.
        let thread = || unsafe { bindings::get_current() } as usize;
        let here = thread();
        for value in 0..10u32 {
            let (result, there) = queue.call(move || (value * 2, thread()))?;
            assert!(result == value * 2 && there != here);
        }
        Ok(())
    }

    #[test]
    fn a_call_drops_what_it_was_given() -> Result {
        let queue = queue()?;
        let (data, watch) = watched()?;
        queue.call(move || drop(data))?;
        assert!(watch.is_gone());
        Ok(())
    }

    #[test]
    fn work_runs_once_and_lets_go() -> Result {
        let queue = queue()?;
        let (item, watch) = short_item()?;
        queue.enqueue_at(item.clone(), 0);
        assert!(item.begun.wait_timeout(HANG_MS));
        queue.flush();
        assert_eq!(item.runs.load(Ordering::SeqCst), 1);
        drop(item);
        drop(queue);
        assert!(watch.is_gone());
        Ok(())
    }

    #[test]
    fn work_can_be_moved_to_earlier_and_to_later() -> Result {
        let queue = queue()?;
        let table = [(1, 1), (1, 3), (3, 1), (2, 5), (5, 2)];
        assert!(every(table, |&(first, second)| {
            let Ok((item, watch)) = item() else {
                return false;
            };
            queue.enqueue_at(item.clone(), first * HOUR_MS);
            let at_first = due_in_hours(&item);
            queue.enqueue_at(item.clone(), second * HOUR_MS);
            let at_second = due_in_hours(&item);
            let was_pending = cancel_delayed_sync(&item);
            let not_set = due_in_hours(&item);
            drop(item);
            at_first == Some(first as usize)
                && at_second == Some(second as usize)
                && was_pending
                && not_set.is_none()
                && watch.is_gone()
        }));
        Ok(())
    }

    #[test]
    fn work_that_was_to_run_later_runs_now_and_once() -> Result {
        let queue = queue()?;
        let (item, watch) = short_item()?;
        queue.enqueue_at(item.clone(), HOUR_MS);
        queue.enqueue_at(item.clone(), 0);
        assert!(item.begun.wait_timeout(HANG_MS));
        queue.flush();
        assert_eq!(item.runs.load(Ordering::SeqCst), 1);
        assert!(!cancel_delayed_sync(&item));
        drop(item);
        assert!(watch.is_gone());
        Ok(())
    }

    #[test]
    fn work_that_runs_can_be_queued_again() -> Result {
        let queue = queue()?;
        let (item, watch) = item()?;
        queue.enqueue_at(item.clone(), 0);
        assert!(item.begun.wait_timeout(HANG_MS));
        queue.enqueue_at(item.clone(), HOUR_MS);
        queue.enqueue_at(item.clone(), 0);
        item.may_end.complete_all();
        // The second run is queued by now, behind the first.
        drop(queue);
        assert_eq!(item.runs.load(Ordering::SeqCst), 2);
        drop(item);
        assert!(watch.is_gone());
        Ok(())
    }

    #[test]
    fn cancelling_takes_off_what_waits_with_its_reference() -> Result {
        let queue = queue()?;
        let (item, watch) = item()?;
        assert!(!cancel_delayed_sync(&item));
        queue.enqueue_at(item.clone(), HOUR_MS);
        assert!(cancel_delayed_sync(&item));
        assert!(!cancel_delayed_sync(&item) && !cancel_sync(&item));
        assert_eq!(item.runs.load(Ordering::SeqCst), 0);
        drop(item);
        assert!(watch.is_gone());
        Ok(())
    }

    #[test]
    fn cancelling_waits_for_what_runs() -> Result {
        let (queue, other) = (queue()?, queue()?);
        let (item, _watch) = item()?;
        queue.enqueue_at(item.clone(), 0);
        assert!(item.begun.wait_timeout(HANG_MS));
        let theirs = item.clone();
        let seen = Arc::new(AtomicU32::new(0), GFP_KERNEL)?;
        let result = seen.clone();
        let over = begin(&other, move || {
            let was_pending = cancel_delayed_sync(&theirs);
            let is_over = theirs.over.load(Ordering::SeqCst);
            result.store(
                1 + u32::from(is_over) + 2 * u32::from(was_pending),
                Ordering::SeqCst,
            );
        })?;
        assert!(!over.wait_timeout(SHORT_MS));
        item.may_end.complete_all();
        assert!(over.wait_timeout(HANG_MS));
        // It was over, and had not been waiting.
        assert_eq!(seen.load(Ordering::SeqCst), 2);
        Ok(())
    }

    #[test]
    fn what_is_being_cancelled_is_not_queued_and_loses_no_reference() -> Result {
        let (queue, other) = (queue()?, queue()?);
        for delay_ms in [0, HOUR_MS] {
            let (item, watch) = item()?;
            queue.enqueue_at(item.clone(), 0);
            assert!(item.begun.wait_timeout(HANG_MS));
            let theirs = item.clone();
            let over = begin(&other, move || {
                cancel_delayed_sync(&theirs);
            })?;
            // The other one is waiting for the item by now; if not, it takes off what is queued here.
            assert!(!over.wait_timeout(SHORT_MS));
            queue.enqueue_at(item.clone(), delay_ms);
            item.may_end.complete_all();
            assert!(over.wait_timeout(HANG_MS));
            queue.flush();
            other.flush();
            assert!(item.runs.load(Ordering::SeqCst) == 1 && due_in_hours(&item).is_none());
            drop(item);
            assert!(watch.is_gone());
        }
        Ok(())
    }

    #[test]
    fn flushing_waits_for_all_that_was_queued() -> Result {
        let queue = queue()?;
        let runs = queue_some(&queue)?;
        queue.flush();
        assert_eq!(runs.load(Ordering::SeqCst), SOME);
        Ok(())
    }

    #[test]
    fn dropping_a_queue_waits_for_all_that_was_queued() -> Result {
        let queue = queue()?;
        let runs = queue_some(&queue)?;
        drop(queue);
        assert_eq!(runs.load(Ordering::SeqCst), SOME);
        Ok(())
    }

    const SOME: u32 = 20;

    fn queue_some(queue: &Queue) -> Result<Arc<AtomicU32>> {
        let runs = Arc::new(AtomicU32::new(0), GFP_KERNEL)?;
        for _ in 0..SOME {
            let runs = runs.clone();
            queue.try_spawn(GFP_KERNEL, move || {
                kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
                runs.fetch_add(1, Ordering::SeqCst);
            })?;
        }
        Ok(runs)
    }
}
