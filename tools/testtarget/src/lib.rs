// SPDX-License-Identifier: GPL-2.0-only

//! A scripted iSCSI target for tests: serves an image read-only, watches that the initiator keeps the rules, and plays
//! faults where a script says so.
//!
//! [`Connection`] is a state machine over bytes, so tests can drive it without sockets; [`Server`] puts it behind a
//! listening socket, and the program `imgstream-testtarget` puts that on the command line.

#![forbid(unsafe_code)]

mod chap;
mod connection;
mod digest;
mod discover;
mod fault;
mod foreign;
mod login;
mod read;
mod script;
mod scsi;
mod server;
mod store;
mod unasked;
mod wire;

pub use chap::{hash, Account, Chap, ChapLog};
pub use connection::Connection;
pub use digest::Willing;
pub use discover::TextFault;
pub use fault::{Announcement, Fault, ForgedTag, LoginFault, Plan, ReadFault};
pub use script::help;
pub use server::Server;
pub use store::Store;
pub use wire::{Damage, Ending, Phase};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use imgstream_proto::iscsi::bhs::LoginRequest;

/// How the target behaves, apart from faults.
#[derive(Clone)]
pub struct Settings {
    /// Name under which it serves its logical unit.
    pub target_name: String,
    /// Number of that unit; every other one does not exist.
    pub lun: u64,
    /// Value of the NAA designator of page 0x83; none: the page does not exist.
    pub designator: Option<[u8; 8]>,
    /// Size that is reported instead of the image's.
    pub capacity_bytes: Option<u64>,
    /// The last block that READ CAPACITY(16) names, whatever the size is.
    pub last_block: Option<u64>,
    /// Bytes of the image that cannot be read: MEDIUM ERROR, as behind the end of a file that is shorter than its unit.
    pub bad: Vec<Range<u64>>,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// Longest transfer in blocks that page 0xb0 tells; none: the page does not exist.
    pub max_transfer_blocks: Option<u32>,
    /// Longest data segment that it sends, within what the initiator declares.
    pub segment_bytes: u32,
    /// Its MaxBurstLength.
    pub max_burst_bytes: u32,
    /// Its DefaultTime2Wait in seconds.
    pub time2wait_s: u32,
    /// Time2Wait of its answer to a logout.
    pub logout_wait_s: u16,
    /// Commands that it takes at a time.
    pub window: u32,
    /// Its first StatSN.
    pub first_stat_sn: u32,
    /// Status comes in a SCSI Response of its own instead of in the last Data-In.
    pub separate_status: bool,
    /// Conditions (additional code, qualifier) that each connection reports first.
    pub attentions: Vec<(u8, u8)>,
    /// Whether headers get digests.
    pub header_digest: Willing,
    /// Whether data gets digests.
    pub data_digest: Willing,
    /// Login text is sent in pieces of this size (C bit).
    pub text_piece: Option<usize>,
    /// The first piece of each login text has this size; what follows is one piece, or several of `text_piece`.
    pub text_split: Option<usize>,
    /// What it offers: names and addresses.
    pub targets: Vec<(String, Vec<String>)>,
    /// Keys that the target proposes itself in the operational stage, before it agrees to its end.
    pub proposals: Vec<(String, String)>,
    /// Keys that it answers with something else than negotiation gives; an empty value leaves the answer out.
    pub answers: Vec<(String, String)>,
    /// Who may come in, and how the target proves who it is; none: everybody.
    pub chap: Option<Chap>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            target_name: "iqn.2026-11.test.imgstream:image".into(),
            lun: 1,
            designator: Some([0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x56]),
            capacity_bytes: None,
            last_block: None,
            bad: Vec::new(),
            block_bytes: 512,
            max_transfer_blocks: None,
            segment_bytes: 262_144,
            max_burst_bytes: 262_144,
            time2wait_s: 0,
            logout_wait_s: 0,
            window: 64,
            first_stat_sn: 1,
            separate_status: false,
            attentions: vec![(0x29, 0x00)],
            header_digest: Willing::Never,
            data_digest: Willing::Never,
            text_piece: None,
            text_split: None,
            targets: vec![("iqn.2026-11.test.imgstream:image".into(), Vec::new())],
            proposals: Vec::new(),
            answers: Vec::new(),
            chap: None,
        }
    }
}

/// The target: what outlives a connection.
pub struct Target {
    /// How it behaves. May be changed between connections.
    pub settings: Settings,
    /// What it serves. May be changed at any time, as happens behind real portals.
    pub store: Arc<dyn Store>,
    /// Other images, and from which connection on they are served.
    pub swaps: Vec<(u32, Arc<dyn Store>)>,
    /// Faults to play.
    pub plans: Vec<Plan>,
    /// Rules that initiators broke.
    pub violations: Vec<String>,
    /// Connections so far.
    pub connections: u32,
    /// Login requests so far, with their text.
    pub login_requests: Vec<(LoginRequest, Vec<u8>)>,
    /// Logins that came through so far.
    pub logins: u32,
    /// READ(16) commands so far.
    pub reads: u64,
    /// Answers to pings so far.
    pub pongs: u32,
    /// Pings of initiators so far.
    pub pings: u32,
    /// Logouts so far.
    pub logouts: u32,
    /// What it saw of CHAP.
    pub chap: ChapLog,
    /// Statuses sent that the last request did not acknowledge.
    pub unacknowledged: u32,
    /// The connection of each session, by initiator name and ISID.
    sessions: BTreeMap<(String, [u8; 6]), u32>,
    /// Connections of sessions that were ended by a new login of the same name.
    displaced: Vec<u32>,
    /// Most READ(16) commands that came in one go.
    pub deepest: u32,
}

impl Target {
    /// A target without faults.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            settings: Settings::default(),
            store,
            swaps: Vec::new(),
            plans: Vec::new(),
            violations: Vec::new(),
            connections: 0,
            login_requests: Vec::new(),
            logins: 0,
            reads: 0,
            pongs: 0,
            pings: 0,
            logouts: 0,
            chap: ChapLog::default(),
            unacknowledged: 0,
            sessions: BTreeMap::new(),
            displaced: Vec::new(),
            deepest: 0,
        }
    }

    /// Adds a fault.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Somebody connects.
    pub fn accept(&mut self) -> Connection {
        let number = self.connections;
        self.connections += 1;
        if let Some((_, store)) = self.swaps.iter().find(|(from, _)| *from == number) {
            self.store = Arc::clone(store);
        }
        Connection::new(number, &self.settings)
    }

    /// A login came through: it ends the session of the same name (RFC 7143 section 6.3.5).
    fn reinstate(&mut self, connection: u32, initiator: String, isid: [u8; 6]) {
        let old = self.sessions.insert((initiator, isid), connection);
        self.displaced.extend(old);
    }

    /// Connections that whoever carries the bytes has to close: their sessions were ended. Each is named once; some may be
    /// closed already.
    pub fn take_displaced(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.displaced)
    }

    /// The fault that is to be played at the `nth` event of its kind on a connection; it is used up by that.
    fn fire<T>(
        &mut self,
        connection: u32,
        nth: u32,
        pick: impl Fn(&Fault) -> Option<T>,
    ) -> Option<T> {
        self.fire_numbered(connection, |fault| Some((nth, pick(fault)?)))
    }

    /// The same where each fault has its own kind of event: `pick` says which one this is.
    fn fire_numbered<T>(
        &mut self,
        connection: u32,
        pick: impl Fn(&Fault) -> Option<(u32, T)>,
    ) -> Option<T> {
        let here =
            |plan: &&mut Plan| plan.times != 0 && plan.connection.is_none_or(|c| c == connection);
        let due = |plan: &mut Plan| {
            let (nth, fault) = pick(&plan.fault)?;
            plan.nth.is_none_or(|n| n == nth).then(|| {
                plan.times -= 1;
                fault
            })
        };
        self.plans.iter_mut().filter(here).find_map(due)
    }
}
