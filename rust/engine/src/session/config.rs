// SPDX-License-Identifier: GPL-2.0-only

//! What a session is told before it starts.

use core::fmt;

use super::isid;
use imgstream_proto::iscsi::digest::Policy;
use imgstream_proto::iscsi::inquiry::{Capacity, Designator};

/// Reads that can be outstanding at a time. 64 is LIO's default queue depth, and one machine word of flags.
pub const MAX_READS: usize = 64;
/// Longest read that can be submitted.
pub const MAX_READ_BYTES: u32 = 1 << 20;
/// Canary blocks that are compared on every connect.
pub const MAX_CANARIES: usize = 4;
/// Bytes of trailer and canary: one block of the image.
pub const BLOCK_BYTES: u32 = 4096;

/// An iSCSI name: 1 to 223 bytes (RFC 7143 section 4.2.7.1) of printable ASCII without spaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; Self::MAX_BYTES],
}

impl Name {
    /// Longest name.
    pub const MAX_BYTES: usize = 223;

    /// `name` if it can be one.
    pub fn new(name: &str) -> Option<Self> {
        let source = name.as_bytes();
        if !Self::fits(name) {
            return None;
        }
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..source.len())?.copy_from_slice(source);
        Some(Self {
            len: u8::try_from(source.len()).ok()?,
            bytes,
        })
    }

    /// Whether `name` can be one.
    pub(super) fn fits(name: &str) -> bool {
        (1..=Self::MAX_BYTES).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A block of the image and what it must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Number of the block (4096 bytes each).
    pub block: u64,
    /// CRC-32C of its contents.
    pub crc32c: u32,
}

/// Who and what must be found behind the portal on every connect.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Size of the logical unit in bytes.
    pub capacity_bytes: u64,
    /// Designator from page 0x83.
    pub designator: Designator,
    /// CRC-32C of the unit's last 4096 bytes.
    pub trailer_crc32c: Option<u32>,
    /// Blocks of the image to compare.
    pub canaries: [Option<Canary>; MAX_CANARIES],
}

/// What a session found out about the logical unit it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its size.
    pub capacity: Capacity,
    /// Its designator.
    pub designator: Designator,
}

/// Times, all in milliseconds. Each default is explained in Documentation/imgstream-protocol.rst.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A login, and each step of the identity check, must end within this time.
    pub login: u64,
    /// When nothing was received for this long, the target is pinged.
    pub ping_idle: u64,
    /// When nothing at all was received for this long after a ping, the connection is dropped.
    pub ping_answer: u64,
    /// When reads are outstanding and none of them was answered or got bytes worth mentioning for this long, the
    /// connection is dropped.
    pub progress: u64,
    /// When one read got no byte for `progress` and this long, although one that was sent after that was answered, the
    /// connection is dropped.
    pub starved: u64,
    /// When the target takes no command for this long although none is outstanding, or says that it is overloaded and
    /// answers nothing, the connection is dropped.
    pub window: u64,
    /// A target is asked again this long after it said that it is not ready.
    pub not_ready: u64,
    /// While anything is read, what is there is looked at again this long after the last time.
    pub recheck: u64,
    /// How long to wait for the answer to a logout.
    pub logout: u64,
    /// First pause before a reconnect; it doubles from failure to failure.
    pub backoff_min: u64,
    /// Longest pause before a reconnect.
    pub backoff_max: u64,
    /// Pause after a refusal that only a person can end: wrong image, login refused for good.
    pub backoff_refused: u64,
    /// A connection that was ready for this long counts as a success and ends the growth of the pauses.
    pub settled: u64,
}

impl Timing {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        login: 30_000,
        ping_idle: 15_000,
        ping_answer: 15_000,
        progress: 60_000,
        starved: 300_000,
        window: 120_000,
        not_ready: 1_000,
        recheck: 10_000,
        logout: 5_000,
        backoff_min: 500,
        backoff_max: 30_000,
        backoff_refused: 60_000,
        settled: 10_000,
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Everything a session is told.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Who asks.
    pub initiator_name: Name,
    /// Who is asked.
    pub target_name: Name,
    /// Number of the logical unit, up to 16383.
    pub lun: u64,
    /// Initiator's part of the session's name. The same for one installation, so that a new login ends what an earlier
    /// connection left behind (RFC 7143 section 6.3.5); different for sessions that run in parallel.
    pub isid: [u8; 6],
    /// Any number that differs between machines: spreads reconnects.
    pub seed: u64,
    /// CRC-32C (Castagnoli, reflected, inverted at both ends) of what the first argument is the CRC-32C of, followed by
    /// the second; 0 is that of nothing.
    pub crc32c: fn(u32, &[u8]) -> u32,
    /// Which digests are asked for.
    pub digests: Policy,
    /// What must be found. `None` on first contact: then the session only reports what there is.
    pub identity: Option<Identity>,
    /// Times.
    pub timing: Timing,
}

impl Config {
    /// That of one of several parallel sessions, counted from 0: under a name of its own, at a time of its own.
    pub fn of_session(&self, number: u8) -> Self {
        Self {
            isid: isid::session(self.isid, number),
            seed: self.seed.wrapping_add(u64::from(number) << 32),
            ..*self
        }
    }
}

/// Why a session cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The LUN is above 16383.
    Lun,
    /// The scratch memory is smaller than `SCRATCH_BYTES`.
    Scratch,
}
