// SPDX-License-Identifier: GPL-2.0-only

//! Which targets a portal offers.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use imgstream_engine::portals::Portals;
use imgstream_engine::session::{
    ChapFault, Credentials, Crypto, Event, Found, Reason, Session, Stage, Want, DISCOVERY_BYTES,
};

use crate::crypto::CRYPTO;
use crate::error::Error;
use crate::socket::received;
use crate::trouble::Cause;
use crate::Options;

/// Whoever mistyped an address or a port is told soon.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER_MS: u64 = 15_000;
/// How long a logout may take: it is a courtesy.
const LOGOUT: Duration = Duration::from_secs(2);
/// How long a read from the socket blocks at most.
const POLL_MS: u64 = 500;

/// A target that a portal offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredTarget {
    /// Its name.
    pub name: String,
    /// Where it is, as the portal says. None: at the portal that was asked.
    pub portals: Vec<DiscoveredPortal>,
}

/// A portal of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredPortal {
    /// Address or name, and port: `192.0.2.1:3260`, `[2001:db8::1]:3260`, `host:3260`.
    pub place: String,
    /// Tag of its portal group.
    pub group: Option<u16>,
}

impl fmt::Display for DiscoveredPortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "{},{group}", self.place),
            None => f.write_str(&self.place),
        }
    }
}

/// Asks a portal for its targets, with `credentials` if it has to know who asks, and follows where it leads. Tries twice only
/// where the first try shows that the target means something else by a number.
pub fn discover(
    portal: SocketAddr,
    initiator_name: &str,
    credentials: Option<Credentials>,
) -> Result<Vec<DiscoveredTarget>, Error> {
    let mut portals = Portals::new([portal]);
    // Any name will do where none is asked for.
    let mut options = Options::new(&[portal], initiator_name, 0, initiator_name);
    options.timing.login = ANSWER_MS;
    options.credentials = credentials;
    let mut crypto = CRYPTO;
    loop {
        let at = portals.current().unwrap_or(portal);
        let mut asker = Asker::connect(at, &options, crypto)?;
        let reason = match asker.ask()? {
            None => return Ok(asker.end()),
            // What is not offered is not misread again.
            Some(Reason::Chap(ChapFault::Misread)) => {
                crypto.sha256 = None;
                continue;
            }
            Some(reason) => reason,
        };
        let next = portals.next(reason.into(), 0, 0);
        let reason = next.trouble.map_or(reason, Reason::BadRedirect);
        if !matches!(reason, Reason::Redirected(_)) {
            return Err(asker.refused(reason));
        }
    }
}

/// One connection.
struct Asker {
    session: Session<Vec<u8>>,
    socket: TcpStream,
    portal: SocketAddr,
    start: Instant,
    /// We say who we are.
    named: bool,
    logged_in: bool,
}

impl Asker {
    fn connect(portal: SocketAddr, options: &Options, crypto: Crypto) -> Result<Self, Error> {
        let socket =
            TcpStream::connect_timeout(&portal, CONNECT).map_err(|error| Error::Unreachable {
                portal,
                why: Cause::Connect(error).to_string(),
            })?;
        let _ = socket.set_nodelay(true);
        let _ = socket.set_read_timeout(Some(Duration::from_millis(POLL_MS)));
        let _ = socket.set_write_timeout(Some(CONNECT));
        let session = Session::discovery(options.config()?, vec![0; DISCOVERY_BYTES]);
        let mut session = session.map_err(Error::Config)?;
        if let Some(credentials) = &options.credentials {
            session.authenticate(credentials, crypto);
        }
        let mut asker = Self {
            named: options.credentials.is_some(),
            session,
            socket,
            portal,
            start: Instant::now(),
            logged_in: false,
        };
        asker.session.connected(0);
        Ok(asker)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What answers nothing of a login, or something else, need not be iSCSI at all.
    fn refused(&self, reason: Reason) -> Error {
        let portal = self.portal;
        match reason {
            Reason::Protocol(_) | Reason::LoginTimeout if !self.logged_in => {
                Error::NotIscsi { portal, reason }
            }
            Reason::Refused {
                class: 2,
                detail: 1,
            } if !self.named => Error::Refused {
                portal,
                reason: Reason::Authentication,
            },
            _ => Error::Refused { portal, reason },
        }
    }

    /// Why there is no list; none: there is one.
    fn ask(&mut self) -> Result<Option<Reason>, Error> {
        loop {
            while let Some(event) = self.session.event() {
                match event {
                    Event::Discovered => return Ok(None),
                    Event::Disconnect(reason) => return Ok(Some(reason)),
                    _ => {}
                }
            }
            self.exchange().map_err(|error| Error::Unreachable {
                portal: self.portal,
                why: Cause::Link(error).to_string(),
            })?;
        }
    }

    fn exchange(&mut self) -> io::Result<()> {
        self.logged_in |= self.session.stage() == Stage::Discover;
        let out = self.session.out();
        if !out.is_empty() {
            let sent = self.socket.write(out)?;
            self.session.sent(sent);
            return Ok(());
        }
        let Want::Control(area) = self.session.want() else {
            return Ok(());
        };
        let result = self.socket.read(area);
        let now = self.now_ms();
        received(&mut self.session, result, now)
    }

    /// The list, and an orderly end.
    fn end(mut self) -> Vec<DiscoveredTarget> {
        let list = list(&self.session);
        self.session.logout(self.now_ms());
        let end = Instant::now() + LOGOUT;
        while self.session.stage() == Stage::Logout && Instant::now() < end {
            if self.exchange().is_err() {
                break;
            }
        }
        list
    }
}

fn list(session: &Session<Vec<u8>>) -> Vec<DiscoveredTarget> {
    let mut list: Vec<DiscoveredTarget> = Vec::new();
    for found in session.targets().flatten() {
        match (found, list.last_mut()) {
            (Found::Target(name), _) => list.push(DiscoveredTarget {
                name: name.into(),
                portals: Vec::new(),
            }),
            (Found::Portal(address), Some(target)) => target.portals.push(DiscoveredPortal {
                place: address.to_string(),
                group: address.group,
            }),
            // The session has seen that a name comes first.
            (Found::Portal(_), None) => {}
        }
    }
    list
}
