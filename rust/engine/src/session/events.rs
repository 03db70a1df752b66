// SPDX-License-Identifier: GPL-2.0-only

//! What a target may send besides answers to commands: pings, messages, rejects, the answer to a logout.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{
    opcode, AsyncMessage, LogoutResponse, NopIn, Reject, ScsiCommand, NO_TAG,
};
use imgstream_proto::iscsi::sense::Sense;

use super::reason::{Reason, Violation};
use super::send::Ping;
use super::verdict::{judge_sense, Verdict};
use super::{Session, Stage};

/// Responses of a logout that did not end all (11.15.1).
const RECOVERY_NOT_SUPPORTED: u8 = 2;
const CLEANUP_FAILED: u8 = 3;

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// NOP-In (11.19): a ping, the answer to ours, or just news of the window.
    pub(super) fn take_nop(&mut self) -> Result<(), Reason> {
        let header = NopIn::decode(self.receive.header());
        let wants_answer = header.ttt.get() != NO_TAG;
        if header.itt.get() == NO_TAG {
            // Its StatSN is that of the next status and is not used up.
            return if wants_answer {
                self.queue_pong(&header)
            } else {
                Ok(())
            };
        }
        if self.send.ping != Ping::Sent(header.itt.get()) {
            return Err(Reason::Protocol(Violation::UnknownTag(header.itt.get())));
        }
        if wants_answer || header.data_len.bytes() != 0 {
            return Err(Reason::Protocol(Violation::Echo));
        }
        self.numbers.take_status(header.stat_sn.get())?;
        self.send.ping = Ping::None;
        // The next one is not due at once, however long this one took.
        self.clock.pinged(self.now);
        Ok(())
    }

    /// Reject (11.17): never completes anything. It tells at most which read is to blame.
    pub(super) fn take_reject(&mut self) -> Result<(), Reason> {
        let header = Reject::decode(self.receive.header());
        self.numbers.take_status(header.stat_sn.get())?;
        let reason = Reason::Rejected(header.reason);
        let quoted = self.aux().first_chunk().map(ScsiCommand::decode);
        let command = quoted.filter(|q| q.opcode & opcode::MASK == opcode::SCSI_COMMAND);
        match command {
            Some(quoted) => self.end_owner_of(quoted.itt.get(), reason),
            None => self.end(reason),
        }
        Ok(())
    }

    /// Asynchronous Message (11.9.1).
    pub(super) fn take_async(&mut self) -> Result<(), Reason> {
        let header = AsyncMessage::decode(self.receive.header());
        self.numbers.take_status(header.stat_sn.get())?;
        let reason = Reason::Announced(header.event);
        match header.event {
            // A SCSI event. Where it tells of another unit or size, no unit attention has to follow that does, too.
            0 => return self.take_scsi_event(header.lun),
            // 1: the target asks for a logout. 4: it asks for a negotiation; who does not want to, logs out.
            1 | 4 if self.stage != Stage::Logout => self.begin_logout(reason),
            // 2, 3: it ends the connection, and says how long to stay away.
            2 | 3 => {
                self.login.set_time2wait(header.parameter2.get());
                return Err(reason);
            }
            // 5: our commands are gone. Others: unknown, so start afresh.
            _ => return Err(reason),
        }
        Ok(())
    }

    /// The sense data of a SCSI event (11.9.1, 11.9.4) is judged like that of a command; what only concerns commands
    /// is left to them, and what concerns another unit is ignored, unless it says that the units are others now.
    fn take_scsi_event(&self, lun: [u8; 8]) -> Result<(), Reason> {
        let sense = Sense::from_segment(self.aux());
        let ours = |sense: &Sense| lun == self.lun || (sense.asc, sense.ascq) == (0x3f, 0x0e);
        match sense.filter(ours).map(judge_sense) {
            Some(Verdict::Drop(reason)) => Err(reason),
            _ => Ok(()),
        }
    }

    /// Logout Response (11.15).
    pub(super) fn take_logout(&mut self) -> Result<(), Reason> {
        let header = LogoutResponse::decode(self.receive.header());
        if self.send.logout_tag != Some(header.itt.get()) {
            return Err(Reason::Protocol(Violation::UnknownTag(header.itt.get())));
        }
        self.numbers.take_status(header.stat_sn.get())?;
        // 11.15.3: only where the logout has failed, and the connection is still to be cleaned up.
        if matches!(header.response, RECOVERY_NOT_SUPPORTED | CLEANUP_FAILED) {
            self.login.set_time2wait(header.time2wait.get());
        }
        Err(self.send.logout_reason)
    }
}
