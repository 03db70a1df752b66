// SPDX-License-Identifier: GPL-2.0-only

//! Which repository: what the superblock says, made into what a session needs.

use crate::kapi::{
    crypto::crc32c_append,
    time::random_below, //
};
use core::net::{
    IpAddr,
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6, //
};
use imgstream_engine::session::{
    isid,
    Canary,
    Config,
    Credentials,
    Identity,
    Name,
    Timing, //
};
use imgstream_proto::{
    abi::refusal::Refusal,
    disk::superblock::{
        Chap,
        Portal,
        Superblock,
        PORTALS, //
    },
    iscsi::inquiry::Designator,
    secret::wipe_stack, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Where the image is and how to recognise it.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(super) config: Config,
    /// Not in place: a kilobyte would be on the stack of everybody who passes this on.
    pub(super) credentials: Option<Arc<Credentials>>,
    pub(super) portals: [Option<SocketAddr>; PORTALS],
}

impl Repository {
    /// The repository that `superblock` names.
    pub(crate) fn from_superblock(superblock: &Superblock) -> Result<Self, Refusal> {
        let credentials = credentials(&superblock.origin.chap)?;
        Self::named(superblock, credentials).ok_or(Refusal::Settings)
    }

    fn named(superblock: &Superblock, credentials: Option<Arc<Credentials>>) -> Option<Self> {
        let origin = &superblock.origin;
        let portals = origin.portals.map(|portal| portal.map(address));
        portals.iter().flatten().next()?;
        Some(Self {
            config: Config {
                initiator_name: Name::new(origin.initiator_name.as_str()?)?,
                target_name: Name::new(origin.target_name.as_str()?)?,
                lun: origin.lun,
                isid: isid::session(origin.isid, 0),
                seed: u64::from(random_below(u32::MAX)),
                crc32c: crc32c_append,
                digests: origin.digests,
                identity: Some(identity(superblock)?),
                timing: Timing::DEFAULT,
            },
            credentials,
            portals,
        })
    }
}

/// Who proves to be who, if anybody has to.
fn credentials(chap: &Chap) -> Result<Option<Arc<Credentials>>, Refusal> {
    let both = shared(chap);
    wipe_stack::<2048>();
    both
}

// In a frame of its own, so that what it leaves there can be overwritten.
#[inline(never)]
fn shared(chap: &Chap) -> Result<Option<Arc<Credentials>>, Refusal> {
    let both = Credentials::from_disk(chap).map_err(|unfit| {
        pr_err!("CHAP cannot be done: {}\n", format_args!("{unfit}"));
        Refusal::Settings
    })?;
    let shared = both.map(|both| Arc::new(both, GFP_KERNEL)).transpose();
    shared.map_err(|_| Refusal::Memory)
}

fn identity(superblock: &Superblock) -> Option<Identity> {
    let image = &superblock.image;
    Some(Identity {
        capacity_bytes: image.lun_bytes,
        designator: designator(superblock.origin.vpd83.as_bytes())?,
        trailer_crc32c: Some(image.trailer_crc32c),
        canaries: image.canaries.map(|canary| {
            canary.map(|canary| Canary {
                block: canary.block,
                crc32c: canary.crc32c,
            })
        }),
    })
}

/// The first byte is the designator's type, the rest its value.
fn designator(bytes: &[u8]) -> Option<Designator> {
    match bytes.split_first() {
        Some((&kind, value)) => Designator::new(kind, value),
        None => Some(Designator::NONE),
    }
}

fn address(portal: Portal) -> SocketAddr {
    match portal.address {
        IpAddr::V4(v4) => SocketAddr::V4(SocketAddrV4::new(v4, portal.port)),
        IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, portal.port, 0, portal.scope_id)),
    }
}
