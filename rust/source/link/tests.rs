// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the links, with a repository that refuses connections.

use super::Link;
use kernel::prelude::*;

impl Link {
    /// Whether `event` lets the work item run, on a queue that nothing else is on.
    pub(in crate::source) fn is_woken_by(&self, event: impl FnOnce() -> Result) -> Result<bool> {
        self.driver.lock().rest();
        event()?;
        self.queue.flush();
        Ok(self.driver.lock().has_run())
    }
}

#[kunit_tests(imgstream_link)]
mod suite {
    use super::super::*;
    use crate::{
        kapi::{
            errno::Errno,
            testing::until, //
        },
        source::{
            fetch::{
                testing::Asker,
                Priority, //
            },
            testing::{
                is_connecting,
                link,
                source,
                stranger,
                take,
                under_way,
                OTHER, //
            },
            Source, //
        },
    };
    use imgstream_proto::iscsi::digest::Digests;
    use Priority::{
        Background,
        Demand, //
    };

    /// Which fetch the link of that number would take.
    fn next(source: &Source, number: u8, idle: bool) -> Option<u64> {
        let fetch = source.links.next(number, idle)?;
        let at = fetch.lba_bytes / 512;
        source.links.put_back(fetch);
        Some(at)
    }

    #[test]
    fn readers_come_first_and_each_kind_in_order() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        for (number, priority) in [(1, Background), (2, Demand), (3, Background), (4, Demand)] {
            source.fetch(asker.fetch(number, priority)?);
        }
        assert_eq!(under_way(&source), (4, 2));
        assert_eq!(next(&source, 0, false), Some(2));
        // What was put back is the first again.
        assert_eq!(next(&source, 0, true), Some(2));
        assert_eq!([take(&source), take(&source)], [Some(2), Some(4)]);
        // What nobody waits for has to wait for an idle connection.
        assert_eq!(
            (next(&source, 0, false), next(&source, 0, true)),
            (None, Some(1))
        );
        assert_eq!(
            [take(&source), take(&source), take(&source)],
            [Some(1), Some(3), None]
        );
        assert_eq!(under_way(&source), (0, 0));
        Ok(())
    }

    #[test]
    fn what_is_hurried_joins_the_readers_once() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        for (number, priority) in [(1, Background), (2, Background), (3, Demand)] {
            source.fetch(asker.fetch(number, priority)?);
        }
        for at in [512 * 2, 512 * 2, 512 * 3, 512 * 9] {
            source.hurry(at);
        }
        assert_eq!(under_way(&source), (3, 2));
        assert_eq!(
            [take(&source), take(&source), take(&source)],
            [Some(3), Some(2), Some(1)]
        );
        assert_eq!(under_way(&source), (0, 0));
        Ok(())
    }

    #[test]
    fn fetches_wait_while_nobody_answers_and_end_when_it_is_stopped() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        source.fetch(asker.fetch(1, Background)?);
        source.fetch(asker.fetch(2, Demand)?);
        let was_refused = || source.snapshot().reason.as_str() == "connection refused";
        assert!(until(was_refused));
        assert!(asker.ended().is_empty());
        source.stop();
        let shutdown: Result = Err(Errno::Shutdown.into());
        assert_eq!(*asker.ended(), [(2, shutdown), (1, shutdown)]);
        assert_eq!(under_way(&source), (0, 0));
        let counters = source.counters();
        // Nobody failed them.
        assert_eq!(counters.fetches_failed.load(Ordering::SeqCst), 0);
        assert_eq!(counters.fetched_bytes.load(Ordering::SeqCst), 0);
        Ok(())
    }

    #[test]
    fn a_pause_between_attempts_can_be_ended() -> Result {
        let source = source()?;
        let link = link(&source, 0)?;
        link.kick();
        assert!(until(|| {
            let mut driver = link.driver.lock();
            let pausing = driver.due(&link) > Some(now_ms());
            driver.hasten();
            pausing && driver.due(&link) <= Some(now_ms())
        }));
        source.reconnect();
        Ok(())
    }

    #[test]
    fn who_comes_after_the_stop_is_answered_at_once() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        source.want_sessions(2)?;
        source.stop();
        source.fetch(asker.fetch(1, Demand)?);
        assert_eq!(*asker.ended(), [(1, Err(Errno::Shutdown.into()))]);
        assert_eq!(under_way(&source), (0, 0));
        // And again: there is nothing to stop, and nothing begins.
        source.stop();
        source.want_sessions(3)?;
        assert!(link(&source, 2).is_err());
        assert_eq!((source.sessions().wanted, source.sessions().ready), (0, 0));
        Ok(())
    }

    #[test]
    fn what_ends_is_counted_by_how_it_ends() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        let mut ended = FetchQueue::new();
        let results = [Ok(()), Err(EIO), Err(Errno::Shutdown.into()), Ok(())];
        for (number, result) in (1..).zip(results) {
            let fetch = asker.fetch(number, Demand)?;
            source.links.count(&fetch, true);
            source.links.end(fetch, result, &mut ended);
        }
        ended.report();
        let counters = source.counters();
        assert_eq!(counters.fetches_done.load(Ordering::SeqCst), 2);
        assert_eq!(counters.fetches_failed.load(Ordering::SeqCst), 1);
        assert_eq!(
            counters.fetched_bytes.load(Ordering::SeqCst),
            (1 + 4) * 4096
        );
        assert_eq!(under_way(&source), (0, 0));
        Ok(())
    }

    #[test]
    fn a_link_takes_what_is_its_turn_to_take() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        let links = &source.links;
        links.post(0, Some(100));
        links.post(1, Some(50));
        source.fetch(asker.fetch(1, Demand)?);
        assert_eq!(
            (next(&source, 0, true), next(&source, 1, true)),
            (None, Some(1))
        );
        links.post(1, Some(200));
        assert_eq!(
            (next(&source, 0, true), next(&source, 1, true)),
            (Some(1), None)
        );
        // A link that cannot take any more, or is not ready, is not waited for.
        links.post(0, None);
        assert_eq!(
            (next(&source, 1, true), next(&source, 2, true)),
            (Some(1), None)
        );
        links.set_ready(1, false);
        assert_eq!(next(&source, 2, true), Some(1));
        assert_eq!(take(&source), Some(1));
        Ok(())
    }

    #[test]
    fn whose_turn_it_is_is_woken() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        source.links.want(4);
        source.links.set_ready(OTHER, true);
        // Nobody has woken them: who is connects, and says that it can take nothing.
        for number in [1, 2, 3] {
            source.add(number)?;
        }
        for (number, bytes) in [(1, 30), (2, 20), (3, 10)] {
            source.links.post(number, Some(bytes));
        }
        let links = [link(&source, 1)?, link(&source, 2)?, link(&source, 3)?];
        let [last, second, first] = links;
        source.links.put_back(asker.fetch(1, Demand)?);
        assert_eq!(next(&source, OTHER, false), None);
        assert!(until(|| is_connecting(&first)));
        // By who could take it until now.
        assert!(until(|| is_connecting(&second)));
        assert!(until(|| is_connecting(&last)));
        source.links.set_ready(OTHER, false);
        Ok(())
    }

    #[test]
    fn what_a_session_has_is_hurried_once_and_ends_with_it() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        let fetch = asker.fetch(1, Background)?;
        let first = link(&source, 0)?;
        first.driver.lock().give(&source.links, 0, fetch)?;
        assert_eq!(under_way(&source), (1, 0));
        for _ in 0..2 {
            source.hurry(512);
            assert_eq!(under_way(&source), (1, 1));
        }
        source.stop();
        assert_eq!(*asker.ended(), [(1, Err(Errno::Shutdown.into()))]);
        assert_eq!(under_way(&source), (0, 0));
        Ok(())
    }

    #[test]
    fn a_further_session_begins_when_another_one_is_ready() -> Result {
        let source = source()?;
        source.want_sessions(3)?;
        let first = link(&source, 0)?;
        assert!(until(|| is_connecting(&first)));
        for number in [1, 2] {
            let link = link(&source, number)?;
            // It has run, and waits for no time.
            link.rounds();
            assert!(!is_connecting(&link));
            assert_eq!(link.driver.lock().due(&link), None);
        }
        assert_eq!(source.sessions().wanted, 3);
        source.links.set_ready(OTHER, true);
        assert_eq!(source.sessions().ready, 1);
        for number in [1, 2] {
            let link = link(&source, number)?;
            assert!(until(|| is_connecting(&link)));
        }
        source.links.set_ready(OTHER, false);
        Ok(())
    }

    #[test]
    fn a_session_that_is_not_wanted_any_more_makes_no_attempts() -> Result {
        let source = source()?;
        source.want_sessions(2)?;
        source.links.set_ready(OTHER, true);
        let further = link(&source, 1)?;
        assert!(until(|| is_connecting(&further)));
        source.want_sessions(1)?;
        assert!(until(|| further.driver.lock().due(&further).is_none()));
        source.reconnect();
        further.rounds();
        assert_eq!(further.driver.lock().due(&further), None);
        // And again when it is.
        source.want_sessions(2)?;
        assert!(until(|| further.driver.lock().due(&further).is_some()));
        source.links.set_ready(OTHER, false);
        Ok(())
    }

    #[test]
    fn a_session_that_is_wanted_again_beside_others_needs_nobody_to_wake_it() -> Result {
        let source = source()?;
        source.links.want(2);
        // It has stood down, and nobody knows it.
        let further = stranger(&source, 1)?;
        assert_eq!(further.driver.lock().due(&further), None);
        source.links.set_ready(OTHER, true);
        assert!(further.driver.lock().due(&further).is_some());
        source.links.want(1);
        assert_eq!(further.driver.lock().due(&further), None);
        source.links.set_ready(OTHER, false);
        Ok(())
    }

    #[test]
    fn who_is_to_stay_tries_again_when_another_session_has_ended() -> Result {
        let source = source()?;
        let link = link(&source, 0)?;
        link.kick();
        assert!(until(|| {
            let mut driver = link.driver.lock();
            let pausing = driver.due(&link) > Some(now_ms());
            source.links.vacate(OTHER);
            driver.heed(&link);
            pausing && driver.due(&link) <= Some(now_ms())
        }));
        Ok(())
    }

    #[test]
    fn what_is_shown_is_of_a_session_that_is_ready() -> Result {
        let source = source()?;
        // Nobody wakes them.
        source.add(1)?;
        source.links.want(2);
        let (first, further) = (link(&source, 0)?, link(&source, 1)?);
        first.enter(Connection::Disconnected, None, Line::of("why"));
        assert_eq!(source.snapshot().reason.as_str(), "why");
        assert!(source.sessions().reason.as_str().is_empty() && !source.ready());
        let both = Digests {
            header: true,
            data: true,
        };
        further.status().protected(both);
        // Now the first one is woken, and may say what it likes.
        further.enter(Connection::Ready, None, Line::EMPTY);
        assert!(source.ready() && source.snapshot().connection == Connection::Ready);
        assert_eq!(source.snapshot().digests, Some(both));
        assert_eq!(source.sessions().ready, 1);
        assert!(until(|| !source.sessions().reason.as_str().is_empty()));
        further.enter(Connection::Disconnected, None, Line::EMPTY);
        assert!(!source.ready());
        Ok(())
    }
}
