// SPDX-License-Identifier: GPL-2.0-only

//! The connection below the session.

use super::link::Link;
use crate::kapi::net::Socket;

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
