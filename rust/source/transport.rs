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

#[kernel::prelude::kunit_tests(imgstream_transport)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use core::net::{
        Ipv4Addr,
        SocketAddr,
        SocketAddrV4, //
    };

    /// Portals of which the first `count` are there, told apart by their ports.
    fn portals(count: usize) -> Portals {
        let mut all = [None; PORTALS];
        for (port, portal) in (0..).zip(all.iter_mut().take(count)) {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            *portal = Some(Address(SocketAddr::V4(address)));
        }
        Portals::new(all)
    }

    fn port(portals: &Portals) -> Option<usize> {
        portals.current().map(|portal| portal.0.port().into())
    }

    #[test]
    fn each_portal_has_its_turn_and_then_a_pause_is_due() {
        assert!(every(1..=PORTALS, |&count| {
            let mut portals = portals(count);
            (0..3 * count).all(|turn| {
                let right = port(&portals) == Some(turn % count);
                right && portals.advance() == ((turn + 1) % count == 0)
            })
        }));
    }

    #[test]
    fn without_portals_a_pause_is_always_due() {
        let mut portals = portals(0);
        assert!((0..3).all(|_| port(&portals).is_none() && portals.advance()));
    }
}
