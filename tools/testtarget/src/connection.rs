// SPDX-License-Identifier: GPL-2.0-only

//! One connection: framing, sequence numbers, and what each kind of PDU leads to.

use std::collections::BTreeSet;

use imgstream_proto::iscsi::bhs::{
    flag, opcode, AnyHeader, LogoutRequest, LogoutResponse, NopIn, NopOut, TextRequest, BHS_BYTES,
    DEFAULT_MAX_RECV_BYTES, NO_TAG,
};
use imgstream_proto::iscsi::digest::Digests;
use imgstream_proto::iscsi::sna::Sna;

use crate::discover::Exchange;
use crate::fault::Fault;
use crate::foreign::TASK_REQUEST;
use crate::login::Login;
use crate::wire::{Ending, Sent};
use crate::{Settings, Target};

/// Slow sending.
struct Drip {
    /// Bytes of what is to be sent that are not slow.
    fast: usize,
    /// The others come so many at a time,
    bytes: usize,
    /// with this pause after each piece.
    pause_ms: u64,
}

/// A connection of one initiator.
pub struct Connection {
    pub(crate) number: u32,
    input: Vec<u8>,
    /// PDUs that are to be sent next.
    pub(crate) ready: Vec<Vec<u8>>,
    pub(crate) sent: Sent,
    out: Vec<u8>,
    /// How it sends more slowly than it could.
    drip: Option<Drip>,
    ending: Ending,
    /// A logout was answered.
    logged_out: bool,
    /// Bytes after which the connection ends, counted in what is sent from now on.
    pub(crate) cut: Option<usize>,
    pub(crate) login: Option<Login>,
    /// A discovery session, and its text.
    pub(crate) discovery: bool,
    pub(crate) text: Exchange,
    /// How the target behaves on it.
    pub settings: Settings,
    /// Digests that were negotiated, and those that are in effect.
    pub(crate) agreed: Digests,
    pub(crate) digests: Digests,
    pub(crate) stat_sn: Sna,
    pub(crate) exp_cmd_sn: Sna,
    /// The greatest MaxCmdSN that was told: it never goes back.
    max_cmd_sn: Sna,
    window_closed: bool,
    /// What the initiator takes in a data segment.
    pub(crate) peer_max_recv: u32,
    pub(crate) attentions: Vec<(u8, u8)>,
    used_tags: BTreeSet<u32>,
    pub(crate) reads: u32,
    pub(crate) last_read_tag: u32,
    pings: u32,
    pub(crate) pings_out: Vec<(u32, [u8; 8])>,
}

impl Connection {
    pub(crate) fn new(number: u32, settings: &Settings) -> Self {
        Self {
            number,
            input: Vec::new(),
            ready: Vec::new(),
            sent: Sent::new(),
            out: Vec::new(),
            drip: None,
            ending: Ending::Open,
            logged_out: false,
            cut: None,
            login: Some(Login::new()),
            discovery: false,
            text: Exchange::default(),
            settings: settings.clone(),
            agreed: Digests::default(),
            digests: Digests::default(),
            stat_sn: Sna(settings.first_stat_sn),
            exp_cmd_sn: Sna(0),
            max_cmd_sn: Sna(0),
            window_closed: false,
            peer_max_recv: DEFAULT_MAX_RECV_BYTES,
            attentions: settings.attentions.clone(),
            used_tags: BTreeSet::new(),
            reads: 0,
            last_read_tag: NO_TAG,
            pings: 0,
            pings_out: Vec::new(),
        }
    }

    /// Takes bytes from the initiator and works on every PDU that is whole.
    pub fn feed(&mut self, target: &mut Target, bytes: &[u8]) {
        let before = self.reads;
        self.input.extend_from_slice(bytes);
        while matches!(self.ending, Ending::Open | Ending::Stall) {
            let Some(pdu) = self.next_pdu() else { break };
            let login = self.login.is_some();
            let pdu = self.unseal(target, pdu);
            self.take(target, &pdu);
            self.flush(target, login);
            if self.logged_out {
                self.end(Ending::Close);
            }
        }
        target.deepest = target.deepest.max(self.reads - before);
    }

    /// Bytes for the initiator, up to `max`. After them nothing may be sent for [`Self::pause_ms`].
    pub fn take_out(&mut self, max: usize) -> Vec<u8> {
        let max = match &mut self.drip {
            Some(drip) if drip.fast == 0 => max.min(drip.bytes),
            Some(drip) => {
                let max = max.min(drip.fast);
                drip.fast -= max.min(self.out.len());
                max
            }
            None => max,
        };
        let len = self.out.len().min(max);
        self.out.drain(..len).collect()
    }

    /// How long to wait before more bytes are taken out.
    pub fn pause_ms(&self) -> u64 {
        let slow = self.drip.as_ref().filter(|drip| drip.fast == 0);
        slow.map_or(0, |drip| drip.pause_ms)
    }

    /// Whether the connection has ended: nothing more comes.
    pub fn is_over(&self) -> bool {
        let ends = !matches!(self.ending, Ending::Open | Ending::Stall);
        ends && self.out.is_empty()
    }

    /// Its number, counted from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How it ends, or has ended.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Nothing is sent any more behind what is on its way.
    pub(crate) fn end(&mut self, ending: Ending) {
        if self.ending == Ending::Open {
            self.ending = ending;
        }
    }

    /// What is sent from `fast` bytes on comes in pieces.
    pub(crate) fn drip_from(&mut self, fast: usize, bytes: usize, pause_ms: u64) {
        self.drip = Some(Drip {
            fast: self.out.len() + fast,
            bytes,
            pause_ms,
        });
    }

    /// Whether the login is through.
    pub fn is_logged_in(&self) -> bool {
        self.login.is_none()
    }

    fn next_pdu(&mut self) -> Option<Vec<u8>> {
        let header = AnyHeader::decode(self.input.first_chunk()?);
        let data = (header.data_len.bytes() + header.data_len.padding()) as usize;
        let len = BHS_BYTES + usize::from(header.ahs_words) * 4 + data + self.digest_bytes(data);
        (self.input.len() >= len).then(|| self.input.drain(..len).collect())
    }

    fn take(&mut self, target: &mut Target, pdu: &[u8]) {
        let Some(bytes) = pdu.first_chunk() else {
            return;
        };
        let header = AnyHeader::decode(bytes);
        let data = &pdu[BHS_BYTES..BHS_BYTES + header.data_len.bytes() as usize];
        let pad = &pdu[BHS_BYTES + data.len()..];
        self.expect(target, header.ahs_words == 0, "additional headers");
        self.expect(target, pad.iter().all(|b| *b == 0), "padding is not zero");
        match (header.opcode & opcode::MASK, self.is_logged_in()) {
            (opcode::LOGIN_REQUEST, false) => self.take_login(target, bytes, data),
            (opcode::SCSI_COMMAND, true) => self.take_command(target, bytes, data),
            (opcode::TEXT_REQUEST, true) => {
                self.take_text(target, &TextRequest::decode(bytes), data)
            }
            (opcode::NOP_OUT, true) => self.take_nop(target, &NopOut::decode(bytes), data),
            (opcode::LOGOUT_REQUEST, true) => {
                self.take_logout(target, &LogoutRequest::decode(bytes))
            }
            (TASK_REQUEST, true) => self.take_task_request(target, bytes),
            (other, logged_in) => {
                self.expect(
                    target,
                    false,
                    &format!("opcode {other:#x}, logged in: {logged_in}"),
                );
                self.end(Ending::Close);
            }
        }
    }

    /// Notes a rule that the initiator broke.
    pub(crate) fn expect(&self, target: &mut Target, kept: bool, rule: &str) {
        if !kept {
            target
                .violations
                .push(format!("connection {}: {rule}", self.number));
        }
    }

    /// What every request of the full feature phase must carry (4.2.2). Whether it is to be carried out.
    pub(crate) fn check_numbers(
        &mut self,
        target: &mut Target,
        immediate: bool,
        cmd_sn: u32,
        exp_stat_sn: u32,
    ) -> bool {
        self.expect(target, cmd_sn == self.exp_cmd_sn.0, "CmdSN");
        // The initiator may not have seen the last statuses yet, but it cannot have seen more than were sent.
        let unseen = self.stat_sn.since(Sna(exp_stat_sn));
        self.expect(target, unseen.is_some(), "ExpStatSN");
        target.unacknowledged = unseen.unwrap_or(0);
        if immediate {
            return true;
        }
        let within =
            self.exp_cmd_sn.not_after(Sna(cmd_sn)) && Sna(cmd_sn).not_after(self.max_cmd_sn);
        self.expect(target, within, "a command outside of the window");
        if within {
            self.exp_cmd_sn = self.exp_cmd_sn.next();
        }
        within
    }

    pub(crate) fn check_tag(&mut self, target: &mut Target, tag: u32) {
        let fresh = tag != NO_TAG && self.used_tags.insert(tag);
        self.expect(target, fresh, "a tag was used again");
    }

    /// The window as it is told in every PDU.
    pub(crate) fn window(&mut self) -> (u32, u32) {
        if !self.window_closed {
            let max = Sna(self
                .exp_cmd_sn
                .0
                .wrapping_add(self.settings.window)
                .wrapping_sub(1));
            if self.max_cmd_sn.before(max) || self.login.is_some() {
                self.max_cmd_sn = max;
            }
        }
        (self.exp_cmd_sn.0, self.max_cmd_sn.0)
    }

    pub(crate) fn close_window(&mut self) {
        self.window_closed = true;
    }

    pub(crate) fn next_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.next();
        stat_sn.0
    }

    /// Sends a PDU with its data and padding.
    pub(crate) fn send(&mut self, header: [u8; BHS_BYTES], data: &[u8]) {
        self.send_raw(frame(header, data));
    }

    /// Sends a PDU as it is.
    pub(crate) fn send_raw(&mut self, pdu: Vec<u8>) {
        self.ready.push(pdu);
    }

    /// Hands bytes over to the wire, unless that was cut.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        if self.ending != Ending::Open {
            return;
        }
        let len = self.cut.map_or(bytes.len(), |cut| bytes.len().min(cut));
        self.out.extend_from_slice(&bytes[..len]);
        self.cut = self.cut.map(|cut| cut - len);
        if self.cut == Some(0) {
            self.end(Ending::Close);
        }
    }

    fn take_nop(&mut self, target: &mut Target, nop: &NopOut, data: &[u8]) {
        let immediate = nop.opcode & opcode::IMMEDIATE != 0;
        self.expect(target, immediate, "NOP-Out is not immediate");
        self.expect(target, nop.flags == flag::FINAL, "NOP-Out without F");
        if !self.check_numbers(target, immediate, nop.cmd_sn.get(), nop.exp_stat_sn.get()) {
            return;
        }
        if nop.itt.get() == NO_TAG {
            return self.take_pong(target, nop, data);
        }
        self.check_tag(target, nop.itt.get());
        self.expect(target, nop.ttt.get() == NO_TAG, "a ping with a target tag");
        target.pings += 1;
        self.pings += 1;
        if target
            .fire(self.number, self.pings - 1, |f| {
                (*f == Fault::Mute).then_some(())
            })
            .is_some()
        {
            return;
        }
        self.window_closed = false;
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let answer = NopIn {
            opcode: opcode::NOP_IN,
            flags: flag::FINAL,
            data_len: nop.data_len,
            itt: nop.itt,
            ttt: NO_TAG.into(),
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..NopIn::default()
        };
        self.send(answer.encode(), data);
    }

    fn take_pong(&mut self, target: &mut Target, nop: &NopOut, data: &[u8]) {
        let asked = self
            .pings_out
            .iter()
            .position(|p| *p == (nop.ttt.get(), nop.lun));
        self.expect(
            target,
            asked.is_some(),
            "a pong does not copy LUN and tag of its ping",
        );
        self.expect(target, data.is_empty(), "a pong with data");
        if let Some(index) = asked {
            self.pings_out.remove(index);
            target.pongs += 1;
        }
    }

    fn take_logout(&mut self, target: &mut Target, logout: &LogoutRequest) {
        let immediate = logout.opcode & opcode::IMMEDIATE != 0;
        self.check_numbers(
            target,
            immediate,
            logout.cmd_sn.get(),
            logout.exp_stat_sn.get(),
        );
        self.check_tag(target, logout.itt.get());
        self.expect(
            target,
            logout.flags == flag::FINAL,
            "a logout for another reason than to close",
        );
        target.logouts += 1;
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let answer = LogoutResponse {
            opcode: opcode::LOGOUT_RESPONSE,
            flags: flag::FINAL,
            itt: logout.itt,
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            time2wait: target.settings.logout_wait_s.into(),
            ..LogoutResponse::default()
        };
        self.send(answer.encode(), &[]);
        self.logged_out = true;
    }
}

/// Header, data and padding as they are sent but for digests; the header's length field is left as it is.
pub(crate) fn frame(header: [u8; BHS_BYTES], data: &[u8]) -> Vec<u8> {
    let mut pdu = header.to_vec();
    pdu.extend_from_slice(data);
    pdu.resize(pdu.len().next_multiple_of(4), 0);
    pdu
}
