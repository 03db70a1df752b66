// SPDX-License-Identifier: GPL-2.0-only

//! The iSCSI initiator as a state machine without I/O: login, negotiation, identity check, command window, reads,
//! pings, and the one reaction to everything that goes wrong.
//!
//! A driver owns the socket. It sends what [`Session::out`] holds, receives what [`Session::want`] asks for, and hands
//! over the time. The data of a read goes straight from the socket into the driver's buffer of that read; the session
//! only counts, and is told the checksum where data digests are in effect.
//!
//! ```text
//!            connected        login done        identity right
//!   Down ───────────────► Login ───────► Identify ───────► Ready ──logout()──► Logout
//!    ▲                      │               │                │                    │
//!    └──────────────────────┴───────────────┴────────────────┴────────────────────┘
//!      disconnected(), or Event::Disconnect after any violation, timeout, mismatch
//! ```
//!
//! The one reaction: whatever a target does wrong, the connection is dropped, the next one logs in from zero, and every
//! read that is outstanding is issued again from its first byte, under a new tag (RFC 7143 section 7.15 with
//! ErrorRecoveryLevel 0). Reads have no side effects, so this is always safe, and there is one path to test.
//! Nothing that was received is valid before [`Event::ReadDone`] says so.

mod backoff;
mod chap;
mod complaint;
mod config;
mod credentials;
mod digest;
mod discover;
mod events;
mod full;
mod history;
mod identify;
pub mod isid;
mod login;
mod reads;
mod reason;
mod receive;
mod recheck;
mod redirect;
mod seen;
mod send;
mod timers;
mod transfer;
mod verdict;

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::lun_field;
use imgstream_proto::iscsi::inquiry::Capacity;
use imgstream_proto::iscsi::sense::key;
use imgstream_proto::iscsi::sna::Sna;

pub use complaint::Complaint;
pub use config::{
    Canary, Config, ConfigError, Facts, Identity, Name, Timing, BLOCK_BYTES, MAX_CANARIES,
    MAX_READS, MAX_READ_BYTES,
};
pub use credentials::{Account, Credentials, Crypto, Hash, Unfit};
pub use discover::{Found, Targets, DISCOVERY_BYTES, MAX_LIST_BYTES};
pub use reason::{ChapFault, Mismatch, ReadError, Reason, Violation};
pub use redirect::{Redirect, RedirectError};

use backoff::Backoff;
use chap::Chap;
use discover::Discover;
use history::History;
use identify::Identify;
use isid::SessionName;
use login::{Kind, Login};
use reads::Reads;
use receive::Receive;
use recheck::Recheck;
use send::Outbox;

/// Scratch memory that a session needs: login text or the answer to an identity command, other data segments, and
/// what is to be sent.
pub const SCRATCH_BYTES: usize = INPUT_BYTES + AUX_BYTES + OUT_BYTES;
/// Login text (RFC 7143 section 6.1: at least 8192 bytes must be taken), or what an identity command brings.
const INPUT_BYTES: usize = 12 << 10;
/// Sense data, what a Reject quotes, and everything that is thrown away; during a login what CHAP hashes.
const AUX_BYTES: usize = 4 << 10;
const _: () = assert!(AUX_BYTES >= chap::MESSAGE_BYTES);
/// PDUs to be sent: 78 commands with their digests, or one login request.
const OUT_BYTES: usize = 4 << 10;

/// How long a driver should let TCP try to connect.
pub const CONNECT_TIMEOUT_MS: u64 = 15_000;

/// The driver's name of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadId(pub u16);

/// How often a read has ended a connection: whoever takes it to another session takes this along, or a read that a target
/// answers wrongly would never fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strikes(u8);

impl Strikes {
    /// Never yet.
    pub const NONE: Self = Self(0);
}

/// Why a read was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// `MAX_READS` are outstanding, or one of this name is.
    Busy,
    /// Length or place is no multiple of 512, or the length is 0 or above `MAX_READ_BYTES`.
    Invalid,
}

/// What to receive next.
#[derive(Debug)]
pub enum Want<'a> {
    /// Nothing: leave the socket alone.
    Nothing,
    /// Up to this many bytes, here.
    Control(&'a mut [u8]),
    /// Up to `len` bytes, into the buffer of a read.
    Data {
        /// Which read.
        id: ReadId,
        /// Where in its buffer.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// A data digest is in effect: the CRC-32C of what came before of this PDU. Whoever receives goes on with it and
        /// tells [`Session::checked`].
        crc: Option<u32>,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login is through, and this is the right image.
    Ready(Facts),
    /// The list of targets is there: [`Session::targets`].
    Discovered,
    /// A read has ended; its buffer is valid if the result is `Ok`.
    ReadDone {
        /// Which read.
        id: ReadId,
        /// How it ended.
        result: Result<(), ReadError>,
    },
    /// Close the socket, call [`Session::disconnected`], and connect again after [`Session::backoff_ms`].
    Disconnect(Reason),
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection.
    Down,
    /// Logging in.
    Login,
    /// Looking at what is there.
    Identify,
    /// Reads are served.
    Ready,
    /// Asking for targets.
    Discover,
    /// Logging out.
    Logout,
}

/// Sequence numbers (RFC 7143 section 4.2.2).
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Of the next command that is not immediate.
    cmd_sn: Sna,
    exp_cmd_sn: Sna,
    max_cmd_sn: Sna,
    exp_stat_sn: Sna,
}

impl Numbers {
    /// Takes the target's window over (4.2.2.1): values that contradict each other are ignored, others only move on.
    fn update_window(&mut self, exp: Sna, max: Sna) {
        if max.before(exp.prev()) {
            return;
        }
        if self.exp_cmd_sn.before(exp) {
            self.exp_cmd_sn = exp;
        }
        if self.max_cmd_sn.before(max) {
            self.max_cmd_sn = max;
        }
    }

    /// Whether the target takes another command.
    fn window_open(&self) -> bool {
        self.cmd_sn.not_after(self.max_cmd_sn)
    }

    /// A PDU that carries a status has come (4.2.2.2). At ErrorRecoveryLevel 0 a gap cannot be filled.
    fn take_status(&mut self, found: u32) -> Result<(), Reason> {
        if found != self.exp_stat_sn.0 {
            let expected = self.exp_stat_sn.0;
            return Err(Reason::Protocol(Violation::StatSn { expected, found }));
        }
        self.exp_stat_sn = self.exp_stat_sn.next();
        Ok(())
    }
}

/// One session over one connection at a time.
#[derive(Debug)]
pub struct Session<B> {
    config: Config,
    scratch: B,
    lun: [u8; 8],
    now: u64,
    stage: Stage,
    /// `Ready` has not been told yet.
    tell_ready: bool,
    /// The end of the connection has not been told yet.
    tell_end: bool,
    last_reason: Option<Reason>,
    facts: Option<Facts>,
    numbers: Numbers,
    /// Upper part of the next tag: no tag is used twice until 2^24 others were (4.2.5.3, 11.2.1.8).
    generation: u32,
    login: Login,
    /// Under which name the next login asks.
    name: SessionName,
    /// The portal group that the next login has to find.
    group: Option<u16>,
    login_tag: u32,
    /// Without it no authentication is offered, with it no login comes through without.
    chap: Option<Chap>,
    identify: Identify,
    /// This is a discovery session.
    discover: Option<Discover>,
    recheck: Recheck,
    reads: Reads,
    receive: Receive,
    send: Outbox,
    flow: timers::Flow,
    clock: timers::Clock,
    backoff: Backoff,
    history: History,
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// A session without a connection. `scratch` needs [`SCRATCH_BYTES`].
    ///
    /// The value is some kilobytes large: keep it in a box.
    pub fn new(config: Config, scratch: B) -> Result<Self, ConfigError> {
        let lun = lun_field(config.lun).ok_or(ConfigError::Lun)?;
        if scratch.len() < SCRATCH_BYTES {
            return Err(ConfigError::Scratch);
        }
        Ok(Self {
            lun,
            now: 0,
            stage: Stage::Down,
            tell_ready: false,
            tell_end: false,
            last_reason: None,
            facts: None,
            numbers: Numbers::default(),
            generation: 0,
            login: Login::new(config.digests),
            name: SessionName::new(config.isid),
            group: None,
            login_tag: 0,
            chap: None,
            identify: Identify::new(),
            discover: None,
            recheck: Recheck::new(),
            reads: Reads::new(),
            receive: Receive::new(),
            send: Outbox::new(),
            flow: timers::Flow::new(),
            clock: timers::Clock::new(),
            backoff: Backoff::new(config.seed),
            history: History::new(),
            config,
            scratch,
        })
    }

    /// The socket is connected: the login begins.
    pub fn connected(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        self.reset();
        self.stage = Stage::Login;
        self.clock.start(self.now);
        if let Err(reason) = self.begin_login() {
            self.end(reason);
        }
    }

    /// The socket could not be connected.
    pub fn connect_failed(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        self.last_reason = Some(Reason::Lost);
        self.backoff.failed(&self.config.timing, false, 0);
    }

    /// The socket is gone. Reads stay and are issued again on the next connection.
    pub fn disconnected(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        if self.stage != Stage::Down {
            self.end(Reason::Lost);
        }
        self.tell_end = false;
    }

    /// Reads `len` bytes from byte `lba_bytes` of the logical unit. May be called at any time.
    pub fn submit(&mut self, id: ReadId, lba_bytes: u64, len: u32) -> Result<(), SubmitError> {
        self.submit_again(id, lba_bytes, len, Strikes::NONE)
    }

    /// The same for a read that another session may have had.
    pub fn submit_again(
        &mut self,
        id: ReadId,
        lba_bytes: u64,
        len: u32,
        strikes: Strikes,
    ) -> Result<(), SubmitError> {
        if len == 0 || len > MAX_READ_BYTES || len % 512 != 0 || lba_bytes % 512 != 0 {
            return Err(SubmitError::Invalid);
        }
        self.reads
            .add(id, lba_bytes, len, strikes)
            .ok_or(SubmitError::Busy)
    }

    /// Takes a read back, for [`submit_again`](Self::submit_again) to another session: nothing of it is at the target, and
    /// its end will not be told. `None` if that cannot be promised, as while a command of it is at the target, or there is no
    /// such read. Without a connection it can, of every read whose end was not told yet.
    pub fn take_back(&mut self, id: ReadId) -> Option<Strikes> {
        self.reads.remove(id)
    }

    /// Whether a read has ended the last connection, less than a minute ago: it is to be tried again here, not by another
    /// session at once.
    pub fn keeps(&self, id: ReadId, now_ms: u64) -> bool {
        self.reads.has_struck(id, now_ms)
    }

    /// The next event. Call until there is none after everything that moves the session on.
    pub fn event(&mut self) -> Option<Event> {
        if self.tell_ready {
            self.tell_ready = false;
            return self.facts.map(Event::Ready);
        }
        if self.list_is_new() {
            return Some(Event::Discovered);
        }
        if let Some((id, result)) = self.reads.pop_done() {
            return Some(Event::ReadDone { id, result });
        }
        if self.tell_end {
            self.tell_end = false;
            return self.last_reason.map(Event::Disconnect);
        }
        None
    }

    /// Ends the session in an orderly way; the end is told as an event.
    pub fn logout(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        match self.stage {
            Stage::Identify | Stage::Ready | Stage::Discover => {
                self.begin_logout(Reason::LoggedOut)
            }
            Stage::Login => self.end(Reason::LoggedOut),
            Stage::Down | Stage::Logout => {}
        }
    }

    /// What must be found from the next connection on.
    pub fn expect(&mut self, identity: Identity) {
        self.config.identity = Some(identity);
    }

    /// How both sides prove who they are, from the next connection on. From then on no login comes through without.
    pub fn authenticate(&mut self, credentials: &Credentials, crypto: Crypto) {
        self.chap.insert(Chap::new(crypto)).use_as(credentials);
    }

    /// The portal group that discovery named for the portal that is connected to next; `None` if it named none.
    pub fn expect_group(&mut self, group: Option<u16>) {
        self.group = group;
    }

    /// Where the session is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What is known of the logical unit.
    pub fn facts(&self) -> Option<Facts> {
        self.facts
    }

    /// Why the last connection ended.
    pub fn last_reason(&self) -> Option<Reason> {
        self.last_reason
    }

    /// How long to wait before the next connection.
    pub fn backoff_ms(&self) -> u64 {
        self.backoff.pause_ms()
    }

    /// Reads that were submitted and not yet handed back.
    pub fn outstanding(&self) -> usize {
        self.reads.outstanding()
    }

    fn set_now(&mut self, now_ms: u64) {
        self.now = self.now.max(now_ms);
    }

    /// Forgets everything that belongs to a connection.
    fn reset(&mut self) {
        self.reads.start_over();
        self.numbers = Numbers {
            cmd_sn: Sna(1),
            exp_cmd_sn: Sna(1),
            ..Numbers::default()
        };
        let kind = match self.discover {
            Some(_) => Kind::Discovery,
            None => Kind::Normal,
        };
        self.login = Login::new(self.config.digests)
            .of_kind(kind)
            .in_group(self.group);
        self.identify = Identify::new();
        self.recheck = Recheck::new();
        self.receive = Receive::new();
        self.send = Outbox::new();
        self.flow = timers::Flow::new();
        self.tell_ready = false;
        self.tell_end = false;
    }

    /// The one reaction.
    fn end(&mut self, reason: Reason) {
        let reason = self.judge_history(reason);
        // 13.15: what the target asked for goes before our own haste.
        let floor_ms = u64::from(self.login.agreed().time2wait_s).saturating_mul(1000);
        let floor_ms = if self.stage == Stage::Login {
            0
        } else {
            floor_ms
        };
        self.backoff
            .failed(&self.config.timing, reason.is_slow(), floor_ms);
        self.name.ended(self.stage, &reason);
        self.reset();
        self.stage = Stage::Down;
        self.last_reason = Some(reason);
        self.tell_end = true;
    }

    /// The connection ends because of what the target did to one read.
    fn end_because_of(&mut self, read: usize, reason: Reason) {
        let its_fault = match reason {
            Reason::Protocol(_) | Reason::Condition(_) | Reason::Rejected(_) => true,
            Reason::Changed(sense) => sense.key == key::ILLEGAL_REQUEST,
            _ => false,
        };
        if its_fault && self.reads.strike(read, self.now) {
            self.history.culprit_is_gone();
        }
        self.end(reason);
    }

    /// A new tag whose lowest byte is `low`, which tells whose it is. Never the reserved one.
    fn new_tag(&mut self, low: u8) -> u32 {
        self.generation = self.generation.wrapping_add(1) & 0x00ff_ffff;
        (self.generation << 8) | u32::from(low)
    }

    /// The session is through the login and the identity check, or through one more of those.
    fn become_ready(&mut self, capacity: Capacity) {
        self.recheck.right(self.now);
        if self.stage == Stage::Ready {
            return;
        }
        self.facts = Some(Facts {
            capacity,
            designator: self.identify.designator(),
        });
        self.stage = Stage::Ready;
        self.tell_ready = true;
        self.clock.ready(self.now);
    }
}

#[cfg(test)]
mod tests;
