// SPDX-License-Identifier: GPL-2.0-only

//! READ(16), rightly and wrongly.

use std::ops::Range;

use imgstream_proto::iscsi::bhs::{flag, opcode, AnyHeader, ScsiCommand};
use imgstream_proto::iscsi::sense::{key, status};

use crate::connection::{frame, Connection};
use crate::fault::{Fault, ForgedTag, ReadFault};
use crate::scsi::Answer;
use crate::Target;

const OUT_OF_RANGE: Answer = Answer::Sense(key::ILLEGAL_REQUEST, 0x21, 0);

/// One Data-In PDU that is to be sent.
pub(crate) struct Piece {
    pub(crate) offset: u32,
    pub(crate) data: Vec<u8>,
}

impl Connection {
    pub(crate) fn take_read(&mut self, target: &mut Target, command: &ScsiCommand) {
        let nth = self.reads;
        self.reads += 1;
        target.reads += 1;
        self.send_unasked(target, nth);
        if target
            .fire(self.number, nth, |f| {
                (*f == Fault::CloseWindow).then_some(())
            })
            .is_some()
        {
            self.close_window();
        }
        let pick = |f: &Fault| match f {
            Fault::Read(fault) => Some(*fault),
            _ => None,
        };
        let fault = target.fire(self.number, nth, pick);
        match self.read_data(target, command) {
            Ok(data) if data.len() as u32 != command.expected_bytes.get() => {
                self.finish(command, Answer::Data(data));
            }
            Ok(data) => {
                let pdus = self.answer_read(command, data, fault);
                self.send_read(pdus, fault);
            }
            Err(refusal) => self.finish(command, refusal),
        }
        self.last_read_tag = command.itt.get();
    }

    fn send_read(&mut self, pdus: Vec<Vec<u8>>, fault: Option<ReadFault>) {
        if let Some(ReadFault::Reset(at)) = fault {
            self.cut = Some(at);
        }
        for pdu in pdus {
            self.send_raw(pdu);
        }
    }

    /// The bytes that are asked for, or the answer if they cannot be had.
    fn read_data(&mut self, target: &mut Target, command: &ScsiCommand) -> Result<Vec<u8>, Answer> {
        let range = self.range(target, command).ok_or(OUT_OF_RANGE)?;
        self.read_range(target, command.cdb[1], range)
    }

    /// The same of a range; `how` is the byte of the command with what this unit has not: RDPROTECT, DPO, FUA (SBC-3 5.11).
    pub(crate) fn read_range(
        &self,
        target: &Target,
        how: u8,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Answer> {
        if how & 0xf8 != 0 {
            return Err(Answer::Sense(key::ILLEGAL_REQUEST, 0x24, 0));
        }
        if range.end > self.unit_bytes(target) {
            return Err(OUT_OF_RANGE);
        }
        self.read_medium(target, &range)
            .ok_or(Answer::Sense(key::MEDIUM, 0x11, 0))
    }

    /// The bytes of the image that a command names.
    fn range(&self, target: &mut Target, command: &ScsiCommand) -> Option<Range<u64>> {
        let cdb = &command.cdb;
        let lba = u64::from_be_bytes(*cdb[2..].first_chunk()?);
        let blocks = u32::from_be_bytes(*cdb[10..].first_chunk()?);
        let block = u64::from(self.settings.block_bytes);
        let bytes = u64::from(blocks) * block;
        self.expect(
            target,
            u64::from(command.expected_bytes.get()) == bytes,
            "EDTL and CDB contradict each other",
        );
        let burst = u64::from(self.settings.max_burst_bytes);
        self.expect(target, bytes <= burst, "a read longer than MaxBurstLength");
        let start = lba.checked_mul(block)?;
        Some(start..start.checked_add(bytes)?)
    }

    /// Reads the image; `None` where its medium is bad or ends too early.
    fn read_medium(&self, target: &Target, range: &Range<u64>) -> Option<Vec<u8>> {
        let bad = &self.settings.bad;
        if bad
            .iter()
            .any(|bad| bad.start < range.end && range.start < bad.end)
            || range.end > target.store.bytes()
        {
            return None;
        }
        let mut data = vec![0; usize::try_from(range.end - range.start).ok()?];
        target.store.read_at(range.start, &mut data).ok()?;
        Some(data)
    }

    /// Data as it fits into Data-In PDUs.
    pub(crate) fn pieces(&self, data: &[u8]) -> Vec<Piece> {
        let segment = self.settings.segment_bytes.min(self.peer_max_recv).max(4) as usize;
        let pieces = data.chunks(segment).enumerate();
        pieces
            .map(|(i, data)| Piece {
                offset: (i * segment) as u32,
                data: data.to_vec(),
            })
            .collect()
    }

    fn answer_read(
        &mut self,
        command: &ScsiCommand,
        data: Vec<u8>,
        fault: Option<ReadFault>,
    ) -> Vec<Vec<u8>> {
        if let Some(answer) = self.answer_without_data(command, fault) {
            return answer;
        }
        let mut pieces = self.pieces(&data);
        let mut sn_step = None;
        match fault {
            Some(ReadFault::Empty(count)) => {
                let empty = (0..count).map(|_| Piece {
                    offset: 0,
                    data: Vec::new(),
                });
                pieces.splice(0..0, empty);
            }
            Some(ReadFault::Short(bytes)) => shorten(&mut pieces, bytes as usize),
            Some(ReadFault::Nothing) => pieces.clear(),
            Some(ReadFault::Missing) => {
                pieces.remove(0);
                sn_step = Some(0);
            }
            Some(ReadFault::Hole) => {
                pieces.remove(0);
            }
            Some(ReadFault::Duplicate) => pieces.insert(
                0,
                Piece {
                    offset: 0,
                    data: pieces[0].data.clone(),
                },
            ),
            Some(ReadFault::Overlap) => {
                if let Some(piece) = pieces.get_mut(1) {
                    piece.offset -= 512;
                }
            }
            Some(ReadFault::Beyond) => {
                if let Some(last) = pieces.last_mut() {
                    last.data.extend_from_slice(&[0xee; 512]);
                }
            }
            Some(ReadFault::Wrap) => {
                if let Some(last) = pieces.last_mut() {
                    last.offset = u32::MAX - 3;
                }
            }
            Some(ReadFault::Oversize) => {
                let len = self.peer_max_recv as usize + 4;
                pieces = vec![Piece {
                    offset: 0,
                    data: vec![0xee; len],
                }];
            }
            Some(ReadFault::DataSn) => sn_step = Some(pieces.len() - 1),
            _ => {}
        }
        let separate = self.settings.separate_status
            || pieces.is_empty()
            || matches!(
                fault,
                Some(ReadFault::Response(_) | ReadFault::ExpDataSn | ReadFault::Residual)
            );
        let mut pdus = Vec::new();
        match fault {
            Some(ReadFault::ForgedReject) => pdus.push(self.forge_reject(command)),
            Some(ReadFault::ForgedPong) => {
                pdus.push(self.forge(command, opcode::NOP_IN, ForgedTag::Live));
            }
            Some(ReadFault::Forged(code, tag)) => pdus.push(self.forge(command, code, tag)),
            _ => {}
        }
        pdus.extend(self.data_pdus(command, &pieces, sn_step, separate, fault));
        if separate {
            pdus.push(self.status_pdu(command, pieces.len() as u32, fault));
        }
        pdus
    }

    fn data_pdus(
        &mut self,
        command: &ScsiCommand,
        pieces: &[Piece],
        sn_step: Option<usize>,
        separate: bool,
        fault: Option<ReadFault>,
    ) -> Vec<Vec<u8>> {
        let mut pdus = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let last = i + 1 == pieces.len();
            let mut flags = if last { flag::FINAL } else { 0 };
            if last && !separate {
                flags |= flag::STATUS;
            }
            if fault == Some(ReadFault::StatSn) && last {
                self.next_stat_sn();
            }
            let sn = i as u32 + u32::from(sn_step.is_some_and(|at| i >= at));
            let mut header = self.data_in(command, sn, piece.offset, &piece.data, flags, 0);
            match fault {
                Some(ReadFault::WrongTag) => header.itt = 0x00ff_ff00.into(),
                Some(ReadFault::LateTag) => header.itt = self.last_read_tag.into(),
                Some(ReadFault::Acknowledge) => header.flags |= flag::ACKNOWLEDGE,
                Some(ReadFault::StatusWithoutFinal) => header.flags = flag::STATUS,
                Some(ReadFault::DataStatus(status)) if last => header.status = status,
                Some(ReadFault::AdditionalHeaders) => header.ahs_words = 1,
                Some(ReadFault::Opcode(other)) => header.opcode = other,
                _ => {}
            }
            pdus.push(frame(header.encode(), &piece.data));
        }
        pdus
    }

    fn status_pdu(
        &mut self,
        command: &ScsiCommand,
        data_pdus: u32,
        fault: Option<ReadFault>,
    ) -> Vec<u8> {
        let residual = if fault == Some(ReadFault::Residual) {
            512
        } else {
            0
        };
        let response = match fault {
            Some(ReadFault::Response(code)) => code,
            _ => 0,
        };
        let wrong = u32::from(fault == Some(ReadFault::ExpDataSn));
        frame(
            self.response(command, response, status::GOOD, data_pdus + wrong, residual)
                .encode(),
            &[],
        )
    }

    /// Answers that consist of a status, or of something that is no answer.
    fn answer_without_data(
        &mut self,
        command: &ScsiCommand,
        fault: Option<ReadFault>,
    ) -> Option<Vec<Vec<u8>>> {
        let pdu = match fault? {
            ReadFault::Stall => return Some(Vec::new()),
            ReadFault::Status(status) => {
                frame(self.response(command, 0, status, 0, 0).encode(), &[])
            }
            ReadFault::Sense(key, asc, ascq) => self.sense(command, key, asc, ascq),
            ReadFault::BadSense => self.sense_of_length(command, key::MEDIUM, 0xff12, 18),
            ReadFault::SenseLength(length, bytes) => {
                self.sense_of_length(command, key::NOT_READY, length, bytes)
            }
            ReadFault::R2t => {
                let header = AnyHeader {
                    opcode: opcode::R2T,
                    flags: flag::FINAL,
                    itt: command.itt,
                    stat_sn: self.stat_sn.0.into(),
                    ..AnyHeader::default()
                };
                frame(header.encode(), &[])
            }
            ReadFault::Reject => self.reject(command.encode()),
            _ => return None,
        };
        Some(vec![pdu])
    }
}

/// Takes bytes off the end.
fn shorten(pieces: &mut Vec<Piece>, mut bytes: usize) {
    while let Some(last) = pieces.last_mut().filter(|_| bytes != 0) {
        let cut = bytes.min(last.data.len());
        last.data.truncate(last.data.len() - cut);
        bytes -= cut;
        if last.data.is_empty() {
            pieces.pop();
        }
    }
}
