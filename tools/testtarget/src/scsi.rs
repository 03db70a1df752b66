// SPDX-License-Identifier: GPL-2.0-only

//! The commands: what the logical unit answers.

use std::cmp::Ordering;

use imgstream_proto::iscsi::bhs::{
    flag, lun_field, opcode, DataIn, ScsiCommand, ScsiResponse, BHS_BYTES,
};
use imgstream_proto::iscsi::sense::{key, status};

use crate::connection::{frame, Connection};
use crate::unasked::length;
use crate::Target;

/// How a command ends.
pub(crate) enum Answer {
    /// GOOD, with these bytes.
    Data(Vec<u8>),
    /// CHECK CONDITION: key, code, qualifier.
    Sense(u8, u8, u8),
}

impl Connection {
    pub(crate) fn take_command(
        &mut self,
        target: &mut Target,
        header: &[u8; BHS_BYTES],
        data: &[u8],
    ) {
        let command = ScsiCommand::decode(header);
        let flags = command.flags;
        self.expect(
            target,
            command.opcode & opcode::IMMEDIATE == 0,
            "an immediate command",
        );
        let reads = command.expected_bytes.get() != 0;
        let right = flag::FINAL | flag::SIMPLE | if reads { flag::READ } else { 0 };
        self.expect(
            target,
            flags == right && data.is_empty(),
            "flags or data of a command",
        );
        let (cmd_sn, exp_stat_sn) = (command.cmd_sn.get(), command.exp_stat_sn.get());
        // One outside of the window is ignored (4.2.2.1).
        if !self.check_numbers(target, false, cmd_sn, exp_stat_sn) {
            return;
        }
        self.check_tag(target, command.itt.get());
        if command.lun != self.own_lun() {
            let answer = self.elsewhere(target, &command.cdb);
            return self.finish(&command, answer);
        }
        // SPC-4 5.14: these two do not report conditions.
        if !matches!(command.cdb[0], 0x12 | 0xa0) && !self.attentions.is_empty() {
            let (asc, ascq) = self.attentions.remove(0);
            return self.finish(&command, Answer::Sense(key::UNIT_ATTENTION, asc, ascq));
        }
        match command.cdb {
            [0x00, ..] => self.finish(&command, Answer::Data(Vec::new())),
            [0x12, 0, 0, a, b, ..] => {
                self.finish(&command, Answer::Data(cut(inquiry(), [0, 0, a, b])))
            }
            [0x12, 1, page, a, b, ..] => {
                let answer = match self.page(page) {
                    Some(page) => Answer::Data(cut(page, [0, 0, a, b])),
                    None => Answer::Sense(key::ILLEGAL_REQUEST, 0x24, 0),
                };
                self.finish(&command, answer);
            }
            [0x12, ..] => self.finish(&command, Answer::Sense(key::ILLEGAL_REQUEST, 0x24, 0)),
            [0x9e, 0x10, _, _, _, _, _, _, _, _, a, b, c, d, ..] => {
                let answer = Answer::Data(cut(self.capacity(target), [a, b, c, d]));
                self.finish(&command, answer);
            }
            [0x88, ..] => self.take_read(target, &command),
            [other, ..] => {
                self.expect(
                    target,
                    false,
                    &format!("command {other:#04x} is not on the list"),
                );
                let answer = self.foreign(target, &command.cdb);
                self.finish(&command, answer);
            }
        }
    }

    /// The unit's number as it stands in a header.
    pub(crate) fn own_lun(&self) -> [u8; 8] {
        lun_field(self.settings.lun).unwrap_or_default()
    }

    /// What a unit that does not exist answers: who asks what there is learns it from any number.
    fn elsewhere(&mut self, target: &mut Target, cdb: &[u8; 16]) -> Answer {
        match cdb {
            [0x12, 0, 0, a, b, ..] => Answer::Data(cut(Self::nobody(), [0, 0, *a, *b])),
            [0xa0, ..] => self.foreign(target, cdb),
            _ => Answer::Sense(key::ILLEGAL_REQUEST, 0x25, 0),
        }
    }

    fn page(&self, page: u8) -> Option<Vec<u8>> {
        match page {
            0x00 => {
                let pages: Vec<u8> = [0x80, 0x83, 0xb0]
                    .into_iter()
                    .filter(|page| self.page(*page).is_some())
                    .collect();
                Some([&[0, 0, 0, pages.len() as u8 + 1, 0][..], &pages].concat())
            }
            0x80 => {
                let serial = format!("{:016x}", u64::from_be_bytes(self.settings.designator?));
                Some([&[0, 0x80, 0, 16][..], serial.as_bytes()].concat())
            }
            0x83 => {
                let naa = self.settings.designator?;
                let mut data = vec![0, 0x83, 0, 12, 1, 3, 0, 8];
                data.extend_from_slice(&naa);
                Some(data)
            }
            0xb0 => {
                let blocks = self.settings.max_transfer_blocks?;
                let mut data = vec![0; 64];
                (data[1], data[3]) = (0xb0, 60);
                data[8..12].copy_from_slice(&blocks.to_be_bytes());
                Some(data)
            }
            _ => None,
        }
    }

    /// The size of the logical unit, as it is reported.
    pub(crate) fn unit_bytes(&self, target: &Target) -> u64 {
        self.settings.capacity_bytes.unwrap_or(target.store.bytes())
    }

    fn capacity(&self, target: &Target) -> Vec<u8> {
        let bytes = self.unit_bytes(target);
        let block = u64::from(self.settings.block_bytes.max(1));
        let last = (bytes / block).wrapping_sub(1);
        let last = self.settings.last_block.unwrap_or(last);
        let mut data = last.to_be_bytes().to_vec();
        data.extend_from_slice(&self.settings.block_bytes.to_be_bytes());
        data.resize(32, 0);
        data
    }

    /// Answers a command that is no READ(16), or one that contradicts itself.
    pub(crate) fn finish(&mut self, command: &ScsiCommand, answer: Answer) {
        match answer {
            Answer::Data(data) if !data.is_empty() => self.send_data(command, data),
            Answer::Data(_) => {
                let missing = command.expected_bytes.get();
                let header = self.response(command, 0, status::GOOD, 0, missing);
                self.send(header.encode(), &[]);
            }
            Answer::Sense(key, asc, ascq) => {
                let pdu = self.sense(command, key, asc, ascq);
                self.send_raw(pdu);
            }
        }
    }

    /// Data and its status in as many PDUs as it takes; what does not fit what was asked for is left out (11.4.5).
    fn send_data(&mut self, command: &ScsiCommand, mut data: Vec<u8>) {
        let (expected, there) = (command.expected_bytes.get(), data.len() as u32);
        let residual = there.abs_diff(expected);
        let which = match there.cmp(&expected) {
            Ordering::Greater => flag::OVERFLOW,
            Ordering::Less => flag::UNDERFLOW,
            Ordering::Equal => 0,
        };
        data.truncate(expected as usize);
        let pieces = self.pieces(&data);
        if pieces.is_empty() {
            let mut header = self.response(command, 0, status::GOOD, 0, residual);
            header.flags = flag::FINAL | which;
            self.send(header.encode(), &[]);
        }
        for (sn, piece) in pieces.iter().enumerate() {
            let (flags, residual) = if sn + 1 == pieces.len() {
                (flag::FINAL | flag::STATUS | which, residual)
            } else {
                (0, 0)
            };
            let (sn, offset) = (sn as u32, piece.offset);
            let header = self.data_in(command, sn, offset, &piece.data, flags, residual);
            self.send(header.encode(), &piece.data);
        }
    }

    pub(crate) fn sense(&mut self, command: &ScsiCommand, key: u8, asc: u8, ascq: u8) -> Vec<u8> {
        self.check_condition(command, &sense_data(key, asc, ascq))
    }

    /// CHECK CONDITION with as many bytes of sense data, and a length that may say something else.
    pub(crate) fn sense_of_length(
        &mut self,
        command: &ScsiCommand,
        key: u8,
        length: u16,
        bytes: u16,
    ) -> Vec<u8> {
        let mut data = sense_data(key, 0x04, 0x01);
        data.resize(2 + usize::from(bytes), 0);
        data[..2].copy_from_slice(&length.to_be_bytes());
        self.check_condition(command, &data)
    }

    fn check_condition(&mut self, command: &ScsiCommand, data: &[u8]) -> Vec<u8> {
        let mut header = self.response(command, 0, status::CHECK_CONDITION, 0, 0);
        header.data_len = length(data);
        frame(header.encode(), data)
    }

    pub(crate) fn response(
        &mut self,
        command: &ScsiCommand,
        response: u8,
        status: u8,
        exp_data_sn: u32,
        residual: u32,
    ) -> ScsiResponse {
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        ScsiResponse {
            opcode: opcode::SCSI_RESPONSE,
            flags: flag::FINAL | if residual == 0 { 0 } else { flag::UNDERFLOW },
            response,
            status,
            itt: command.itt,
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            exp_data_sn: exp_data_sn.into(),
            residual: residual.into(),
            ..ScsiResponse::default()
        }
    }

    pub(crate) fn data_in(
        &mut self,
        command: &ScsiCommand,
        data_sn: u32,
        offset: u32,
        data: &[u8],
        flags: u8,
        residual: u32,
    ) -> DataIn {
        let stat_sn = if flags & flag::STATUS == 0 {
            0
        } else {
            self.next_stat_sn()
        };
        let (exp, max) = self.window();
        DataIn {
            opcode: opcode::DATA_IN,
            flags,
            data_len: length(data),
            itt: command.itt,
            ttt: u32::MAX.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            data_sn: data_sn.into(),
            buffer_offset: offset.into(),
            residual: residual.into(),
            ..DataIn::default()
        }
    }
}

/// Sense data in fixed format, behind its length (RFC 7143 section 11.4.7).
pub(crate) fn sense_data(key: u8, asc: u8, ascq: u8) -> Vec<u8> {
    vec![
        0, 18, 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0,
    ]
}

pub(crate) fn inquiry() -> Vec<u8> {
    let mut data = vec![0u8; 66];
    (data[2], data[3], data[4]) = (6, 2, 61);
    data[8..16].copy_from_slice(b"imgstrm ");
    data[16..32].copy_from_slice(b"scripted target ");
    data
}

fn cut(mut data: Vec<u8>, room: [u8; 4]) -> Vec<u8> {
    data.truncate(u32::from_be_bytes(room) as usize);
    data
}
