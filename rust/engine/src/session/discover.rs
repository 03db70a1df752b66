// SPDX-License-Identifier: GPL-2.0-only

//! Discovery sessions (RFC 7143 sections 4.3 and 6.3, appendix C): a login without a target, SendTargets=All, the list of
//! targets and their portals.
//!
//! The list may come in any number of Text Responses (C, or neither C nor F); it is asked for with empty requests under one
//! task tag and read when it is whole. It is bounded in length, in answers and in time. This is the only text of the full
//! feature phase: in a normal session a Text Response is an error.

use core::ops::DerefMut;

use imgstream_proto::iscsi::address::TargetAddress;
use imgstream_proto::iscsi::bhs::{
    flag, opcode, AnyHeader, DataSegmentLength, TextRequest, TextResponse, NO_TAG,
};
use imgstream_proto::iscsi::sna::Sna;
use imgstream_proto::iscsi::text::Pairs;

use super::config::{Config, ConfigError, Name};
use super::login::MAX_RECV_BYTES;
use super::reason::{Reason, Violation};
use super::receive::Sink;
use super::send::TAG_TEXT;
use super::{Session, Stage, SCRATCH_BYTES};

/// Longest list of targets.
pub const MAX_LIST_BYTES: usize = 1 << 20;
/// Scratch memory that a discovery session needs.
pub const DISCOVERY_BYTES: usize = SCRATCH_BYTES + MAX_LIST_BYTES;
/// Answers that a list may come in.
const MAX_ANSWERS: u32 = 1024;

/// What is asked for: everything, with its zero byte. 16 bytes, so that no padding follows.
const REQUEST: &[u8; 16] = b"SendTargets=All\0";

/// The list as far as it has come.
#[derive(Debug)]
pub(super) struct Discover {
    len: usize,
    /// Tag of the requests.
    tag: u32,
    /// What the target wants to be asked for the rest with, a tag and a LUN; no tag: nothing has been asked for yet.
    ttt: u32,
    lun: [u8; 8],
    /// A request is to be sent.
    due: bool,
    answers: u32,
    /// The list is whole, and this has not been told yet.
    pub(super) tell: bool,
}

impl Discover {
    pub(super) const fn new() -> Self {
        Self {
            len: 0,
            tag: NO_TAG,
            ttt: NO_TAG,
            lun: [0; 8],
            due: false,
            answers: 0,
            tell: false,
        }
    }
}

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A target.
    Target(&'a str),
    /// A portal of the target that was named last. A target without any is behind the portal that was asked.
    Portal(TargetAddress<'a>),
}

/// Goes through a list; ends after what does not belong into one.
#[derive(Clone, Debug)]
pub struct Targets<'a> {
    pairs: Pairs<'a>,
    named: bool,
}

impl<'a> Iterator for Targets<'a> {
    type Item = Result<Found<'a>, Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.pairs.next()?.map_err(|_| Violation::Text);
            match found.and_then(|(key, value)| entry(self.named, key, value)) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.named = true;
                    return Some(Ok(found));
                }
                Err(violation) => {
                    self.pairs = Pairs::new(&[]);
                    return Some(Err(violation));
                }
            }
        }
    }
}

/// Appendix C: names of targets, each followed by its addresses, and nothing else. An alias (13.6) does not belong there,
/// is let through and of no use here.
fn entry<'a>(named: bool, key: &str, value: &'a str) -> Result<Option<Found<'a>>, Violation> {
    let found = match key {
        "TargetName" => Name::new(value).map(|_| Found::Target(value)),
        "TargetAddress" if named => TargetAddress::parse(value).map(Found::Portal),
        "TargetAlias" if named => return Ok(None),
        _ => None,
    };
    found.map(Some).ok_or(Violation::Text)
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// A session that only asks which targets there are: the target's name and LUN of `config` are not used. `scratch`
    /// needs [`DISCOVERY_BYTES`].
    pub fn discovery(config: Config, scratch: B) -> Result<Self, ConfigError> {
        if scratch.len() < DISCOVERY_BYTES {
            return Err(ConfigError::Scratch);
        }
        let mut session = Self::new(config, scratch)?;
        session.discover = Some(Discover::new());
        Ok(session)
    }

    /// The list of targets that [`super::Event::Discovered`] spoke of.
    pub fn targets(&self) -> Targets<'_> {
        let len = self.discover.as_ref().map_or(0, |discover| discover.len);
        let end = SCRATCH_BYTES.saturating_add(len);
        Targets {
            pairs: Pairs::new(self.scratch.get(SCRATCH_BYTES..end).unwrap_or(&[])),
            named: false,
        }
    }

    /// The login is through.
    pub(super) fn begin_discover(&mut self) {
        let tag = self.new_tag(TAG_TEXT);
        self.stage = Stage::Discover;
        self.clock.restart_step(self.now);
        self.discover = Some(Discover {
            tag,
            due: true,
            ..Discover::new()
        });
    }

    /// 11.10, 11.11.4: the first request names what is wanted, those that follow only what they continue.
    pub(super) fn put_text(&mut self) {
        let Some(discover) = self.discover.as_mut().filter(|discover| discover.due) else {
            return;
        };
        discover.due = false;
        let (itt, ttt, lun) = (discover.tag, discover.ttt, discover.lun);
        let data: &[u8] = if ttt == NO_TAG { REQUEST } else { &[] };
        let len = u32::try_from(data.len()).unwrap_or(0);
        let pdu = TextRequest {
            opcode: opcode::TEXT_REQUEST | opcode::IMMEDIATE,
            flags: flag::FINAL,
            data_len: DataSegmentLength::new(len).unwrap_or_default(),
            lun,
            itt: itt.into(),
            ttt: ttt.into(),
            cmd_sn: self.numbers.cmd_sn.0.into(),
            exp_stat_sn: self.numbers.exp_stat_sn.0.into(),
            ..TextRequest::default()
        };
        self.put(&pdu.encode());
        if !data.is_empty() {
            self.put_bytes(data);
            if let Some(digest) = self.data_digest(data) {
                self.put_bytes(&digest);
            }
        }
    }

    /// Checks the header of a Text Response (11.11) before its data is received.
    pub(super) fn accept_text(&mut self, header: &AnyHeader) -> Result<Sink, ()> {
        self.judge_text(header).map_err(|reason| self.end(reason))
    }

    fn judge_text(&self, header: &AnyHeader) -> Result<Sink, Reason> {
        let itt = header.itt.get();
        let asked = self
            .discover
            .as_ref()
            .filter(|discover| discover.tag == itt);
        let asked = asked.ok_or(Reason::Protocol(Violation::UnknownTag(itt)))?;
        if asked.due || !self.send.is_empty() {
            return Err(Reason::Protocol(Violation::Early));
        }
        let has = |bit: u8| header.flags & bit != 0;
        // 11.11.1, 11.11.2: C excludes F, and without F a tag says with what to ask for the rest. With F it is ignored (11.10.4).
        let (last, tag) = (has(flag::FINAL), header.ttt.get());
        if (!last && tag == NO_TAG) || (last && has(flag::CONTINUE)) {
            return Err(Reason::Protocol(Violation::TextFlags));
        }
        let bytes = header.data_len.bytes();
        let room = MAX_LIST_BYTES.saturating_sub(asked.len);
        // 13.12, and the bound of the list.
        if bytes > MAX_RECV_BYTES || !usize::try_from(bytes).is_ok_and(|bytes| bytes <= room) {
            return Err(Reason::Protocol(Violation::SegmentTooLong(bytes)));
        }
        Ok(Sink::List(asked.len))
    }

    /// A whole PDU has come.
    pub(super) fn take_discover(&mut self) {
        let header = TextResponse::decode(self.receive.header());
        if header.opcode & opcode::MASK != opcode::TEXT_RESPONSE {
            return self.take_full();
        }
        if let Err(reason) = self.take_text(&header) {
            self.end(reason);
        }
    }

    fn take_text(&mut self, header: &TextResponse) -> Result<(), Reason> {
        self.numbers
            .update_window(Sna(header.exp_cmd_sn.get()), Sna(header.max_cmd_sn.get()));
        self.numbers.take_status(header.stat_sn.get())?;
        let bytes = usize::try_from(header.data_len.bytes()).unwrap_or(0);
        let Some(discover) = &mut self.discover else {
            return Ok(());
        };
        discover.len = discover.len.saturating_add(bytes);
        discover.answers = discover.answers.saturating_add(1);
        if header.flags & flag::FINAL == 0 {
            (discover.ttt, discover.lun) = (header.ttt.get(), header.lun);
            discover.due = true;
            let endless = discover.answers >= MAX_ANSWERS;
            return match endless {
                true => Err(Reason::Protocol(Violation::EndlessText)),
                false => Ok(()),
            };
        }
        match self.targets().find_map(Result::err) {
            Some(violation) => Err(Reason::Protocol(violation)),
            None => {
                self.tell_list();
                Ok(())
            }
        }
    }

    fn tell_list(&mut self) {
        if let Some(discover) = &mut self.discover {
            discover.tell = true;
        }
    }

    /// Whether the list is whole and this is told for the first time.
    pub(super) fn list_is_new(&mut self) -> bool {
        let discover = self.discover.as_mut();
        discover.is_some_and(|discover| core::mem::take(&mut discover.tell))
    }
}
