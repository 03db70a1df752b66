// SPDX-License-Identifier: GPL-2.0-only

//! Any bytes from a target, at each stage of a session. How they are cut into pieces must not matter.

use imgstream_engine::session::{Event, Stage};
use imgstream_testtarget::{Connection, Target};

use crate::input::{Input, Pieces};
use crate::peer::{check_told, config, Peer, IMAGE};

/// A silent target is noticed within this time: the longest is a ping and its answer.
const SILENCE_MS: u64 = 60_000;

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let (mode, seed) = (input.byte(), input.byte());
    let whole = run(mode, input.rest(), Pieces::new(seed, usize::MAX >> 1));
    let pieces = run(mode, input.rest(), Pieces::new(seed, 100));
    assert_eq!(whole, pieces, "it matters how bytes are cut");
}

/// What happened, and what was sent.
fn run(mode: u8, mut bytes: &[u8], mut pieces: Pieces) -> (Vec<Event>, Vec<u8>) {
    let mut peer = Peer::new(config(mode & 4 != 0));
    let mut target = Target::new(IMAGE.clone());
    let mut connection = target.accept();
    let mut sent = prepare(&mut peer, mode, &mut target, &mut connection);
    let mut events = peer.events();
    while !bytes.is_empty() && !peer.is_down() {
        let piece = pieces.next().min(bytes.len());
        let taken = peer.receive_once(&bytes[..piece], true);
        bytes = &bytes[taken..];
        sent.extend(peer.transmit_all());
        events.extend(peer.events());
    }
    events.extend(peer.silence(SILENCE_MS));
    check_told(&events);
    (events, sent)
}

/// Brings a session to where the bytes begin: its stage, the reads, whether it knows the image. What it sent last.
pub(crate) fn prepare(
    peer: &mut Peer,
    mode: u8,
    target: &mut Target,
    connection: &mut Connection,
) -> Vec<u8> {
    for id in 0..u16::from(mode >> 4) {
        peer.submit(id, u64::from(id) * 4096, 512);
    }
    peer.connect();
    let stage = match mode % 4 {
        0 => Stage::Login,
        1 => Stage::Identify,
        _ => Stage::Ready,
    };
    while peer.session.stage() != stage {
        connection.feed(target, &peer.transmit_all());
        peer.receive(&connection.take_out(usize::MAX), false);
        peer.events();
    }
    if mode % 4 == 3 {
        peer.session.logout(peer.now);
    }
    peer.transmit_all()
}
