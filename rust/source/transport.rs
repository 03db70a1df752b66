// SPDX-License-Identifier: GPL-2.0-only

//! The connection below the session, and which portal is next.

use super::link::Link;
use crate::kapi::net::{
    Address,
    Socket, //
};
use imgstream_proto::disk::superblock::PORTALS;

/// The connection.
pub(super) enum Transport {
    /// None; the next attempt is due then.
    Down {
        /// On our clock.
        retry_at_ms: u64,
    },
    /// The other side has not answered yet.
    Connecting {
        /// The socket.
        socket: Socket<Link>,
        /// When to give up.
        until_ms: u64,
    },
    /// Bytes go both ways.
    Up(Socket<Link>),
    /// None, and never again.
    Closed,
}

/// The portals, one after the other.
pub(super) struct Portals {
    all: [Option<Address>; PORTALS],
    current: usize,
}

impl Portals {
    /// Starts with the first one.
    pub(super) const fn new(all: [Option<Address>; PORTALS]) -> Self {
        Self { all, current: 0 }
    }

    /// The one in use or to be tried now.
    pub(super) fn current(&self) -> Option<Address> {
        self.all.iter().flatten().nth(self.current).copied()
    }

    /// Goes on to the next one. Returns whether all have been tried, so that a pause is due.
    pub(super) fn advance(&mut self) -> bool {
        let count = self.all.iter().flatten().count();
        self.current = self.current.saturating_add(1);
        if self.current >= count {
            self.current = 0;
        }
        self.current == 0
    }
}
