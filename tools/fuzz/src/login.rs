// SPDX-License-Identifier: GPL-2.0-only

//! Any answers to a login: flags, status, text, with and without CHAP and digests. Whatever they are, a login ends, each
//! request is one that may be sent, and the full feature phase is entered only where the target agreed to it, has proved
//! who it is, and protects what has to be protected.

mod chap;

use imgstream_engine::session::{Config, Stage, Timing};
use imgstream_proto::iscsi::bhs::{
    flag, opcode, DataSegmentLength, LoginRequest, LoginResponse, BHS_BYTES,
};
use imgstream_proto::iscsi::digest::Policy;

use crate::input::{Input, Pieces};
use crate::peer::{check_told, config, Peer};

/// Requests that a login may take: as many as the session allows itself, and one more to notice it.
const MAX_REQUESTS: usize = 17;
/// CSG 1, NSG 3, T: the end of a login.
const END: u8 = flag::TRANSIT | (1 << 2) | 3;

/// An answer as the input has it.
struct Answer<'a> {
    flags: u8,
    /// What is wrong with it, apart from flags and text.
    twist: u8,
    text: &'a [u8],
}

impl<'a> Answer<'a> {
    fn new(input: &mut Input<'a>) -> Self {
        let (flags, twist, len) = (input.byte(), input.byte(), input.word());
        Self {
            flags,
            twist,
            text: input.bytes(usize::from(len)),
        }
    }

    /// Nothing is wrong with it: a detail without a class of errors tells nothing.
    const fn is_straight(&self) -> bool {
        matches!(self.twist, 0 | 6..=15)
    }

    fn encode(&self, request: &LoginRequest, stat_sn: u32) -> Vec<u8> {
        let twist = |number: u8| u8::from(self.twist == number);
        let ends = u8::from(self.flags & END == END && self.twist != 1);
        let length = DataSegmentLength::new(self.text.len() as u32);
        let header = LoginResponse {
            opcode: opcode::LOGIN_RESPONSE ^ twist(2),
            flags: self.flags,
            version_active: twist(3),
            data_len: length.unwrap_or_default(),
            isid: request.isid,
            tsih: u16::from(ends).into(),
            itt: (request.itt.get() ^ u32::from(twist(4))).into(),
            stat_sn: stat_sn.wrapping_add(u32::from(twist(5))).into(),
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: request.cmd_sn,
            status_class: self.twist >> 4,
            status_detail: self.twist & 0xf,
            ..LoginResponse::default()
        };
        let mut pdu = header.encode().to_vec();
        pdu.extend_from_slice(self.text);
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        pdu
    }
}

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let digests = policy(how);
    let mut peer = prepare(how);
    let texts = log_in(&mut peer, &mut input);
    if peer.is_down() || peer.session.stage() == Stage::Login {
        return check_told(&peer.silence(Timing::DEFAULT.login));
    }
    assert_eq!(peer.session.stage(), Stage::Identify);
    let agreed = peer.session.digests();
    assert!(digests != Policy::Require || agreed.header && agreed.data);
    assert!(digests != Policy::Off || !agreed.header && !agreed.data);
    if how & 4 != 0 {
        chap::check(&texts, how & 8 != 0);
    }
    check_told(&peer.silence(10 * Timing::DEFAULT.login));
}

fn policy(how: u8) -> Policy {
    match how % 4 {
        0 => Policy::Require,
        1 => Policy::Prefer,
        _ => Policy::Off,
    }
}

/// A session before its login, with this policy, and with CHAP if bit 2 is set, mutual with bit 3.
fn prepare(how: u8) -> Peer {
    let mut peer = Peer::new(Config {
        digests: policy(how),
        ..config(true)
    });
    if how & 4 != 0 {
        chap::authenticate(&mut peer.session, how & 8 != 0);
    }
    peer
}

/// Answers until the login is over; all texts, put together where they were continued.
fn log_in(peer: &mut Peer, input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Pieces::new(input.byte(), 300);
    let mut stat_sn = u32::MAX - u32::from(input.byte());
    let (mut texts, mut gathered) = (Vec::new(), Vec::new());
    peer.connect();
    for _ in 0..MAX_REQUESTS {
        let request = take_request(peer);
        if input.is_empty() {
            break;
        }
        let answer = Answer::new(input);
        for piece in answer.encode(&request, stat_sn).chunks(pieces.next()) {
            peer.receive(piece, true);
        }
        stat_sn = stat_sn.wrapping_add(1);
        gathered.extend_from_slice(answer.text);
        if peer.is_down() {
            break;
        }
        let ended = peer.session.stage() != Stage::Login;
        let agreed = answer.flags & (END | flag::CONTINUE) == END && answer.is_straight();
        assert!(!ended || agreed, "the target did not agree to the end");
        if answer.flags & flag::CONTINUE == 0 {
            assert!(is_text(&gathered), "text that is none was taken");
            texts.push(std::mem::take(&mut gathered));
        }
        if ended {
            break;
        }
    }
    texts
}

/// The one request that a session in its login sends.
fn take_request(peer: &mut Peer) -> LoginRequest {
    let pdu = peer.transmit_all();
    let request = LoginRequest::decode(pdu.first_chunk().expect("a login that asks nothing"));
    assert_eq!(request.opcode, opcode::LOGIN_REQUEST | opcode::IMMEDIATE);
    let text_end = BHS_BYTES + request.data_len.bytes() as usize;
    assert_eq!(pdu.len(), text_end.next_multiple_of(4), "not one request");
    assert!(is_text(&pdu[BHS_BYTES..text_end]), "no text is sent");
    assert!(pdu[text_end..].iter().all(|pad| *pad == 0));
    request
}

/// Whether these are whole pairs.
fn is_text(bytes: &[u8]) -> bool {
    let Some((last, pairs)) = bytes.split_last() else {
        return true;
    };
    let is_pair = |pair: &[u8]| {
        pair.iter()
            .position(|b| *b == b'=')
            .is_some_and(|at| at != 0)
    };
    *last == 0 && pairs.split(|b| *b == 0).all(is_pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_to_begin_with_come_through() {
        for seed in crate::seeds::logins() {
            let mut input = Input::new(&seed);
            let mut peer = prepare(input.byte());
            log_in(&mut peer, &mut input);
            let reason = peer.session.last_reason();
            assert_eq!(peer.session.stage(), Stage::Identify, "{reason:?}");
        }
    }
}
