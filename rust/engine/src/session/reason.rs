// SPDX-License-Identifier: GPL-2.0-only

//! Why a connection was dropped, and why a read failed.

use core::fmt;

use imgstream_proto::abi::status::WRONG_IMAGE;
use imgstream_proto::iscsi::sense::Sense;

use super::redirect::{Redirect, RedirectError};

/// A rule of RFC 7143 that the target broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A PDU that has no place here, by operation code (4.2.4 in a login).
    Unexpected(u8),
    /// Additional header segments, which no PDU of a target has (11.2).
    AdditionalHeaders,
    /// A data segment longer than what we declared, or than its PDU can use (13.12).
    SegmentTooLong(u32),
    /// A tag that is not outstanding for this kind of PDU (11.2.1.8).
    UnknownTag(u32),
    /// StatSN skipped or repeated: a status was lost (4.2.2.2).
    StatSn {
        /// What should have come.
        expected: u32,
        /// What came.
        found: u32,
    },
    /// DataSN of a Data-In is not the next one (11.7.5).
    DataSn,
    /// A Data-In that does not continue where the last one ended (11.7.6, 13.18, 13.19).
    DataOffset,
    /// A Data-In that reaches beyond what was asked for (11.7.6).
    DataRange,
    /// A Data-In with S but not F (11.7.3).
    DataFlags,
    /// Status GOOD, but not every byte came exactly once (11.4.5).
    ShortRead {
        /// Bytes asked for.
        expected: u32,
        /// Bytes received.
        received: u32,
    },
    /// Residual count and received bytes contradict each other (11.4.5).
    Residual,
    /// ExpDataSN and the number of Data-In PDUs contradict each other (11.4.8).
    ExpDataSn,
    /// A service response that is reserved (11.4.3).
    Response(u8),
    /// A status that no read can have (11.4.2).
    Status(u8),
    /// A status in a Data-In that belongs into a SCSI Response (11.7).
    StatusInData(u8),
    /// CHECK CONDITION without sense data that can be read (11.4.7).
    NoSense,
    /// The answer to our ping carries data that we did not send, or asks for an answer (11.19).
    Echo,
    /// More pings than can be answered.
    PingFlood,
    /// Answer to a request that was not sent whole yet.
    Early,
    /// Login: stage or transition is not what was asked for (11.12.3, 11.13.6).
    Stage,
    /// Login: version other than 0 (11.13.2).
    Version,
    /// Login: no session handle at the end (11.13.3).
    NoSessionHandle,
    /// Text is malformed (6.1), or has a key that does not belong there.
    Text,
    /// Text: F, C and the target's tag contradict each other (11.11).
    TextFlags,
    /// Text: too many answers.
    EndlessText,
    /// Login: a key came twice (6.3).
    RepeatedKey,
    /// Login: more keys than there are, or than can be answered.
    TooManyKeys,
    /// Login: too many steps.
    EndlessLogin,
    /// The data of an identity command makes no sense.
    Malformed,
    /// A header is not what its digest says (7.8).
    HeaderDigest,
    /// Data is not what its digest says (7.8).
    DataDigest,
}

/// What differs from the image that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// No such logical unit, or it is no disk.
    NoUnit,
    /// Another size, or a block size nothing can be done with.
    Capacity {
        /// Bytes that should be there; 0 if that is not known.
        expected: u64,
        /// Bytes that are; 0 if the answer is unusable.
        found: u64,
    },
    /// Another designator.
    Designator,
    /// The trailer differs.
    Trailer,
    /// A canary block differs.
    Canary {
        /// Its number.
        block: u64,
    },
}

/// How CHAP failed on our side (12.1.3, 9.2.1). A target that does not know our secret refuses the login instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChapFault {
    /// The target lets us in, or goes on, without it.
    Skipped,
    /// The target has another method, or none.
    Method,
    /// A key is missing, or has no place in this step.
    OutOfOrder,
    /// The algorithm was not offered.
    Algorithm,
    /// A response by SHA-256 was refused as malformed: the next login does not offer it.
    Misread,
    /// The identifier is no octet.
    Identifier,
    /// The challenge is malformed, empty or too long.
    Challenge,
    /// The challenge is one of ours.
    Reflected,
    /// Our own challenge was not fresh.
    Random,
    /// The target does not prove who it is.
    NoResponse,
    /// The target's proof is wrong.
    WrongResponse,
    /// The target proves to be somebody else.
    WrongName,
}

/// Why a connection was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connection ended, or could not be made.
    Lost,
    /// The target broke the protocol.
    Protocol(Violation),
    /// The target refused the login: status class and detail (11.13.5).
    Refused {
        /// 2 initiator's error, 3 target's error, others unknown.
        class: u8,
        /// More about it.
        detail: u8,
    },
    /// The target is behind another portal.
    Redirected(Redirect),
    /// The target sends us somewhere where we cannot go.
    BadRedirect(RedirectError),
    /// The portal is of another group than discovery said (13.9).
    PortalGroup {
        /// What discovery said.
        expected: u16,
        /// What the target says.
        found: u16,
    },
    /// The target wants another authentication than none.
    Authentication,
    /// CHAP is required, and failed.
    Chap(ChapFault),
    /// A key was answered in a way that cannot be accepted; which one.
    Negotiation(&'static str),
    /// The target does not agree to a digest that is required; which one.
    Unprotected(&'static str),
    /// Login or identity check took too long.
    LoginTimeout,
    /// The list of targets took too long.
    ListTimeout,
    /// Nothing came for too long, not even an answer to a ping.
    Silent,
    /// The target lives, but reads do not get on.
    NoProgress,
    /// The target failed to carry a command out, again and again (11.4.3); its service response.
    TargetFailure(u8),
    /// The target takes no commands.
    WindowClosed,
    /// The target answers that it is overloaded, for too long.
    Overloaded,
    /// The logical unit stays not ready.
    NotReady(Sense),
    /// A condition was reported again and again.
    Condition(Sense),
    /// What the logical unit is may have changed; it has to be looked at again.
    Changed(Sense),
    /// Somebody else has reserved the logical unit.
    Reserved,
    /// The target rejected a PDU (11.17.1).
    Rejected(u8),
    /// The target announced that it ends the connection, or asked us to (11.9.1).
    Announced(u8),
    /// This is not the image that was expected.
    WrongImage(Mismatch),
    /// It was the right image when the connection began.
    Exchanged {
        /// What is different now.
        mismatch: Mismatch,
        /// How long ago it was last seen to be right, in milliseconds.
        since_ms: u64,
    },
    /// The target broke the same rule on several connections in a row.
    Repeated(Violation),
    /// Connections that were logged in were lost one after the other, as when two computers log in under one name.
    Contested,
    /// We logged out.
    LoggedOut,
}

impl Reason {
    /// Whether only a person can help, so that frequent retries are of no use.
    pub const fn is_refusal(&self) -> bool {
        match self {
            // Class 3 is the target's trouble and may pass; class 2 is about us (11.13.5).
            Self::Refused { class, .. } => *class != 3,
            Self::Chap(fault) => !matches!(fault, ChapFault::Misread),
            Self::Authentication
            | Self::Negotiation(_)
            | Self::Unprotected(_)
            | Self::BadRedirect(_)
            | Self::PortalGroup { .. }
            | Self::Reserved
            | Self::WrongImage(_)
            | Self::Exchanged { .. }
            | Self::Repeated(_) => true,
            _ => false,
        }
    }

    /// Whether frequent retries are of no use, or do harm.
    pub(super) const fn is_slow(&self) -> bool {
        self.is_refusal() || matches!(self, Self::Contested)
    }
}

/// Why a read failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The target cannot read its medium there.
    Medium(Sense),
    /// The target's hardware failed.
    Hardware(Sense),
    /// The target refuses this read.
    Refused(Sense),
    /// The read reaches beyond the end, or does not fit the unit's blocks.
    Range,
    /// The target answered this read wrongly, on several connections in a row.
    Protocol,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(opcode) => write!(
                f,
                "a PDU with operation code {opcode:#04x} has no place here"
            ),
            Self::AdditionalHeaders => f.write_str("additional headers, which no target may send"),
            Self::SegmentTooLong(bytes) => write!(f, "a data segment of {bytes} bytes is too long"),
            Self::UnknownTag(tag) => write!(f, "tag {tag:#010x} is not outstanding"),
            Self::StatSn { expected, found } => {
                write!(f, "StatSN is {found} instead of {expected}")
            }
            Self::DataSn => f.write_str("a Data-In PDU was skipped or repeated"),
            Self::DataOffset => f.write_str("data does not continue where it ended"),
            Self::DataRange => f.write_str("data reaches beyond what was asked for"),
            Self::DataFlags => f.write_str("flags of a Data-In PDU contradict each other"),
            Self::ShortRead { expected, received } => {
                write!(
                    f,
                    "a read of {expected} bytes was reported good with {received} bytes"
                )
            }
            Self::Residual => f.write_str("residual count and data contradict each other"),
            Self::ExpDataSn => {
                f.write_str("ExpDataSN and the number of Data-In PDUs contradict each other")
            }
            Self::Response(code) => write!(f, "service response {code:#04x}"),
            Self::Status(code) => write!(f, "SCSI status {code:#04x}"),
            Self::StatusInData(code) => write!(f, "SCSI status {code:#04x} together with data"),
            Self::NoSense => f.write_str("CHECK CONDITION without sense data"),
            Self::Echo => f.write_str("a ping was answered with something else"),
            Self::PingFlood => f.write_str("more pings than can be answered"),
            Self::Early => f.write_str("an answer came before the request was sent"),
            Self::Stage => f.write_str("login stage is not the one asked for"),
            Self::Version => f.write_str("the version of the protocol is not 0"),
            Self::NoSessionHandle => f.write_str("the login ended without a session handle"),
            Self::Text => f.write_str("text is malformed"),
            Self::TextFlags => f.write_str("flags of a text answer contradict each other"),
            Self::EndlessText => f.write_str("the list of targets does not come to an end"),
            Self::RepeatedKey => f.write_str("login text has a key twice"),
            Self::TooManyKeys => f.write_str("login text has too many keys"),
            Self::EndlessLogin => f.write_str("the login does not come to an end"),
            Self::Malformed => {
                f.write_str("the logical unit describes itself in a way that makes no sense")
            }
            Self::HeaderDigest => f.write_str("a header is not what its digest says"),
            Self::DataDigest => f.write_str("data is not what its digest says"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUnit => f.write_str("the logical unit is not there"),
            Self::Capacity { found: 0, .. } => f.write_str("its size is unusable"),
            Self::Capacity { expected, found } => {
                write!(f, "it has {found} bytes instead of {expected}")
            }
            Self::Designator => f.write_str("its designator (page 0x83) is another one"),
            Self::Trailer => f.write_str("its trailer is another one"),
            Self::Canary { block } => write!(f, "its block {block} has other contents"),
        }
    }
}

/// Sense data as people look it up: key/code/qualifier.
struct Code(Sense);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sense {:x}/{:02x}/{:02x}",
            self.0.key, self.0.asc, self.0.ascq
        )
    }
}

/// What a login status means (RFC 7143 section 11.13.5), where more can be said than its number.
const fn login_status(class: u8, detail: u8) -> &'static str {
    match (class, detail) {
        (2, 0x01) => "authentication failed",
        (2, 0x02) => "this initiator may not use the target",
        (2, 0x03) => "no such target",
        (2, 0x04) => "the target was removed",
        (2, 0x05) => "no common version of the protocol",
        (2, 0x06) => "too many connections",
        (2, 0x07) => "a parameter is missing",
        (2, 0x08) => "the session cannot take this connection",
        (2, 0x09) => "this type of session is not supported",
        (2, 0x0a) => "no such session",
        (2, 0x0b) => "the request was not valid during login",
        (2, _) => "the initiator made an error",
        (3, 0x01) => "the service is not available",
        (3, 0x02) => "the target is out of resources",
        (3, _) => "the target has an error",
        _ => "the status is unknown",
    }
}

impl fmt::Display for ChapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skipped => "the target goes on without it",
            Self::Method => "the target does not offer it",
            Self::OutOfOrder => "the target leaves out a step of it",
            Self::Algorithm => "the target chose an algorithm that was not offered",
            Self::Misread => {
                "the target cannot read a response by SHA-256; the next login goes without it"
            }
            Self::Identifier => "the target's identifier is no number from 0 to 255",
            Self::Challenge => "the target's challenge is malformed or too long",
            Self::Reflected => "the target sent a challenge of ours back",
            Self::Random => "this computer's random numbers repeat",
            Self::NoResponse => "the target does not prove who it is",
            Self::WrongResponse => "the target does not know its secret",
            Self::WrongName => "the target has another name",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str("connection lost"),
            Self::Protocol(violation) => write!(f, "protocol error of the target: {violation}"),
            Self::Refused { class, detail } => {
                write!(
                    f,
                    "login refused: {} (status {class:#04x}{detail:02x})",
                    login_status(*class, *detail)
                )
            }
            Self::Redirected(redirect) => redirect.fmt(f),
            Self::BadRedirect(error) => {
                write!(f, "login refused: the target has moved, but {error}")
            }
            Self::PortalGroup { expected, found } => write!(
                f,
                "login given up: the portal is of group {found}, not of {expected} as discovery said"
            ),
            Self::Authentication => f.write_str("login refused: the target wants authentication"),
            Self::Chap(fault) => write!(f, "login given up: CHAP is required, and {fault}"),
            Self::Negotiation(key) => write!(
                f,
                "login failed: the target's answer to {key} cannot be accepted"
            ),
            Self::Unprotected(key) => write!(
                f,
                "login failed: {key} is required, and the target does not agree to it"
            ),
            Self::LoginTimeout => f.write_str("login took too long"),
            Self::ListTimeout => f.write_str("the list of targets took too long"),
            Self::Silent => f.write_str("the target is silent"),
            Self::NoProgress => f.write_str("the target does not answer reads"),
            Self::TargetFailure(code) => write!(
                f,
                "the target fails to carry commands out (service response {code:#04x})"
            ),
            Self::WindowClosed => f.write_str("the target takes no commands"),
            Self::Overloaded => f.write_str("the target says that it is overloaded"),
            Self::NotReady(sense) => write!(f, "the logical unit is not ready ({})", Code(*sense)),
            Self::Condition(sense) => write!(
                f,
                "the logical unit keeps reporting a condition ({})",
                Code(*sense)
            ),
            Self::Changed(sense) => {
                write!(f, "the logical unit reports a change ({})", Code(*sense))
            }
            Self::Reserved => f.write_str("the logical unit is reserved by somebody else"),
            Self::Rejected(reason) => write!(f, "the target rejected a PDU (reason {reason:#04x})"),
            Self::Announced(event) => write!(f, "the target ends the connection (event {event})"),
            Self::WrongImage(mismatch) => write!(f, "{WRONG_IMAGE} behind the portal: {mismatch}"),
            Self::Exchanged { mismatch, since_ms } => write!(
                f,
                "{WRONG_IMAGE} behind the portal since {} s ago or less: {mismatch}",
                since_ms.div_ceil(1000)
            ),
            Self::Repeated(violation) => {
                write!(f, "protocol error of the target again and again: {violation}")
            }
            Self::Contested => f.write_str(
                "connections are lost again and again; another computer may have this initiator name",
            ),
            Self::LoggedOut => f.write_str("logged out"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Medium(sense) => {
                write!(f, "the target cannot read its medium ({})", Code(*sense))
            }
            Self::Hardware(sense) => write!(f, "the target's hardware failed ({})", Code(*sense)),
            Self::Refused(sense) => write!(f, "the target refuses the read ({})", Code(*sense)),
            Self::Range => f.write_str("the read does not lie within the logical unit"),
            Self::Protocol => f.write_str("the target answered the read wrongly several times"),
        }
    }
}
