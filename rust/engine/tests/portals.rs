// SPDX-License-Identifier: GPL-2.0-only

//! Which portal is next, and when.

use std::net::SocketAddr;

use imgstream_engine::portals::{End, Portals, LOCAL_MS, MAX_HOPS, MAX_PORTALS, NEXT_PORTAL_MS};
use imgstream_engine::session::{Redirect, RedirectError};

const NOW: u64 = 10_000;
const PAUSE: u64 = 4_000;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn portals(count: u16) -> Portals {
    Portals::new((1..=count).map(at))
}

fn to(port: u16, permanent: bool) -> End {
    End::Redirected(Redirect {
        address: at(port),
        permanent,
    })
}

/// Redirects, each of which is followed at once.
fn follow(portals: &mut Portals, ports: &[u16], permanent: bool) {
    for &port in ports {
        let next = portals.next(to(port, permanent), PAUSE, NOW);
        assert_eq!((next.at_ms, next.trouble), (NOW, None), "to {port}");
        assert_eq!(portals.current(), Some(at(port)));
    }
}

#[test]
fn each_portal_has_its_turn_and_its_own_pause() {
    for count in 1..=MAX_PORTALS as u16 {
        let mut portals = portals(count);
        let mut now = NOW;
        let mut tried = vec![0; usize::from(count)];
        for turn in 0..3 * count {
            let port = turn % count + 1;
            assert_eq!(portals.current(), Some(at(port)));
            let last = &mut tried[usize::from(port) - 1];
            assert!(*last == 0 || now >= *last + PAUSE, "asked too early");
            *last = now;
            let next = portals.next(End::Failed, PAUSE, now);
            assert!(next.at_ms >= now + NEXT_PORTAL_MS);
            now = next.at_ms;
        }
        // Each was asked three times, with two pauses between.
        assert!(now <= NOW + 3 * PAUSE + 20 * NEXT_PORTAL_MS);
    }
}

#[test]
fn a_portal_that_refuses_does_not_hold_up_the_others() {
    let mut portals = portals(3);
    let mut now = NOW;
    let mut asked = [0; 4];
    while now < NOW + 60_000 {
        let port = portals.current().unwrap().port();
        asked[usize::from(port)] += 1;
        let (end, pause) = match port {
            2 => (End::Refused, 60_000),
            _ => (End::Failed, PAUSE),
        };
        now = portals.next(end, pause, now).at_ms;
    }
    assert_eq!(asked[2], 1, "asked again before its time");
    assert!(asked[1] >= 12 && asked[3] >= 12, "{asked:?}");
}

#[test]
fn a_lost_connection_leads_to_the_next_portal_soon() {
    let mut portals = portals(2);
    portals.ready();
    let next = portals.next(End::Failed, PAUSE, NOW);
    assert_eq!(
        (next.at_ms, portals.current()),
        (NOW + NEXT_PORTAL_MS, Some(at(2)))
    );
    // With one portal there is nothing but to wait.
    let mut one = self::portals(1);
    one.ready();
    assert_eq!(one.next(End::Failed, PAUSE, NOW).at_ms, NOW + PAUSE);
}

#[test]
fn without_a_network_it_is_tried_every_second() {
    let mut portals = portals(2);
    let first = portals.next(End::Local, 30_000, NOW);
    assert_eq!(
        (first.at_ms, portals.current()),
        (NOW + NEXT_PORTAL_MS, Some(at(2)))
    );
    let second = portals.next(End::Local, 30_000, first.at_ms);
    assert_eq!(
        (second.at_ms, portals.current()),
        (NOW + LOCAL_MS, Some(at(1)))
    );
}

#[test]
fn a_temporary_redirect_holds_for_one_connection() {
    let mut portals = portals(1);
    assert_eq!(portals.redirected_by(), None);
    follow(&mut portals, &[11, 12], false);
    assert_eq!(portals.redirected_by(), Some(at(1)));
    portals.ready();
    assert_eq!(portals.current(), Some(at(12)));
    let next = portals.next(End::Failed, PAUSE, NOW);
    assert_eq!((next.at_ms, portals.current()), (NOW + PAUSE, Some(at(1))));
    assert_eq!(portals.redirected_by(), None);
}

#[test]
fn a_permanent_redirect_holds_while_the_portal_can_be_logged_in_to() {
    let mut portals = portals(1);
    follow(&mut portals, &[11, 12], true);
    portals.ready();
    for _ in 0..3 {
        portals.next(End::Failed, PAUSE, NOW);
        assert_eq!(
            (portals.current(), portals.redirected_by()),
            (Some(at(12)), Some(at(1)))
        );
        portals.ready();
    }
    portals.next(End::Failed, PAUSE, NOW);
    // Now it is gone from there, too.
    portals.next(End::Failed, PAUSE, NOW);
    assert_eq!(
        (portals.current(), portals.redirected_by()),
        (Some(at(1)), None)
    );
}

#[test]
fn a_permanent_redirect_behind_a_temporary_one_holds_no_longer_than_that() {
    let mut portals = portals(1);
    follow(&mut portals, &[11], true);
    follow(&mut portals, &[12], false);
    follow(&mut portals, &[13], true);
    portals.ready();
    portals.next(End::Failed, PAUSE, NOW);
    assert_eq!(portals.current(), Some(at(11)));
}

#[test]
fn a_redirect_that_was_never_logged_in_to_is_forgotten() {
    let mut portals = portals(2);
    follow(&mut portals, &[11], true);
    portals.next(End::Failed, PAUSE, NOW);
    assert_eq!(portals.current(), Some(at(2)));
    portals.next(End::Failed, PAUSE, NOW);
    assert_eq!(portals.current(), Some(at(1)));
}

/// Follows redirects until one is not followed; how many were.
fn until_trouble(
    portals: &mut Portals,
    places: impl Iterator<Item = End>,
) -> (usize, RedirectError) {
    for (followed, end) in places.enumerate() {
        let next = portals.next(end, PAUSE, NOW);
        if let Some(trouble) = next.trouble {
            assert_eq!(next.at_ms, NOW + PAUSE, "no pause");
            assert_eq!(
                (portals.current(), portals.redirected_by()),
                (Some(at(1)), None)
            );
            return (followed, trouble);
        }
    }
    unreachable!("followed for ever")
}

#[test]
fn redirects_are_bounded_and_do_not_go_in_circles() {
    for permanent in [false, true] {
        let many = until_trouble(&mut portals(1), (11..).map(|port| to(port, permanent)));
        assert_eq!(many, (MAX_HOPS, RedirectError::TooMany));
        let itself = until_trouble(&mut portals(1), [to(1, permanent)].into_iter());
        assert_eq!(itself, (0, RedirectError::Loop));
        let circle = until_trouble(
            &mut portals(1),
            [11, 12, 1].map(|port| to(port, permanent)).into_iter(),
        );
        assert_eq!(circle, (2, RedirectError::Loop));
        let behind = until_trouble(
            &mut portals(1),
            [11, 12, 11].map(|port| to(port, permanent)).into_iter(),
        );
        assert_eq!(behind, (2, RedirectError::Loop));
    }
    // From where a permanent redirect has led, too.
    let mut moved = portals(1);
    follow(&mut moved, &[11], true);
    moved.ready();
    moved.next(End::Failed, PAUSE, NOW);
    let circle = until_trouble(&mut moved, [to(1, true), to(11, true)].into_iter());
    assert_eq!(circle, (1, RedirectError::Loop));
}

#[test]
fn nobody_else_sends_this_computer_to_itself() {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let redirect = |address| {
        End::Redirected(Redirect {
            address,
            permanent: false,
        })
    };
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:3".parse().unwrap();
    for address in [local(3), mapped, "[::1]:3".parse().unwrap()] {
        let mut portals = portals(1);
        let next = portals.next(redirect(address), PAUSE, NOW);
        assert_eq!(next.trouble, Some(RedirectError::Unusable));
        let mut own = Portals::new([local(2)]);
        assert_eq!(own.next(redirect(address), PAUSE, NOW).trouble, None);
    }
}

#[test]
fn refusals_count_when_every_portal_refuses() {
    let mut portals = portals(2);
    assert!(!portals.all_refuse());
    portals.next(End::Refused, PAUSE, NOW);
    assert!(!portals.all_refuse());
    portals.next(to(11, false), PAUSE, NOW);
    portals.next(to(11, false), PAUSE, NOW);
    assert!(portals.all_refuse(), "a redirect to itself is a refusal");
    portals.ready();
    assert!(!portals.all_refuse());
    portals.next(End::Failed, PAUSE, NOW);
    assert!(!portals.all_refuse());
}

#[test]
fn without_portals_nothing_is_tried() {
    let mut none = portals(0);
    assert_eq!(
        (none.current(), none.redirected_by(), none.count()),
        (None, None, 0)
    );
    assert!(none.next(End::Failed, PAUSE, NOW).at_ms > NOW);
    assert_eq!(
        none.next(to(1, true), PAUSE, NOW).trouble,
        Some(RedirectError::Unusable)
    );
    let many = Portals::new((1..100).map(at));
    assert_eq!(many.count(), MAX_PORTALS);
}
