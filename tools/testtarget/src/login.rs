// SPDX-License-Identifier: GPL-2.0-only

//! The target's side of the login.

use imgstream_proto::iscsi::bhs::{
    flag, opcode, DataSegmentLength, LoginRequest, LoginResponse, BHS_BYTES,
};
use imgstream_proto::iscsi::sna::Sna;
use imgstream_proto::iscsi::text::{parse_number, Pairs};

use crate::chap::Exchange;
use crate::connection::Connection;
use crate::fault::{Fault, LoginFault};
use crate::Target;

/// One login.
pub(crate) struct Login {
    first: Option<LoginRequest>,
    initiator: String,
    answers: u32,
    /// Text that is still to be sent in pieces.
    rest: Vec<u8>,
    /// Nothing of the target's is left to negotiate.
    agreed: bool,
    /// The target's own proposals were made.
    proposed: bool,
    chap: Exchange,
    /// The initiator is not who it has to be.
    refused: bool,
}

impl Login {
    pub(crate) fn new() -> Self {
        Self {
            first: None,
            initiator: String::new(),
            answers: 0,
            rest: Vec::new(),
            agreed: false,
            proposed: false,
            chap: Exchange::default(),
            refused: false,
        }
    }
}

/// What the operational keys come to on this side: ours against theirs.
fn settle(connection: &mut Connection, key: &str, value: &str) -> Option<String> {
    let min = |ours: u32| parse_number(value).map(|v| v.min(ours).to_string());
    let max = |ours: u32| parse_number(value).map(|v| v.max(ours).to_string());
    match key {
        "HeaderDigest" | "DataDigest" => Some(connection.settle_digest(key, value)),
        "MaxConnections" | "MaxOutstandingR2T" => min(1),
        "InitialR2T" | "DataPDUInOrder" | "DataSequenceInOrder" => Some("Yes".into()),
        "ImmediateData" => Some("No".into()),
        "MaxBurstLength" => min(connection.settings.max_burst_bytes),
        "FirstBurstLength" => min(65_536.min(connection.settings.max_burst_bytes)),
        "DefaultTime2Wait" => max(connection.settings.time2wait_s),
        "DefaultTime2Retain" | "ErrorRecoveryLevel" => min(0),
        "MaxRecvDataSegmentLength" => Some("8192".into()),
        _ => None,
    }
}

const OPERATIONAL_KEYS: [&str; 14] = [
    "HeaderDigest",
    "DataDigest",
    "MaxConnections",
    "InitialR2T",
    "ImmediateData",
    "MaxRecvDataSegmentLength",
    "MaxBurstLength",
    "FirstBurstLength",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "ErrorRecoveryLevel",
];

impl Connection {
    pub(crate) fn take_login(
        &mut self,
        target: &mut Target,
        header: &[u8; BHS_BYTES],
        data: &[u8],
    ) {
        let request = LoginRequest::decode(header);
        target.login_requests.push((request, data.to_vec()));
        self.check_login(target, &request);
        let Some(mut login) = self.login.take() else {
            return;
        };
        let nth = login.answers;
        login.answers += 1;
        let fault = target.fire(self.number, nth, |f| match f {
            Fault::Login(fault) => Some(fault.clone()),
            _ => None,
        });
        let done = self.answer_login(target, &mut login, &request, data, fault);
        if done {
            target.logins += 1;
            self.digests = self.agreed;
            target.reinstate(self.number, login.initiator, request.isid);
        } else {
            self.login = Some(login);
        }
    }

    fn check_login(&mut self, target: &mut Target, request: &LoginRequest) {
        let immediate = request.opcode & opcode::IMMEDIATE != 0;
        self.expect(
            target,
            immediate && request.version_min == 0,
            "login is not immediate, or not version 0",
        );
        self.expect(
            target,
            request.tsih.get() == 0,
            "login of a new session with a handle",
        );
        let first = self.login.as_ref().and_then(|l| l.first);
        match first {
            None => {
                self.exp_cmd_sn = Sna(request.cmd_sn.get());
                if let Some(login) = &mut self.login {
                    login.first = Some(*request);
                }
            }
            Some(first) => {
                let same = first.isid == request.isid
                    && first.itt == request.itt
                    && first.cmd_sn == request.cmd_sn;
                self.expect(target, same, "ISID, tag or CmdSN changes within a login");
                self.expect(
                    target,
                    request.exp_stat_sn.get() == self.stat_sn.0,
                    "ExpStatSN of a login",
                );
            }
        }
    }

    /// Whether the login is through.
    fn answer_login(
        &mut self,
        target: &mut Target,
        login: &mut Login,
        request: &LoginRequest,
        data: &[u8],
        fault: Option<LoginFault>,
    ) -> bool {
        let stage = (request.flags >> 2) & 3;
        let next = request.flags & 3;
        let transit = request.flags & flag::TRANSIT != 0;
        let fresh = login.rest.is_empty();
        if fresh {
            let (text, agreed) = self.login_text(target, login, stage, data, transit);
            login.rest = text;
            login.agreed = agreed;
        } else {
            self.expect(
                target,
                data.is_empty() && !transit,
                "continued text is not asked for with an empty request",
            );
        }
        let first = self.settings.text_split.filter(|_| fresh);
        let piece = first
            .or(self.settings.text_piece)
            .unwrap_or(usize::MAX)
            .min(8192)
            .min(login.rest.len());
        let text: Vec<u8> = login.rest.drain(..piece).collect();
        // A stage ends only where the request at hand asks for it, so not with the last piece of a continued text.
        let go = transit && login.agreed;
        let end = if go { flag::TRANSIT | next } else { 0 };
        let flags = (stage << 2)
            | if login.rest.is_empty() {
                end
            } else {
                flag::CONTINUE
            };
        let fault = match login.refused {
            true => Some(LoginFault::Status(2, u8::from(!login.chap.malformed))),
            false => fault,
        };
        let flags = self.send_login(request, flags, text, fault);
        flags & flag::TRANSIT != 0 && flags & 3 == 3
    }

    fn login_text(
        &mut self,
        target: &mut Target,
        login: &mut Login,
        stage: u8,
        data: &[u8],
        transit: bool,
    ) -> (Vec<u8>, bool) {
        let mut text = Vec::new();
        let pairs: Vec<_> = Pairs::new(data).filter_map(Result::ok).collect();
        let whole = Pairs::new(data).all(|p| p.is_ok());
        self.expect(target, whole, "login text is malformed");
        if stage == 0 && login.answers == 1 {
            let has = |key: &str, value: &str| pairs.contains(&(key, value));
            self.discovery = has("SessionType", "Discovery");
            let named = match self.discovery {
                true => !pairs.iter().any(|(k, _)| *k == "TargetName"),
                false => {
                    has("TargetName", &self.settings.target_name) && has("SessionType", "Normal")
                }
            };
            let polite = pairs.iter().any(|(k, _)| *k == "InitiatorName")
                && (has("AuthMethod", "None") || has("AuthMethod", "CHAP"));
            self.expect(target, named && polite, "first login request lacks a key");
            if !self.discovery {
                self.push_answer(&mut text, "TargetPortalGroupTag", "1");
            }
            let method = match self.settings.chap {
                Some(_) => "CHAP",
                None => "None",
            };
            login.refused = self.settings.chap.is_some() && has("AuthMethod", "None");
            self.push_answer(&mut text, "AuthMethod", method);
        } else if let (0, Some(chap)) = (stage, self.settings.chap.clone()) {
            let answers = self.answer_chap(target, &chap, &mut login.chap, &pairs, transit);
            login.refused = answers.is_none();
            for (key, value) in answers.unwrap_or_default() {
                self.push_answer(&mut text, &key, &value);
            }
        }
        if stage == 1 && !pairs.is_empty() && !login.proposed {
            let proposed = |name: &&str| pairs.iter().any(|(key, _)| key == name);
            self.expect(
                target,
                self.discovery || OPERATIONAL_KEYS.iter().all(proposed),
                "operational keys are left out",
            );
        }
        for (key, value) in &pairs {
            if *key == "InitiatorName" {
                login.initiator = value.to_string();
            }
            if *key == "MaxRecvDataSegmentLength" {
                self.peer_max_recv = parse_number(value).unwrap_or(0);
            }
            let ours = self.settings.proposals.iter().any(|(k, _)| k == key);
            let proposed = stage == 1 && !(login.proposed && ours);
            if let Some(answer) = settle(self, key, value).filter(|_| proposed) {
                self.push_answer(&mut text, key, &answer);
            }
        }
        let propose = stage == 1 && !login.proposed && !self.settings.proposals.is_empty();
        if propose {
            login.proposed = true;
            for (key, value) in &self.settings.proposals {
                push(&mut text, key, value);
            }
        } else if login.proposed && stage == 1 {
            for (key, _) in &self.settings.proposals {
                // 13.26.2: this one only tells.
                let answered = pairs.iter().any(|(k, _)| k == key) || key == "X#NodeArchitecture";
                self.expect(target, answered, "a key of the target is not answered");
            }
        }
        let proved = stage != 0 || self.settings.chap.is_none() || login.chap.proved;
        (text, !propose && proved)
    }

    fn push_answer(&self, text: &mut Vec<u8>, key: &str, value: &str) {
        let other = self
            .settings
            .answers
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str());
        match other {
            Some("") => {}
            Some(other) => push(text, key, other),
            None => push(text, key, value),
        }
    }

    /// Sends an answer, and says with which flags.
    fn send_login(
        &mut self,
        request: &LoginRequest,
        flags: u8,
        text: Vec<u8>,
        fault: Option<LoginFault>,
    ) -> u8 {
        let stat_sn = self.next_stat_sn();
        let (exp, max) = self.window();
        let ends = flags & flag::TRANSIT != 0 && flags & 3 == 3;
        let mut header = LoginResponse {
            opcode: opcode::LOGIN_RESPONSE,
            flags,
            isid: request.isid,
            tsih: u16::from(ends).into(),
            itt: request.itt,
            stat_sn: stat_sn.into(),
            exp_cmd_sn: exp.into(),
            max_cmd_sn: max.into(),
            ..LoginResponse::default()
        };
        let mut text = text;
        match fault {
            None => {}
            Some(LoginFault::Status(class, detail)) => {
                refuse(&mut header, class, detail);
                text.clear();
            }
            Some(LoginFault::Redirect(detail, places)) => {
                refuse(&mut header, 1, detail);
                text.clear();
                for place in &places {
                    push(&mut text, "TargetAddress", place);
                }
            }
            Some(LoginFault::Stage) => header.flags ^= 1 << 2,
            Some(LoginFault::NextStage) => header.flags ^= 2,
            Some(LoginFault::ContinueAndTransit) => header.flags |= flag::CONTINUE | flag::TRANSIT,
            Some(LoginFault::Endless) => {
                header.flags = header.flags & 0x0c | flag::CONTINUE;
                text = b"X-more=x\0".to_vec();
            }
            Some(LoginFault::Transit) => header.flags |= flag::TRANSIT | 1,
            Some(LoginFault::Hold) => header.flags &= 0x0c,
            Some(LoginFault::NoHandle) => header.tsih = 0.into(),
            Some(LoginFault::Version) => header.version_active = 1,
            Some(LoginFault::Tag) => header.itt = (request.itt.get() ^ 0x100).into(),
            Some(LoginFault::Text(other)) => text = other,
            Some(LoginFault::Opcode(other)) => header.opcode = other,
            Some(LoginFault::Silence) => return 0,
            Some(LoginFault::Flags(flags)) => header.flags = flags,
            Some(LoginFault::Keys(count)) => {
                for key in 0..count {
                    push(&mut text, &format!("X-{key}"), "1");
                }
                text.truncate(8192);
            }
            Some(LoginFault::StatSn) => header.stat_sn = stat_sn.wrapping_add(1).into(),
        }
        header.data_len = DataSegmentLength::new(text.len() as u32).unwrap_or_default();
        self.send(header.encode(), &text);
        match header.status_class {
            0 => header.flags,
            _ => 0,
        }
    }
}

/// 11.13.5: with a status other than success numbers, stages and handle are not valid.
fn refuse(header: &mut LoginResponse, class: u8, detail: u8) {
    *header = LoginResponse {
        flags: 0xff,
        version_max: 0xff,
        version_active: 0xff,
        isid: [0xff; 6],
        tsih: 0xffff.into(),
        stat_sn: 0xdead_beef.into(),
        exp_cmd_sn: 0x8000_0000.into(),
        max_cmd_sn: 0.into(),
        status_class: class,
        status_detail: detail,
        ..*header
    };
}

fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(format!("{key}={value}\0").as_bytes());
}
