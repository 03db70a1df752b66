// SPDX-License-Identifier: GPL-2.0-only

//! A session and the scripted target, joined by byte arrays and a clock that only moves when both wait.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use imgstream_engine::session::{
    Canary, Config, Event, Facts, Identity, Name, ReadError, ReadId, Reason, Session, Stage,
    Timing, Want, SCRATCH_BYTES,
};
use imgstream_proto::iscsi::digest::Policy;
use imgstream_proto::iscsi::inquiry::Designator;
use imgstream_testtarget::{Connection, Target};

/// What fills a buffer before a read, so that bytes which never came are seen.
const POISON: u8 = 0xa5;
/// Steps after which a test that should have ended is stuck.
const MAX_STEPS: usize = 200_000;

/// An image whose every 512 bytes differ.
pub fn image(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i / 512 * 131 + i % 512 * 7 + i / 65_536) as u8)
        .collect()
}

pub fn target(bytes: usize) -> Target {
    Target::new(Arc::new(image(bytes)))
}

pub fn config() -> Config {
    Config {
        initiator_name: Name::new("iqn.2026-11.test.imgstream:initiator").unwrap(),
        target_name: Name::new("iqn.2026-11.test.imgstream:image").unwrap(),
        lun: 1,
        isid: [0x80, 1, 2, 3, 0, 0],
        seed: 7,
        crc32c: crc32c::crc32c_append,
        digests: Policy::Prefer,
        identity: None,
        timing: Timing::DEFAULT,
    }
}

/// What a session must find behind the default target with `image`.
pub fn identity(image: &[u8]) -> Identity {
    let canary = |block: usize| {
        let data = &image[block * 4096..(block + 1) * 4096];
        Some(Canary {
            block: block as u64,
            crc32c: crc32c::crc32c(data),
        })
    };
    Identity {
        capacity_bytes: image.len() as u64,
        designator: Designator::new(3, &[0x60, 0, 0, 0, 0x0e, 0x12, 0x34, 0x56]).unwrap(),
        trailer_crc32c: Some(crc32c::crc32c(&image[image.len() - 4096..])),
        canaries: [canary(1), None, canary(3), None],
    }
}

/// Session, target and the wire between them.
pub struct Rig {
    pub session: Session<Vec<u8>>,
    pub target: Target,
    pub connection: Option<Connection>,
    pub now: u64,
    reconnect_at: u64,
    /// Until when the target has nothing more to say: it sends slowly.
    silent_until: u64,
    /// Bytes that the target may still deliver on the first connection.
    pub cut_first: Option<usize>,
    /// Bytes that the target delivered on the first connection.
    pub delivered_first: usize,
    /// Bytes of what the target sends that are changed: place, counted over all connections, and pattern.
    pub flips: Vec<(usize, u8)>,
    /// Bytes that the target sends on the first connection instead of its own, from a place on.
    pub noise: Option<(usize, Vec<u8>)>,
    delivered: usize,
    /// The driver does not hand over what the checksum of received data is.
    pub forgets_checksums: bool,
    /// Nobody answers connection attempts.
    pub unreachable: bool,
    /// The target does not receive, so that nothing can be sent.
    pub deaf: bool,
    random: u64,
    /// Longest piece in which bytes travel.
    pub max_piece: usize,
    wire: VecDeque<u8>,
    pub buffers: BTreeMap<u16, (u64, Vec<u8>)>,
    pub done: BTreeMap<u16, Result<(), ReadError>>,
    pub reasons: Vec<Reason>,
    pub ready: Vec<Facts>,
    /// Lists of targets that came.
    pub discovered: u32,
}

impl Rig {
    pub fn new(config: Config, target: Target) -> Self {
        Self {
            session: Session::new(config, vec![0; SCRATCH_BYTES]).unwrap(),
            target,
            connection: None,
            now: 1000,
            reconnect_at: 0,
            silent_until: 0,
            cut_first: None,
            delivered_first: 0,
            flips: Vec::new(),
            noise: None,
            delivered: 0,
            forgets_checksums: false,
            unreachable: false,
            deaf: false,
            random: 1,
            max_piece: 100_000,
            wire: VecDeque::new(),
            buffers: BTreeMap::new(),
            done: BTreeMap::new(),
            reasons: Vec::new(),
            ready: Vec::new(),
            discovered: 0,
        }
    }

    pub fn read(&mut self, id: u16, offset: u64, len: u32) {
        self.session.submit(ReadId(id), offset, len).unwrap();
        self.buffers
            .insert(id, (offset, vec![POISON; len as usize]));
    }

    /// Somewhere between one byte and the longest piece.
    fn piece(&mut self) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % self.max_piece + 1
    }

    /// Runs until `end` holds; fails if it never does.
    pub fn run(&mut self, end: impl Fn(&Self) -> bool) {
        for _ in 0..MAX_STEPS {
            if end(self) {
                return;
            }
            self.step();
        }
        let last = self.reasons.len().saturating_sub(5);
        panic!(
            "stuck in {:?} at {} after {:?}",
            self.session.stage(),
            self.now,
            &self.reasons[last..]
        );
    }

    pub fn run_reads(&mut self) {
        self.run(|rig| rig.done.len() == rig.buffers.len());
    }

    /// Runs until `ms` have passed.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        self.run(|rig| rig.now >= end);
    }

    pub fn step(&mut self) {
        let moved = self.connect() | self.transmit() | self.receive();
        self.events();
        if !moved {
            self.wait();
        }
    }

    fn connect(&mut self) -> bool {
        if self.connection.is_some() || self.now < self.reconnect_at {
            return false;
        }
        if self.unreachable {
            self.session.connect_failed(self.now);
            self.reconnect_at = self.now + self.session.backoff_ms().max(1);
            return true;
        }
        self.connection = Some(self.target.accept());
        self.wire.clear();
        self.session.connected(self.now);
        true
    }

    fn transmit(&mut self) -> bool {
        let max = self.piece();
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let out = self.session.out();
        let len = if self.deaf { 0 } else { out.len().min(max) };
        let bytes = out[..len].to_vec();
        self.session.sent(len);
        connection.feed(&mut self.target, &bytes);
        len != 0
    }

    fn receive(&mut self) -> bool {
        let max = self.piece();
        let first = self.target.connections == 1;
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if self.now < self.silent_until {
            return false;
        }
        let max = match self.cut_first.filter(|_| first) {
            Some(cut) => max.min(cut - self.delivered_first),
            None => max,
        };
        let mut bytes = connection.take_out(max);
        if !bytes.is_empty() {
            self.silent_until = self.now + connection.pause_ms();
        }
        for (place, pattern) in &self.flips {
            if let Some(byte) = place
                .checked_sub(self.delivered)
                .and_then(|i| bytes.get_mut(i))
            {
                *byte ^= pattern;
            }
        }
        if let Some((after, noise)) = self.noise.as_ref().filter(|_| first) {
            for (i, byte) in bytes.iter_mut().enumerate() {
                let at = (self.delivered + i).checked_sub(*after);
                *byte = at.and_then(|at| noise.get(at)).copied().unwrap_or(*byte);
            }
        }
        self.delivered += bytes.len();
        let cut = first && self.cut_first == Some(self.delivered_first + bytes.len());
        if first {
            self.delivered_first += bytes.len();
        }
        let over = connection.is_over() || cut;
        let moved = !bytes.is_empty();
        self.wire.extend(bytes);
        while self.receive_once() {}
        if over && self.session.stage() != Stage::Down {
            self.session.disconnected(self.now);
            self.reasons.extend(self.session.last_reason());
            self.drop_connection();
        }
        moved || over
    }

    fn receive_once(&mut self) -> bool {
        let wire = &mut self.wire;
        let taken = match self.session.want() {
            Want::Nothing => 0,
            Want::Control(area) => {
                let len = area.len().min(wire.len());
                wire.drain(..len)
                    .zip(area)
                    .for_each(|(byte, place)| *place = byte);
                len
            }
            Want::Data {
                id,
                offset,
                len,
                crc,
            } => {
                let buffer = &mut self
                    .buffers
                    .get_mut(&id.0)
                    .expect("data for a read that is outstanding")
                    .1;
                let area = &mut buffer[offset as usize..(offset + len) as usize];
                let len = area.len().min(wire.len());
                wire.drain(..len)
                    .zip(&mut *area)
                    .for_each(|(byte, place)| *place = byte);
                if let Some(crc) = crc.filter(|_| !self.forgets_checksums) {
                    self.session
                        .checked(crc32c::crc32c_append(crc, &area[..len]));
                }
                len
            }
        };
        self.session.got(taken, self.now);
        taken != 0
    }

    fn events(&mut self) {
        while let Some(event) = self.session.event() {
            match event {
                Event::Ready(facts) => self.ready.push(facts),
                Event::Discovered => self.discovered += 1,
                Event::ReadDone { id, result } => {
                    assert!(
                        self.done.insert(id.0, result).is_none(),
                        "a read ended twice"
                    );
                }
                Event::Disconnect(reason) => {
                    self.reasons.push(reason);
                    self.session.disconnected(self.now);
                    self.drop_connection();
                }
            }
        }
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.silent_until = 0;
        self.wire.clear();
        self.reconnect_at = self.now + self.session.backoff_ms();
    }

    /// Nothing moves: lets time pass up to what comes next.
    fn wait(&mut self) {
        let next = match self.connection {
            Some(_) => self.session.deadline().expect("something is waited for"),
            None => self.reconnect_at,
        };
        assert!(next >= self.now, "a deadline in the past");
        let next = match self.silent_until > self.now {
            true => next.min(self.silent_until),
            false => next,
        };
        self.now = next.max(self.now + 1);
        self.session.tick(self.now);
    }

    /// Every read that succeeded has brought exactly what the image holds, and the initiator kept the rules.
    pub fn check(&self, image: &[u8]) {
        for (id, result) in &self.done {
            let (offset, buffer) = &self.buffers[id];
            let start = *offset as usize;
            if result.is_ok() {
                assert!(
                    buffer[..] == image[start..start + buffer.len()],
                    "read {id} brought other bytes"
                );
            }
        }
        assert_eq!(self.target.violations, Vec::<String>::new());
    }

    /// The same, and every read has succeeded over one connection.
    pub fn check_undisturbed(&self, image: &[u8]) {
        self.check(image);
        assert!(self.all_good());
        assert_eq!((&self.reasons[..], self.target.connections), (&[][..], 1));
    }

    pub fn all_good(&self) -> bool {
        self.done.len() == self.buffers.len() && self.done.values().all(Result::is_ok)
    }
}
