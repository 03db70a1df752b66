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
        time::now_ms, //
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

impl Driver {
    pub(super) fn connect(&mut self, link: &Arc<Link>) {
        match &self.transport {
            Transport::Down { retry_at_ms } if *retry_at_ms <= now_ms() => self.begin_connect(link),
            Transport::Connecting { .. } => self.finish_connect(link),
            _ => {}
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
        link.status()
            .enter(Connection::Connecting, Some(route), last);
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
            link.status().enter(Connection::Login, None, last);
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
            let counters = link.status().counters();
            counters.reconnects.fetch_add(1, Ordering::Relaxed);
            self.down_since_ms = now_ms();
            self.complaint = Complaint::new(self.down_since_ms);
        }
        self.retry(link, reason, end);
    }

    /// Waits for the next attempt, or for nothing if there is none to be. Closes the socket.
    fn retry(&mut self, link: &Arc<Link>, reason: Line, end: End) {
        if self.closing {
            self.transport = Transport::Closed;
            link.status().enter(Connection::Closed, None, Line::EMPTY);
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
        link.status().enter(Connection::Disconnected, None, reason);
    }

    pub(super) fn ready(&mut self, link: &Arc<Link>) {
        self.portals.ready();
        link.status().enter(Connection::Ready, None, Line::EMPTY);
        let Some(portal) = self.portals.current().map(Address) else {
            return;
        };
        let seconds = now_ms().saturating_sub(self.down_since_ms) / 1000;
        match self.portals.redirected_by().map(Address) {
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

    /// Says that reads wait, once a minute.
    pub(super) fn complain(&mut self, link: &Arc<Link>) {
        let now = now_ms();
        let waiting = link
            .status()
            .counters()
            .demand_inflight
            .load(Ordering::Relaxed);
        if self.closing || link.status().ready() || now < self.complaint.due_ms() {
            return;
        }
        let snapshot = link.status().snapshot();
        let reason = snapshot.reason.as_str();
        if !self.complaint.take(now, !reason.is_empty()) {
            return;
        }
        let seconds = now.saturating_sub(self.down_since_ms) / 1000;
        if let Some(portal) = snapshot.portal {
            pr_warn!(
                "no connection to the repository at {portal} for {seconds} s: {reason}; reads waiting: {waiting}\n"
            );
        }
    }
}
