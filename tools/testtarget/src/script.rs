// SPDX-License-Identifier: GPL-2.0-only

//! Faults as text: what stands behind `--fault`, and the list of them for `--help`.

use std::net::SocketAddr;
use std::str::FromStr;

use imgstream_proto::iscsi::bhs::opcode;

use crate::fault::{Announcement, Fault, ForgedTag, LoginFault, Plan, ReadFault};
use crate::wire::{Damage, Phase};

/// What is done to a READ(16) or round it: name, numbers, words. Numbers in brackets may be left out.
const FAULTS: &[(&str, &str, &str)] = &[
    ("reset", "N", "the connection ends after N bytes of the answer"),
    ("stall", "", "no answer, but everything else goes on"),
    ("short", "N", "GOOD, but the last N bytes never come"),
    ("nothing", "", "GOOD without data"),
    ("missing", "", "the first data PDU is left out"),
    ("hole", "", "the same, and the others are numbered as if it had not been"),
    ("duplicate", "", "the first data PDU twice"),
    ("overlap", "", "the second data PDU starts 512 bytes too early"),
    ("beyond", "", "data beyond what was asked for"),
    ("wrap", "", "data whose end does not fit 32 bits"),
    ("wrong-tag", "", "data under a tag that was never used"),
    ("late-tag", "", "data under the tag of the read before"),
    ("data-sn", "", "DataSN skips one"),
    ("acknowledge", "", "the A bit"),
    ("status-without-final", "", "S without F"),
    ("residual", "", "a residual count although all data came"),
    ("response", "CODE", "this service response, status GOOD"),
    ("status", "STATUS", "this status and nothing else"),
    ("data-status", "STATUS", "this status in the last data PDU"),
    ("sense", "KEY,CODE,QUALIFIER", "CHECK CONDITION"),
    ("bad-sense", "", "CHECK CONDITION with sense data whose length lies"),
    ("sense-length", "LENGTH,BYTES", "CHECK CONDITION with a SenseLength and so many bytes of it"),
    ("empty", "N", "N data PDUs without data first, which is legal"),
    ("stat-sn", "", "StatSN skips one"),
    ("exp-data-sn", "", "ExpDataSN is too great by one"),
    ("oversize", "", "a data segment longer than declared"),
    ("additional-headers", "", "additional headers"),
    ("r2t", "", "an R2T"),
    ("opcode", "CODE", "this operation code"),
    ("reject", "", "a Reject that quotes the command"),
    ("forged-reject", "", "a Reject that quotes a NOP-Out with the command's tag, then the answer"),
    ("forged-pong", "", "a NOP-In with the command's tag, then the answer"),
    ("forged", "CODE,TAG", "a PDU that looks like a success, TAG 0 live, 1 late, 2 unknown, 3 reserved, then the answer"),
    ("ping", "[N]", "N pings first"),
    ("news", "[N]", "N NOP-Ins first that ask for nothing"),
    ("close-window", "", "no further command is taken until a ping comes"),
    ("async", "EVENT[,P1,P2,P3[,KEY,CODE,QUALIFIER]]", "an Asynchronous Message with its parameters and sense data first"),
    ("flip", "BYTE", "a bit of the NTH data PDU changes on the way"),
    ("mute", "", "no answer to the NTH ping"),
    ("login-status", "CLASS,DETAIL", "the NTH answer of a login refuses it"),
    ("login-silence", "", "no answer to the NTH request of a login"),
    ("login-redirect", "DETAIL,A,B,C,D,PORT", "the NTH answer of a login redirects to A.B.C.D:PORT"),
    ("login-flags", "FLAGS", "the NTH answer of a login has these flags"),
    ("login-keys", "N", "the NTH answer of a login brings N keys up that nobody knows"),
];

/// What is done to any PDU that the target sends.
const DAMAGE: &[(&str, &str, &str)] = &[
    ("close", "BYTE", "the connection is closed there"),
    ("reset", "BYTE", "it is reset there (RST)"),
    (
        "half-close",
        "BYTE",
        "the target says there that it will send no more, and goes on listening",
    ),
    ("stall", "BYTE", "the target is silent from there on"),
    (
        "drip",
        "BYTE[,BYTES,MS]",
        "from there on so many bytes at a time, so far apart; else one byte a second",
    ),
    ("put", "BYTE,VALUE...", "these bytes stand there"),
    (
        "add",
        "BYTE,NUMBER",
        "the 32-bit number there is greater by NUMBER, and wraps",
    ),
    (
        "flip",
        "BYTE",
        "a bit of that byte changes on the way, digests counted, too",
    ),
    ("append", "VALUE...", "its data has these bytes, too"),
    ("twice", "", "it comes twice"),
    ("lost", "", "it does not come"),
    ("opcode", "CODE", "another operation code"),
    ("ahs", "WORDS", "TotalAHSLength"),
    ("data-length", "BYTES", "DataSegmentLength"),
    ("tag", "TAG", "another task tag"),
    (
        "stat-sn",
        "NUMBER",
        "StatSN is greater by NUMBER (4294967295: it comes again)",
    ),
    ("exp-cmd-sn", "NUMBER", "ExpCmdSN is greater by NUMBER"),
    ("max-cmd-sn", "NUMBER", "MaxCmdSN is greater by NUMBER"),
];

const PHASES: &[(&str, Phase)] = &[
    ("any", Phase::Any),
    ("login", Phase::Login),
    ("full", Phase::Full),
    ("nop-in", Phase::Opcode(opcode::NOP_IN)),
    ("response", Phase::Opcode(opcode::SCSI_RESPONSE)),
    ("data-in", Phase::Opcode(opcode::DATA_IN)),
    ("logout", Phase::Opcode(opcode::LOGOUT_RESPONSE)),
    ("async", Phase::Opcode(opcode::ASYNC_MESSAGE)),
    ("reject", Phase::Opcode(opcode::REJECT)),
    ("text", Phase::Opcode(opcode::TEXT_RESPONSE)),
];

/// The list of all faults, for people.
pub fn help() -> String {
    let list = |rows: &[(&str, &str, &str)]| -> String {
        let row = |(name, numbers, words): &(&str, &str, &str)| match numbers.is_empty() {
            true => format!("  {name}\n          {words}\n"),
            false => format!("  {name}={numbers}\n          {words}\n"),
        };
        rows.iter().map(row).collect()
    };
    let phases: Vec<&str> = PHASES.iter().map(|(name, _)| *name).collect();
    format!(
        "A fault is [CONNECTION:][PHASE/]NTH:NAME[=NUMBER[,NUMBER...]]. CONNECTION and NTH count from 0, * is each; a fault \
         whose CONNECTION and NTH are numbers is played once. Numbers are decimal, or hexadecimal with 0x.\n\n\
         Without PHASE, NTH counts the READ(16) of a connection:\n{}\n\
         With PHASE ({}), NTH counts the PDUs that the target sends in it, and bytes are counted from the PDU's first:\n{}",
        list(FAULTS),
        phases.join(", "),
        list(DAMAGE),
    )
}

/// The numbers behind a name.
struct Numbers(Vec<u32>);

impl Numbers {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let numbers = text.split(',').filter(|_| !text.is_empty()).map(number);
        numbers.collect::<Option<_>>().map(Self)
    }

    fn at(&self, i: usize) -> Option<u32> {
        self.0.get(i).copied()
    }

    fn place(&self, i: usize) -> Option<usize> {
        usize::try_from(self.at(i)?).ok()
    }

    fn byte(&self, i: usize) -> Option<u8> {
        u8::try_from(self.at(i)?).ok()
    }

    fn short(&self, i: usize) -> Option<u16> {
        u16::try_from(self.at(i)?).ok()
    }

    /// All from `i` on; there must be one.
    fn bytes(&self, i: usize) -> Option<Vec<u8>> {
        let bytes: Option<Vec<u8>> = (i..self.0.len()).map(|i| self.byte(i)).collect();
        bytes.filter(|bytes| !bytes.is_empty())
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, fault) = text.rsplit_once(':').unwrap_or(("", text));
        let (connection, nth) = place.split_once(':').unwrap_or(("*", place));
        let (phase, nth) = match nth.split_once('/') {
            Some((phase, nth)) => (Some(phase), nth),
            None => (None, nth),
        };
        let no_place = || format!("{place:?} is no place: [CONNECTION:][PHASE/]NTH is asked for");
        let connection = number_or_each(connection).ok_or_else(no_place)?;
        let nth = number_or_each(nth).ok_or_else(no_place)?;
        let named = |name: &str| {
            PHASES
                .iter()
                .find(|phase| phase.0 == name)
                .map(|phase| phase.1)
        };
        let phase = phase
            .map(|name| named(name).ok_or_else(no_place))
            .transpose()?;
        let fault = parse_fault(phase, fault)?;
        let once = nth.is_some() && connection.is_some();
        let times = if once { 1 } else { u32::MAX };
        Ok(Self {
            connection,
            nth,
            times,
            fault,
        })
    }
}

fn number_or_each(text: &str) -> Option<Option<u32>> {
    match text {
        "*" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn parse_fault(phase: Option<Phase>, text: &str) -> Result<Fault, String> {
    let (name, numbers) = text.split_once('=').unwrap_or((text, ""));
    let table = if phase.is_some() { DAMAGE } else { FAULTS };
    let row = table.iter().find(|row| row.0 == name);
    let (_, usage, _) =
        row.ok_or_else(|| format!("there is no fault {name:?} there; --help lists them"))?;
    let fault = Numbers::parse(numbers).and_then(|numbers| match phase {
        Some(phase) => Some(Fault::Wire(phase, damage(name, &numbers)?)),
        None => fault(name, &numbers),
    });
    fault.ok_or_else(|| match usage.is_empty() {
        true => format!("{name} has no numbers"),
        false => format!("{numbers:?} is not what {name} asks for: {name}={usage}"),
    })
}

fn damage(name: &str, numbers: &Numbers) -> Option<Damage> {
    let add = |place| Some(Damage::Add(place, numbers.at(0)?));
    Some(match name {
        "close" => Damage::Close(numbers.place(0)?),
        "reset" => Damage::Reset(numbers.place(0)?),
        "half-close" => Damage::HalfClose(numbers.place(0)?),
        "stall" => Damage::Stall(numbers.place(0)?),
        "drip" => {
            let (bytes, pause_ms) = (numbers.place(1).unwrap_or(1), numbers.at(2).unwrap_or(1000));
            Damage::Drip(numbers.place(0)?, bytes.max(1), pause_ms.into())
        }
        "put" => Damage::Put(numbers.place(0)?, numbers.bytes(1)?),
        "add" => Damage::Add(numbers.place(0)?, numbers.at(1)?),
        "flip" => Damage::Flip(numbers.place(0)?),
        "append" => Damage::Append(numbers.bytes(0)?),
        "opcode" => Damage::Put(0, vec![numbers.byte(0)?]),
        "ahs" => Damage::Put(4, vec![numbers.byte(0)?]),
        "data-length" => Damage::Put(5, numbers.at(0)?.to_be_bytes()[1..].to_vec()),
        "tag" => Damage::Put(16, numbers.at(0)?.to_be_bytes().to_vec()),
        "stat-sn" => return add(24),
        "exp-cmd-sn" => return add(28),
        "max-cmd-sn" => return add(32),
        other => {
            return without_numbers(numbers, || match other {
                "twice" => Some(Damage::Twice),
                "lost" => Some(Damage::Lost),
                _ => None,
            })
        }
    })
}

fn without_numbers<T>(numbers: &Numbers, value: impl Fn() -> Option<T>) -> Option<T> {
    value().filter(|_| numbers.0.is_empty())
}

fn fault(name: &str, numbers: &Numbers) -> Option<Fault> {
    Some(match name {
        "ping" => Fault::Ping(numbers.at(0).unwrap_or(1)),
        "news" => Fault::News(numbers.at(0).unwrap_or(1)),
        "async" => Fault::Async(announcement(numbers)?),
        "flip" => {
            let data = Phase::Opcode(opcode::DATA_IN);
            Fault::Wire(data, Damage::Flip(numbers.place(0)?))
        }
        "login-status" => Fault::Login(LoginFault::Status(numbers.byte(0)?, numbers.byte(1)?)),
        "login-redirect" => redirect(numbers)?,
        "login-flags" => Fault::Login(LoginFault::Flags(numbers.byte(0)?)),
        "login-keys" => Fault::Login(LoginFault::Keys(numbers.at(0)?)),
        "close-window" | "mute" | "login-silence" => {
            return without_numbers(numbers, || match name {
                "close-window" => Some(Fault::CloseWindow),
                "mute" => Some(Fault::Mute),
                _ => Some(Fault::Login(LoginFault::Silence)),
            })
        }
        _ => Fault::Read(read_fault(name, numbers)?),
    })
}

fn redirect(numbers: &Numbers) -> Option<Fault> {
    let [a, b, c, d] = [1, 2, 3, 4].map(|i| numbers.byte(i));
    let address = SocketAddr::from(([a?, b?, c?, d?], numbers.short(5)?));
    let places = vec![address.to_string()];
    Some(Fault::Login(LoginFault::Redirect(numbers.byte(0)?, places)))
}

fn announcement(numbers: &Numbers) -> Option<Announcement> {
    let plain = Announcement::of(numbers.byte(0)?);
    let parameters = match numbers.0.len() {
        1 => plain.parameters,
        _ => [numbers.short(1)?, numbers.short(2)?, numbers.short(3)?],
    };
    let sense = match numbers.0.len() {
        1 | 4 => None,
        _ => Some((numbers.byte(4)?, numbers.byte(5)?, numbers.byte(6)?)),
    };
    Some(Announcement {
        parameters,
        sense,
        ..plain
    })
}

fn read_fault(name: &str, numbers: &Numbers) -> Option<ReadFault> {
    let byte = |i| numbers.byte(i);
    Some(match name {
        "reset" => ReadFault::Reset(numbers.place(0)?),
        "short" => ReadFault::Short(numbers.at(0)?),
        "response" => ReadFault::Response(byte(0)?),
        "status" => ReadFault::Status(byte(0)?),
        "data-status" => ReadFault::DataStatus(byte(0)?),
        "sense" => ReadFault::Sense(byte(0)?, byte(1)?, byte(2)?),
        "sense-length" => ReadFault::SenseLength(numbers.short(0)?, numbers.short(1)?),
        "empty" => ReadFault::Empty(numbers.at(0)?),
        "opcode" => ReadFault::Opcode(byte(0)?),
        "forged" => {
            use ForgedTag::{Late, Live, Reserved, Unknown};
            let tags = [Live, Late, Unknown, Reserved];
            ReadFault::Forged(byte(0)?, *tags.get(numbers.place(1)?)?)
        }
        _ => return without_numbers(numbers, || plain_read_fault(name)),
    })
}

fn plain_read_fault(name: &str) -> Option<ReadFault> {
    Some(match name {
        "stall" => ReadFault::Stall,
        "nothing" => ReadFault::Nothing,
        "missing" => ReadFault::Missing,
        "hole" => ReadFault::Hole,
        "duplicate" => ReadFault::Duplicate,
        "overlap" => ReadFault::Overlap,
        "beyond" => ReadFault::Beyond,
        "wrap" => ReadFault::Wrap,
        "wrong-tag" => ReadFault::WrongTag,
        "late-tag" => ReadFault::LateTag,
        "data-sn" => ReadFault::DataSn,
        "acknowledge" => ReadFault::Acknowledge,
        "status-without-final" => ReadFault::StatusWithoutFinal,
        "residual" => ReadFault::Residual,
        "bad-sense" => ReadFault::BadSense,
        "stat-sn" => ReadFault::StatSn,
        "exp-data-sn" => ReadFault::ExpDataSn,
        "oversize" => ReadFault::Oversize,
        "additional-headers" => ReadFault::AdditionalHeaders,
        "r2t" => ReadFault::R2t,
        "reject" => ReadFault::Reject,
        "forged-reject" => ReadFault::ForgedReject,
        "forged-pong" => ReadFault::ForgedPong,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
