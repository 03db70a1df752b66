// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the link, with a repository that refuses connections.

use kernel::prelude::*;

#[kunit_tests(imgstream_link)]
mod suite {
    use super::super::*;
    use crate::{
        kapi::testing::{
            queue,
            until, //
        },
        source::fetch::testing::Asker, //
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
    use imgstream_proto::iscsi::digest::Policy;
    use Priority::{
        Background,
        Demand, //
    };

    /// Nobody listens there.
    const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

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

    fn link() -> Result<Arc<Link>> {
        Link::new(&repository()?, Arc::new(queue()?, GFP_KERNEL)?)
    }

    /// How many fetches have not ended, and how many of them somebody waits for.
    fn under_way(link: &Link) -> (u64, u64) {
        let counters = link.status().counters();
        let all = counters.fetches_inflight.load(Ordering::SeqCst);
        (all, counters.demand_inflight.load(Ordering::SeqCst))
    }

    fn next(link: &Link, idle: bool) -> Option<u64> {
        let fetch = link.next(idle)?;
        let number = fetch.lba_bytes / 512;
        link.put_back(fetch);
        Some(number)
    }

    /// Takes the next one away, as if it had ended well.
    fn take(link: &Link) -> Option<u64> {
        let fetch = link.next(true)?;
        let number = fetch.lba_bytes / 512;
        let mut ended = FetchQueue::new();
        link.end(fetch, Ok(()), &mut ended);
        ended.report();
        Some(number)
    }

    #[test]
    fn readers_come_first_and_each_kind_in_order() -> Result {
        let (link, asker) = (link()?, Asker::new()?);
        for (number, priority) in [(1, Background), (2, Demand), (3, Background), (4, Demand)] {
            link.fetch(asker.fetch(number, priority)?);
        }
        assert_eq!(under_way(&link), (4, 2));
        assert_eq!(next(&link, false), Some(2));
        // What was put back is the first again.
        assert_eq!(next(&link, true), Some(2));
        assert_eq!([take(&link), take(&link)], [Some(2), Some(4)]);
        // What nobody waits for has to wait for an idle connection.
        assert_eq!((next(&link, false), next(&link, true)), (None, Some(1)));
        assert_eq!(
            [take(&link), take(&link), take(&link)],
            [Some(1), Some(3), None]
        );
        assert_eq!(under_way(&link), (0, 0));
        link.stop();
        Ok(())
    }

    #[test]
    fn what_is_hurried_joins_the_readers_once() -> Result {
        let (link, asker) = (link()?, Asker::new()?);
        for (number, priority) in [(1, Background), (2, Background), (3, Demand)] {
            link.fetch(asker.fetch(number, priority)?);
        }
        for at in [512 * 2, 512 * 2, 512 * 3, 512 * 9] {
            link.hurry(at);
        }
        assert_eq!(under_way(&link), (3, 2));
        assert_eq!(
            [take(&link), take(&link), take(&link)],
            [Some(3), Some(2), Some(1)]
        );
        assert_eq!(under_way(&link), (0, 0));
        link.stop();
        Ok(())
    }

    #[test]
    fn fetches_wait_while_nobody_answers_and_end_when_it_is_stopped() -> Result {
        let (link, asker) = (link()?, Asker::new()?);
        link.fetch(asker.fetch(1, Background)?);
        link.fetch(asker.fetch(2, Demand)?);
        let was_refused = || {
            let reason = link.status().snapshot().reason;
            reason.as_str() == "connection refused"
        };
        assert!(until(was_refused));
        assert!(asker.ended().is_empty());
        link.stop();
        let shutdown: Result = Err(Errno::Shutdown.into());
        assert_eq!(*asker.ended(), [(2, shutdown), (1, shutdown)]);
        assert_eq!(under_way(&link), (0, 0));
        let counters = link.status().counters();
        // Nobody failed them.
        assert_eq!(counters.fetches_failed.load(Ordering::SeqCst), 0);
        assert_eq!(counters.fetched_bytes.load(Ordering::SeqCst), 0);
        Ok(())
    }

    #[test]
    fn a_pause_between_attempts_can_be_ended() -> Result {
        let link = link()?;
        link.kick();
        assert!(until(|| {
            let mut driver = link.driver.lock();
            let pausing = driver.due() > Some(now_ms());
            driver.hasten();
            pausing && driver.due() <= Some(now_ms())
        }));
        link.reconnect();
        link.stop();
        Ok(())
    }

    #[test]
    fn who_comes_after_the_stop_is_answered_at_once() -> Result {
        let (link, asker) = (link()?, Asker::new()?);
        link.stop();
        link.fetch(asker.fetch(1, Demand)?);
        assert_eq!(*asker.ended(), [(1, Err(Errno::Shutdown.into()))]);
        assert_eq!(under_way(&link), (0, 0));
        // And again: there is nothing to stop.
        link.stop();
        Ok(())
    }

    #[test]
    fn what_ends_is_counted_by_how_it_ends() -> Result {
        let (link, asker) = (link()?, Asker::new()?);
        link.stop();
        let mut ended = FetchQueue::new();
        let results = [Ok(()), Err(EIO), Err(Errno::Shutdown.into()), Ok(())];
        for (number, result) in (1..).zip(results) {
            let fetch = asker.fetch(number, Demand)?;
            link.count(&fetch, true);
            link.end(fetch, result, &mut ended);
        }
        ended.report();
        let counters = link.status().counters();
        assert_eq!(counters.fetches_done.load(Ordering::SeqCst), 2);
        assert_eq!(counters.fetches_failed.load(Ordering::SeqCst), 1);
        assert_eq!(
            counters.fetched_bytes.load(Ordering::SeqCst),
            (1 + 4) * 4096
        );
        assert_eq!(under_way(&link), (0, 0));
        Ok(())
    }
}
