// SPDX-License-Identifier: GPL-2.0-only

//! A session with what a driver has: buffers, a clock, and somebody who watches.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use imgstream_engine::session::{
    Canary, Config, Event, Identity, Name, ReadId, Session, Stage, Timing, Want, MAX_READS,
    SCRATCH_BYTES,
};
use imgstream_proto::iscsi::digest::Policy;
use imgstream_proto::iscsi::inquiry::Designator;

use crate::witness::{Place, Witness};

/// What fills a buffer before a read.
const POISON: u8 = 0xa5;
/// Bytes of the image.
pub(crate) const IMAGE_BYTES: usize = 64 << 10;

/// An image whose every 512 bytes differ.
pub(crate) static IMAGE: LazyLock<Arc<Vec<u8>>> = LazyLock::new(|| {
    let byte = |i: usize| (i / 512 * 131 + i % 512 * 7) as u8;
    Arc::new((0..IMAGE_BYTES).map(byte).collect())
});

fn canary(block: usize) -> Canary {
    Canary {
        block: block as u64,
        crc32c: crc32c::crc32c(&IMAGE[block * 4096..(block + 1) * 4096]),
    }
}

/// What a session is told. `known`: which image it must find. Without digests: what is changed on its way is to be found
/// by its meaning.
pub(crate) fn config(known: bool) -> Config {
    let identity = Identity {
        capacity_bytes: IMAGE_BYTES as u64,
        designator: Designator::new(3, &[0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x56]).unwrap(),
        trailer_crc32c: Some(crc32c::crc32c(&IMAGE[IMAGE_BYTES - 4096..])),
        canaries: [Some(canary(1)), None, Some(canary(3)), None],
    };
    Config {
        initiator_name: Name::new("iqn.2026-11.test.imgstream:initiator").unwrap(),
        target_name: Name::new("iqn.2026-11.test.imgstream:image").unwrap(),
        lun: 1,
        isid: [0x80, 1, 2, 3, 0, 0],
        seed: 7,
        crc32c: crc32c::crc32c_append,
        digests: Policy::Off,
        identity: known.then_some(identity),
        timing: Timing::DEFAULT,
    }
}

/// A read that was submitted and not handed back.
struct Read {
    start: u64,
    buffer: Vec<u8>,
}

/// A session and its driver.
pub(crate) struct Peer {
    pub(crate) session: Session<Vec<u8>>,
    pub(crate) now: u64,
    witness: Witness,
    reads: BTreeMap<u16, Read>,
    /// Reads that failed.
    pub(crate) failed: usize,
}

impl Peer {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            session: Session::new(config, vec![0; SCRATCH_BYTES]).unwrap(),
            now: 1000,
            witness: Witness::default(),
            reads: BTreeMap::new(),
            failed: 0,
        }
    }

    /// Submits a read; whether it was taken.
    pub(crate) fn submit(&mut self, id: u16, start: u64, len: u32) -> bool {
        let taken = self.session.submit(ReadId(id), start, len).is_ok();
        if taken {
            let buffer = vec![POISON; len as usize];
            let before = self.reads.insert(id, Read { start, buffer });
            assert!(before.is_none(), "a name was taken twice");
        }
        assert_eq!(self.session.outstanding(), self.reads.len());
        assert!(self.reads.len() <= MAX_READS);
        taken
    }

    /// Reads that were not handed back.
    pub(crate) fn outstanding(&self) -> usize {
        self.reads.len()
    }

    /// Whether anything was received for a read since this was asked last.
    pub(crate) fn heard(&mut self) -> bool {
        std::mem::take(&mut self.witness.heard)
    }

    pub(crate) fn is_down(&self) -> bool {
        self.session.stage() == Stage::Down
    }

    pub(crate) fn connect(&mut self) {
        self.witness = Witness::default();
        self.session.connected(self.now);
    }

    /// Up to `max` bytes of what is to be sent.
    pub(crate) fn transmit(&mut self, max: usize) -> Vec<u8> {
        let out = self.session.out();
        assert!(out.len() <= SCRATCH_BYTES);
        let bytes = out[..out.len().min(max)].to_vec();
        self.session.sent(bytes.len());
        self.witness.sent(&bytes);
        bytes
    }

    /// All that is to be sent.
    pub(crate) fn transmit_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = self.transmit(usize::MAX);
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }

    /// Receives bytes until all are taken or the session wants no more.
    pub(crate) fn receive(&mut self, mut bytes: &[u8], lie: bool) {
        while !bytes.is_empty() && !self.is_down() {
            let taken = self.receive_once(bytes, lie);
            bytes = &bytes[taken..];
        }
    }

    /// Receives as much as the session wants at once; how much that was.
    pub(crate) fn receive_once(&mut self, bytes: &[u8], lie: bool) -> usize {
        let (taken, place) = match self.session.want() {
            Want::Nothing => panic!("a connection that is up and wants nothing"),
            Want::Control(area) => {
                let taken = area.len().min(bytes.len());
                area[..taken].copy_from_slice(&bytes[..taken]);
                (taken, None)
            }
            Want::Data {
                id,
                offset,
                len,
                crc,
            } => {
                let read = self.reads.get_mut(&id.0).expect("data for no read");
                let offset = offset as usize;
                let area = &mut read.buffer[offset..offset + len as usize];
                let taken = area.len().min(bytes.len());
                area[..taken].copy_from_slice(&bytes[..taken]);
                if let Some(crc) = crc {
                    let crc = crc32c::crc32c_append(crc, &area[..taken]);
                    self.session.checked(crc);
                }
                let at = read.start + offset as u64;
                (taken, Some(Place { id: id.0, at }))
            }
        };
        assert_ne!(taken, 0, "room for nothing");
        self.witness.got(&bytes[..taken], lie, place.as_ref());
        self.session.got(taken, self.now);
        taken
    }

    /// What happened. Reads that are done are checked.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.session.event() {
            if let Event::ReadDone { id, result } = event {
                let read = self.reads.remove(&id.0).expect("a read ended twice");
                self.check_done(id.0, &read, result.is_ok());
            }
            events.push(event);
        }
        assert_eq!(self.session.outstanding(), self.reads.len());
        events
    }

    fn check_done(&mut self, id: u16, read: &Read, succeeded: bool) {
        let end = read.start + read.buffer.len() as u64;
        if !succeeded {
            self.failed += 1;
            return self.witness.forget(id);
        }
        if self.witness.succeeded(id, read.start, end) {
            let expected = &IMAGE[read.start as usize..end as usize];
            assert!(read.buffer == expected, "read {id} brought other bytes");
        }
    }

    /// The socket is closed.
    pub(crate) fn disconnect(&mut self) {
        self.session.disconnected(self.now);
        assert!(self.is_down());
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.session.tick(self.now);
    }

    /// Lets time pass up to what the session waits for.
    pub(crate) fn wait(&mut self) {
        let deadline = self.session.deadline();
        let deadline = deadline.expect("a connection that waits for nothing");
        self.pass(deadline.saturating_sub(self.now));
        let next = self.session.deadline();
        let moved = self.is_down() || next != Some(deadline) || !self.session.out().is_empty();
        assert!(moved, "time has passed and nothing happens");
    }

    /// The other side is silent for ever: the session must say so within `limit_ms`.
    pub(crate) fn silence(&mut self, limit_ms: u64) -> Vec<Event> {
        let start = self.now;
        let mut events = self.events();
        while !self.is_down() {
            self.transmit_all();
            self.wait();
            events.extend(self.events());
            assert!(
                self.now - start <= limit_ms,
                "nothing is said about a silence"
            );
        }
        events
    }
}

/// A connection that was up has ended, which is told once.
pub(crate) fn check_told(events: &[Event]) {
    let ends = events
        .iter()
        .filter(|event| matches!(event, Event::Disconnect(_)));
    assert_eq!(
        ends.count(),
        1,
        "the end of a connection is not told, or twice"
    );
}
