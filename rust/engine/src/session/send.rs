// SPDX-License-Identifier: GPL-2.0-only

//! What is sent: the login's requests, pongs, pings, commands.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{
    flag, opcode, DataSegmentLength, LoginRequest, LoginResponse, LogoutRequest, NopIn, NopOut,
    ScsiCommand, BHS_BYTES, NO_TAG,
};
use imgstream_proto::iscsi::cdb::Command;
use imgstream_proto::iscsi::digest::DIGEST_BYTES;
use imgstream_proto::iscsi::text::Writer;

use super::login::Step;
use super::reads::Slot;
use super::reason::{ReadError, Reason, Violation};
use super::transfer::Transfer;
use super::{Session, Stage, AUX_BYTES, INPUT_BYTES, OUT_BYTES};

/// Pings of the target that can wait for their answer.
const MAX_PONGS: usize = 16;
/// Where what is sent lies in the scratch memory.
const OUT: usize = INPUT_BYTES + AUX_BYTES;
/// Lowest byte of the tag of an identity command. Reads use 0 to 63.
pub(super) const TAG_IDENTIFY: u8 = 0x80;
/// Of a ping.
const TAG_PING: u8 = 0x81;
/// Of login and logout.
const TAG_LOGIN: u8 = 0x82;
/// Of text.
pub(super) const TAG_TEXT: u8 = 0x83;
/// Longest PDU of the full feature phase: a Text Request with its digests.
const MAX_PDU_BYTES: usize = BHS_BYTES + 16 + 2 * DIGEST_BYTES;
/// Reason code of a Logout Request that closes the session (11.14.1).
const CLOSE_SESSION: u8 = 0;

/// A ping that must be answered: its LUN and its tag are copied (11.18).
#[derive(Clone, Copy, Debug, Default)]
struct Pong {
    lun: [u8; 8],
    ttt: u32,
}

/// What is on its way out.
#[derive(Debug)]
pub(super) struct Outbox {
    start: usize,
    end: usize,
    pongs: [Pong; MAX_PONGS],
    pong_count: usize,
    /// Our ping: to be sent, or sent under this tag.
    pub(super) ping: Ping,
    /// A logout is to be sent.
    logout: bool,
    /// What the end is called after a logout.
    pub(super) logout_reason: Reason,
    /// Tag of the logout that was sent.
    pub(super) logout_tag: Option<u32>,
}

/// Our own ping: at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ping {
    None,
    Due,
    Sent(u32),
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self {
            start: 0,
            end: 0,
            pongs: [Pong {
                lun: [0; 8],
                ttt: 0,
            }; MAX_PONGS],
            pong_count: 0,
            ping: Ping::None,
            logout: false,
            logout_reason: Reason::LoggedOut,
            logout_tag: None,
        }
    }

    /// Everything was handed to the socket.
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    const fn has_room(&self) -> bool {
        OUT_BYTES.saturating_sub(self.end) >= MAX_PDU_BYTES
    }

    fn pop_pong(&mut self) -> Option<Pong> {
        let first = self.pongs.first().copied().filter(|_| self.pong_count != 0);
        self.pongs.rotate_left(1);
        self.pong_count = self.pong_count.saturating_sub(1);
        first
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// Bytes to be sent now.
    pub fn out(&mut self) -> &[u8] {
        if self.send.is_empty() {
            (self.send.start, self.send.end) = (0, 0);
        }
        match self.stage {
            Stage::Down | Stage::Login => {}
            Stage::Identify | Stage::Ready | Stage::Discover | Stage::Logout => self.fill_out(),
        }
        let (start, end) = (
            OUT.saturating_add(self.send.start),
            OUT.saturating_add(self.send.end),
        );
        self.scratch.get(start..end).unwrap_or(&[])
    }

    /// `bytes` bytes of [`Self::out`] were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.send.start = self.send.start.saturating_add(bytes).min(self.send.end);
    }

    /// Writes what may be sent: answers to pings first, since a target waits for them; then our own, then commands.
    fn fill_out(&mut self) {
        while self.send.has_room() && self.send.pong_count != 0 {
            self.put_pong();
        }
        if self.send.has_room() && self.send.ping == Ping::Due {
            self.put_ping();
        }
        if self.send.has_room() && self.send.logout {
            self.put_logout();
        }
        match self.stage {
            Stage::Identify => self.put_identify(),
            Stage::Discover if self.send.has_room() => self.put_text(),
            Stage::Ready => {
                if self.recheck.running() {
                    self.put_identify();
                }
                self.put_reads();
            }
            _ => {}
        }
    }

    /// Adds a PDU without data, which has no data digest either (11.2.3).
    pub(super) fn put(&mut self, pdu: &[u8; BHS_BYTES]) {
        self.put_bytes(pdu);
        if let Some(digest) = self.header_digest(pdu) {
            self.put_bytes(&digest);
        }
    }

    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        let start = OUT.saturating_add(self.send.end);
        if let Some(room) = self
            .scratch
            .get_mut(start..)
            .and_then(|tail| tail.get_mut(..bytes.len()))
        {
            room.copy_from_slice(bytes);
            self.send.end = self.send.end.saturating_add(bytes.len());
            self.clock.sent(self.now);
        }
    }

    /// Answers a ping (11.18): immediate, no task tag, LUN and target tag copied, no data.
    fn put_pong(&mut self) {
        let Some(pong) = self.send.pop_pong() else {
            return;
        };
        let pdu = NopOut {
            lun: pong.lun,
            itt: NO_TAG.into(),
            ttt: pong.ttt.into(),
            ..self.nop_out()
        };
        self.put(&pdu.encode());
    }

    /// Pings the target (11.18); its answer carries a status number, and ours acknowledges those before it.
    fn put_ping(&mut self) {
        let tag = self.new_tag(TAG_PING);
        self.send.ping = Ping::Sent(tag);
        let pdu = NopOut {
            itt: tag.into(),
            ttt: NO_TAG.into(),
            ..self.nop_out()
        };
        self.put(&pdu.encode());
    }

    /// An immediate NOP-Out: it carries CmdSN without using it up (4.2.2.1).
    fn nop_out(&self) -> NopOut {
        NopOut {
            opcode: opcode::NOP_OUT | opcode::IMMEDIATE,
            flags: flag::FINAL,
            cmd_sn: self.numbers.cmd_sn.0.into(),
            exp_stat_sn: self.numbers.exp_stat_sn.0.into(),
            ..NopOut::default()
        }
    }

    /// Notes a ping of the target.
    pub(super) fn queue_pong(&mut self, header: &NopIn) -> Result<(), Reason> {
        let slot = self.send.pongs.get_mut(self.send.pong_count);
        *slot.ok_or(Reason::Protocol(Violation::PingFlood))? = Pong {
            lun: header.lun,
            ttt: header.ttt.get(),
        };
        self.send.pong_count = self.send.pong_count.saturating_add(1);
        Ok(())
    }

    /// Asks for the end of the session; the connection ends for `reason` when the target has answered.
    pub(super) fn begin_logout(&mut self, reason: Reason) {
        self.stage = Stage::Logout;
        self.send.logout_reason = reason;
        self.send.logout = true;
        self.clock.restart_step(self.now);
    }

    fn put_logout(&mut self) {
        let tag = self.new_tag(TAG_LOGIN);
        self.send.logout = false;
        self.send.logout_tag = Some(tag);
        let pdu = LogoutRequest {
            opcode: opcode::LOGOUT_REQUEST | opcode::IMMEDIATE,
            flags: flag::FINAL | CLOSE_SESSION,
            itt: tag.into(),
            cmd_sn: self.numbers.cmd_sn.0.into(),
            exp_stat_sn: self.numbers.exp_stat_sn.0.into(),
            ..LogoutRequest::default()
        };
        self.put(&pdu.encode());
    }

    fn put_identify(&mut self) {
        if !self.send.has_room() || !self.numbers.window_open() || !self.identify.due(self.now) {
            return;
        }
        let Some((command, transfer)) = self.next_identify_command() else {
            self.end(Reason::Protocol(Violation::Malformed));
            return;
        };
        let tag = self.new_tag(TAG_IDENTIFY);
        self.identify.sent(tag, transfer);
        self.put_command(command, tag, transfer.len());
    }

    fn put_reads(&mut self) {
        let blocked = self.reads.waiting() && self.reads.sent() == 0 && !self.numbers.window_open();
        self.clock.window_closed(self.now, blocked);
        while self.send.has_room()
            && self.numbers.window_open()
            && self.flow.may_send(self.now, self.reads.sent())
        {
            let Some(index) = self.reads.take() else {
                return;
            };
            self.put_read(index);
        }
    }

    /// Sends the next command of a read: as much of it as one command may ask for.
    fn put_read(&mut self, index: usize) {
        let Some((command, bytes)) = self
            .reads
            .slot(index)
            .and_then(|slot| self.next_command(slot))
        else {
            self.reads.finish(index, Err(ReadError::Range));
            return;
        };
        let tag = self.new_tag(u8::try_from(index).unwrap_or(u8::MAX));
        self.clock.command_sent(self.now, self.reads.sent());
        self.reads
            .begin(index, tag, Transfer::exact(bytes), self.now);
        self.put_command(command, tag, bytes);
    }

    /// `None` if the read does not lie within the logical unit, or not on its blocks.
    fn next_command(&self, slot: &Slot) -> Option<(Command, u32)> {
        let capacity = self.facts?.capacity;
        let block = u64::from(capacity.block_bytes);
        let end = slot.lba_bytes.checked_add(u64::from(slot.len))?;
        let aligned = slot.lba_bytes.checked_rem(block)? == 0 && end.checked_rem(block)? == 0;
        if end > capacity.bytes() || !aligned {
            return None;
        }
        let start = slot.lba_bytes.checked_add(u64::from(slot.base))?;
        let limit = self
            .identify
            .max_transfer_bytes()
            .min(self.login.agreed().max_burst);
        // At least one block, whatever the target says.
        let limit = (limit & !capacity.block_bytes.wrapping_sub(1)).max(capacity.block_bytes);
        let bytes = slot.len.checked_sub(slot.base)?.min(limit);
        let command = Command::Read16 {
            lba: start.checked_div(block)?,
            blocks: bytes.checked_div(capacity.block_bytes)?,
        };
        Some((command, bytes))
    }

    /// Sends a command (11.3): it uses up a CmdSN, and asks for exactly the bytes that its CDB names.
    fn put_command(&mut self, command: Command, tag: u32, bytes: u32) {
        let read = if bytes == 0 { 0 } else { flag::READ };
        let pdu = ScsiCommand {
            opcode: opcode::SCSI_COMMAND,
            flags: flag::FINAL | read | flag::SIMPLE,
            lun: self.lun,
            itt: tag.into(),
            expected_bytes: bytes.into(),
            cmd_sn: self.numbers.cmd_sn.0.into(),
            exp_stat_sn: self.numbers.exp_stat_sn.0.into(),
            cdb: command.encode(),
            ..ScsiCommand::default()
        };
        self.numbers.cmd_sn = self.numbers.cmd_sn.next();
        self.put(&pdu.encode());
    }

    pub(super) fn begin_login(&mut self) -> Result<(), Reason> {
        self.login_tag = self.new_tag(TAG_LOGIN);
        let (_, _, text) = login_areas(&mut self.scratch, 0)?;
        let mut writer = Writer::new(text);
        let step = self
            .login
            .begin(&self.config, self.chap.as_mut(), &mut writer)?;
        let len = writer.len();
        self.put_login(step, len)
    }

    /// Goes on with the login after an answer; `gathered` bytes of text lie in the input area.
    pub(super) fn next_login(&mut self, gathered: usize) -> Result<(), Reason> {
        let header = LoginResponse::decode(self.receive.header());
        let (gathered, aux, text) = login_areas(&mut self.scratch, gathered)?;
        let mut writer = Writer::new(text);
        let chap = self.chap.as_mut().map(|chap| (chap, aux));
        let step = self.login.answer(&header, gathered, chap, &mut writer)?;
        let len = writer.len();
        self.put_login(step, len)
    }

    fn put_login(&mut self, step: Step, text_len: usize) -> Result<(), Reason> {
        let Step::Send { flags } = step else {
            match self.discover {
                Some(_) => self.begin_discover(),
                None => self.begin_identify(),
            }
            return Ok(());
        };
        let len = u32::try_from(text_len)
            .ok()
            .and_then(DataSegmentLength::new);
        let data_len = len.ok_or(Reason::Protocol(Violation::Text))?;
        let padding = usize::try_from(data_len.padding()).unwrap_or(0);
        // 11.12: the login is immediate, keeps one tag, and names the CmdSN that the first command will have.
        let pdu = LoginRequest {
            opcode: opcode::LOGIN_REQUEST | opcode::IMMEDIATE,
            flags,
            data_len,
            isid: self.name.isid(),
            itt: self.login_tag.into(),
            cmd_sn: self.numbers.cmd_sn.0.into(),
            exp_stat_sn: self.numbers.exp_stat_sn.0.into(),
            ..LoginRequest::default()
        };
        (self.send.start, self.send.end) = (0, 0);
        self.put(&pdu.encode());
        let text_end = OUT.saturating_add(BHS_BYTES).saturating_add(text_len);
        let pad = self
            .scratch
            .get_mut(text_end..)
            .and_then(|tail| tail.get_mut(..padding));
        pad.ok_or(Reason::Protocol(Violation::Text))?.fill(0);
        self.send.end = self
            .send
            .end
            .saturating_add(text_len)
            .saturating_add(padding);
        Ok(())
    }
}

/// The text that was gathered, room that a login does not use otherwise, and where the text of the next request goes,
/// with room for padding kept.
type LoginAreas<'a> = (&'a [u8], &'a mut [u8], &'a mut [u8]);

/// Splits the scratch memory for a step of the login.
fn login_areas(scratch: &mut [u8], gathered: usize) -> Result<LoginAreas<'_>, Reason> {
    let too_long = Reason::Protocol(Violation::Text);
    let (input, rest) = scratch.split_at_mut_checked(INPUT_BYTES).ok_or(too_long)?;
    let (aux, out) = rest.split_at_mut_checked(AUX_BYTES).ok_or(too_long)?;
    let text = out
        .get_mut(BHS_BYTES..)
        .ok_or(too_long)?
        .get_mut(..OUT_BYTES.saturating_sub(BHS_BYTES).saturating_sub(3))
        .ok_or(too_long)?;
    Ok((input.get(..gathered).ok_or(too_long)?, aux, text))
}
