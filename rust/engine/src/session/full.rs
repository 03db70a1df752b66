// SPDX-License-Identifier: GPL-2.0-only

//! What a target may send, and what it does to us: the login's answers, and those to commands.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{
    flag, opcode, AnyHeader, DataIn, LoginResponse, Reject, ScsiResponse, DEFAULT_MAX_RECV_BYTES,
};
use imgstream_proto::iscsi::sense::Sense;
use imgstream_proto::iscsi::sna::Sna;

use super::login::MAX_RECV_BYTES;
use super::reason::{Reason, Violation};
use super::receive::Sink;
use super::send::TAG_IDENTIFY;
use super::transfer::Transfer;
use super::verdict::{judge, judge_in_data, judge_response, Verdict};
use super::{Session, AUX_BYTES, INPUT_BYTES};

/// Times that a read is issued again on one connection after a condition, a medium error, NOT READY.
const MAX_RETRIES: u8 = 5;
const MAX_MEDIUM_RETRIES: u8 = 2;
const MAX_NOT_READY: u8 = 30;

/// Whose a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Read(usize),
    Identify,
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// During a login nothing but its answers may come (section 4.2.4); a Reject ends it.
    pub(super) fn accept_login(&mut self, header: &AnyHeader) -> Result<Sink, ()> {
        self.judge_login_header(header)
            .map_err(|reason| self.end(reason))
    }

    fn judge_login_header(&self, header: &AnyHeader) -> Result<Sink, Reason> {
        match header.opcode & opcode::MASK {
            opcode::LOGIN_RESPONSE => {}
            opcode::REJECT => {
                return Err(Reason::Rejected(
                    Reject::decode(self.receive.header()).reason,
                ))
            }
            other => return Err(Reason::Protocol(Violation::Unexpected(other))),
        }
        if !self.send.is_empty() {
            return Err(Reason::Protocol(Violation::Early));
        }
        if header.itt.get() != self.login_tag {
            return Err(Reason::Protocol(Violation::UnknownTag(header.itt.get())));
        }
        // 13.12: until the end of the login the default applies.
        let bytes = header.data_len.bytes();
        let text = self.login.text_len();
        let room = INPUT_BYTES.saturating_sub(text);
        if bytes > DEFAULT_MAX_RECV_BYTES || usize::try_from(bytes).is_ok_and(|b| b > room) {
            return Err(Reason::Protocol(Violation::SegmentTooLong(bytes)));
        }
        Ok(Sink::Input(text))
    }

    pub(super) fn take_login(&mut self) {
        let header = LoginResponse::decode(self.receive.header());
        if let Err(reason) = self.try_take_login(&header) {
            self.end(reason);
        }
    }

    fn try_take_login(&mut self, header: &LoginResponse) -> Result<(), Reason> {
        // 11.13.5: a status other than success means that the numbers and stages are not valid.
        if header.status_class != 0 {
            return Err(self.refusal(header));
        }
        let (exp, max) = (Sna(header.exp_cmd_sn.get()), Sna(header.max_cmd_sn.get()));
        if self.login.has_answer() {
            self.numbers.take_status(header.stat_sn.get())?;
        } else {
            // 4.2.2.2: the first answer sets the start of StatSN.
            self.numbers.exp_stat_sn = Sna(header.stat_sn.get()).next();
        }
        self.numbers.update_window(exp, max);
        self.login.check(header, self.chap.as_ref())?;
        let bytes = usize::try_from(header.data_len.bytes()).unwrap_or(0);
        self.next_login(self.login.text_len().saturating_add(bytes))
    }

    pub(super) fn accept_full(&mut self, header: &AnyHeader) -> Result<Sink, ()> {
        let bytes = header.data_len.bytes();
        let kind = header.opcode & opcode::MASK;
        let limit = match kind {
            opcode::DATA_IN | opcode::NOP_IN => MAX_RECV_BYTES,
            _ => u32::try_from(AUX_BYTES).unwrap_or(0),
        };
        if bytes > limit {
            self.end(Reason::Protocol(Violation::SegmentTooLong(bytes)));
            return Err(());
        }
        match kind {
            opcode::DATA_IN => self.accept_data(),
            opcode::SCSI_RESPONSE | opcode::REJECT | opcode::ASYNC_MESSAGE => Ok(Sink::Aux),
            opcode::NOP_IN | opcode::LOGOUT_RESPONSE => Ok(Sink::Discard),
            // 11.8: nothing is ever written, so nothing is ready to be transferred. Texts and task management were
            // not asked for.
            other => {
                self.end(Reason::Protocol(Violation::Unexpected(other)));
                Err(())
            }
        }
    }

    /// Whose command has this tag. Place in the table, generation and state must all be right: a tag that was used
    /// before, or of another kind of PDU, finds nothing.
    pub(super) fn owner(&mut self, tag: u32) -> Result<(Owner, &mut Transfer), Reason> {
        let unknown = Reason::Protocol(Violation::UnknownTag(tag));
        let [.., low] = tag.to_be_bytes();
        if low == TAG_IDENTIFY {
            return self
                .identify
                .find(tag)
                .map(|t| (Owner::Identify, t))
                .ok_or(unknown);
        }
        let index = usize::from(low);
        if self.reads.find(index, tag).is_none() {
            return Err(unknown);
        }
        self.reads
            .slot_mut(index)
            .map(|slot| (Owner::Read(index), &mut slot.transfer))
            .ok_or(unknown)
    }

    pub(super) fn end_owner(&mut self, owner: Owner, reason: Reason) {
        match owner {
            Owner::Read(index) => self.end_because_of(index, reason),
            Owner::Identify => self.end(reason),
        }
    }

    /// The connection ends because of the command with this tag, if there is one.
    pub(super) fn end_owner_of(&mut self, tag: u32, reason: Reason) {
        match self.owner(tag).map(|(owner, _)| owner) {
            Ok(owner) => self.end_owner(owner, reason),
            Err(_) => self.end(reason),
        }
    }

    /// Data is checked before a byte of it is received: it goes straight into the reader's buffer.
    fn accept_data(&mut self) -> Result<Sink, ()> {
        let header = DataIn::decode(self.receive.header());
        let (owner, transfer) = match self.owner(header.itt.get()) {
            Ok((owner, transfer)) => (owner, *transfer),
            Err(reason) => {
                self.end(reason);
                return Err(());
            }
        };
        if let Err(reason) = transfer.check(&header) {
            self.end_owner(owner, reason);
            return Err(());
        }
        let received = transfer.received();
        match owner {
            Owner::Identify => Ok(Sink::Input(
                usize::try_from(received).unwrap_or(INPUT_BYTES),
            )),
            Owner::Read(index) => {
                let base = self.reads.slot(index).map_or(0, |slot| slot.base);
                Ok(Sink::Read {
                    index,
                    offset: base.saturating_add(received),
                })
            }
        }
    }

    /// A whole PDU has come.
    pub(super) fn take_full(&mut self) {
        let header = AnyHeader::decode(self.receive.header());
        self.numbers
            .update_window(Sna(header.exp_cmd_sn.get()), Sna(header.max_cmd_sn.get()));
        let taken = match header.opcode & opcode::MASK {
            opcode::DATA_IN => self.take_data(),
            opcode::SCSI_RESPONSE => self.take_response(),
            opcode::NOP_IN => self.take_nop(),
            opcode::REJECT => self.take_reject(),
            opcode::ASYNC_MESSAGE => self.take_async(),
            _ => self.take_logout(),
        };
        if let Err(reason) = taken {
            self.end(reason);
        }
    }

    /// Data-In (11.7). StatSN counts only where S says that there is a status.
    fn take_data(&mut self) -> Result<(), Reason> {
        let header = DataIn::decode(self.receive.header());
        let (owner, transfer) = self.owner(header.itt.get())?;
        transfer.absorb(&header);
        if header.flags & flag::STATUS == 0 {
            return Ok(());
        }
        self.numbers.take_status(header.stat_sn.get())?;
        self.ended(
            owner,
            judge_in_data(header.status),
            header.flags,
            header.residual.get(),
        );
        Ok(())
    }

    /// SCSI Response (11.4).
    fn take_response(&mut self) -> Result<(), Reason> {
        let header = ScsiResponse::decode(self.receive.header());
        self.numbers.take_status(header.stat_sn.get())?;
        let sense = Sense::from_segment(self.aux());
        let (owner, transfer) = self.owner(header.itt.get())?;
        // 11.4.3: where the command did not complete, status and flags mean nothing.
        let verdict = match judge_response(header.response) {
            Some(verdict) => verdict,
            None => match transfer.check_response(&header) {
                Ok(()) => judge(header.status, sense),
                Err(reason) => Verdict::Drop(reason),
            },
        };
        self.ended(owner, verdict, header.flags, header.residual.get());
        Ok(())
    }

    fn ended(&mut self, owner: Owner, verdict: Verdict, flags: u8, residual: u32) {
        match owner {
            Owner::Identify => self.identify_ended(verdict, flags, residual),
            Owner::Read(index) => self.read_ended(index, verdict, flags, residual),
        }
    }

    fn read_ended(&mut self, index: usize, verdict: Verdict, flags: u8, residual: u32) {
        self.clock.answered(self.now);
        self.recheck_read(index);
        self.reads
            .overtake(index, self.config.timing.progress, self.now);
        match verdict {
            Verdict::Good => self.read_good(index, flags, residual),
            Verdict::Retry(reason) => self.read_again(index, MAX_RETRIES, reason),
            Verdict::Busy => {
                self.flow.busy(self.now);
                self.reads.put_back(index);
            }
            Verdict::NotReady(reason) => {
                self.flow.hold(self.now, self.config.timing.not_ready);
                self.read_again(index, MAX_NOT_READY, reason);
            }
            Verdict::Failed(error) => {
                if self.count_retry(index) > MAX_MEDIUM_RETRIES {
                    self.reads.finish(index, Err(error));
                } else {
                    self.reads.put_back(index);
                }
            }
            Verdict::Drop(reason) => self.end_because_of(index, reason),
        }
    }

    fn read_good(&mut self, index: usize, flags: u8, residual: u32) {
        let Some(slot) = self.reads.slot_mut(index) else {
            return;
        };
        if let Err(reason) = slot.transfer.complete(flags, residual) {
            return self.end_because_of(index, reason);
        }
        slot.base = slot.base.saturating_add(slot.transfer.len());
        slot.retries = 0;
        let whole = slot.base >= slot.len;
        self.flow.succeeded();
        if whole {
            self.reads.finish(index, Ok(()));
        } else {
            self.reads.put_back(index);
        }
    }

    fn count_retry(&mut self, index: usize) -> u8 {
        self.reads.slot_mut(index).map_or(u8::MAX, |slot| {
            slot.retries = slot.retries.saturating_add(1);
            slot.retries
        })
    }

    fn read_again(&mut self, index: usize, limit: u8, reason: Reason) {
        if self.count_retry(index) > limit {
            self.end_because_of(index, reason);
        } else {
            self.reads.put_back(index);
        }
    }
}
