// SPDX-License-Identifier: GPL-2.0-only

//! What initiators other than ours ask of a disk, so that they can say whether this target is one: Linux, libiscsi.
//!
//! SPC-4 and SBC-3. Each of these commands still counts as a rule that our initiator broke.

use imgstream_proto::iscsi::bhs::{flag, opcode, AnyHeader, BHS_BYTES};
use imgstream_proto::iscsi::sense::key;

use crate::connection::Connection;
use crate::scsi::Answer;
use crate::Target;

/// Task Management Function Request (RFC 7143 section 11.5), which our initiator has no use for.
pub(crate) const TASK_REQUEST: u8 = 0x02;
/// Sense key DATA PROTECT.
const DATA_PROTECT: u8 = 0x7;
const INVALID_FIELD: Answer = Answer::Sense(key::ILLEGAL_REQUEST, 0x24, 0);
const UNKNOWN_COMMAND: Answer = Answer::Sense(key::ILLEGAL_REQUEST, 0x20, 0);
const WRITE_PROTECTED: Answer = Answer::Sense(DATA_PROTECT, 0x27, 0);

impl Connection {
    /// What the logical unit answers to a command that is not on our initiator's list.
    pub(crate) fn foreign(&mut self, target: &mut Target, cdb: &[u8; 16]) -> Answer {
        let long = |a, b, c, d| u32::from_be_bytes([a, b, c, d]);
        match *cdb {
            [0x08, a, b, c, len, ..] => {
                let blocks = if len == 0 { 256 } else { u32::from(len) };
                self.read_old(target, 0, long(0, a & 0x1f, b, c), blocks)
            }
            [0x28, how, a, b, c, d, _, e, f, ..] => {
                self.read_old(target, how, long(a, b, c, d), long(0, 0, e, f))
            }
            [0xa8, how, a, b, c, d, e, f, g, h, ..] => {
                self.read_old(target, how, long(a, b, c, d), long(e, f, g, h))
            }
            [0x25, ..] => Answer::Data(self.small_capacity(target)),
            [0xa0, _, _, _, _, _, a, b, c, d, ..] => self.report_luns(long(a, b, c, d)),
            [0x1a, _, page, sub, room, ..] => mode_sense(page, sub, 4, u32::from(room)),
            [0x5a, _, page, sub, _, _, _, a, b, ..] => mode_sense(page, sub, 8, long(0, 0, a, b)),
            _ if writes(cdb) => WRITE_PROTECTED,
            _ => UNKNOWN_COMMAND,
        }
    }

    /// READ(6), (10) and (12).
    fn read_old(&mut self, target: &mut Target, how: u8, lba: u32, blocks: u32) -> Answer {
        let block = u64::from(self.settings.block_bytes);
        let start = u64::from(lba) * block;
        self.read_range(target, how, start..start + u64::from(blocks) * block)
            .map_or_else(|refusal| refusal, Answer::Data)
    }

    /// READ CAPACITY(10): all ones where the unit is too large for it.
    fn small_capacity(&self, target: &Target) -> Vec<u8> {
        let blocks = self.unit_bytes(target) / u64::from(self.settings.block_bytes.max(1));
        let last = u32::try_from(blocks.wrapping_sub(1)).unwrap_or(u32::MAX);
        [last.to_be_bytes(), self.settings.block_bytes.to_be_bytes()].concat()
    }

    fn report_luns(&self, room: u32) -> Answer {
        // SPC-4 6.33: a list that cannot even take one entry is an error.
        if room < 16 {
            return INVALID_FIELD;
        }
        let mut data = vec![0, 0, 0, 8, 0, 0, 0, 0];
        data.extend_from_slice(&self.own_lun());
        data.truncate(room as usize);
        Answer::Data(data)
    }

    /// What an INQUIRY of a unit that does not exist says (SPC-4 6.6.2): no device can be there.
    pub(crate) fn nobody() -> Vec<u8> {
        let mut data = crate::scsi::inquiry();
        data[0] = 0x7f;
        data
    }

    /// No task outlives its command here, so that there is none to abort; the unit can be reset (RFC 7143 section 11.6).
    pub(crate) fn take_task_request(&mut self, target: &mut Target, header: &[u8; BHS_BYTES]) {
        const ABORT_TASK: u8 = 1;
        const LUN_RESET: u8 = 5;
        const TARGET_WARM_RESET: u8 = 6;
        let request = AnyHeader::decode(header);
        self.expect(target, false, "a task management request");
        if request.opcode & opcode::IMMEDIATE == 0 {
            self.exp_cmd_sn = self.exp_cmd_sn.next();
        }
        let [response, resets] = match request.flags & 0x7f {
            ABORT_TASK => [1, 0],
            LUN_RESET | TARGET_WARM_RESET => [0, 1],
            _ => [5, 0],
        };
        if resets != 0 {
            self.attentions.push((0x29, 0));
        }
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let answer = AnyHeader {
            opcode: opcode::TASK_RESPONSE,
            flags: flag::FINAL,
            specific: [response, 0],
            itt: request.itt,
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..AnyHeader::default()
        };
        self.send(answer.encode(), &[]);
    }
}

/// Commands that would change the medium: WRITE, WRITE AND VERIFY, ORWRITE, WRITE SAME, UNMAP, COMPARE AND WRITE, SANITIZE.
fn writes(cdb: &[u8; 16]) -> bool {
    matches!(
        cdb[0],
        0x0a | 0x2a
            | 0x2e
            | 0x41
            | 0x42
            | 0x48
            | 0x89
            | 0x8a
            | 0x8b
            | 0x8e
            | 0x93
            | 0x9c
            | 0xaa
            | 0xae
    )
}

/// MODE SENSE(6) and (10): a disk that is write protected, with its caching and control pages, no block descriptor.
fn mode_sense(page: u8, sub: u8, header: usize, room: u32) -> Answer {
    const WRITE_PROTECT: u8 = 0x80;
    const CACHING: u8 = 0x08;
    const CONTROL: u8 = 0x0a;
    const ALL: u8 = 0x3f;
    // Saved values: there are none (SPC-4 6.13).
    if page >> 6 == 3 {
        return Answer::Sense(key::ILLEGAL_REQUEST, 0x39, 0);
    }
    let wanted = page & 0x3f;
    let mut data = vec![0; header];
    for (code, len) in [(CACHING, 18), (CONTROL, 10)] {
        if wanted == code || wanted == ALL {
            data.extend_from_slice(&[code, len]);
            data.resize(data.len() + usize::from(len), 0);
        }
    }
    if data.len() == header || (sub != 0 && sub != 0xff) {
        return INVALID_FIELD;
    }
    // Its own length does not count the field itself.
    if header == 4 {
        data[0] = (data.len() - 1) as u8;
        data[2] = WRITE_PROTECT;
    } else {
        data[1] = (data.len() - 2) as u8;
        data[3] = WRITE_PROTECT;
    }
    data.truncate(room as usize);
    Answer::Data(data)
}
