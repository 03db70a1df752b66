// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the driver, with a repository that refuses connections.

use super::*;
use crate::source::links::Links;
use imgstream_engine::session::Strikes;

impl Driver {
    /// Has `fetch` under way at that place, not sent.
    pub(in crate::source) fn give(&mut self, links: &Links, id: u16, fetch: KBox<Fetch>) -> Result {
        let (read, at, len) = (ReadId(id), fetch.lba_bytes, fetch.len());
        let given = self.session.submit_again(read, at, len, Strikes::NONE);
        given.map_err(|_| EINVAL)?;
        links.count(&fetch, true);
        let slot = self.active.get_mut(usize::from(id)).ok_or(EINVAL)?;
        *slot = Some(fetch);
        Ok(())
    }

    /// Makes it look as if it had never run; see [`Self::has_run`].
    pub(in crate::source) fn rest(&mut self) {
        self.vacancies = NEVER_RAN;
    }

    /// Whether it has run since then: the first that it does is to look at the vacancies.
    pub(in crate::source) fn has_run(&self) -> bool {
        self.vacancies != NEVER_RAN
    }
}

/// Vacancies that there are not.
const NEVER_RAN: u32 = u32::MAX;

#[kunit_tests(imgstream_driver)]
mod suite {
    use super::*;
    use crate::{
        kapi::{
            net::{
                Address,
                Socket, //
            },
            testing::until, //
        },
        source::{
            fetch::testing::Asker,
            testing::{
                is_connecting,
                link,
                repository,
                source,
                stranger,
                take,
                NOWHERE,
                OTHER, //
            },
            Source, //
        },
    };
    use Priority::{
        Background,
        Demand, //
    };

    /// A driver of its own, beside those of the links. Not on this stack; see `Driver::new`.
    fn driver(source: &Source, repository: Repository, number: u8) -> Result<KBox<Driver>> {
        let queue = source.queue.clone();
        queue.call(move || Driver::new(&repository, number))?
    }

    #[test]
    fn what_is_not_sent_goes_back_in_order_and_to_whom_it_is_the_turn_of() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        source.links.want(3);
        source.links.set_ready(OTHER, true);
        // Nobody has woken it.
        source.add(2)?;
        let other = link(&source, 2)?;
        source.links.post(2, Some(0));
        let link = stranger(&source, 1)?;
        let mut driver = driver(&source, repository()?, 1)?;
        driver.give(&source.links, 0, asker.fetch(1, Demand)?)?;
        driver.give(&source.links, 1, asker.fetch(2, Demand)?)?;
        driver.hand_over(&link);
        assert!(driver.active.iter().all(Option::is_none));
        assert_eq!(driver.session.outstanding(), 0);
        assert!(until(|| is_connecting(&other)));
        source.links.post(2, None);
        assert_eq!(
            [take(&source), take(&source), take(&source)],
            [Some(1), Some(2), None]
        );
        source.links.set_ready(OTHER, false);
        Ok(())
    }

    #[test]
    fn without_others_it_stays_until_the_session_is_not_wanted() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        source.links.want(2);
        let link = stranger(&source, 1)?;
        let mut driver = driver(&source, repository()?, 1)?;
        driver.give(&source.links, 0, asker.fetch(1, Demand)?)?;
        driver.hand_over(&link);
        assert_eq!(take(&source), None);
        source.links.want(1);
        driver.hand_over(&link);
        assert_eq!(take(&source), Some(1));
        Ok(())
    }

    #[test]
    fn a_session_that_is_not_ready_takes_nothing() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        let link = stranger(&source, 0)?;
        let mut driver = driver(&source, repository()?, 0)?;
        let mut ended = FetchQueue::new();
        source.links.put_back(asker.fetch(1, Demand)?);
        driver.submit(&link, &mut ended);
        assert!(driver.active.iter().all(Option::is_none) && ended.is_empty());
        // But it would be its turn.
        source.links.count_demand(1);
        assert_eq!(take(&source), Some(1));
        Ok(())
    }

    #[test]
    fn what_is_hurried_counts_as_waited_for() -> Result {
        let (source, asker) = (source()?, Asker::new()?);
        let mut driver = driver(&source, repository()?, 0)?;
        driver.give(&source.links, 0, asker.fetch(1, Background)?)?;
        assert!(!driver.hurry(512 * 2));
        assert!(driver.hurry(512));
        assert!(!driver.hurry(512));
        let fetch = driver.active.iter_mut().find_map(Option::take);
        assert!(fetch.is_some_and(|fetch| fetch.priority == Demand));
        Ok(())
    }

    #[test]
    fn a_session_that_is_not_wanted_leaves_its_place_once() -> Result {
        let source = source()?;
        let link = stranger(&source, 1)?;
        let mut driver = driver(&source, repository()?, 1)?;
        driver.standby = false;
        driver.transport = Transport::Connecting {
            socket: Socket::connect(Address(NOWHERE), link.clone())?,
            until_ms: u64::MAX,
        };
        for _ in 0..2 {
            driver.heed(&link);
            assert!(matches!(driver.transport, Transport::Down { .. }));
            assert!(driver.standby);
            assert_eq!(source.links.vacancies(), 1);
            assert_eq!(driver.due(&link), None);
        }
        // The refusal of the connection may have woken it, and a work item that is the last to hold it drops its own queue.
        link.cancel();
        Ok(())
    }

    #[test]
    fn the_clock_is_set_for_the_session_and_ends_what_takes_too_long() -> Result {
        let source = source()?;
        let mut repository = repository()?;
        repository.config.timing.login = 1;
        let link = stranger(&source, 1)?;
        let mut driver = driver(&source, repository, 1)?;
        assert_eq!(driver.due(&link), None);
        driver.session.connected(now_ms());
        assert!(driver.due(&link).is_some());
        assert!(until(|| driver.due(&link) <= Some(now_ms())));
        let mut ended = FetchQueue::new();
        driver.round(&link, &mut ended);
        assert_eq!(driver.session.stage(), Stage::Down);
        assert_eq!(driver.due(&link), None);
        Ok(())
    }
}
