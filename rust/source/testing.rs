// SPDX-License-Identifier: GPL-2.0-only

//! What the tests of this room share: a source whose repository refuses connections.

use super::{
    fetch::FetchQueue,
    link::Link,
    Repository,
    Source, //
};
use core::{
    net::{
        Ipv4Addr,
        SocketAddr,
        SocketAddrV4, //
    },
    sync::atomic::Ordering, //
};
use imgstream_engine::session::{
    Config,
    Name,
    Timing, //
};
use imgstream_proto::iscsi::digest::Policy;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Nobody listens there.
pub(super) const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// A link that is only said to be ready: those that there are say themselves that they are not.
pub(super) const OTHER: u8 = 7;

/// The repository there.
pub(super) fn repository() -> Result<Repository> {
    let name = |name| Name::new(name).ok_or(EINVAL);
    let mut portals = [None; imgstream_proto::disk::superblock::PORTALS];
    portals
        .iter_mut()
        .take(1)
        .for_each(|first| *first = Some(NOWHERE));
    Ok(Repository {
        config: Config {
            initiator_name: name("iqn.2026-11.example:initiator")?,
            target_name: name("iqn.2026-11.example:target")?,
            lun: 1,
            isid: [0x80, 0, 0, 0, 0, 1],
            seed: 1,
            crc32c: crate::kapi::crypto::crc32c_append,
            digests: Policy::Prefer,
            identity: None,
            timing: Timing::DEFAULT,
        },
        credentials: None,
        portals,
    })
}

/// A source that nobody kicks, with its first link.
pub(super) fn source() -> Result<Source> {
    Source::asleep(&repository()?)
}

/// The link of that number.
pub(super) fn link(source: &Source, number: usize) -> Result<Arc<Link>> {
    let roster = source.links.roster();
    roster.get(number).cloned().flatten().ok_or(EINVAL)
}

/// A link of that number that the others do not know, so that nobody wakes it.
pub(super) fn stranger(source: &Source, number: u8) -> Result<Arc<Link>> {
    let (links, queue) = (source.links.clone(), source.queue.clone());
    Link::new(number, &repository()?, links, queue)
}

/// Whether the link has tried to connect.
pub(super) fn is_connecting(link: &Link) -> bool {
    link.status().snapshot().portal.is_some()
}

/// How many fetches have not ended, and how many of them somebody waits for.
pub(super) fn under_way(source: &Source) -> (u64, u64) {
    let counters = source.counters();
    let all = counters.fetches_inflight.load(Ordering::SeqCst);
    (all, counters.demand_inflight.load(Ordering::SeqCst))
}

/// Takes the next one away, as if it had ended well.
pub(super) fn take(source: &Source) -> Option<u64> {
    let fetch = source.links.next(0, true)?;
    let number = fetch.lba_bytes / 512;
    let mut ended = FetchQueue::new();
    source.links.end(fetch, Ok(()), &mut ended);
    ended.report();
    Some(number)
}
