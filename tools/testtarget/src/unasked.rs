// SPDX-License-Identifier: GPL-2.0-only

//! What the target sends without being asked: pings, messages, and PDUs that answer nothing.

use imgstream_proto::iscsi::bhs::{
    flag, lun_field, opcode, AnyHeader, AsyncMessage, DataSegmentLength, NopIn, NopOut, Reject,
    ScsiCommand, BHS_BYTES, NO_TAG,
};

use crate::connection::{frame, Connection};
use crate::fault::{Announcement, Fault, ForgedTag};
use crate::scsi::sense_data;
use crate::Target;

/// LUN that the target's pings carry: not the unit's, so that an initiator which does not copy it is caught.
const PING_LUN: u64 = 0x123;

impl Connection {
    /// Sends what the script wants sent before the answer to the `nth` read.
    pub(crate) fn send_unasked(&mut self, target: &mut Target, nth: u32) {
        let number = self.number;
        let mut count = |pick: fn(&Fault) -> Option<u32>| target.fire(number, nth, pick);
        let pings = count(|f| match f {
            Fault::Ping(times) => Some(*times),
            _ => None,
        });
        let news = count(|f| match f {
            Fault::News(times) => Some(*times),
            _ => None,
        });
        for _ in 0..pings.unwrap_or(0) {
            self.ping();
        }
        for _ in 0..news.unwrap_or(0) {
            self.send_nop(NO_TAG, [0; 8], &[]);
        }
        let message = target.fire(number, nth, |f| match f {
            Fault::Async(message) => Some(*message),
            _ => None,
        });
        if let Some(message) = message {
            self.announce(message);
        }
    }

    fn ping(&mut self) {
        let ttt = 0x1000 + self.pings_out.len() as u32;
        let lun = lun_field(PING_LUN).unwrap_or_default();
        self.pings_out.push((ttt, lun));
        self.send_nop(ttt, lun, b"hello");
    }

    /// A NOP-In of the target's own; its StatSN is the next one and is not used up (11.19.2).
    fn send_nop(&mut self, ttt: u32, lun: [u8; 8], data: &[u8]) {
        let (exp, max) = self.window();
        let nop = NopIn {
            opcode: opcode::NOP_IN,
            flags: flag::FINAL,
            data_len: length(data),
            lun,
            itt: NO_TAG.into(),
            ttt: ttt.into(),
            stat_sn: self.stat_sn.0.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..NopIn::default()
        };
        self.send(nop.encode(), data);
    }

    fn announce(&mut self, message: Announcement) {
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let data = message
            .sense
            .map(|(key, asc, ascq)| sense_data(key, asc, ascq))
            .unwrap_or_default();
        let [parameter1, parameter2, parameter3] = message.parameters;
        let header = AsyncMessage {
            opcode: opcode::ASYNC_MESSAGE,
            flags: flag::FINAL,
            data_len: length(&data),
            lun: lun_field(self.settings.lun).unwrap_or_default(),
            itt: NO_TAG.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            event: message.event,
            parameter1: parameter1.into(),
            parameter2: parameter2.into(),
            parameter3: parameter3.into(),
            ..AsyncMessage::default()
        };
        self.send(header.encode(), &data);
    }

    /// A PDU that looks like a success, under a tag that it must not have.
    pub(crate) fn forge(&mut self, command: &ScsiCommand, code: u8, tag: ForgedTag) -> Vec<u8> {
        let tag = match tag {
            ForgedTag::Live => command.itt.get(),
            ForgedTag::Late => self.last_read_tag,
            ForgedTag::Unknown => 0x00ff_ff00,
            ForgedTag::Reserved => NO_TAG,
        };
        if code == opcode::REJECT {
            let quoted = ScsiCommand {
                itt: tag.into(),
                ..*command
            };
            return self.reject(quoted.encode());
        }
        let ends = if code == opcode::DATA_IN {
            flag::STATUS
        } else {
            0
        };
        let stat_sn = match (code, tag) {
            (opcode::NOP_IN, NO_TAG) => self.stat_sn.0,
            _ => self.next_stat_sn(),
        };
        let (exp, max) = self.window();
        let header = AnyHeader {
            opcode: code,
            flags: flag::FINAL | ends,
            itt: tag.into(),
            ttt: NO_TAG.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..AnyHeader::default()
        };
        frame(header.encode(), &[])
    }

    /// A Reject that quotes a NOP-Out which was never sent, under the tag of a command.
    pub(crate) fn forge_reject(&mut self, command: &ScsiCommand) -> Vec<u8> {
        let quoted = NopOut {
            opcode: opcode::IMMEDIATE,
            itt: command.itt,
            ..NopOut::default()
        };
        self.reject(quoted.encode())
    }

    /// A Reject (11.17) that quotes this header.
    pub(crate) fn reject(&mut self, quoted: [u8; BHS_BYTES]) -> Vec<u8> {
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let header = Reject {
            opcode: opcode::REJECT,
            flags: flag::FINAL,
            reason: 0x09,
            data_len: length(&quoted),
            itt: NO_TAG.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..Reject::default()
        };
        frame(header.encode(), &quoted)
    }
}

pub(crate) fn length(data: &[u8]) -> DataSegmentLength {
    DataSegmentLength::new(data.len() as u32).unwrap_or_default()
}
