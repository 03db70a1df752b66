// SPDX-License-Identifier: GPL-2.0-only

//! Faults and where they are played.

use crate::discover::TextFault;
use crate::wire::{Damage, Phase};

/// What the target does wrong with one READ(16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// The connection ends after this many bytes of the answer (headers, data and padding counted).
    Reset(usize),
    /// Never answers, but goes on with everything else.
    Stall,
    /// Reports GOOD although the last bytes were never sent.
    Short(u32),
    /// Reports GOOD without any data.
    Nothing,
    /// Leaves the first data PDU out; numbers and offsets tell.
    Missing,
    /// Leaves the first data PDU out and numbers the others as if it had not been.
    Hole,
    /// Sends the first data PDU twice, numbered on.
    Duplicate,
    /// The second data PDU starts 512 bytes too early.
    Overlap,
    /// A data PDU reaches beyond what was asked for.
    Beyond,
    /// A data PDU whose end does not fit 32 bits.
    Wrap,
    /// Data under a tag that was never used.
    WrongTag,
    /// Data under the tag of the read before this one, which is finished.
    LateTag,
    /// DataSN skips one.
    DataSn,
    /// The A bit is set.
    Acknowledge,
    /// S without F.
    StatusWithoutFinal,
    /// All data came, but the residual says otherwise.
    Residual,
    /// The service response is this one and the status GOOD.
    Response(u8),
    /// The last Data-In has this status.
    DataStatus(u8),
    /// This SCSI status and nothing else.
    Status(u8),
    /// CHECK CONDITION with this sense key, additional code and qualifier.
    Sense(u8, u8, u8),
    /// CHECK CONDITION with sense data whose length lies.
    BadSense,
    /// CHECK CONDITION (NOT READY, becoming ready) whose SenseLength says the first, and that has the second number of
    /// bytes of sense data.
    SenseLength(u16, u16),
    /// This many Data-In PDUs without data before those of the answer, which is legal.
    Empty(u32),
    /// A PDU with this operation code and tag before the right answer; it has what it needs to look like a success.
    Forged(u8, ForgedTag),
    /// StatSN skips one.
    StatSn,
    /// ExpDataSN of the SCSI Response is too great by one.
    ExpDataSn,
    /// The data segment is longer than what the initiator declared.
    Oversize,
    /// Additional headers that nobody asked for.
    AdditionalHeaders,
    /// An R2T, as if it were a write.
    R2t,
    /// An operation code that does not exist.
    Opcode(u8),
    /// A Reject that quotes the command.
    Reject,
    /// A Reject that quotes a NOP-Out with the command's tag, then the right answer.
    ForgedReject,
    /// A NOP-In under the command's tag, as if it answered a ping.
    ForgedPong,
}

/// Whose tag a PDU has that nothing asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgedTag {
    /// The command's that is being answered.
    Live,
    /// The one of the read before, which has ended.
    Late,
    /// One that was never used.
    Unknown,
    /// The reserved one.
    Reserved,
}

/// An Asynchronous Message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// AsyncEvent.
    pub event: u8,
    /// Parameter1 to Parameter3.
    pub parameters: [u16; 3],
    /// Sense data: key, additional code, qualifier.
    pub sense: Option<(u8, u8, u8)>,
}

impl Announcement {
    /// An event that asks for a pause of one second.
    pub fn of(event: u8) -> Self {
        Self {
            event,
            parameters: [0, 1, 1],
            sense: None,
        }
    }
}

/// What the target does wrong in a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// Refuses with this status class and detail. No other field of the answer means anything then, so that they hold
    /// nonsense.
    Status(u8, u8),
    /// Redirects with this status detail and these values of TargetAddress.
    Redirect(u8, Vec<String>),
    /// Answers for the operational stage when the security stage was asked for.
    Stage,
    /// Ends the first stage by going where nobody asked to go.
    NextStage,
    /// Says that the text goes on, and that the stage is over.
    ContinueAndTransit,
    /// Ends the security stage although nobody asked for it.
    Transit,
    /// Does not end the stage although it was asked to, and there is nothing left to say.
    Hold,
    /// Never ends the text.
    Endless,
    /// Ends the login without a session handle.
    NoHandle,
    /// Says that it speaks version 1.
    Version,
    /// Answers under another tag.
    Tag,
    /// Sends this instead of its text.
    Text(Vec<u8>),
    /// Sends this PDU instead of an answer.
    Opcode(u8),
    /// Never answers.
    Silence,
    /// StatSN skips one after the first answer.
    StatSn,
    /// Answers with these flags: T, C, CSG and NSG as they are.
    Flags(u8),
    /// Brings this many keys up that nobody knows.
    Keys(u32),
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// During the `nth` answer of a login.
    Login(LoginFault),
    /// With the `nth` answer to SendTargets.
    Text(TextFault),
    /// With the `nth` READ(16).
    Read(ReadFault),
    /// Pings the initiator before it answers the `nth` READ(16), this many times.
    Ping(u32),
    /// Takes no further command from the `nth` READ(16) on, until it is pinged.
    CloseWindow,
    /// An Asynchronous Message before the answer to the `nth` READ(16).
    Async(Announcement),
    /// NOP-Ins that ask for nothing before the answer to the `nth` READ(16), this many.
    News(u32),
    /// Never answers the `nth` ping.
    Mute,
    /// Damages the `nth` PDU of a phase.
    Wire(Phase, Damage),
}

/// A fault and where it is played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which connection, counted from 0; none: on each.
    pub connection: Option<u32>,
    /// At which event of the fault's kind, counted from 0 on each connection; none: at each.
    pub nth: Option<u32>,
    /// How often at most.
    pub times: u32,
    /// What.
    pub fault: Fault,
}

impl Plan {
    /// Plays a fault once, at the `nth` event of the first connection.
    pub fn once(nth: u32, fault: Fault) -> Self {
        Self {
            connection: Some(0),
            nth: Some(nth),
            times: 1,
            fault,
        }
    }

    /// Plays a fault each time.
    pub fn always(fault: Fault) -> Self {
        Self {
            connection: None,
            nth: None,
            times: u32::MAX,
            fault,
        }
    }

    /// Plays a fault on every connection at the `nth` event, `times` times in all.
    pub fn at(nth: u32, times: u32, fault: Fault) -> Self {
        Self {
            connection: None,
            nth: Some(nth),
            times,
            fault,
        }
    }
}
