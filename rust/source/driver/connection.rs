// SPDX-License-Identifier: GPL-2.0-only

//! The connection of the [`Driver`]: how it is made, lost, waited for and spoken of.

use super::Driver;
use crate::{
    kapi::{
        net::{
            Address,
            Socket,
            State, //
        },
        time::{
            now_ms,
            Pacer, //
        }, //
    },
    source::{
        errors::{
            is_local,
            reason_of, //
        },
        link::Link,
        status::{
            Line,
            Route, //
        },
        transport::Transport, //
    }, //
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    portals::End,
    session::{
        Complaint,
        Reason,
        Stage,
        CONNECT_TIMEOUT_MS, //
    }, //
};
use imgstream_proto::{
    abi::status::Connection,
    iscsi::digest::UNPROTECTED, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// At most one line every minute about sessions that are missing while others serve.
static MISSING: Pacer = Pacer::new(60_000);

impl Driver {
    pub(super) fn connect(&mut self, link: &Arc<Link>) {
        match &self.transport {
            Transport::Down { retry_at_ms } => {
                let due = *retry_at_ms <= now_ms();
                if !self.stands_by(link) && due {
                    self.begin_connect(link);
                }
            }
            Transport::Connecting { .. } => self.finish_connect(link),
            _ => {}
        }
    }

    /// Whether no connection is to be made yet. Once one was, the session reconnects by itself, whatever the others do.
    fn stands_by(&mut self, link: &Link) -> bool {
        if self.standby && link.is_wanted() && link.others_ready() {
            self.standby = false;
            self.down_since_ms = now_ms();
        }
        self.standby
    }

    /// Does what has changed since for this session: it is not wanted any more, or another one has met another image.
    pub(in crate::source) fn heed(&mut self, link: &Arc<Link>) {
        let doubts = link.links().doubts();
        if core::mem::replace(&mut self.doubts, doubts) != doubts {
            // It need not be at our portal, so this connection stays, and its image is checked beside the reads.
            self.session.suspect();
        }
        if !link.is_wanted() && !self.standby && !self.closing {
            self.stand_down(link);
        }
        let vacancies = link.links().vacancies();
        if core::mem::replace(&mut self.vacancies, vacancies) != vacancies && link.is_wanted() {
            self.hasten();
        }
    }

    /// Ends the session when nothing is under way any more. There may be another one later.
    fn stand_down(&mut self, link: &Arc<Link>) {
        let ready = self.session.stage() == Stage::Ready;
        if ready && self.active.iter().any(Option::is_some) {
            return;
        }
        self.standby = true;
        if ready {
            // Before the logout: it is not a connection that is lost.
            link.enter(Connection::Disconnected, None, Line::EMPTY);
            self.session.logout(now_ms());
        } else {
            self.drop_connection(link, Line::EMPTY);
        }
    }

    fn begin_connect(&mut self, link: &Arc<Link>) {
        let Some(portal) = self.portals.current() else {
            return;
        };
        let last = link.status().snapshot().reason;
        let route = Route {
            portal: Address(portal),
            redirected_by: self.portals.redirected_by().map(Address),
        };
        link.enter(Connection::Connecting, Some(route), last);
        match Socket::connect(route.portal, link.clone()) {
            Ok(socket) => {
                let until_ms = now_ms().saturating_add(CONNECT_TIMEOUT_MS);
                self.transport = Transport::Connecting { socket, until_ms };
                // It may be up already: then nobody wakes us.
                self.finish_connect(link);
            }
            Err(error) if is_local(error) => self.retry(link, reason_of(error), End::Local),
            Err(error) => self.connect_failed(link, reason_of(error)),
        }
    }

    fn finish_connect(&mut self, link: &Arc<Link>) {
        let Transport::Connecting { socket, until_ms } = &self.transport else {
            return;
        };
        let (state, error) = (socket.state(), socket.take_error());
        match (state, error) {
            (State::Connecting, Ok(())) if now_ms() < *until_ms => {}
            (State::Connecting, Ok(())) => self.connect_failed(link, Line::of("no answer")),
            (State::Established, Ok(())) => self.established(link),
            (State::Closed, Ok(())) => self.connect_failed(link, Line::of("connection closed")),
            (_, Err(error)) => self.connect_failed(link, reason_of(error)),
        }
    }

    fn established(&mut self, link: &Arc<Link>) {
        let closed = Transport::Closed;
        if let Transport::Connecting { socket, .. } =
            core::mem::replace(&mut self.transport, closed)
        {
            self.transport = Transport::Up(socket);
            self.session.connected(now_ms());
            let last = link.status().snapshot().reason;
            link.enter(Connection::Login, None, last);
        }
    }

    fn connect_failed(&mut self, link: &Arc<Link>, reason: Line) {
        self.session.connect_failed(now_ms());
        self.retry(link, reason, End::Failed);
    }

    /// The connection is of no use any more. Does nothing if there is none.
    pub(super) fn drop_connection(&mut self, link: &Arc<Link>, reason: Line) {
        self.leave(link, reason, End::Failed);
    }

    /// Ends the pause before the next attempt, if there is one.
    pub(in crate::source) fn hasten(&mut self) {
        if let Transport::Down { retry_at_ms } = &mut self.transport {
            *retry_at_ms = now_ms();
        }
    }

    /// The session has given the connection up.
    pub(super) fn disconnect(&mut self, link: &Arc<Link>, reason: Reason) {
        let line = Line::of(reason);
        if matches!(reason, Reason::WrongImage(_) | Reason::Exchanged { .. }) {
            self.doubts = link.links().doubt(link.number());
        }
        if matches!(reason, Reason::Exchanged { .. }) {
            let line = line.as_str();
            pr_err!(
                "{line}; what was read since then may be of that image, and is kept: roll back\n"
            );
        }
        self.leave(link, line, reason.into());
    }

    fn leave(&mut self, link: &Arc<Link>, reason: Line, end: End) {
        match self.transport {
            Transport::Closed => return,
            Transport::Down { .. } if !self.closing => return,
            _ => {}
        }
        let was_ready = link.status().ready();
        self.session.disconnected(now_ms());
        // The session has seen more than this one end.
        let reason = match self.session.last_reason() {
            Some(why @ Reason::Contested) => Line::of(why),
            _ => reason,
        };
        if was_ready && !self.closing {
            let counters = link.links().counters();
            counters.reconnects.fetch_add(1, Ordering::Relaxed);
            self.down_since_ms = now_ms();
            self.complaint = Complaint::new(self.down_since_ms);
        }
        self.retry(link, reason, end);
        if self.standby && !link.is_wanted() {
            link.links().vacate(link.number());
        }
    }

    /// Waits for the next attempt, or for nothing if there is none to be. Closes the socket.
    fn retry(&mut self, link: &Arc<Link>, reason: Line, end: End) {
        if self.closing {
            self.transport = Transport::Closed;
            link.enter(Connection::Closed, None, Line::EMPTY);
            return link.closed();
        }
        let pause_ms = self.session.backoff_ms();
        let next = self.portals.next(end, pause_ms, now_ms());
        let reason = match next.trouble {
            Some(trouble) => Line::of(Reason::BadRedirect(trouble)),
            None => reason,
        };
        self.transport = Transport::Down {
            retry_at_ms: next.at_ms,
        };
        link.enter(Connection::Disconnected, None, reason);
        let why = reason.as_str();
        if !why.is_empty() {
            // Each of them, where the status has the last one. Only a kernel with debug assertions says so.
            let number = link.number().saturating_add(1);
            pr_debug!("session {number} has no connection: {why}\n");
        }
        self.miss(link, reason);
    }

    /// Says once that this session is not there while others are.
    fn miss(&mut self, link: &Link, reason: Line) {
        let due = link.is_wanted() && link.others_ready();
        if self.told || self.standby || !due || MISSING.due().is_none() {
            return;
        }
        self.told = true;
        let (number, wanted) = (link.number().saturating_add(1), link.links().wanted());
        let reason = reason.as_str();
        pr_warn!("session {number} of {wanted} with the repository is missing: {reason}; the others go on, and it is tried again\n");
    }

    pub(super) fn ready(&mut self, link: &Arc<Link>) {
        self.portals.ready();
        link.enter(Connection::Ready, None, Line::EMPTY);
        let Some(portal) = self.portals.current().map(Address) else {
            return;
        };
        self.told = false;
        let seconds = now_ms().saturating_sub(self.down_since_ms) / 1000;
        let number = link.number().saturating_add(1);
        match self.portals.redirected_by().map(Address) {
            _ if number > 1 => {
                pr_info!("session {number} with the repository at {portal} after {seconds} s\n");
            }
            None => pr_info!("connected to the repository at {portal} after {seconds} s\n"),
            Some(by) => pr_info!(
                "connected to the repository at {portal}, where {by} sent us, after {seconds} s\n"
            ),
        }
        let digests = self.session.digests();
        if link.status().protected(digests) && !digests.data {
            pr_warn!("repository at {portal}: {UNPROTECTED}\n");
        }
    }

    /// Whether this is the session that says that reads wait.
    pub(super) fn may_complain(&self, link: &Link) -> bool {
        link.is_first() && !self.closing && !link.links().any_ready()
    }

    /// Says that reads wait, once a minute.
    pub(super) fn complain(&mut self, link: &Arc<Link>) {
        let now = now_ms();
        let links = link.links();
        let waiting = links.counters().demand_inflight.load(Ordering::Relaxed);
        if !self.may_complain(link) || now < self.complaint.due_ms() {
            return;
        }
        let snapshot = link.status().snapshot();
        let reason = snapshot.reason.as_str();
        if !self.complaint.take(now, !reason.is_empty()) {
            return;
        }
        let since_ms = self.down_since_ms.max(links.none_since_ms());
        let seconds = now.saturating_sub(since_ms) / 1000;
        if let Some(portal) = snapshot.portal {
            pr_warn!(
                "no connection to the repository at {portal} for {seconds} s: {reason}; reads waiting: {waiting}\n"
            );
        }
    }
}
