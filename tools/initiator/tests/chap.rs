// SPDX-License-Identifier: GPL-2.0-only

//! CHAP over sockets, with the functions of this program.

use std::sync::Arc;

use imgstream_initiator::{Account, Client, Credentials, Error, Options, Reason};
use imgstream_testtarget::{Account as Peer, Chap, Server, Target};

const NAME: &str = "iqn.2026-11.test.imgstream:image";
const OURS: &str = "our own secret";
const THEIRS: &str = "the target's secret";

fn serve() -> Server {
    let mut target = Target::new(Arc::new(vec![7; 1 << 20]));
    let known = Peer::new("it", THEIRS);
    target.settings.chap = Some(Chap::new(Peer::new("me", OURS), Some(known)));
    Server::start(target, "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn account<'a>(name: &'a str, secret: &'a str) -> Account<'a> {
    let secret = secret.as_bytes();
    Account { name, secret }
}

fn connect(server: &Server, theirs: &str) -> Result<Client, Error> {
    let mut options = Options::new(&[server.address()], NAME, 1, "iqn.2026-11.test:me");
    options.credentials = Credentials::new(account("me", OURS), Some(account("it", theirs))).ok();
    Client::open(options)
}

#[test]
fn both_sides_prove_who_they_are_with_the_programs_own_functions() {
    for algorithm in [5, 6, 7, 8] {
        let server = serve();
        let chap = |target: &mut Target| {
            target.settings.chap.as_mut().unwrap().algorithms = vec![algorithm];
        };
        chap(&mut server.target());
        let mut client = connect(&server, THEIRS).unwrap();
        let mut block = [0; 4096];
        client.read(4096, &mut block).unwrap();
        assert_eq!(block, [7; 4096]);
    }
}

#[test]
fn a_target_that_cannot_prove_who_it_is_is_refused_at_once() {
    let server = serve();
    let refused = connect(&server, "some other secret").err().unwrap();
    let chap = matches!(
        refused,
        Error::Refused {
            reason: Reason::Chap(_),
            ..
        }
    );
    assert!(chap, "{refused}");
    assert!(refused
        .to_string()
        .ends_with("the target does not know its secret"));
}
