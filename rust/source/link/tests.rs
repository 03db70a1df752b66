// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the links, with a repository that refuses connections.

use kernel::prelude::*;

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
            Source, //
        },
    };
    use core::net::{
        Ipv4Addr,
        SocketAddr,
        SocketAddrV4, //
    };
    use imgstream_engine::session::{
        Config,
        Name,
        Timing, //
    };
    use imgstream_proto::iscsi::digest::{
        Digests,
        Policy, //
    };
    use Priority::{
        Background,
        Demand, //
    };

    /// Nobody listens there.
    const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

    /// A link that is only said to be ready: those that there are say themselves that they are not.
    const OTHER: u8 = 7;

    fn repository() -> Result<Repository> {
        let name = |name| Name::new(name).ok_or(EINVAL);
        let portal = Some(SocketAddr::V4(NOWHERE));
        let mut portals = [None; imgstream_proto::disk::superblock::PORTALS];
        portals.iter_mut().take(1).for_each(|first| *first = portal);
        Ok(Repository {
            config: Config {
                initiator_name: name("iqn.2026-11.example:initiator")?,
                target_name: name("iqn.2026-11.example:target")?,
                lun: 1,
                isid: [0x80, 0, 0, 0, 0, 1],
                seed: 1,
                crc32c: crate::kapi::crypto::crc32c_append,
                digests: Policy::Prefer,
                identity: None,
                timing: Timing::DEFAULT,
            },
            credentials: None,
            portals,
        })
    }

    /// A source that nobody kicks, with its first link.
    fn source() -> Result<Source> {
        Source::asleep(&repository()?)
    }

    /// The link of that number.
    fn link(source: &Source, number: usize) -> Result<Arc<Link>> {
        let roster = source.links.roster();
        roster.get(number).cloned().flatten().ok_or(EINVAL)
    }

    /// How many fetches have not ended, and how many of them somebody waits for.
    fn under_way(source: &Source) -> (u64, u64) {
        let counters = source.counters();
        let all = counters.fetches_inflight.load(Ordering::SeqCst);
        (all, counters.demand_inflight.load(Ordering::SeqCst))
    }

    /// Which fetch the link of that number would take.
    fn next(source: &Source, number: u8, idle: bool) -> Option<u64> {
        let fetch = source.links.next(number, idle)?;
        let at = fetch.lba_bytes / 512;
        source.links.put_back(fetch);
        Some(at)
    }

    /// Takes the next one away, as if it had ended well.
    fn take(source: &Source) -> Option<u64> {
        let fetch = source.links.next(0, true)?;
        let number = fetch.lba_bytes / 512;
        let mut ended = FetchQueue::new();
        source.links.end(fetch, Ok(()), &mut ended);
        ended.report();
        Some(number)
    }

    fn is_connecting(link: &Link) -> bool {
        link.status().snapshot().portal.is_some()
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
        let links = source.links.clone();
        let further = Link::new(1, &repository()?, links, source.queue.clone())?;
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
