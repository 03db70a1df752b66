// SPDX-License-Identifier: GPL-2.0-only

//! What is on its way from the target, and what becomes of it: PDUs changed, left out, doubled, swapped, forged.
//!
//! Status numbers are put right where PDUs were left out or added, so that these are not noticed by their numbers alone.

use std::collections::VecDeque;

use imgstream_proto::iscsi::bhs::{flag, opcode, AnyHeader, DataSegmentLength, BHS_BYTES, NO_TAG};

use crate::input::Input;
use crate::witness::whole;

/// Where StatSN is.
const STAT_SN: std::ops::Range<usize> = 24..28;
/// Bytes of a header that say how long the PDU is.
const LENGTH: std::ops::Range<usize> = 4..8;
/// What is forged.
const FORGED: [u8; 8] = [
    opcode::NOP_IN,
    opcode::SCSI_RESPONSE,
    opcode::DATA_IN,
    opcode::REJECT,
    opcode::ASYNC_MESSAGE,
    opcode::LOGOUT_RESPONSE,
    opcode::LOGIN_RESPONSE,
    opcode::R2T,
];

/// Which status number a PDU gets.
#[derive(Clone, Copy, PartialEq)]
enum Number {
    /// Its own, moved on by those that were added before it.
    Own,
    /// The next one: it has changed its place.
    Next,
    /// The next one, and all after it move on.
    Added,
}

struct Pdu {
    bytes: Vec<u8>,
    /// It does not say what the target has said.
    lie: bool,
    number: Number,
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Wire {
    pdus: VecDeque<Pdu>,
    /// Bytes of the first PDU that have arrived.
    arrived: usize,
    /// What is no whole PDU yet.
    tail: Vec<u8>,
    last_stat_sn: u32,
    added: u32,
    disturbed: bool,
    /// A length was changed: from here on nobody knows where a PDU begins.
    broken: bool,
}

impl Wire {
    /// The target sends; `end`: and nothing after that.
    pub(crate) fn put(&mut self, bytes: &[u8], end: bool) {
        self.tail.extend_from_slice(bytes);
        while let Some(len) = whole(&self.tail).filter(|len| *len <= self.tail.len()) {
            let pdu = self.tail.drain(..len).collect();
            self.push(pdu);
        }
        if end && !self.tail.is_empty() {
            let rest = std::mem::take(&mut self.tail);
            self.push(rest);
        }
    }

    fn push(&mut self, bytes: Vec<u8>) {
        self.pdus.push_back(Pdu {
            bytes,
            lie: false,
            number: Number::Own,
        });
    }

    /// Nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.pdus.is_empty()
    }

    /// Whether all that arrived is what the target has sent.
    pub(crate) fn is_honest(&self) -> bool {
        !self.disturbed
    }

    /// Up to `max` bytes arrive, of one PDU; and whether they are a lie.
    pub(crate) fn take(&mut self, max: usize) -> (Vec<u8>, bool) {
        if self.arrived == 0 {
            self.number();
        }
        let Some(pdu) = self.pdus.front() else {
            return (Vec::new(), false);
        };
        let end = pdu.bytes.len().min(self.arrived.saturating_add(max));
        let taken = (
            pdu.bytes[self.arrived..end].to_vec(),
            pdu.lie || self.broken,
        );
        self.arrived = end;
        if end == pdu.bytes.len() {
            self.pdus.pop_front();
            self.arrived = 0;
        }
        taken
    }

    /// Gives the first PDU its status number.
    fn number(&mut self) {
        let disturbed = self.disturbed && !self.broken;
        let Some(pdu) = self.pdus.front_mut().filter(|pdu| has_status(&pdu.bytes)) else {
            return;
        };
        let own = u32::from_be_bytes(pdu.bytes[STAT_SN].try_into().unwrap());
        let next = self.last_stat_sn.wrapping_add(1);
        let number = match pdu.number {
            Number::Own => own.wrapping_add(self.added),
            Number::Next | Number::Added => next,
        };
        if pdu.number == Number::Added {
            self.added = self.added.wrapping_add(1);
        }
        if disturbed {
            pdu.bytes[STAT_SN].copy_from_slice(&number.to_be_bytes());
        }
        self.last_stat_sn = number;
    }

    /// Does something to the PDUs that have not begun to arrive.
    pub(crate) fn disturb(&mut self, input: &mut Input<'_>) {
        let (kind, which, a, b) = (input.byte(), input.byte(), input.byte(), input.byte());
        let first = usize::from(self.arrived != 0);
        let count = self.pdus.len().saturating_sub(first);
        if count == 0 {
            return;
        }
        self.disturbed = true;
        let index = first + usize::from(which) % count;
        match kind % 8 {
            0 | 1 => self.change(index, usize::from(a) % BHS_BYTES, b),
            2 => self.change(index, BHS_BYTES + usize::from(a), b),
            3 => self.leave_out(index),
            4 => self.double(index),
            5 => self.swap(index),
            _ => self.forge(index, a, b),
        }
    }

    fn change(&mut self, index: usize, at: usize, pattern: u8) {
        let pdu = &mut self.pdus[index];
        pdu.lie = true;
        if let Some(byte) = pdu.bytes.get_mut(at) {
            *byte ^= pattern;
            self.broken |= LENGTH.contains(&at) && pattern != 0;
        }
    }

    fn leave_out(&mut self, index: usize) {
        let pdu = self.pdus.remove(index);
        if pdu.is_some_and(|p| has_status(&p.bytes) && p.number == Number::Own) {
            self.added = self.added.wrapping_sub(1);
        }
    }

    fn double(&mut self, index: usize) {
        let pdu = &self.pdus[index];
        let copy = Pdu {
            bytes: pdu.bytes.clone(),
            lie: pdu.lie,
            number: Number::Added,
        };
        self.pdus.insert(index + 1, copy);
    }

    fn swap(&mut self, index: usize) {
        if index + 1 >= self.pdus.len() {
            return;
        }
        self.pdus.swap(index, index + 1);
        let own = |pdu: &Pdu| has_status(&pdu.bytes) && pdu.number == Number::Own;
        if self.pdus.range(index..index + 2).all(own) {
            let pair = self.pdus.range_mut(index..index + 2);
            pair.for_each(|pdu| pdu.number = Number::Next);
        }
    }

    /// A PDU that is made from another: under its tag, of another kind, with other data.
    fn forge(&mut self, index: usize, kind: u8, len: u8) {
        let Some(header) = self.pdus[index].bytes.first_chunk() else {
            return;
        };
        let length = DataSegmentLength::new(len.into()).unwrap_or_default();
        let mut header = AnyHeader::decode(header);
        header.opcode = FORGED[usize::from(kind) % FORGED.len()];
        header.data_len = length;
        if header.opcode == opcode::ASYNC_MESSAGE || kind & 8 != 0 {
            header.itt = NO_TAG.into();
        }
        if kind & 16 != 0 {
            header.flags ^= flag::STATUS;
        }
        if header.opcode == opcode::ASYNC_MESSAGE {
            header.rest[0] = kind >> 4;
        }
        let mut bytes = header.encode().to_vec();
        bytes.resize(BHS_BYTES + usize::from(len).next_multiple_of(4), 0xee);
        let forged = Pdu {
            bytes,
            lie: true,
            number: Number::Added,
        };
        self.pdus.insert(index, forged);
    }
}

/// Whether a PDU uses up a status number.
fn has_status(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk().map(AnyHeader::decode) else {
        return false;
    };
    match header.opcode & opcode::MASK {
        opcode::DATA_IN => header.flags & flag::STATUS != 0,
        opcode::NOP_IN => header.itt.get() != NO_TAG,
        opcode::R2T => false,
        _ => true,
    }
}
