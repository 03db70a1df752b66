// SPDX-License-Identifier: GPL-2.0-only

//! Which portal to connect to, and when: each of several has its turn, a redirect is followed, and a portal that failed is
//! left alone for a while.
//!
//! A *configured* portal may answer a login with a redirect (RFC 7143 section 11.13.5). The portal that it names is tried
//! next, which may name another one, [`MAX_HOPS`] times at most and none twice. A temporary redirect holds for one
//! connection: the next attempt starts at the configured portal again. A permanent one holds as long as the portal that it
//! led to can be logged in to, and no longer than this object: nothing of it is written to a disk.

use core::net::{IpAddr, SocketAddr};

use crate::session::{Reason, Redirect, RedirectError};

/// Portals that can be configured.
pub const MAX_PORTALS: usize = 8;
/// Redirects that are followed one after the other.
pub const MAX_HOPS: usize = 8;

/// Pause before another portal is tried.
pub const NEXT_PORTAL_MS: u64 = 100;
/// Pause before a portal is tried again that this computer itself could not reach, for want of an interface, a route, or
/// memory: asking costs nothing and nobody else is bothered.
pub const LOCAL_MS: u64 = 1_000;

/// How a connection, or the attempt to make one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was lost or could not be made.
    Failed,
    /// Only a person can help ([`Reason::is_refusal`]).
    Refused,
    /// Nothing was sent to anybody.
    Local,
    /// The target is somewhere else.
    Redirected(Redirect),
}

impl From<Reason> for End {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Redirected(redirect) => Self::Redirected(redirect),
            reason if reason.is_refusal() => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// When to connect to [`Portals::current`].
    pub at_ms: u64,
    /// Why a redirect is not followed.
    pub trouble: Option<RedirectError>,
}

/// One that is configured.
#[derive(Clone, Copy, Debug)]
struct Portal {
    address: SocketAddr,
    /// Where permanent redirects have led.
    moved: Option<SocketAddr>,
    /// When it may be tried again.
    due_ms: u64,
    /// Its last end was a refusal.
    refused: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Portals {
    all: [Option<Portal>; MAX_PORTALS],
    turn: usize,
    /// Where redirects have led since this portal's turn began.
    hops: [Option<SocketAddr>; MAX_HOPS],
    /// How many of them were permanent before the first temporary one.
    permanent: usize,
    /// A temporary one was among them.
    temporary: bool,
    /// The connection at hand has been ready.
    ready: bool,
}

impl Portals {
    /// Starts with the first one. Those beyond [`MAX_PORTALS`] are left out.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut all = [None; MAX_PORTALS];
        for (place, address) in all.iter_mut().zip(addresses) {
            *place = Some(Portal {
                address,
                moved: None,
                due_ms: 0,
                refused: false,
            });
        }
        Self {
            all,
            turn: 0,
            hops: [None; MAX_HOPS],
            permanent: 0,
            temporary: false,
            ready: false,
        }
    }

    /// How many are configured.
    pub fn count(&self) -> usize {
        self.all.iter().flatten().count()
    }

    /// The one in use or to be tried next.
    pub fn current(&self) -> Option<SocketAddr> {
        self.hops
            .iter()
            .rev()
            .flatten()
            .next()
            .copied()
            .or(self.start())
    }

    /// The configured portal whose redirect led to the current one.
    pub fn redirected_by(&self) -> Option<SocketAddr> {
        let configured = self.portal()?.address;
        (self.current() != Some(configured)).then_some(configured)
    }

    /// Whether every portal refused when it was asked last.
    pub fn all_refuse(&self) -> bool {
        self.all.iter().flatten().all(|portal| portal.refused)
    }

    /// The connection at hand serves.
    pub fn ready(&mut self) {
        self.ready = true;
        let last = self.permanent.checked_sub(1);
        let moved = last.and_then(|last| *self.hops.get(last)?);
        if let Some(portal) = self.portal_mut() {
            portal.refused = false;
            portal.moved = moved.or(portal.moved);
        }
    }

    /// The connection at hand, or the attempt to make one, has ended. `pause_ms` is the session's pause.
    pub fn next(&mut self, end: End, pause_ms: u64, now_ms: u64) -> Next {
        let (end, trouble) = match end {
            End::Redirected(redirect) => match self.follow(redirect) {
                Ok(()) => {
                    return Next {
                        at_ms: now_ms,
                        trouble: None,
                    }
                }
                Err(trouble) => (End::Refused, Some(trouble)),
            },
            end => (end, None),
        };
        let pause_ms = match end {
            End::Local => LOCAL_MS,
            _ => pause_ms,
        };
        self.leave(end == End::Refused, now_ms.saturating_add(pause_ms));
        Next {
            at_ms: self.choose(now_ms),
            trouble,
        }
    }

    fn portal(&self) -> Option<&Portal> {
        self.all.get(self.turn)?.as_ref()
    }

    fn portal_mut(&mut self) -> Option<&mut Portal> {
        self.all.get_mut(self.turn)?.as_mut()
    }

    /// Where the attempt at hand began.
    fn start(&self) -> Option<SocketAddr> {
        self.portal()
            .map(|portal| portal.moved.unwrap_or(portal.address))
    }

    /// Goes where the target is, if that leads on.
    fn follow(&mut self, to: Redirect) -> Result<(), RedirectError> {
        let from = self.current().ok_or(RedirectError::Unusable)?;
        // Nobody else may send this computer to itself.
        if is_loopback(to.address.ip()) && !is_loopback(from.ip()) {
            return Err(RedirectError::Unusable);
        }
        if self.start() == Some(to.address) || self.hops.contains(&Some(to.address)) {
            return Err(RedirectError::Loop);
        }
        let free = self.hops.iter_mut().find(|hop| hop.is_none());
        *free.ok_or(RedirectError::TooMany)? = Some(to.address);
        self.temporary |= !to.permanent;
        if !self.temporary {
            self.permanent = self.permanent.saturating_add(1);
        }
        Ok(())
    }

    /// The configured portal has had its turn.
    fn leave(&mut self, refused: bool, due_ms: u64) {
        let ready = core::mem::take(&mut self.ready);
        self.hops = [None; MAX_HOPS];
        (self.permanent, self.temporary) = (0, false);
        if let Some(portal) = self.portal_mut() {
            portal.due_ms = due_ms;
            portal.refused = refused;
            // Where it had moved to is of no use, so it is asked again.
            portal.moved = portal.moved.filter(|_| ready);
        }
    }

    /// Takes the portal that is due first; of those that are due, the one whose turn it is. Returns when to try it.
    fn choose(&mut self, now_ms: u64) -> u64 {
        let last = self.turn;
        let due = |index: usize| Some(self.all.get(index)?.as_ref()?.due_ms.max(now_ms));
        let order = (last.saturating_add(1)..MAX_PORTALS).chain(0..=last);
        let found = order
            .filter_map(|index| Some((due(index)?, index)))
            .min_by_key(|(due, _)| *due);
        let Some((due_ms, index)) = found else {
            return now_ms.saturating_add(LOCAL_MS);
        };
        self.turn = index;
        if index == last {
            due_ms
        } else {
            due_ms.max(now_ms.saturating_add(NEXT_PORTAL_MS))
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
