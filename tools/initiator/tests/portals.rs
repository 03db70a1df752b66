// SPDX-License-Identifier: GPL-2.0-only

//! The client and several portals, over loopback sockets: redirects and failover.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use imgstream_initiator::{Client, Error, Options, Reason, RedirectError, Timing};
use imgstream_testtarget::{Fault, LoginFault, Plan, Server, Target};

const MIB: usize = 1 << 20;
const NAME: &str = "iqn.2026-11.test.imgstream:image";
const ME: &str = "iqn.2026-11.test.imgstream:initiator";

fn serve_at(at: &str, plans: Vec<Plan>) -> Server {
    let mut target = Target::new(Arc::new(vec![7; MIB]));
    target.plans = plans;
    Server::start(target, at.parse().unwrap()).unwrap()
}

fn serve(plans: Vec<Plan>) -> Server {
    serve_at("127.0.0.1:0", plans)
}

fn redirect(detail: u8, to: &str) -> Plan {
    Plan::always(Fault::Login(LoginFault::Redirect(detail, vec![to.into()])))
}

fn redirects_to(detail: u8, to: &Server) -> Server {
    serve(vec![redirect(detail, &to.address().to_string())])
}

/// Short pauses: what is tested is that things go on, not when.
fn open(portals: &[SocketAddr]) -> Result<Client, Error> {
    let timing = Timing {
        backoff_min: 10,
        backoff_max: 50,
        ..Timing::DEFAULT
    };
    Client::open(Options {
        timing,
        ..Options::new(portals, NAME, 1, ME)
    })
}

fn read(client: &mut Client) {
    let mut data = vec![0; MIB];
    client.read(0, &mut data).unwrap();
    assert!(data.iter().all(|byte| *byte == 7));
}

/// Lets a client be sent from `first` to `last`, lose its connection, and come again. How often `first` was asked.
fn asked_again(first: &Server, last: &Server) -> u32 {
    let mut client = open(&[first.address()]).unwrap();
    assert_eq!(
        (client.portal(), client.redirected_by()),
        (last.address(), Some(first.address()))
    );
    read(&mut client);
    last.disconnect_all();
    read(&mut client);
    assert_eq!(client.portal(), last.address());
    drop(client);
    for server in [first, last] {
        assert_eq!(server.target().violations, Vec::<String>::new());
    }
    let asked = first.target().connections;
    asked
}

#[test]
fn l12_a_temporary_redirect_is_asked_for_again_and_a_permanent_one_is_not() {
    for (detail, asked) in [(0, 2), (1, 2), (2, 1), (9, 2)] {
        let last = serve(vec![]);
        let first = redirects_to(detail, &last);
        assert_eq!(asked_again(&first, &last), asked, "0x01{detail:02x}");
    }
}

#[test]
fn l12_redirects_lead_to_ipv6_and_over_several_portals() {
    let last = serve_at("[::1]:0", vec![]);
    let middle = redirects_to(1, &last);
    let first = redirects_to(2, &middle);
    let mut client = open(&[first.address()]).unwrap();
    assert_eq!(
        (client.portal(), client.redirected_by()),
        (last.address(), Some(first.address()))
    );
    read(&mut client);
}

/// What a client that meets this redirect says.
fn refused(server: &Server) -> Error {
    let error = open(&[server.address()]).err().unwrap();
    assert_eq!(server.target().logins, 0);
    error
}

#[test]
fn l12_redirects_that_lead_nowhere_are_told_in_words() {
    let cases = [
        ("san.example.org:3260", RedirectError::HostName),
        ("nonsense nonsense", RedirectError::Malformed),
        ("0.0.0.0", RedirectError::Unusable),
        ("[ff02::1]:3260", RedirectError::Unusable),
        ("[fe80::1]", RedirectError::Unusable),
        ("255.255.255.255:1", RedirectError::Unusable),
    ];
    for (place, trouble) in cases {
        let error = refused(&serve(vec![redirect(1, place)]));
        let right = matches!(error, Error::Refused { reason: Reason::BadRedirect(found), .. } if found == trouble);
        assert!(right, "{place}: {error}");
    }
    let silent = serve(vec![Plan::always(Fault::Login(LoginFault::Status(1, 1)))]);
    let address = silent.address();
    assert_eq!(
        refused(&silent).to_string(),
        format!("portal {address}: login refused: the target has moved, but does not say where")
    );
}

#[test]
fn l12_a_redirect_to_itself_and_a_circle_end() {
    let itself = serve(vec![]);
    let place = itself.address().to_string();
    itself.target().plans.push(redirect(2, &place));
    let error = refused(&itself);
    assert!(
        error
            .to_string()
            .ends_with("the target has moved, but in a circle"),
        "{error}"
    );
    assert_eq!(itself.target().connections, 1);

    let (one, two) = (serve(vec![]), serve(vec![]));
    one.target()
        .plans
        .push(redirect(1, &two.address().to_string()));
    two.target()
        .plans
        .push(redirect(1, &one.address().to_string()));
    let error = refused(&one);
    assert!(
        matches!(
            error,
            Error::Refused {
                reason: Reason::BadRedirect(RedirectError::Loop),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!((one.target().connections, two.target().connections), (1, 1));
}

#[test]
fn of_several_addresses_the_first_that_can_be_used_is_taken() {
    let last = serve(vec![]);
    let places = [
        "san.example.org".into(),
        "0.0.0.0".into(),
        last.address().to_string(),
    ];
    let first = serve(vec![Plan::always(Fault::Login(LoginFault::Redirect(
        1,
        places.into(),
    )))]);
    assert_eq!(open(&[first.address()]).unwrap().portal(), last.address());
}

#[test]
fn a_portal_that_refuses_is_left_for_one_that_does_not() {
    let good = serve(vec![]);
    for plan in [
        Plan::always(Fault::Login(LoginFault::Status(2, 2))),
        redirect(1, "san.example.org"),
        Plan::always(Fault::Login(LoginFault::Status(3, 1))),
    ] {
        let bad = serve(vec![plan]);
        let mut client = open(&[bad.address(), good.address()]).unwrap();
        assert_eq!(
            (client.portal(), client.redirected_by()),
            (good.address(), None)
        );
        assert_eq!(bad.target().connections, 1);
        read(&mut client);
    }
    let bad = || serve(vec![Plan::always(Fault::Login(LoginFault::Status(2, 2)))]);
    let (one, two) = (bad(), bad());
    let error = open(&[one.address(), two.address()]).err().unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!((one.target().connections, two.target().connections), (1, 1));
}

#[test]
fn a_portal_that_dies_is_left_for_the_other_and_found_again() {
    let (one, two) = (serve(vec![]), serve(vec![]));
    let (first, second) = (one.address(), two.address());
    let mut client = open(&[first, second]).unwrap();
    read(&mut client);
    assert_eq!(client.portal(), first);
    drop(one);
    read(&mut client);
    assert_eq!(client.portal(), second);
    drop(two);
    let again = serve_at(&first.to_string(), vec![]);
    read(&mut client);
    assert_eq!(client.portal(), first);
    assert_eq!(again.target().violations, Vec::<String>::new());
}

/// The pause before the next portal is short, however long that of the first one is.
#[test]
fn the_next_portal_is_not_kept_waiting() {
    let good = serve(vec![]);
    let bad = serve(vec![Plan::always(Fault::Login(LoginFault::Status(2, 2)))]);
    // A minute after a refusal, with the usual times; patience would end first.
    let mut options = Options::new(&[bad.address(), good.address()], NAME, 1, ME);
    options.patience = Duration::from_secs(20);
    assert_eq!(Client::open(options).unwrap().portal(), good.address());
}
