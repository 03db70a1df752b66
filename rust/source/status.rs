// SPDX-License-Identifier: GPL-2.0-only

//! What the world may know about the connection: read by sysfs while the connection is at work.

use crate::kapi::{
    net::Address,
    sync::{
        new_irq_spinlock,
        IrqSpinLock, //
    },
    time::now_ms, //
};
use core::{
    fmt::Write,
    sync::atomic::AtomicU64, //
};
use imgstream_proto::{
    abi::status::Connection,
    iscsi::digest::Digests, //
};
use kernel::prelude::*;

/// Bytes of a [`Line`]. The longest sentence of `session::Reason` has about 110.
const LINE_BYTES: usize = 160;

/// A sentence, cut off if it is too long.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    /// Nothing to say.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; LINE_BYTES],
        len: 0,
    };

    /// What `what` displays.
    pub(crate) fn of(what: impl core::fmt::Display) -> Self {
        let mut line = Self::EMPTY;
        // Writing here does not fail: what is too long is cut off.
        let _ = write!(line, "{what}");
        line
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        // The longest beginning that fits and does not end within a character.
        let end = (0..=room.len().min(text.len()))
            .rev()
            .find(|&at| text.is_char_boundary(at));
        let from = end
            .and_then(|end| text.as_bytes().get(..end))
            .unwrap_or(&[]);
        if let Some(to) = room.get_mut(..from.len()) {
            to.copy_from_slice(from);
            self.len = self.len.saturating_add(from.len());
        }
        Ok(())
    }
}

/// With whom a connection is.
#[derive(Clone, Copy)]
pub(super) struct Route {
    /// The portal.
    pub(super) portal: Address,
    /// The configured portal that sent us there.
    pub(super) redirected_by: Option<Address>,
}

/// The connection at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot {
    /// What it does.
    pub(crate) connection: Connection,
    /// Since when, on our clock.
    pub(crate) since_ms: u64,
    /// With whom.
    pub(crate) portal: Option<Address>,
    /// Who sent us there.
    pub(crate) redirected_by: Option<Address>,
    /// Why it is not ready.
    pub(crate) reason: Line,
    /// What it protects, or the last one that was ready did.
    pub(crate) digests: Option<Digests>,
}

impl Snapshot {
    /// Nothing has happened yet.
    pub(crate) const EMPTY: Self = Self {
        connection: Connection::Disconnected,
        since_ms: 0,
        portal: None,
        redirected_by: None,
        reason: Line::EMPTY,
        digests: None,
    };

    /// Whether reads are answered.
    pub(super) fn is_ready(&self) -> bool {
        self.connection == Connection::Ready
    }

    /// This one, beside another session that is ready: what both protect.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.digests = match (self.digests, other.digests) {
            (Some(one), Some(two)) => Some(Digests {
                header: one.header && two.header,
                data: one.data && two.data,
            }),
            (one, two) => one.or(two),
        };
        self
    }
}

/// Counters of all sessions together, since the start; each only grows, but for the first two.
#[derive(Default)]
pub(crate) struct Counters {
    /// Fetches that have not ended.
    pub(crate) fetches_inflight: AtomicU64,
    /// Of these, how many somebody waits for.
    pub(crate) demand_inflight: AtomicU64,
    /// Fetches that ended well.
    pub(crate) fetches_done: AtomicU64,
    /// Fetches that the target could not answer.
    pub(crate) fetches_failed: AtomicU64,
    /// Bytes of the image received in fetches that ended well.
    pub(crate) fetched_bytes: AtomicU64,
    /// Connections that were ready and were lost.
    pub(crate) reconnects: AtomicU64,
}

/// How many sessions there are.
pub(crate) struct Sessions {
    /// How many there are to be.
    pub(crate) wanted: u8,
    /// How many are ready.
    pub(crate) ready: u32,
    /// Why the first one that is missing is, where others are ready.
    pub(crate) reason: Line,
}

impl Sessions {
    /// Nobody needs the repository any more.
    pub(super) const NONE: Self = Self {
        wanted: 0,
        ready: 0,
        reason: Line::EMPTY,
    };
}

/// Everything there is to say of one session.
#[pin_data]
pub(super) struct Status {
    #[pin]
    now: IrqSpinLock<Snapshot>,
}

impl Status {
    pub(super) fn new() -> impl PinInit<Self> {
        let start = Snapshot {
            since_ms: now_ms(),
            ..Snapshot::EMPTY
        };
        pin_init!(Self {
            now <- new_irq_spinlock!(start, c"imgstream:source_status"),
        })
    }

    /// Whether reads are answered.
    pub(super) fn ready(&self) -> bool {
        self.now.lock().is_ready()
    }

    /// The connection now.
    pub(super) fn snapshot(&self) -> Snapshot {
        *self.now.lock()
    }

    /// The connection is now in state `connection`, with the same portal as before or on a new `route`.
    pub(super) fn enter(&self, connection: Connection, route: Option<Route>, reason: Line) {
        let since_ms = now_ms();
        let mut now = self.now.lock();
        let same = now.connection == connection;
        let (portal, redirected_by) = match route {
            Some(route) => (Some(route.portal), route.redirected_by),
            None => (now.portal, now.redirected_by),
        };
        *now = Snapshot {
            connection,
            since_ms: if same { now.since_ms } else { since_ms },
            portal,
            redirected_by,
            reason,
            digests: now.digests,
        };
    }

    /// The connection protects this. Returns whether the one before was another in that.
    pub(super) fn protected(&self, digests: Digests) -> bool {
        self.now.lock().digests.replace(digests) != Some(digests)
    }
}

#[kunit_tests(imgstream_source_status)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use core::net::{
        Ipv4Addr,
        SocketAddr,
        SocketAddrV4, //
    };
    use kernel::sync::Arc;

    #[test]
    fn a_line_ends_where_its_bytes_do_but_not_within_a_character() {
        // Bytes before a character, the character, and how much of it all is kept.
        let table = [
            (0, 'a', 1),
            (LINE_BYTES - 1, 'a', LINE_BYTES),
            (LINE_BYTES, 'a', LINE_BYTES),
            (LINE_BYTES - 2, 'ä', LINE_BYTES),
            (LINE_BYTES - 1, 'ä', LINE_BYTES - 1),
            (LINE_BYTES, 'ä', LINE_BYTES),
            (LINE_BYTES - 4, '🦀', LINE_BYTES),
            (LINE_BYTES - 3, '🦀', LINE_BYTES - 3),
            (LINE_BYTES - 1, '🦀', LINE_BYTES - 1),
        ];
        assert!(every(table, |&(before, last, kept)| {
            let mut whole = [b'x'; LINE_BYTES + 4];
            let end = before + last.len_utf8();
            if let Some(to) = whole.get_mut(before..end) {
                last.encode_utf8(to);
            }
            let text = whole
                .get(..end)
                .and_then(|text| core::str::from_utf8(text).ok());
            let text = text.unwrap_or("");
            Line::of(text).as_str().as_bytes() == text.as_bytes().get(..kept).unwrap_or(&[])
        }));
    }

    #[test]
    fn what_comes_in_pieces_is_put_together() {
        let line = Line::of(format_args!("{}, {}: {}", "portal", 17, -5));
        assert_eq!(line.as_str(), "portal, 17: -5");
        assert_eq!(Line::EMPTY.as_str(), "");
    }

    #[test]
    fn the_state_keeps_its_time_and_portal() -> Result {
        let status = Arc::pin_init(Status::new(), GFP_KERNEL)?;
        let portal = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let portal = Address(SocketAddr::V4(portal));
        let route = Route {
            portal,
            redirected_by: Some(portal),
        };
        assert!(!status.ready() && status.snapshot().portal.is_none());
        let table = [
            (Connection::Connecting, Some(route), false),
            (Connection::Login, None, false),
            (Connection::Ready, None, true),
            (Connection::Disconnected, None, false),
        ];
        assert!(every(0..table.len(), |&row| {
            let Some(&(connection, with, ready)) = table.get(row) else {
                return false;
            };
            status.enter(connection, with, Line::of("why"));
            let now = status.snapshot();
            now.connection == connection
                && now.portal == Some(portal)
                && now.redirected_by == Some(portal)
                && now.reason.as_str() == "why"
                && status.ready() == ready
        }));
        Ok(())
    }

    #[test]
    fn digests_stay_known_and_a_change_is_noticed_once() -> Result {
        let status = Arc::pin_init(Status::new(), GFP_KERNEL)?;
        assert!(status.snapshot().digests.is_none());
        let both = Digests {
            header: true,
            data: true,
        };
        let table = [
            (Digests::default(), true),
            (Digests::default(), false),
            (both, true),
            (both, false),
            (Digests::default(), true),
        ];
        assert!(every(table, |&(digests, changed)| {
            let noticed = status.protected(digests);
            status.enter(Connection::Disconnected, None, Line::EMPTY);
            noticed == changed && status.snapshot().digests == Some(digests)
        }));
        Ok(())
    }

    #[test]
    fn sessions_together_protect_what_each_of_them_does() {
        let of = |header, data| Some(Digests { header, data });
        let table = [
            (of(true, true), of(true, true), of(true, true)),
            (of(true, true), of(true, false), of(true, false)),
            (of(false, true), of(true, false), of(false, false)),
            (of(true, true), None, of(true, true)),
            (None, of(false, true), of(false, true)),
            (None, None, None),
        ];
        let with = |digests| Snapshot {
            digests,
            ..Snapshot::EMPTY
        };
        assert!(every(table, |&(one, two, both)| {
            with(one).with(with(two)).digests == both
        }));
    }

    #[test]
    fn a_state_that_is_entered_again_has_not_begun_again() -> Result {
        let status = Arc::pin_init(Status::new(), GFP_KERNEL)?;
        status.enter(Connection::Connecting, None, Line::EMPTY);
        // As if that had been long ago.
        status.now.lock().since_ms = 1;
        status.enter(Connection::Connecting, None, Line::of("once more"));
        assert_eq!(status.snapshot().since_ms, 1);
        status.enter(Connection::Login, None, Line::EMPTY);
        assert!(status.snapshot().since_ms > 1);
        Ok(())
    }
}
