// SPDX-License-Identifier: GPL-2.0-only

//! Reads from an iSCSI target in user space: the session of `imgstream_engine` over `std::net`.
//!
//! ```no_run
//! # fn main() -> Result<(), imgstream_initiator::Error> {
//! let portal = "192.0.2.1:3260".parse().expect("an address");
//! let mut client = imgstream_initiator::Client::connect(&[portal], "iqn.2026-11.example:image", 1, "iqn.2026-11.example:me")?;
//! let mut trailer = vec![0; 4096];
//! client.read(client.capacity() - 4096, &mut trailer)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod chunks;
mod crypto;
mod discover;
mod error;
mod link;
mod socket;
mod trouble;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Duration;

pub use crypto::random;
pub use discover::{discover, DiscoveredPortal, DiscoveredTarget};
pub use error::Error;
pub use imgstream_engine::session::{
    Account, Canary, Credentials, Facts, Identity, Mismatch, ReadError, Reason, Redirect,
    RedirectError, Timing, Unfit,
};
pub use imgstream_proto::iscsi::digest::{Digests, Policy};
pub use imgstream_proto::iscsi::inquiry::Designator;

use chunks::Chunks;
use imgstream_engine::session::{isid, Config, Name, MAX_CANARIES};
use link::{Happened, Link};
pub use trouble::Trouble;

/// Patience with the first connection: somebody may have mistyped its address.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// The same while every portal refuses connections: a target that is being restarted is back by then.
const REFUSED_PATIENCE: Duration = Duration::from_secs(5);

/// What to connect to, and how patiently.
#[derive(Clone, Debug)]
pub struct Options {
    /// Portals of the target, tried in turn.
    pub portals: Vec<SocketAddr>,
    /// Name of the target.
    pub target_name: String,
    /// Number of the logical unit.
    pub lun: u64,
    /// Our name.
    pub initiator_name: String,
    /// Which digests are asked for.
    pub digests: Policy,
    /// What must be found; none: whatever is found at first must be found on every reconnect.
    pub identity: Option<Identity>,
    /// An ISID of the installation in whose name this asks, if it is one's: its own sessions are left alone.
    pub beside: Option<[u8; 6]>,
    /// The portal group that discovery named for the portals.
    pub portal_group: Option<u16>,
    /// How both sides prove who they are; none: they do not.
    pub credentials: Option<Credentials>,
    /// Times of the session.
    pub timing: Timing,
    /// How long nothing may get on before a call fails.
    pub patience: Duration,
    /// Is told what a call waits for, each trouble once.
    pub tell: fn(&Trouble),
}

impl Options {
    /// Options with the usual times and two minutes of patience.
    pub fn new(portals: &[SocketAddr], target_name: &str, lun: u64, initiator_name: &str) -> Self {
        Self {
            portals: portals.to_vec(),
            target_name: target_name.into(),
            lun,
            initiator_name: initiator_name.into(),
            digests: Policy::default(),
            identity: None,
            beside: None,
            portal_group: None,
            credentials: None,
            timing: Timing::DEFAULT,
            patience: Duration::from_secs(120),
            tell: |_| {},
        }
    }

    fn config(&self) -> Result<Config, Error> {
        let name = |name: &str| Name::new(name).ok_or_else(|| Error::Name(name.into()));
        if self.portals.is_empty() {
            return Err(Error::NoPortal);
        }
        let seed = RandomState::new().hash_one(std::process::id());
        let [a, b, c, d, e, f, ..] = seed.to_be_bytes();
        let installation = self.beside.unwrap_or(isid::installation([a, b, c, d]));
        Ok(Config {
            initiator_name: name(&self.initiator_name)?,
            target_name: name(&self.target_name)?,
            lun: self.lun,
            // This process must not end a session of the driver of the same computer, which has the same initiator name.
            isid: isid::beside(installation, [e, f]),
            seed,
            crc32c: crc32c::crc32c_append,
            digests: self.digests,
            identity: self.identity,
            timing: self.timing,
        })
    }
}

/// A logical unit that can be read.
///
/// Lost connections are made again, and what was being read is read again, without the caller noticing more than time.
pub struct Client {
    link: Link,
    options: Options,
    facts: Facts,
}

impl Client {
    /// Connects to the first portal that lets us in, and looks at the logical unit.
    pub fn connect(
        portals: &[SocketAddr],
        target_name: &str,
        lun: u64,
        initiator_name: &str,
    ) -> Result<Self, Error> {
        Self::open(Options::new(portals, target_name, lun, initiator_name))
    }

    /// Connects as told.
    pub fn open(options: Options) -> Result<Self, Error> {
        let (link, facts) = Self::link(&options)?;
        let mut client = Self {
            link,
            options,
            facts,
        };
        if client.options.identity.is_none() {
            client.options.identity = Some(Identity {
                capacity_bytes: facts.capacity.bytes(),
                designator: facts.designator,
                trailer_crc32c: None,
                canaries: [None; MAX_CANARIES],
            });
        }
        if let Some(identity) = client.options.identity {
            client.link.expect(identity);
        }
        Ok(client)
    }

    fn link(options: &Options) -> Result<(Link, Facts), Error> {
        let mut link = Link::new(options.config()?, options)?;
        link.set_patience(options.patience.min(FIRST_PATIENCE), REFUSED_PATIENCE);
        loop {
            if let Happened::Ready(facts) = link.step(&mut Chunks::none())? {
                link.set_patience(options.patience, options.patience);
                return Ok((link, facts));
            }
        }
    }

    /// Size of the logical unit in bytes.
    pub fn capacity(&self) -> u64 {
        self.facts.capacity.bytes()
    }

    /// Bytes of one of its logical blocks.
    pub fn block_bytes(&self) -> u32 {
        self.facts.capacity.block_bytes
    }

    /// Its designator from page 0x83.
    pub fn identity(&self) -> Designator {
        self.facts.designator
    }

    /// What the connection protects; nothing while there is none.
    pub fn digests(&self) -> Digests {
        self.link.digests()
    }

    /// The portal that is in use, or was last.
    pub fn portal(&self) -> SocketAddr {
        self.link.portal()
    }

    /// The portal among [`Options::portals`] whose redirect led to [`Self::portal`], if one did.
    pub fn redirected_by(&self) -> Option<SocketAddr> {
        self.link.redirected_by()
    }

    /// Connections that were made after the first one.
    pub fn reconnects(&self) -> u32 {
        self.link.reconnects()
    }

    /// Checks this, too, on every reconnect.
    pub fn expect(&mut self, identity: Identity) {
        self.options.identity = Some(identity);
        self.link.expect(identity);
    }

    /// Fills `buffer` from byte `offset` on; both are multiples of the unit's block size.
    ///
    /// Long buffers are read with many commands in flight. If this fails, the contents of the buffer are not defined.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let block = u64::from(self.block_bytes());
        let len = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= self.capacity());
        if end.is_none() || offset % block != 0 || len % block != 0 {
            return Err(Error::Range {
                offset,
                len,
                capacity: self.capacity(),
            });
        }
        let result = self.read_all(Chunks::new(offset, buffer));
        if result.is_err() {
            // Reads of this call may still be on their way; only a new session forgets them.
            self.start_over()?;
        }
        result
    }

    fn read_all(&mut self, mut chunks: Chunks<'_>) -> Result<(), Error> {
        self.link.restart_patience();
        while !chunks.is_done() {
            self.link.submit(&mut chunks);
            if let Happened::Failed { offset, error } = self.link.step(&mut chunks)? {
                return Err(Error::Read { offset, error });
            }
        }
        Ok(())
    }

    fn start_over(&mut self) -> Result<(), Error> {
        let options = &self.options;
        self.link = Link::new(options.config()?, options)?;
        self.link.set_patience(options.patience, options.patience);
        Ok(())
    }

    /// Logs out. Dropping a client does the same.
    pub fn close(self) {}
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.logout();
    }
}
