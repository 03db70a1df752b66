// SPDX-License-Identifier: GPL-2.0-only

//! The target's side of discovery: SendTargets, in as many answers as the script wants.

use imgstream_proto::iscsi::bhs::{
    flag, opcode, DataSegmentLength, TextRequest, TextResponse, NO_TAG,
};

use crate::connection::Connection;
use crate::fault::Fault;
use crate::Target;

/// What the target does wrong with one answer to SendTargets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// Sends this instead of its list.
    Text(Vec<u8>),
    /// Answers with these flags and this tag.
    Flags(u8, u32),
    /// Goes on and on; each answer has this text.
    Endless(Vec<u8>),
    /// Answers under another task tag.
    Tag,
    /// Never answers.
    Silence,
    /// Sends the next part of its list, too, before it is asked for.
    Unasked,
    /// StatSN skips one.
    StatSn,
}

/// An exchange of text.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    itt: Option<u32>,
    rest: Vec<u8>,
    answers: u32,
}

/// The tag that a continued answer is to be asked for with, and the LUN, which means nothing but has to come back (11.11.4).
const TAG: u32 = 0x7e57;
const LUN: [u8; 8] = *b"\0\x07rest\0\0";

impl Connection {
    pub(crate) fn take_text(&mut self, target: &mut Target, request: &TextRequest, data: &[u8]) {
        let immediate = request.opcode & opcode::IMMEDIATE != 0;
        self.expect(target, self.discovery, "text in a normal session");
        self.expect(
            target,
            immediate && request.flags == flag::FINAL,
            "flags of a text request",
        );
        self.check_numbers(
            target,
            true,
            request.cmd_sn.get(),
            request.exp_stat_sn.get(),
        );
        let (itt, ttt) = (request.itt.get(), request.ttt.get());
        match self.text.itt {
            None => {
                self.check_tag(target, itt);
                self.expect(
                    target,
                    ttt == NO_TAG && request.lun == [0; 8] && data == b"SendTargets=All\0",
                    "SendTargets",
                );
                self.text.itt = Some(itt);
                self.text.rest = list(&self.settings.targets);
            }
            Some(first) => {
                let same = first == itt && ttt == TAG && request.lun == LUN && data.is_empty();
                self.expect(
                    target,
                    same,
                    "a list is not asked for with an empty request and its tags",
                );
            }
        }
        self.answer_text(target, itt);
    }

    fn answer_text(&mut self, target: &mut Target, itt: u32) {
        let nth = self.text.answers;
        self.text.answers += 1;
        let fault = target.fire(self.number, nth, |fault| match fault {
            Fault::Text(fault) => Some(fault.clone()),
            _ => None,
        });
        let piece = self.settings.text_piece.unwrap_or(usize::MAX);
        let piece = piece
            .min(self.peer_max_recv as usize)
            .min(self.text.rest.len());
        let mut text: Vec<u8> = self.text.rest.drain(..piece).collect();
        let (mut flags, mut ttt) = match self.text.rest.is_empty() {
            true => (flag::FINAL, NO_TAG),
            false => (flag::CONTINUE, TAG),
        };
        let (mut itt, mut skip, mut unasked) = (itt, 0, false);
        match fault {
            None => {}
            Some(TextFault::Text(other)) => text = other,
            Some(TextFault::Flags(other, tag)) => (flags, ttt) = (other, tag),
            Some(TextFault::Endless(other)) => {
                (flags, ttt) = (flag::CONTINUE, TAG);
                text = other;
            }
            Some(TextFault::Tag) => itt ^= 0x100,
            Some(TextFault::Silence) => return,
            Some(TextFault::StatSn) => skip = 1,
            Some(TextFault::Unasked) => unasked = true,
        }
        if flags & flag::FINAL != 0 {
            self.text.itt = None;
        }
        let stat_sn = self.next_stat_sn().wrapping_add(skip);
        let (exp, max) = self.window();
        let answer = TextResponse {
            opcode: opcode::TEXT_RESPONSE,
            flags,
            data_len: DataSegmentLength::new(text.len() as u32).unwrap_or_default(),
            lun: if ttt == NO_TAG { [0; 8] } else { LUN },
            itt: itt.into(),
            ttt: ttt.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..TextResponse::default()
        };
        self.send(answer.encode(), &text);
        if unasked {
            self.answer_text(target, itt);
        }
    }
}

fn list(targets: &[(String, Vec<String>)]) -> Vec<u8> {
    let mut text = String::new();
    for (name, addresses) in targets {
        text += &format!("TargetName={name}\0");
        for address in addresses {
            text += &format!("TargetAddress={address}\0");
        }
    }
    text.into_bytes()
}
