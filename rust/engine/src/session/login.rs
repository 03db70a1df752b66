// SPDX-License-Identifier: GPL-2.0-only

//! Login and negotiation, RFC 7143 sections 6 and 13.
//!
//! The login starts in the security stage with AuthMethod=None, or CHAP if there are credentials, goes to the
//! operational stage and from there to the full feature phase. Without credentials the security stage could be skipped
//! (6.3.1), but this is the path that targets are used to.

use imgstream_proto::iscsi::bhs::{flag, LoginResponse};
use imgstream_proto::iscsi::digest::{Digests, Policy};
use imgstream_proto::iscsi::text::{parse_number, Pairs, Writer};

use super::chap::{self, Chap};
use super::config::Config;
use super::reason::{ChapFault, Reason, Violation};
use super::seen::Seen;

/// MaxRecvDataSegmentLength that we declare: large enough that headers cost nothing, small enough that a target which
/// reserves memory for it does not mind.
pub(super) const MAX_RECV_BYTES: u32 = 262_144;
/// MaxBurstLength that we propose: as much as 24 bits hold in whole blocks. The target's value then decides.
const MAX_BURST_BYTES: u32 = 16_776_192;
/// MaxBurstLength where the target does not answer (13.13).
const DEFAULT_MAX_BURST_BYTES: u32 = 262_144;
/// A pause that a target may demand before the next login (13.15 allows an hour, which is no use here).
const TIME2WAIT_MAX_S: u32 = 60;
/// Requests after which a login is given up. LIO ends it after seven itself.
const MAX_REQUESTS: u8 = 16;

/// Where a login is: CSG and NSG (11.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Security,
    Operational,
}

impl Stage {
    const fn code(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
        }
    }

    const fn next_code(self) -> u8 {
        match self {
            Self::Security => 1,
            Self::Operational => 3,
        }
    }
}

/// What a key may be answered with.
#[derive(Clone, Copy)]
enum Rule {
    /// A value of the list that the policy proposes.
    Digest,
    /// The minimum of both sides' numbers decides, so an answer above ours is none.
    Minimum { ours: u32, least: u32 },
    /// The maximum of both sides' numbers decides.
    Maximum { ours: u32, most: u32 },
    /// A boolean whose result our proposal alone decides: Yes with OR, No with AND.
    Boolean(&'static str),
    /// Each side declares its own.
    Declared { ours: u32, least: u32, most: u32 },
}

struct Key {
    name: &'static str,
    rule: Rule,
}

const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule }
}

const HEADER_DIGEST: &str = "HeaderDigest";
const DATA_DIGEST: &str = "DataDigest";
const FIRST_BURST: &str = "FirstBurstLength";
const MAX_BURST: &str = "MaxBurstLength";
const PORTAL_GROUP: &str = "TargetPortalGroupTag";
const TIME2WAIT: &str = "DefaultTime2Wait";

/// Every operational key is proposed in the first operational request: LIO asks for those that are left out, QNAP and
/// COMSTAR fail on them.
const KEYS: [Key; 14] = [
    key(HEADER_DIGEST, Rule::Digest),                           // 13.1
    key(DATA_DIGEST, Rule::Digest),                             // 13.1
    key("MaxConnections", Rule::Minimum { ours: 1, least: 1 }), // 13.2
    key("InitialR2T", Rule::Boolean("Yes")),                    // 13.10: OR
    key("ImmediateData", Rule::Boolean("No")),                  // 13.11: AND
    key(
        "MaxRecvDataSegmentLength",
        Rule::Declared {
            ours: MAX_RECV_BYTES,
            least: 512,
            most: 0x00ff_ffff,
        },
    ), // 13.12
    key(
        MAX_BURST,
        Rule::Minimum {
            ours: MAX_BURST_BYTES,
            least: 512,
        },
    ), // 13.13
    key(
        FIRST_BURST,
        Rule::Minimum {
            ours: 65_536,
            least: 512,
        },
    ), // 13.14
    key(
        TIME2WAIT,
        Rule::Maximum {
            ours: 0,
            most: 3600,
        },
    ), // 13.15
    key("DefaultTime2Retain", Rule::Minimum { ours: 0, least: 0 }), // 13.16
    key("MaxOutstandingR2T", Rule::Minimum { ours: 1, least: 1 }), // 13.17
    key("DataPDUInOrder", Rule::Boolean("Yes")),                // 13.18: OR
    key("DataSequenceInOrder", Rule::Boolean("Yes")),           // 13.19: OR
    key("ErrorRecoveryLevel", Rule::Minimum { ours: 0, least: 0 }), // 13.20
];

/// Those that discovery sessions have, too.
const DISCOVERY_KEYS: [&str; 6] = [
    HEADER_DIGEST,
    DATA_DIGEST,
    "MaxRecvDataSegmentLength",
    TIME2WAIT,
    "DefaultTime2Retain",
    "ErrorRecoveryLevel",
];

/// What was agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// Longest sequence of data, and so the longest read command.
    pub(super) max_burst: u32,
    /// Seconds to wait before a login after the connection was lost.
    pub(super) time2wait_s: u32,
    /// What is protected. None where a key is not answered (13.1).
    pub(super) digests: Digests,
}

/// What a login wants to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A request with these flags; the text is what was written to the writer.
    Send { flags: u8 },
    /// Nothing: the session is in its full feature phase.
    Done,
}

/// What a session is for (13.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A logical unit is read.
    Normal,
    /// Targets are looked for.
    Discovery,
}

/// One login.
#[derive(Debug)]
pub(super) struct Login {
    policy: Policy,
    stage: Stage,
    /// The last request asked for the transition to the next stage.
    transit: bool,
    requests: u8,
    responses: u8,
    /// Keys that the target has sent.
    seen: Seen,
    kind: Kind,
    /// The portal group that discovery named.
    group: Option<u16>,
    /// The answer to FirstBurstLength.
    first_burst: Option<u32>,
    /// Bytes of continued text that have been gathered.
    text_len: usize,
    agreed: Agreed,
}

impl Login {
    /// A login that has not begun.
    pub(super) const fn new(policy: Policy) -> Self {
        Self {
            policy,
            stage: Stage::Security,
            transit: false,
            requests: 0,
            responses: 0,
            seen: Seen::new(),
            kind: Kind::Normal,
            group: None,
            first_burst: None,
            text_len: 0,
            agreed: Agreed {
                max_burst: DEFAULT_MAX_BURST_BYTES,
                time2wait_s: 2,
                digests: Digests {
                    header: false,
                    data: false,
                },
            },
        }
    }

    /// The same for a session of this kind.
    pub(super) const fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same at a portal of this group, where that is known.
    pub(super) const fn in_group(mut self, group: Option<u16>) -> Self {
        self.group = group;
        self
    }

    /// Whether a target has answered yet: its first answer sets StatSN (4.2.2.2).
    pub(super) const fn has_answer(&self) -> bool {
        self.responses != 0
    }

    /// Bytes of text gathered so far; the next data segment goes behind them.
    pub(super) const fn text_len(&self) -> usize {
        self.text_len
    }

    /// What was agreed on.
    pub(super) const fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// The target says how long to wait before the next login (11.9.1, 11.15.3).
    pub(super) fn set_time2wait(&mut self, seconds: u16) {
        self.agreed.time2wait_s = u32::from(seconds).min(TIME2WAIT_MAX_S);
    }

    /// The first request (6.3.1, 13.4, 13.5, 13.21).
    pub(super) fn begin(
        &mut self,
        config: &Config,
        chap: Option<&mut Chap>,
        text: &mut Writer<'_>,
    ) -> Result<Step, Reason> {
        text.pair("InitiatorName", config.initiator_name.as_str());
        match self.kind {
            Kind::Normal => {
                text.pair("TargetName", config.target_name.as_str());
                text.pair("SessionType", "Normal");
            }
            Kind::Discovery => text.pair("SessionType", "Discovery"),
        }
        let Some(chap) = chap else {
            text.pair("AuthMethod", "None");
            return self.send(true, text);
        };
        // Never CHAP,None: whoever sits in between would choose.
        chap.start(text);
        self.send(false, text)
    }

    /// Checks the header of an answer that reports success, and takes note of it.
    pub(super) fn check(
        &mut self,
        header: &LoginResponse,
        chap: Option<&Chap>,
    ) -> Result<(), Reason> {
        let has = |bit: u8| header.flags & bit != 0;
        // 11.13.2: the version that is active is the highest both speak, and there is only 0.
        if header.version_active != 0 {
            return Err(Reason::Protocol(Violation::Version));
        }
        let current = (header.flags >> 2) & 3;
        let next = header.flags & 3;
        // 11.12.3, 11.13.6: an answer belongs to the stage of its request; it goes on only where the request asked
        // for it; text that continues cannot end a stage.
        let wrong_transit = has(flag::TRANSIT)
            && (!self.transit || has(flag::CONTINUE) || next != self.stage.next_code());
        if current != self.stage.code() || wrong_transit {
            let skips = self.stage == Stage::Security && chap.is_some();
            return Err(match skips {
                true => Reason::Chap(ChapFault::Skipped),
                false => Reason::Protocol(Violation::Stage),
            });
        }
        // 11.13.3: the answer that ends the login carries the session's handle.
        if has(flag::TRANSIT) && next == 3 && header.tsih.get() == 0 {
            return Err(Reason::Protocol(Violation::NoSessionHandle));
        }
        self.responses = self.responses.saturating_add(1);
        Ok(())
    }

    /// Goes on after an answer; `gathered` is all text since the last answer without C.
    pub(super) fn answer(
        &mut self,
        header: &LoginResponse,
        gathered: &[u8],
        chap: Option<(&mut Chap, &mut [u8])>,
        text: &mut Writer<'_>,
    ) -> Result<Step, Reason> {
        if header.flags & flag::CONTINUE != 0 {
            // 6.2: text that continues is asked for with an empty request.
            self.text_len = gathered.len();
            return self.send(false, text);
        }
        self.text_len = 0;
        let chap = chap.filter(|_| self.stage == Stage::Security);
        self.negotiate(gathered, chap.is_some(), text)?;
        let may_end = match chap {
            Some((chap, scratch)) => {
                chap.answer(gathered, scratch, text)?;
                chap.may_end()
            }
            None => true,
        };
        if header.flags & flag::TRANSIT == 0 {
            return self.send(may_end, text);
        }
        match self.stage {
            Stage::Operational => self.finish(),
            Stage::Security => {
                self.stage = Stage::Operational;
                propose(self.kind, self.policy, text);
                self.send(true, text)
            }
        }
    }

    /// The target goes to the full feature phase: what it was not willing to say by now, it does not agree to.
    fn finish(&self) -> Result<Step, Reason> {
        // 13.14: the first burst is part of one.
        if self.first_burst > Some(self.agreed.max_burst) {
            return Err(Reason::Negotiation(FIRST_BURST));
        }
        let digests = self.agreed.digests;
        match self.policy {
            Policy::Require if !digests.header => Err(Reason::Unprotected(HEADER_DIGEST)),
            Policy::Require if !digests.data => Err(Reason::Unprotected(DATA_DIGEST)),
            _ => Ok(Step::Done),
        }
    }

    fn send(&mut self, transit: bool, text: &Writer<'_>) -> Result<Step, Reason> {
        // What we have to say by ourselves always fits, so the target asks for too much.
        if text.overflowed() {
            return Err(Reason::Protocol(Violation::TooManyKeys));
        }
        self.requests = self.requests.saturating_add(1);
        if self.requests > MAX_REQUESTS {
            return Err(Reason::Protocol(Violation::EndlessLogin));
        }
        self.transit = transit;
        let next = if transit {
            flag::TRANSIT | self.stage.next_code()
        } else {
            0
        };
        Ok(Step::Send {
            flags: next | (self.stage.code() << 2),
        })
    }

    /// Reads the target's keys, but those of CHAP where it is under way, and writes what must be answered.
    fn negotiate(
        &mut self,
        gathered: &[u8],
        chap: bool,
        text: &mut Writer<'_>,
    ) -> Result<(), Reason> {
        for pair in Pairs::new(gathered) {
            let (name, value) = pair.map_err(|_| Reason::Protocol(Violation::Text))?;
            if chap && chap::is_key(name) {
                continue;
            }
            // 6.3: only TargetAddress may be repeated.
            if name != "TargetAddress" {
                self.seen.add(name).map_err(Reason::Protocol)?;
            }
            match KEYS.iter().find(|key| key.name == name) {
                Some(key) if proposes(self.kind, key) => self.take(key, value)?,
                // 13: it has no meaning where nothing is read.
                Some(_) if !is_answer(value) => text.pair(name, "Irrelevant"),
                Some(_) => {}
                None => self.take_other(name, value, text)?,
            }
        }
        Ok(())
    }

    /// The answer to a key that we proposed.
    fn take(&mut self, key: &Key, value: &str) -> Result<(), Reason> {
        // 6.3, 12: before the operational stage none of these has been proposed, nor may it be.
        if self.stage == Stage::Security {
            return Err(Reason::Protocol(Violation::Text));
        }
        if let Rule::Digest = key.rule {
            return self.take_digest(key.name, value);
        }
        let Some(number) = judge(key.rule, value).map_err(|()| Reason::Negotiation(key.name))?
        else {
            return Ok(());
        };
        match key.name {
            MAX_BURST => self.agreed.max_burst = number,
            FIRST_BURST => self.first_burst = Some(number),
            TIME2WAIT => self.agreed.time2wait_s = number.min(TIME2WAIT_MAX_S),
            _ => {}
        }
        Ok(())
    }

    /// The answer to HeaderDigest or DataDigest: one value out of the list that was proposed (6.2.1).
    ///
    /// Irrelevant, NotUnderstood and Reject leave the key at its default, which is None (6.2, 13.1); [`Self::finish`] judges
    /// that. Who rejects a list with None in it would not understand what comes then, though: it ends the login.
    fn take_digest(&mut self, name: &'static str, value: &str) -> Result<(), Reason> {
        let on = match (self.policy, value) {
            (Policy::Require | Policy::Prefer, "CRC32C") => true,
            (_, "None" | "Irrelevant" | "NotUnderstood") | (Policy::Require, "Reject") => false,
            _ => return Err(Reason::Negotiation(name)),
        };
        match name {
            HEADER_DIGEST => self.agreed.digests.header = on,
            _ => self.agreed.digests.data = on,
        }
        Ok(())
    }

    /// 13.9: the group of the portal that this is.
    fn take_group(&self, value: &str) -> Result<(), Reason> {
        let found = parse_number(value).and_then(|tag| u16::try_from(tag).ok());
        let found = found.ok_or(Reason::Negotiation(PORTAL_GROUP))?;
        match self.group {
            Some(expected) if expected != found => Err(Reason::PortalGroup { expected, found }),
            _ => Ok(()),
        }
    }

    /// A key that the target brought up.
    fn take_other(&mut self, name: &str, value: &str, text: &mut Writer<'_>) -> Result<(), Reason> {
        match name {
            "AuthMethod" if value != "None" => return Err(Reason::Authentication),
            // The last one only tells what the target is (13.26.2).
            "AuthMethod" | "TargetAlias" | "TargetAddress" | "X#NodeArchitecture" => {}
            PORTAL_GROUP => return self.take_group(value),
            // 13.23: must be understood, and one value of the list chosen; this one asks for nothing.
            "TaskReporting" => text.pair(name, task_reporting(value)),
            // 13.24: the lower level counts, and RFC 7143 is 1.
            "iSCSIProtocolLevel" => match parse_number(value) {
                Some(level) => text.pair(name, level.min(1)),
                None => text.pair(name, "Reject"),
            },
            // 13.25: obsolete.
            "IFMarker" | "OFMarker" | "IFMarkInt" | "OFMarkInt" => text.pair(name, "Reject"),
            // 6.2: an answer to something that we never proposed would be answered for ever.
            _ if is_answer(value) => {}
            _ => text.pair(name, "NotUnderstood"),
        }
        Ok(())
    }
}

/// Whether a session of this kind proposes the key: every one, or those that are not irrelevant where nothing is read (13).
fn proposes(kind: Kind, key: &Key) -> bool {
    kind == Kind::Normal || DISCOVERY_KEYS.contains(&key.name)
}

/// Whether a value is the answer to a key, not a proposal (6.2).
fn is_answer(value: &str) -> bool {
    matches!(value, "NotUnderstood" | "Reject" | "Irrelevant")
}

/// The answer to a list of values for TaskReporting.
fn task_reporting(list: &str) -> &'static str {
    match list.split(',').any(|value| value == "RFC3720") {
        true => "RFC3720",
        false => "Reject",
    }
}

/// Proposes every operational key of this kind of session.
fn propose(kind: Kind, policy: Policy, text: &mut Writer<'_>) {
    for key in KEYS.iter().filter(|key| proposes(kind, key)) {
        match key.rule {
            Rule::Digest => text.pair(key.name, policy.proposal()),
            Rule::Boolean(ours) => text.pair(key.name, ours),
            Rule::Minimum { ours, .. }
            | Rule::Maximum { ours, .. }
            | Rule::Declared { ours, .. } => {
                text.pair(key.name, ours);
            }
        }
    }
}

/// The number that an answer settles, if it settles one.
fn judge(rule: Rule, value: &str) -> Result<Option<u32>, ()> {
    // 6.2: these leave a key at its default, which is in order for every key that comes here.
    if is_answer(value) {
        return Ok(None);
    }
    let number = |least: u32, most: u32| {
        parse_number(value)
            .filter(|n| (least..=most).contains(n))
            .map(Some)
            .ok_or(())
    };
    match rule {
        // Judged by the policy: `take_digest`.
        Rule::Digest => Err(()),
        Rule::Boolean(ours) => (value == ours).then_some(None).ok_or(()),
        Rule::Minimum { ours, least } => number(least, ours),
        Rule::Maximum { ours, most } => number(ours, most),
        Rule::Declared { least, most, .. } => number(least, most),
    }
}

#[cfg(test)]
mod tests;
