// SPDX-License-Identifier: GPL-2.0-only

//! The client against the scripted target over loopback sockets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgstream_initiator::{
    Client, Designator, Digests, Error, Identity, Options, ReadError, Reason, Timing,
};
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_testtarget::{
    Damage, Fault, LoginFault, Phase, Plan, ReadFault, Server, Target, Willing,
};

const MIB: usize = 1 << 20;
const NAME: &str = "iqn.2026-11.test.imgstream:image";
const ME: &str = "iqn.2026-11.test.imgstream:initiator";

fn image(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i / 512 * 131 + i % 512 * 7 + i / 65_536) as u8)
        .collect()
}

fn serve(bytes: usize, plans: Vec<Plan>) -> Server {
    let mut target = Target::new(Arc::new(image(bytes)));
    target.plans = plans;
    Server::start(target, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// Short pauses: what is tested is that things go on, not when.
fn options(portals: &[SocketAddr]) -> Options {
    let timing = Timing {
        backoff_min: 10,
        backoff_max: 50,
        not_ready: 10,
        ..Timing::DEFAULT
    };
    Options {
        timing,
        ..Options::new(portals, NAME, 1, ME)
    }
}

fn connect(server: &Server) -> Client {
    Client::open(options(&[server.address()])).unwrap()
}

#[test]
fn a_whole_image_is_read_at_once() {
    let server = serve(9 * MIB, vec![]);
    let mut client = Client::connect(&[server.address()], NAME, 1, ME).unwrap();
    assert_eq!(client.capacity(), 9 << 20);
    assert_eq!(
        client.identity(),
        Designator::new(3, &[0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x56]).unwrap()
    );
    let mut data = vec![0; 9 * MIB];
    client.read(0, &mut data).unwrap();
    assert!(data == image(9 * MIB));
    client.close();
    let target = server.target();
    assert_eq!((target.connections, target.logouts), (1, 1));
    assert_eq!(target.violations, Vec::<String>::new());
}

#[test]
fn small_reads_at_any_place_are_right() {
    let server = serve(MIB, vec![]);
    let mut client = connect(&server);
    let image = image(MIB);
    for (offset, len) in [
        (0, 512),
        (512, 1024),
        (MIB - 512, 512),
        (4096, 0),
        (65_536, 300 * 512),
    ] {
        let mut data = vec![0; len];
        client.read(offset as u64, &mut data).unwrap();
        assert!(data == image[offset..offset + len]);
    }
    for (offset, len) in [(1, 512), (0, 100), (MIB, 512), (MIB - 512, 1024)] {
        let result = client.read(offset as u64, &mut vec![0; len]);
        assert!(matches!(result, Err(Error::Range { .. })), "{offset} {len}");
    }
}

#[test]
fn lost_connections_and_broken_answers_are_made_good() {
    let faults = [
        ReadFault::Reset(70_000),
        ReadFault::Short(512),
        ReadFault::WrongTag,
        ReadFault::Stall,
        ReadFault::Reject,
        ReadFault::Status(0x08),
        ReadFault::Sense(2, 4, 1),
    ];
    for fault in faults {
        let server = serve(8 * MIB, vec![Plan::once(5, Fault::Read(fault))]);
        let mut options = options(&[server.address()]);
        if fault == ReadFault::Stall {
            options.timing.progress = 1000;
        }
        let mut client = Client::open(options).unwrap();
        let mut data = vec![0; 8 * MIB];
        client.read(0, &mut data).unwrap();
        assert!(data == image(8 * MIB), "{fault:?}");
        let lasting = matches!(fault, ReadFault::Status(_) | ReadFault::Sense(..));
        assert!(lasting || client.reconnects() >= 1, "{fault:?}");
        assert_eq!(server.target().violations, Vec::<String>::new());
    }
}

#[test]
fn what_changes_on_the_way_is_read_again_where_there_are_digests() {
    let damage = Fault::Wire(Phase::Opcode(opcode::DATA_IN), Damage::Flip(70_000));
    for willing in [Willing::Offer, Willing::Never] {
        let mut target = Target::new(Arc::new(image(8 * MIB)));
        target.settings.header_digest = willing;
        target.settings.data_digest = willing;
        target.plans = vec![Plan::once(9, damage.clone())];
        let server = Server::start(target, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut client = connect(&server);
        let on = willing == Willing::Offer;
        let (header, data) = (on, on);
        assert_eq!(client.digests(), Digests { header, data });
        let mut read = vec![0; 8 * MIB];
        client.read(0, &mut read).unwrap();
        assert_eq!(read == image(8 * MIB), on);
        assert_eq!(client.reconnects(), u32::from(on));
        assert_eq!(server.target().violations, Vec::<String>::new());
    }
}

#[test]
fn a_target_that_restarts_is_found_again() {
    let server = serve(MIB, vec![]);
    let mut client = connect(&server);
    let mut data = vec![0; MIB];
    client.read(0, &mut data).unwrap();
    server.disconnect_all();
    client.read(0, &mut data).unwrap();
    assert!(data == image(MIB));
    assert_eq!(client.reconnects(), 1);
}

#[test]
fn another_portal_is_tried() {
    let server = serve(MIB, vec![]);
    let dead = serve(MIB, vec![]).address();
    let mut client = Client::open(options(&[dead, server.address()])).unwrap();
    assert_eq!(client.portal(), server.address());
    client.read(0, &mut vec![0; MIB]).unwrap();
}

#[test]
fn a_swapped_image_is_refused_and_nothing_of_it_is_read() {
    let server = serve(MIB, vec![]);
    let mut client = connect(&server);
    server.target().settings.capacity_bytes = Some(MIB as u64 - 4096);
    server.disconnect_all();
    let error = client.read(0, &mut vec![0; 4096]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                reason: Reason::WrongImage(_),
                ..
            }
        ),
        "{error}"
    );
    server.target().settings.capacity_bytes = None;
    client.read(0, &mut vec![0; 4096]).unwrap();
}

/// Whether a read of some 4 KiB blocks fails as a medium error.
fn is_bad(client: &mut Client, block: u64, count: usize) -> bool {
    match client.read(block * 4096, &mut vec![0; count * 4096]) {
        Ok(()) => false,
        Err(Error::Read {
            error: ReadError::Medium(_),
            ..
        }) => true,
        Err(error) => panic!("block {block}: {error}"),
    }
}

#[test]
fn a_medium_is_bad_only_where_it_is_bad() {
    let server = serve(MIB, vec![]);
    // 256 blocks are there, 320 are promised.
    server.target().settings.capacity_bytes = Some(MIB as u64 + 262_144);
    server.target().settings.bad = vec![3 * 4096..4 * 4096, 4 * 4096..5 * 4096];
    let mut client = connect(&server);
    for (block, count, bad) in [
        (0, 3, false),
        (0, 4, true),
        (3, 1, true),
        (4, 1, true),
        (4, 9, true),
        (5, 251, false),
        (255, 1, false),
        (255, 2, true),
        (256, 1, true),
        (319, 1, true),
    ] {
        assert_eq!(is_bad(&mut client, block, count), bad, "{block}+{count}");
    }
    client.close();
    assert_eq!(server.target().violations, Vec::<String>::new());
}

#[test]
fn a_known_identity_is_checked_at_once() {
    let server = serve(MIB, vec![]);
    let identity = Identity {
        capacity_bytes: MIB as u64,
        designator: connect(&server).identity(),
        trailer_crc32c: Some(crc32c::crc32c(&image(MIB)[MIB - 4096..])),
        canaries: [None; 4],
    };
    let with = |identity| {
        Client::open(Options {
            identity: Some(identity),
            ..options(&[server.address()])
        })
    };
    assert!(with(identity).is_ok());
    let other = Identity {
        trailer_crc32c: Some(0),
        ..identity
    };
    assert!(matches!(
        with(other),
        Err(Error::Refused {
            reason: Reason::WrongImage(_),
            ..
        })
    ));
}

#[test]
fn refusals_and_errors_are_told_in_words() {
    let server = serve(
        MIB,
        vec![Plan::always(Fault::Login(LoginFault::Status(2, 3)))],
    );
    let address = server.address();
    let error = Client::open(options(&[address])).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("portal {address}: login refused: no such target (status 0x0203)")
    );

    let server = serve(
        MIB,
        vec![Plan::at(
            3,
            u32::MAX,
            Fault::Read(ReadFault::Sense(3, 0x11, 0)),
        )],
    );
    let mut client = connect(&server);
    let plan = Plan::always(Fault::Read(ReadFault::Sense(3, 0x11, 0)));
    server.target().plans = vec![plan];
    let error = client.read(4096, &mut vec![0; 4096]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Read {
                offset: 4096,
                error: ReadError::Medium(_)
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "reading at byte 4096: the target cannot read its medium (sense 3/11/00)"
    );
    server.target().plans.clear();
    client.read(4096, &mut vec![0; 4096]).unwrap();

    let dead = serve(MIB, vec![]).address();
    assert!(matches!(Client::open(options(&[])), Err(Error::NoPortal)));
    let bad = Options::new(&[dead], "a b", 1, ME);
    assert!(matches!(Client::open(bad), Err(Error::Name(_))));
}

/// What the test below was told; no other test writes here.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn a_portal_that_refuses_is_told_of_once_and_not_tried_for_long() {
    let dead = serve(MIB, vec![]).address();
    let with = |patience| {
        Client::open(Options {
            patience,
            tell: |trouble| TOLD.lock().unwrap().push(trouble.to_string()),
            ..options(&[dead])
        })
        .err()
        .unwrap()
        .to_string()
    };
    // Of half a minute, the usual patience, only this is used up.
    let said = with(Duration::from_secs(30));
    assert_eq!(
        said,
        format!("the portal {dead} refuses connections; tried for 5 s")
    );
    assert_eq!(
        *TOLD.lock().unwrap(),
        [format!(
            "the portal {dead} refuses connections; trying for 5 s more"
        )]
    );
    let said = with(Duration::from_millis(200));
    assert!(said.ends_with("tried for 0 s"), "{said}");
}

#[test]
fn one_of_two_portals_that_refuses_does_not_end_it() {
    let server = serve(
        MIB,
        vec![Plan::once(1, Fault::Login(LoginFault::Status(3, 0)))],
    );
    let dead = serve(MIB, vec![]).address();
    let mut client = Client::open(options(&[dead, server.address()])).unwrap();
    client.read(0, &mut vec![0; MIB]).unwrap();
}
