// SPDX-License-Identifier: GPL-2.0-only

//! Reads along what passes on one connection, in its own way, to know what a read may be said to have brought.

use std::collections::BTreeMap;

use imgstream_proto::iscsi::bhs::{
    flag, opcode, AnyHeader, DataIn, ScsiCommand, ScsiResponse, BHS_BYTES,
};
use imgstream_proto::iscsi::cdb;
use imgstream_proto::iscsi::sense::{key, status, Sense};

/// A READ(16) that was sent.
struct Command {
    /// First byte of the unit that it asks for.
    start: u64,
    len: u64,
    /// Bytes that came; they are the first ones, in order.
    received: u64,
    /// Whose buffer they went to.
    id: Option<u16>,
    /// How it ended: well, or not.
    ended: Option<bool>,
    /// Its bytes need not be the image's: somebody changed what the target had sent.
    lie: bool,
}

/// Where bytes go that are a read's.
pub(crate) struct Place {
    /// Which read.
    pub(crate) id: u16,
    /// The byte of the unit that belongs where they go.
    pub(crate) at: u64,
}

/// What passed so far.
#[derive(Default)]
pub(crate) struct Witness {
    commands: BTreeMap<u32, Command>,
    /// What the initiator sent and is no whole PDU yet.
    sent: Vec<u8>,
    /// The PDU that is being received, up to here.
    got: Vec<u8>,
    lie: bool,
    /// Data or a status has come.
    pub(crate) heard: bool,
}

/// How long the PDU is that begins here.
pub(crate) fn whole(pdu: &[u8]) -> Option<usize> {
    let header = AnyHeader::decode(pdu.first_chunk()?);
    let data = header.data_len.bytes() + header.data_len.padding();
    Some(BHS_BYTES + usize::from(header.ahs_words) * 4 + data as usize)
}

impl Witness {
    /// The initiator sends.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        while let Some(len) = whole(&self.sent).filter(|len| *len <= self.sent.len()) {
            let pdu: Vec<u8> = self.sent.drain(..len).collect();
            self.note_request(&pdu);
        }
    }

    fn note_request(&mut self, pdu: &[u8]) {
        let header = ScsiCommand::decode(pdu.first_chunk().unwrap());
        if header.opcode & opcode::MASK != opcode::SCSI_COMMAND
            || header.cdb[0] != cdb::Command::READ_16
        {
            return;
        }
        let command = Command {
            start: u64::from_be_bytes(*header.cdb[2..].first_chunk().unwrap()) * 512,
            len: header.expected_bytes.get().into(),
            received: 0,
            id: None,
            ended: None,
            lie: false,
        };
        let before = self.commands.insert(header.itt.get(), command);
        assert!(before.is_none(), "a tag was used again");
    }

    /// The initiator has received these bytes; `place` is where it put them, if they are a read's.
    pub(crate) fn got(&mut self, bytes: &[u8], lie: bool, place: Option<&Place>) {
        let lie = lie || (self.lie && !self.got.is_empty());
        if let Some(place) = place {
            self.check_place(bytes.len() as u64, lie, place);
        }
        self.lie = lie;
        self.got.extend_from_slice(bytes);
        if whole(&self.got).is_some_and(|len| len == self.got.len()) {
            self.note_answer();
            self.got.clear();
        }
    }

    /// Bytes go into a buffer only as the next of a command that is at the target, and where that asked for them.
    fn check_place(&mut self, len: u64, lie: bool, place: &Place) {
        let header = DataIn::decode(self.got.first_chunk().expect("data without a header"));
        assert_eq!(header.opcode & opcode::MASK, opcode::DATA_IN);
        let command = self.commands.get_mut(&header.itt.get());
        let command = command.expect("data for a command that was not sent");
        let offset = u64::from(header.buffer_offset.get()) + (self.got.len() - BHS_BYTES) as u64;
        assert_eq!(command.ended, None, "data for a command that has ended");
        assert_eq!(offset, command.received, "data out of order");
        assert!(command.received + len <= command.len, "too much data");
        assert_eq!(command.start + offset, place.at, "data at a wrong place");
        assert_eq!(*command.id.get_or_insert(place.id), place.id);
        command.received += len;
        self.heard = true;
        command.lie |= lie;
    }

    fn note_answer(&mut self) {
        let header = ScsiResponse::decode(self.got.first_chunk().unwrap());
        let data = &self.got[BHS_BYTES..];
        let good = match header.opcode & opcode::MASK {
            opcode::DATA_IN if header.flags & flag::STATUS != 0 => header.status == status::GOOD,
            opcode::SCSI_RESPONSE => header.response == 0 && succeeded(header.status, data),
            _ => return,
        };
        self.heard = true;
        if let Some(command) = self.commands.get_mut(&header.itt.get()) {
            command.ended.get_or_insert(good);
        }
    }

    /// Read `id` of `[start, end)` is said to have succeeded: whether its bytes must be the image's.
    pub(crate) fn succeeded(&mut self, id: u16, start: u64, end: u64) -> bool {
        let mut parts: Vec<_> = self
            .commands
            .values()
            .filter(|c| c.id == Some(id) && c.ended == Some(true) && c.received == c.len)
            .collect();
        parts.sort_by_key(|part| part.start);
        let mut at = start;
        for part in &parts {
            assert!(part.start <= at, "a hole in what a read brought");
            at = at.max(part.start + part.len);
        }
        assert_eq!(at, end, "not all of a read came");
        let honest = !parts.iter().any(|part| part.lie);
        self.forget(id);
        honest
    }

    /// The name of a read can be used again.
    pub(crate) fn forget(&mut self, id: u16) {
        for command in self.commands.values_mut().filter(|c| c.id == Some(id)) {
            command.id = None;
            command.ended = Some(false);
        }
    }
}

/// RECOVERED ERROR is a success, too.
fn succeeded(code: u8, segment: &[u8]) -> bool {
    let recovered = |sense: Sense| sense.key == key::RECOVERED && !sense.deferred;
    code == status::GOOD
        || (code == status::CHECK_CONDITION && Sense::from_segment(segment).is_some_and(recovered))
}
