// SPDX-License-Identifier: GPL-2.0-only

//! Drives the session: bytes from the socket to it and back, reads to it, time to it.
//!
//! It decides nothing about the protocol. It follows the engine's choice of portals
//! ([`connection`]). What it does decide: in which order reads are submitted, and what is said on the console.

mod connection;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    errors::{
        errno_of,
        reason_of, //
    },
    fetch::{
        Fetch,
        FetchQueue,
        Priority, //
    },
    link::Link,
    repository::Repository,
    status::Line,
    transport::Transport, //
};
use crate::kapi::{
    crypto,
    errno::Errno,
    net::Received,
    time::{
        now_ms,
        Pacer, //
    }, //
};
use core::mem::MaybeUninit;
use imgstream_engine::{
    portals::Portals,
    session::{
        Complaint,
        Config,
        Credentials,
        Event,
        ReadError,
        ReadId,
        Session,
        Stage,
        SubmitError,
        Want,
        MAX_READS,
        SCRATCH_BYTES, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Bytes received until finished reads are reported.
const ROUND_BYTES: usize = 1 << 20;

/// Bytes that are asked for without anybody waiting: what a reader waits for at most before its own come, 20 ms of a
/// gigabit network.
const IDLE_BYTES: u64 = 2 << 20;

/// Reads that nobody waits for, so that readers always find a free one.
const IDLE_READS: usize = MAX_READS * 3 / 4;

/// At most one line every five seconds about reads that the target cannot answer.
static READ_ERRORS: Pacer = Pacer::new(5_000);

/// See the module. Protected by `Link::driver`.
pub(super) struct Driver {
    session: KBox<Session<KVec<u8>>>,
    transport: Transport,
    portals: Portals,
    /// The fetches that the session has, by `ReadId`.
    active: [Option<KBox<Fetch>>; MAX_READS],
    /// Set by `log_out`: the next end of the connection is the last one.
    closing: bool,
    /// No connection is to be made: not before another session is ready, so that where nothing can be reached, one session
    /// tries. Never of the first session.
    standby: bool,
    /// How often other sessions had met another image when this one looked last.
    doubts: u32,
    /// How often a session that is not wanted had ended when this one looked.
    vacancies: u32,
    /// It has been said that this session is missing.
    told: bool,
    /// When the connection was lost, or the start.
    down_since_ms: u64,
    complaint: Complaint,
}

/// A session in its place. On its way there it stands on the stack: 7 KiB of the 16 that there are. So this calls nobody
/// but the engine; an allocation could have to reclaim memory.
#[inline(never)]
fn session_in(
    place: KBox<MaybeUninit<Session<KVec<u8>>>>,
    config: &Config,
    number: u8,
    scratch: KVec<u8>,
) -> Result<KBox<Session<KVec<u8>>>> {
    let config = config.of_session(number);
    let session = Session::new(config, scratch).map_err(|_| EINVAL)?;
    Ok(KBox::write(place, session))
}

impl Driver {
    /// The driver of the session of that number: not connected, and due to. Needs half a stack (see [`session_in`]): not for
    /// whoever has used much of it.
    pub(super) fn new(repository: &Repository, number: u8) -> Result<KBox<Self>> {
        let scratch = KVec::from_elem(0, SCRATCH_BYTES, GFP_KERNEL)?;
        let place = KBox::new_uninit(GFP_KERNEL)?;
        let session = session_in(place, &repository.config, number, scratch)?;
        let mut this = Self::of(session, repository, number)?;
        if let Some(credentials) = &repository.credentials {
            this.authenticate(credentials);
        }
        Ok(this)
    }

    /// The same of a session in its place. A function of its own: its frame must not be there while [`session_in`] runs.
    #[inline(never)]
    fn of(
        session: KBox<Session<KVec<u8>>>,
        repository: &Repository,
        number: u8,
    ) -> Result<KBox<Self>> {
        let now = now_ms();
        let this = Self {
            session,
            transport: Transport::Down { retry_at_ms: now },
            portals: Portals::new(repository.portals.into_iter().flatten()),
            active: [const { None }; MAX_READS],
            closing: false,
            standby: number != 0,
            doubts: 0,
            vacancies: 0,
            told: false,
            down_since_ms: now,
            complaint: Complaint::new(now),
        };
        Ok(KBox::new(this, GFP_KERNEL)?)
    }

    /// How both sides prove who they are.
    // Its frame must not be there while `session_in` runs.
    #[inline(never)]
    fn authenticate(&mut self, credentials: &Credentials) {
        let crypto = crypto::chap();
        for name in crypto.missing() {
            pr_notice!("this kernel has no {name}: CHAP goes without, and the target needs another algorithm\n");
        }
        self.session.authenticate(credentials, crypto);
    }

    /// Does what can be done without waiting. Returns whether there is more to do at once.
    pub(super) fn round(&mut self, link: &Arc<Link>, ended: &mut FetchQueue) -> bool {
        self.heed(link);
        self.connect(link);
        let more = self.receive(link, ended);
        let now = now_ms();
        if self.session.deadline().is_some_and(|due| due <= now) {
            self.session.tick(now);
        }
        self.take_events(link, ended);
        self.submit(link, ended);
        self.transmit(link);
        self.take_events(link, ended);
        self.hand_over(link);
        self.complain(link);
        more
    }

    /// When to run again at the latest.
    pub(super) fn due(&self, link: &Link) -> Option<u64> {
        let transport = match self.transport {
            // Another one that gets ready wakes us; if one is, nobody does.
            Transport::Down { .. }
                if self.standby && !(link.is_wanted() && link.others_ready()) =>
            {
                None
            }
            Transport::Down { retry_at_ms } => Some(retry_at_ms),
            Transport::Connecting { until_ms, .. } => Some(until_ms),
            Transport::Up(_) => None,
            Transport::Closed => return None,
        };
        let complaint = self.may_complain(link).then_some(self.complaint.due_ms());
        [transport, complaint, self.session.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Begins the end: a logout if there is nothing under way, else the end itself.
    pub(super) fn log_out(&mut self, link: &Arc<Link>) {
        self.closing = true;
        let quiet = self.active.iter().all(Option::is_none);
        if quiet
            && matches!(self.transport, Transport::Up(_))
            && self.session.stage() == Stage::Ready
        {
            self.session.logout(now_ms());
        } else {
            self.drop_connection(link, Line::EMPTY);
        }
    }

    /// The end: no connection any more, and no fetch, neither put back from now on.
    pub(super) fn close(&mut self, link: &Arc<Link>, ended: &mut FetchQueue) {
        self.closing = true;
        self.drop_connection(link, Line::EMPTY);
        for fetch in self.active.iter_mut().filter_map(Option::take) {
            link.links().end(fetch, Err(Errno::Shutdown.into()), ended);
        }
    }

    /// Somebody waits for the active fetch at `lba_bytes`; whether there is one that nobody waited for.
    pub(super) fn hurry(&mut self, lba_bytes: u64) -> bool {
        let mut active = self.active.iter_mut().flatten();
        let found =
            active.find(|fetch| fetch.lba_bytes == lba_bytes && fetch.priority != Priority::Demand);
        found
            .map(|fetch| fetch.priority = Priority::Demand)
            .is_some()
    }

    /// Receives and tells the session. Returns whether there may be more.
    fn receive(&mut self, link: &Arc<Link>, ended: &mut FetchQueue) -> bool {
        let mut bytes = 0;
        while bytes < ROUND_BYTES {
            match self.receive_some() {
                Ok(Received::Bytes(some)) => {
                    bytes = bytes.saturating_add(some);
                    let now = now_ms();
                    link.links().heard(link.number(), now);
                    self.session.got(some, now);
                    self.take_events(link, ended);
                }
                Ok(Received::Nothing) => return false,
                Ok(Received::End) => {
                    self.drop_connection(link, Line::of("the target closed the connection"));
                    return false;
                }
                Err(error) => {
                    self.drop_connection(link, reason_of(error));
                    return false;
                }
            }
        }
        true
    }

    fn receive_some(&mut self) -> Result<Received> {
        let Transport::Up(socket) = &self.transport else {
            return Ok(Received::Nothing);
        };
        match self.session.want() {
            Want::Nothing => Ok(Received::Nothing),
            Want::Control(buffer) => socket.receive(buffer),
            Want::Data {
                id,
                offset,
                len,
                crc,
            } => {
                let fetch = self.active.get(usize::from(id.0)).and_then(Option::as_ref);
                let buf = &fetch.ok_or(Errno::Protocol)?.buf;
                let offset = offset as usize;
                let received = socket.receive_pages(buf, offset, len as usize)?;
                // Now they are in the cache. Nobody else writes to these pages: what is checked is what is kept.
                if let (Some(crc), Received::Bytes(bytes)) = (crc, received) {
                    self.session.checked(buf.crc32c(crc, offset, bytes)?);
                }
                Ok(received)
            }
        }
    }

    fn take_events(&mut self, link: &Arc<Link>, ended: &mut FetchQueue) {
        while let Some(event) = self.session.event() {
            match event {
                Event::Ready(_) => self.ready(link),
                // Only of discovery sessions.
                Event::Discovered => {}
                Event::ReadDone { id, result } => self.read_done(link, id, result, ended),
                Event::Disconnect(reason) => self.disconnect(link, reason),
            }
        }
    }

    fn read_done(
        &mut self,
        link: &Arc<Link>,
        id: ReadId,
        result: Result<(), ReadError>,
        ended: &mut FetchQueue,
    ) {
        let slot = self.active.get_mut(usize::from(id.0));
        let Some(fetch) = slot.and_then(Option::take) else {
            return;
        };
        let result = result.map_err(|error| {
            if let Some(more) = READ_ERRORS.due() {
                let (at, error) = (fetch.lba_bytes, Line::of(error));
                let error = error.as_str();
                pr_err!(
                    "the repository cannot be read at byte {at}: {error} ({more} more before)\n"
                );
            }
            errno_of(error)
        });
        link.links().end(fetch, result, ended);
    }

    /// Gives the session what it can take, the most urgent first.
    fn submit(&mut self, link: &Arc<Link>, ended: &mut FetchQueue) {
        if !self.post(link) {
            return;
        }
        let links = link.links();
        while let Some(id) = self.active.iter().position(Option::is_none) {
            let Some(fetch) = links.next(link.number(), self.may_idle()) else {
                return;
            };
            let read = ReadId(u16::try_from(id).unwrap_or(u16::MAX));
            let (at, len, strikes) = (fetch.lba_bytes, fetch.len(), fetch.strikes);
            match self.session.submit_again(read, at, len, strikes) {
                Ok(()) => {
                    if let Some(slot) = self.active.get_mut(id) {
                        *slot = Some(fetch);
                    }
                    if !self.post(link) {
                        return;
                    }
                }
                Err(SubmitError::Busy) => return links.put_back(fetch),
                Err(_) => links.end(fetch, Err(EINVAL), ended),
            }
        }
    }

    /// Says what this link has under way. Whether it can take more.
    fn post(&self, link: &Link) -> bool {
        let serves = self.session.stage() == Stage::Ready && !self.closing && link.is_wanted();
        let able = serves && self.active.iter().any(Option::is_none);
        let bytes = |sum: u64, fetch: &KBox<Fetch>| sum.saturating_add(fetch.len().into());
        let bytes = able.then(|| self.active.iter().flatten().fold(0, bytes));
        link.links().post(link.number(), bytes);
        able
    }

    /// Puts back what is not at the target where another session can take it at once, or where this one is not wanted any more.
    /// Without others it stays, and is issued again on the next connection.
    ///
    /// A read is at the target of one session at most: the session of this one forgets it before it is put back, and does so
    /// only if no command of it is out. Nothing that still comes finds its pages: they go along.
    fn hand_over(&mut self, link: &Arc<Link>) {
        let leaves = link.others_ready() || !link.is_wanted();
        if self.session.stage() == Stage::Ready || self.closing || !leaves {
            return;
        }
        let links = link.links();
        // Each is put in front of those before it, so that the first one is the first again.
        for (id, slot) in self.active.iter_mut().enumerate().rev() {
            let read = ReadId(u16::try_from(id).unwrap_or(u16::MAX));
            // A session that there is not to be has no next connection.
            let keeps = || link.is_wanted() && self.session.keeps(read, now_ms());
            if slot.is_none() || keeps() {
                continue;
            }
            let Some(strikes) = self.session.take_back(read) else {
                continue;
            };
            if let Some(mut fetch) = slot.take() {
                fetch.strikes = strikes;
                links.put_back(fetch);
            }
        }
        links.wake_turn();
    }

    /// Whether something may be asked for that nobody waits for.
    fn may_idle(&self) -> bool {
        let mut reads: usize = 0;
        let mut idle_bytes: u64 = 0;
        for fetch in self.active.iter().flatten() {
            reads = reads.saturating_add(1);
            if fetch.priority != Priority::Demand {
                idle_bytes = idle_bytes.saturating_add(fetch.len().into());
            }
        }
        reads < IDLE_READS && idle_bytes < IDLE_BYTES
    }

    fn transmit(&mut self, link: &Arc<Link>) {
        let Transport::Up(socket) = &self.transport else {
            return;
        };
        loop {
            let out = self.session.out();
            if out.is_empty() {
                return;
            }
            match socket.send(out) {
                Ok(0) => return,
                Ok(sent) => self.session.sent(sent),
                Err(error) => return self.drop_connection(link, reason_of(error)),
            }
        }
    }
}
