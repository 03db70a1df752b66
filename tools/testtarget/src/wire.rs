// SPDX-License-Identifier: GPL-2.0-only

//! Damage to anything that the target sends: to the nth PDU of a phase, at a byte of it.

use imgstream_proto::iscsi::bhs::{opcode, AnyHeader, BHS_BYTES};
use imgstream_proto::iscsi::digest::Digests;

use crate::connection::{frame, Connection};
use crate::digest::sealed;
use crate::fault::Fault;
use crate::unasked::length;
use crate::Target;

/// Which of the PDUs that the target sends are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All.
    Any,
    /// Those of the login.
    Login,
    /// Those after it.
    Full,
    /// Those with this operation code.
    Opcode(u8),
}

/// What happens to a PDU. Bytes are counted from its first one, over header, data and padding. Digests are right where not said
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The connection is closed after this many bytes.
    Close(usize),
    /// It is reset (RST) after this many bytes.
    Reset(usize),
    /// After this many bytes the target says that it will send no more, and goes on listening.
    HalfClose(usize),
    /// After this many bytes the target is silent; the connection stays.
    Stall(usize),
    /// From this byte on, everything comes so many bytes at a time, so many milliseconds apart.
    Drip(usize, usize, u64),
    /// At this place stand these bytes: another operation code, length, tag, padding.
    Put(usize, Vec<u8>),
    /// The 32-bit number at this place is greater by so much, and wraps: StatSN, MaxCmdSN, DataSN.
    Add(usize, u32),
    /// A bit of the byte at this place changes on the way, digests counted, too.
    Flip(usize),
    /// Its data segment has these bytes, too.
    Append(Vec<u8>),
    /// It is sent twice.
    Twice,
    /// It is not sent.
    Lost,
}

/// How the target's sending ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not at all.
    Open,
    /// The connection is closed.
    Close,
    /// It is reset.
    Reset,
    /// Only this direction ends.
    Half,
    /// Nothing more is sent, and nobody is told.
    Stall,
}

/// PDUs that were sent on a connection.
#[derive(Debug)]
pub(crate) struct Sent {
    login: u32,
    full: u32,
    opcodes: [u32; 64],
}

impl Sent {
    pub(crate) const fn new() -> Self {
        Self {
            login: 0,
            full: 0,
            opcodes: [0; 64],
        }
    }

    /// Which PDU of a phase the next one would be, if it is of that phase.
    fn number(&self, phase: Phase, login: bool, code: u8) -> Option<u32> {
        match phase {
            Phase::Any => Some(self.login + self.full),
            Phase::Login => login.then_some(self.login),
            Phase::Full => (!login).then_some(self.full),
            Phase::Opcode(wanted) => {
                (wanted == code).then_some(self.opcodes[usize::from(code & opcode::MASK)])
            }
        }
    }

    fn count(&mut self, login: bool, code: u8) {
        if login {
            self.login += 1;
        } else {
            self.full += 1;
        }
        self.opcodes[usize::from(code & opcode::MASK)] += 1;
    }
}

impl Connection {
    /// Sends the PDUs that are ready, damaged as the script says.
    pub(crate) fn flush(&mut self, target: &mut Target, login: bool) {
        for pdu in std::mem::take(&mut self.ready) {
            let code = pdu.first().map_or(0, |byte| byte & opcode::MASK);
            let damage = target.fire_numbered(self.number, |fault| match fault {
                Fault::Wire(phase, damage) => {
                    let number = self.sent.number(*phase, login, code)?;
                    Some((number, damage.clone()))
                }
                _ => None,
            });
            self.sent.count(login, code);
            let digests = match login {
                true => Digests::default(),
                false => self.digests,
            };
            self.send_damaged(pdu, damage, digests);
        }
    }

    fn send_damaged(&mut self, mut pdu: Vec<u8>, damage: Option<Damage>, digests: Digests) {
        match &damage {
            Some(Damage::Put(at, bytes)) => put(&mut pdu, *at, bytes),
            Some(Damage::Add(at, more)) => add(&mut pdu, *at, *more),
            Some(Damage::Append(bytes)) => append(&mut pdu, bytes),
            _ => {}
        }
        let mut pdu = sealed(&pdu, digests);
        match damage {
            None | Some(Damage::Put(..) | Damage::Add(..) | Damage::Append(_)) => {}
            Some(Damage::Flip(at)) => flip(&mut pdu, at),
            Some(Damage::Close(at)) => return self.send_until(&pdu, at, Ending::Close),
            Some(Damage::Reset(at)) => return self.send_until(&pdu, at, Ending::Reset),
            Some(Damage::HalfClose(at)) => return self.send_until(&pdu, at, Ending::Half),
            Some(Damage::Stall(at)) => return self.send_until(&pdu, at, Ending::Stall),
            Some(Damage::Drip(at, bytes, pause_ms)) => {
                self.drip_from(at.min(pdu.len()), bytes, pause_ms);
            }
            Some(Damage::Twice) => pdu.extend_from_within(..),
            Some(Damage::Lost) => return,
        }
        self.send_bytes(&pdu);
    }

    fn send_until(&mut self, pdu: &[u8], at: usize, ending: Ending) {
        self.send_bytes(&pdu[..at.min(pdu.len())]);
        self.end(ending);
    }
}

fn append(pdu: &mut Vec<u8>, bytes: &[u8]) {
    let Some(mut header) = pdu.first_chunk().map(AnyHeader::decode) else {
        return;
    };
    let data = [&pdu[BHS_BYTES..][..header.data_len.bytes() as usize], bytes].concat();
    header.data_len = length(&data);
    *pdu = frame(header.encode(), &data);
}

fn put(pdu: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in pdu.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn flip(pdu: &mut [u8], at: usize) {
    if let Some(byte) = pdu.get_mut(at) {
        *byte ^= 1;
    }
}

fn add(pdu: &mut [u8], at: usize, more: u32) {
    if let Some(field) = pdu.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = u32::from_be_bytes(*field).wrapping_add(more).to_be_bytes();
    }
}
