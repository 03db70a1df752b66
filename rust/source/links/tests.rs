// SPDX-License-Identifier: GPL-2.0-only

//! Tests of what the links share: places, turns, and who is woken by what.

use kernel::prelude::*;

#[kunit_tests(imgstream_links)]
mod suite {
    use super::super::*;
    use crate::{
        kapi::testing::every,
        source::{
            fetch::testing::Asker,
            testing::{
                source,
                stranger,
                under_way,
                OTHER, //
            },
            Source, //
        },
    };
    use Priority::{
        Background,
        Demand, //
    };

    const NUMBERS: [u8; MAX_LINKS] = [0, 1, 2, 3, 4, 5, 6, 7];

    /// A source whose links know none.
    fn deserted() -> Result<Source> {
        let source = source()?;
        source.links.forget();
        Ok(source)
    }

    type Event = fn(&Links, &Arc<Asker>) -> Result;

    /// Whether `event` wakes the link `number`, which is the only one: one that is woken may wake others.
    fn wakes(number: u8, event: Event) -> Result<bool> {
        let (source, asker) = (deserted()?, Asker::new()?);
        let link = stranger(&source, number)?;
        source.links.add(&link);
        link.is_woken_by(|| event(&source.links, &asker))
    }

    /// Three links that can take fetches, of which 1 is the one whose turn it is.
    fn turn_of_1(links: &Links) {
        for (number, bytes) in [(0, 30), (1, 10), (2, 20)] {
            links.post(number, Some(bytes));
        }
    }

    /// Whether exactly the links that `who` names are woken.
    fn only(event: Event, who: &[u8]) -> bool {
        let mut numbers = NUMBERS.into_iter();
        numbers.all(|number| wakes(number, event) == Ok(who.contains(&number)))
    }

    #[test]
    fn news_wakes_all_others() {
        let others = [0, 1, 3, 4, 5, 6, 7];
        let table: [(&str, Event); 4] = [
            ("ready", |links, _| {
                links.set_ready(2, true);
                Ok(())
            }),
            ("not ready any more", |links, _| {
                links.ready.store(bit(2), Ordering::SeqCst);
                links.set_ready(2, false);
                Ok(())
            }),
            ("doubt", |links, _| {
                links.doubt(2);
                Ok(())
            }),
            ("vacate", |links, _| {
                links.vacate(2);
                Ok(())
            }),
        ];
        assert!(every(table, |&(_, event)| only(event, &others)));
    }

    #[test]
    fn what_is_no_news_wakes_nobody() {
        let table: [(&str, Event); 7] = [
            ("not ready, as before", |links, _| {
                links.set_ready(2, false);
                Ok(())
            }),
            ("ready, as before", |links, _| {
                links.ready.store(bit(2), Ordering::SeqCst);
                links.set_ready(2, true);
                Ok(())
            }),
            ("a turn and nothing waits", |links, _| {
                turn_of_1(links);
                links.wake_turn();
                assert_none(links.next(0, true))
            }),
            ("able again", |links, asker| {
                links.put_back(asker.fetch(1, Demand)?);
                turn_of_1(links);
                Ok(())
            }),
            ("unable, as before", |links, asker| {
                links.put_back(asker.fetch(1, Demand)?);
                links.post(1, None);
                Ok(())
            }),
            ("a fetch that waits for an idle link", |links, asker| {
                turn_of_1(links);
                links.put_back(asker.fetch(1, Background)?);
                assert_none(links.next(0, false))
            }),
            ("after the end", |links, asker| {
                turn_of_1(links);
                links.put_back(asker.fetch(1, Demand)?);
                links.close();
                links.set_ready(2, true);
                links.doubt(2);
                links.vacate(2);
                links.wake_turn();
                assert_none(links.next(0, true))
            }),
        ];
        assert!(every(table, |&(_, event)| only(event, &[])));
    }

    fn assert_none(fetch: Option<KBox<Fetch>>) -> Result {
        fetch.map_or(Ok(()), |_| Err(EINVAL))
    }

    #[test]
    fn a_fetch_wakes_the_link_whose_turn_it_is() {
        let table: [(&str, Event, u8); 6] = [
            (
                "a new one",
                |links, asker| {
                    turn_of_1(links);
                    links.push(asker.fetch(1, Demand)?).map_err(|_| EIO)
                },
                1,
            ),
            (
                "nobody can take it",
                |links, asker| links.push(asker.fetch(1, Background)?).map_err(|_| EIO),
                0,
            ),
            (
                "who has it in hand passes it on",
                |links, asker| {
                    turn_of_1(links);
                    links.put_back(asker.fetch(1, Demand)?);
                    assert_none(links.next(0, false))
                },
                1,
            ),
            (
                "and an idle one what nobody waits for",
                |links, asker| {
                    turn_of_1(links);
                    links.put_back(asker.fetch(1, Background)?);
                    assert_none(links.next(0, true))
                },
                1,
            ),
            (
                "the one before cannot any more",
                |links, asker| {
                    turn_of_1(links);
                    links.put_back(asker.fetch(1, Demand)?);
                    links.post(1, None);
                    Ok(())
                },
                2,
            ),
            (
                "the one before is not ready any more",
                |links, asker| {
                    turn_of_1(links);
                    links.put_back(asker.fetch(1, Demand)?);
                    links.set_ready(1, false);
                    Ok(())
                },
                2,
            ),
        ];
        assert!(every(table, |&(_, event, turn)| only(event, &[turn])));
    }

    #[test]
    fn a_place_is_taken_once_and_only_while_it_is_open() -> Result {
        let source = deserted()?;
        let links = &source.links;
        assert!(every(NUMBERS, |&number| {
            stranger(&source, number).is_ok_and(|link| {
                !links.has(number) && links.add(&link) && links.has(number) && !links.add(&link)
            })
        }));
        assert!(!links.add(&stranger(&source, MAX_SESSIONS)?) && !links.has(MAX_SESSIONS));
        // Not even by another one.
        assert!(!links.add(&stranger(&source, 3)?));
        links.forget();
        assert!(links.roster().iter().all(Option::is_none));
        links.close();
        assert!(!links.is_open() && !links.add(&stranger(&source, 3)?) && !links.has(3));
        Ok(())
    }

    #[test]
    fn each_link_has_a_bit_that_says_whether_it_is_ready() -> Result {
        let source = deserted()?;
        let links = &source.links;
        assert!(every(NUMBERS, |&number| {
            let before = links.others_ready(number);
            links.set_ready(number, true);
            links.set_ready(number, true);
            let ready = links.ready_count() == u32::from(number) + 1;
            // All that were before.
            ready && before == (number != 0) && links.others_ready(number) == before
        }));
        links.set_ready(MAX_SESSIONS, true);
        assert_eq!(links.ready_count(), 8);
        for number in NUMBERS {
            assert!(links.any_ready());
            links.set_ready(number, false);
        }
        assert!(!links.any_ready() && !links.others_ready(0) && links.ready_count() == 0);
        Ok(())
    }

    #[test]
    fn it_is_noted_when_the_last_one_was_lost_and_only_then() -> Result {
        let source = deserted()?;
        let links = &source.links;
        links.none_since_ms.store(1, Ordering::Relaxed);
        // Who is ready or not, and whether this is when none was any more.
        let table = [
            (0, true, false),
            (1, true, false),
            (0, false, false),
            (0, false, false),
            (1, true, false),
            (1, false, true),
            (1, false, false),
        ];
        assert!(every(table, |&(number, ready, lost)| {
            links.none_since_ms.store(1, Ordering::Relaxed);
            let before = now_ms();
            links.set_ready(number, ready);
            let since = links.none_since_ms();
            if lost {
                since >= before
            } else {
                since == 1
            }
        }));
        Ok(())
    }

    #[test]
    fn doubts_and_vacancies_are_counted_by_themselves() -> Result {
        let source = deserted()?;
        let links = &source.links;
        assert_eq!((links.doubt(0), links.doubt(1), links.doubts()), (1, 2, 2));
        assert_eq!(links.vacancies(), 0);
        links.vacate(0);
        links.vacate(0);
        assert_eq!((links.vacancies(), links.doubts()), (2, 2));
        links.doubts.store(u32::MAX, Ordering::SeqCst);
        assert_eq!((links.doubt(0), links.doubts()), (0, 0));
        Ok(())
    }

    #[test]
    fn a_link_is_heard_when_it_begins_and_when_a_byte_comes() -> Result {
        let source = deserted()?;
        let links = &source.links;
        let heard = |number: usize| links.posts.get(number).and_then(Post::load);
        // What it had under way, what it has, and whether it counts as heard now.
        let table = [
            (None, 0, true),
            (None, 1, true),
            (Some(0), 0, true),
            (Some(0), 1, true),
            (Some(1), 0, false),
            (Some(1), 2, false),
            (Some(UNABLE - 1), 1, false),
        ];
        assert!(every(table, |&(before, bytes, now)| {
            links.post(7, before);
            links.heard(7, 5);
            links.post(7, Some(bytes));
            heard(7).is_some_and(|load| load.bytes == bytes && (load.heard_ms == 5) != now)
        }));
        links.post(7, None);
        assert!(heard(7).is_none());
        // There is no such place.
        links.post(MAX_SESSIONS, Some(1));
        links.heard(u8::MAX, 1);
        assert_eq!(links.turn(), None);
        Ok(())
    }

    #[test]
    fn who_is_silent_has_no_turn_while_another_one_answers() -> Result {
        let source = deserted()?;
        let links = &source.links;
        links.post(0, Some(1));
        links.post(1, Some(100));
        assert_eq!(links.turn(), Some(0));
        links.heard(0, 0);
        links.heard(1, u64::MAX);
        assert_eq!(links.turn(), Some(1));
        links.post(1, None);
        assert_eq!(links.turn(), Some(0));
        Ok(())
    }

    #[test]
    fn what_comes_after_the_end_is_given_back_and_ends_once() -> Result {
        let (source, asker) = (deserted()?, Asker::new()?);
        let links = &source.links;
        links.close();
        let Err(fetch) = links.push(asker.fetch(1, Demand)?) else {
            return Err(EINVAL);
        };
        assert_eq!(under_way(&source), (1, 1));
        let mut ended = FetchQueue::new();
        links.end(fetch, Err(EIO), &mut ended);
        assert_eq!(under_way(&source), (0, 0));
        // What a link still has may come back, and ends with the rest, the most urgent first.
        for (number, priority) in [(1, Background), (2, Demand), (3, Background)] {
            let fetch = asker.fetch(number, priority)?;
            links.count(&fetch, true);
            links.put_back(fetch);
        }
        links.end_all(&mut ended);
        ended.report();
        let shutdown: Result = Err(Errno::Shutdown.into());
        assert_eq!(
            *asker.ended(),
            [(1, Err(EIO)), (2, shutdown), (3, shutdown), (1, shutdown)]
        );
        assert_eq!(under_way(&source), (0, 0));
        Ok(())
    }

    #[test]
    fn who_hurries_can_tell_whether_something_was_put_back_meanwhile() -> Result {
        let (source, asker) = (deserted()?, Asker::new()?);
        let links = &source.links;
        assert_eq!((links.hurry(512), links.returns()), (Err(0), 0));
        links.put_back(asker.fetch(1, Background)?);
        assert_eq!((links.hurry(1024), links.returns()), (Err(1), 1));
        assert_eq!((links.hurry(512), links.returns()), (Ok(()), 1));
        // It is among the readers' now.
        assert_eq!(links.hurry(512), Err(1));
        assert!(links
            .next(OTHER, false)
            .is_some_and(|fetch| fetch.priority == Demand));
        Ok(())
    }
}
