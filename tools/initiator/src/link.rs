// SPDX-License-Identifier: GPL-2.0-only

//! The session's driver: socket, clock, portals.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use imgstream_engine::portals::{End, Portals};
use imgstream_engine::session::{
    Config, Event, Facts, Identity, ReadError, Reason, Session, Stage, Want, CONNECT_TIMEOUT_MS,
    SCRATCH_BYTES,
};

use imgstream_proto::iscsi::digest::Digests;

use crate::chunks::Chunks;
use crate::crypto::CRYPTO;
use crate::error::Error;
use crate::socket::received;
use crate::trouble::{Cause, Trouble};
use crate::Options;

/// How long a read from the socket blocks at most; the session's own deadlines may shorten it.
const POLL_MS: u64 = 1000;
/// The first attempt of all: whoever mistyped an address is told soon.
const FIRST_CONNECT: Duration = Duration::from_secs(3);
/// How long a logout may take.
const LOGOUT: Duration = Duration::from_secs(2);

/// What a step led to.
pub(crate) enum Happened {
    /// Nothing that concerns the caller.
    Nothing,
    /// The session is ready.
    Ready(Facts),
    /// A read failed.
    Failed { offset: u64, error: ReadError },
    /// The connection was given up.
    Disconnected(Reason),
}

/// A session, its socket and its portals.
pub(crate) struct Link {
    session: Session<Vec<u8>>,
    socket: Option<TcpStream>,
    timeout_ms: u64,
    portals: Portals,
    portal_group: Option<u16>,
    connects: u32,
    start: Instant,
    /// When a read ended last.
    progress: Instant,
    patience: Duration,
    /// The same while every portal refuses connections.
    patience_refused: Duration,
    /// Attempts to connect in a row that were refused.
    refused: usize,
    /// Why the last connection or attempt ended.
    trouble: Option<Cause>,
    /// Who wants to know of it, and what was said already.
    tell: fn(&Trouble),
    said: Vec<(SocketAddr, String)>,
}

impl Link {
    pub(crate) fn new(config: Config, options: &Options) -> Result<Self, Error> {
        let mut session = Session::new(config, vec![0; SCRATCH_BYTES]).map_err(Error::Config)?;
        if let Some(credentials) = &options.credentials {
            session.authenticate(credentials, CRYPTO);
        }
        Ok(Self {
            session,
            socket: None,
            timeout_ms: 0,
            portals: Portals::new(options.portals.iter().copied()),
            portal_group: options.portal_group,
            connects: 0,
            start: Instant::now(),
            progress: Instant::now(),
            patience: Duration::ZERO,
            patience_refused: Duration::ZERO,
            refused: 0,
            trouble: None,
            tell: options.tell,
            said: Vec::new(),
        })
    }

    /// The portal in use or to be tried next; without one there is no session (`Options::config`).
    pub(crate) fn portal(&self) -> SocketAddr {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.portals.current().unwrap_or(nowhere)
    }

    /// The configured portal that sent us to the one in use.
    pub(crate) fn redirected_by(&self) -> Option<SocketAddr> {
        self.portals.redirected_by()
    }

    pub(crate) fn reconnects(&self) -> u32 {
        self.connects.saturating_sub(1)
    }

    pub(crate) fn digests(&self) -> Digests {
        self.session.digests()
    }

    pub(crate) fn expect(&mut self, identity: Identity) {
        self.session.expect(identity);
    }

    /// How long nothing may get on, and how long while every portal refuses connections.
    pub(crate) fn set_patience(&mut self, patience: Duration, refused: Duration) {
        self.patience = patience;
        self.patience_refused = refused.min(patience);
    }

    /// A call begins: what was before does not count against it.
    pub(crate) fn restart_patience(&mut self) {
        self.progress = Instant::now();
    }

    /// Hands as many reads to the session as it takes.
    pub(crate) fn submit(&mut self, chunks: &mut Chunks<'_>) {
        while let Some((id, offset, len)) = chunks.next() {
            // The names are free and the session takes as many as there are names, so it is never busy.
            let taken = self.session.submit(id, offset, len);
            debug_assert_eq!(taken, Ok(()));
        }
    }

    /// Connects, sends, or receives; waits for at most a second.
    pub(crate) fn step(&mut self, chunks: &mut Chunks<'_>) -> Result<Happened, Error> {
        if self.socket.is_none() {
            self.connect()?;
        }
        if let Err(error) = self.exchange(chunks) {
            self.drop_socket();
            self.trouble = Some(match self.session.last_reason() {
                Some(why @ Reason::Contested) => Cause::Session(why),
                _ => Cause::Link(error),
            });
            self.next_portal(End::Failed)?;
        }
        match self.event(chunks) {
            Happened::Disconnected(reason) => {
                self.trouble = Some(Cause::Session(reason));
                self.next_portal(reason.into()).map(|()| Happened::Nothing)
            }
            other => Ok(other),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn connect(&mut self) -> Result<(), Error> {
        let timeout = self.connect_timeout();
        match TcpStream::connect_timeout(&self.portal(), timeout) {
            Ok(socket) => {
                // Commands are small and must not wait for the acknowledgement of those before.
                let _ = socket.set_nodelay(true);
                let _ = socket.set_write_timeout(Some(timeout));
                self.socket = Some(socket);
                self.timeout_ms = 0;
                self.connects += 1;
                self.refused = 0;
                self.trouble = None;
                self.session.expect_group(self.expected_group());
                self.session.connected(self.now_ms());
                Ok(())
            }
            Err(error) => {
                self.refused = match error.kind() {
                    ErrorKind::ConnectionRefused => self.refused + 1,
                    _ => 0,
                };
                self.trouble = Some(Cause::Connect(error));
                self.session.connect_failed(self.now_ms());
                self.next_portal(End::Failed)
            }
        }
    }

    /// Discovery spoke of the configured portals, not of those that they send us to.
    fn expected_group(&self) -> Option<u16> {
        self.portal_group
            .filter(|_| self.portals.redirected_by().is_none())
    }

    fn connect_timeout(&self) -> Duration {
        let usual = Duration::from_millis(CONNECT_TIMEOUT_MS).min(self.patience);
        match (self.connects, &self.trouble) {
            (0, None) => usual.min(FIRST_CONNECT),
            _ => usual,
        }
    }

    /// A portal that refuses is there and knows that nobody listens: that takes less patience than one that is silent.
    fn patience(&self) -> Duration {
        match self.refused >= self.portals.count() {
            true => self.patience_refused,
            false => self.patience,
        }
    }

    /// The connection is gone: waits until the next portal is due. Fails if there is nothing to wait for any more.
    fn next_portal(&mut self, end: End) -> Result<(), Error> {
        let portal = self.portal();
        let now = self.now_ms();
        let next = self.portals.next(end, self.session.backoff_ms(), now);
        if let Some(trouble) = next.trouble {
            self.trouble = Some(Cause::Session(Reason::BadRedirect(trouble)));
        }
        match self.trouble {
            Some(Cause::Session(reason)) if reason.is_refusal() && self.portals.all_refuse() => {
                return Err(Error::Refused { portal, reason });
            }
            _ => {}
        }
        let left = self.patience_left(portal)?;
        if !matches!(end, End::Redirected(_)) || next.trouble.is_some() {
            self.say(portal, left);
        }
        let pause = Duration::from_millis(next.at_ms.saturating_sub(now));
        std::thread::sleep(pause.min(left));
        Ok(())
    }

    fn why(&self) -> String {
        self.trouble
            .as_ref()
            .map(Cause::to_string)
            .unwrap_or_default()
    }

    fn patience_left(&self, portal: SocketAddr) -> Result<Duration, Error> {
        let patience = self.patience();
        let left = patience.saturating_sub(self.progress.elapsed());
        if left.is_zero() {
            return Err(Error::Patience {
                portal,
                seconds: patience.as_secs(),
                why: self.why(),
            });
        }
        Ok(left)
    }

    /// Each trouble once, until things go on.
    fn say(&mut self, portal: SocketAddr, left: Duration) {
        let trouble = (portal, self.why());
        if self.said.contains(&trouble) {
            return;
        }
        (self.tell)(&Trouble {
            portal,
            why: trouble.1.clone(),
            left,
        });
        self.said.push(trouble);
    }

    fn drop_socket(&mut self) {
        self.socket = None;
        let now = self.now_ms();
        self.session.disconnected(now);
    }

    fn exchange(&mut self, chunks: &mut Chunks<'_>) -> io::Result<()> {
        self.transmit()?;
        self.receive(chunks)
    }

    fn transmit(&mut self) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        loop {
            let out = self.session.out();
            if out.is_empty() {
                return Ok(());
            }
            let sent = socket.write(out)?;
            self.session.sent(sent);
        }
    }

    fn receive(&mut self, chunks: &mut Chunks<'_>) -> io::Result<()> {
        let now = self.now_ms();
        let left = self
            .session
            .deadline()
            .map_or(POLL_MS, |at| at.saturating_sub(now));
        let timeout = left.clamp(1, POLL_MS);
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        if timeout != self.timeout_ms {
            socket.set_read_timeout(Some(Duration::from_millis(timeout)))?;
            self.timeout_ms = timeout;
        }
        let result = match self.session.want() {
            Want::Nothing => return Ok(()),
            Want::Control(area) => socket.read(area),
            Want::Data {
                id,
                offset,
                len,
                crc,
            } => match chunks.area(id, offset, len) {
                Some(area) => {
                    let result = socket.read(area);
                    if let (Some(crc), Ok(bytes)) = (crc, &result) {
                        self.session
                            .checked(crc32c::crc32c_append(crc, &area[..*bytes]));
                    }
                    result
                }
                None => return Err(io::Error::other("data for a read that is not on its way")),
            },
        };
        let now = self.now_ms();
        received(&mut self.session, result, now)
    }

    fn event(&mut self, chunks: &mut Chunks<'_>) -> Happened {
        while let Some(event) = self.session.event() {
            match event {
                Event::Ready(facts) => {
                    self.said.clear();
                    self.portals.ready();
                    return Happened::Ready(facts);
                }
                // Only of discovery sessions.
                Event::Discovered => {}
                Event::ReadDone { id, result } => {
                    self.progress = Instant::now();
                    let offset = chunks.end(id).unwrap_or(0);
                    if let Err(error) = result {
                        return Happened::Failed { offset, error };
                    }
                }
                Event::Disconnect(reason) => {
                    self.drop_socket();
                    return Happened::Disconnected(reason);
                }
            }
        }
        Happened::Nothing
    }

    /// Ends the session in an orderly way if that is quickly done.
    pub(crate) fn logout(&mut self) {
        let end = Instant::now() + LOGOUT;
        self.session.logout(self.now_ms());
        let mut none = Chunks::none();
        while self.socket.is_some() && self.session.stage() == Stage::Logout && Instant::now() < end
        {
            if self.exchange(&mut none).is_err() {
                return;
            }
        }
    }
}
