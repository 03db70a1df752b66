// SPDX-License-Identifier: GPL-2.0-only

//! A disk with a volatile write cache, as bad as a real one is allowed to be.
//!
//! * A write can be read once it has completed. It is durable only when a flush that was *submitted after it completed*
//!   has completed (or if it was written with FUA).
//! * A power cut keeps any subset of the sectors that are not durable, of writes still under way as well: sectors are
//!   lost, reordered and torn apart one by one. Of several values of one sector any may be the one that stays.

use std::collections::BTreeMap;
use std::rc::Rc;

use imgstream_proto::disk::SECTOR_LEN;

use crate::rng::Rng;

/// What a sector holds. Data is a number that names it; the control area has real bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sector {
    /// 512 bytes that nobody looks into.
    Tag(u64),
    /// 512 bytes.
    Bytes(Rc<[u8; SECTOR_LEN]>),
}

/// 512 zeroes.
pub const ZERO: Sector = Sector::Tag(0);
/// What was on the disk before; nobody may ever see it.
pub const POISON: Sector = Sector::Tag(u64::MAX);

/// What the image holds in this sector.
pub const fn image(sector: u64) -> Sector {
    Sector::Tag((1 << 62) | sector)
}

/// Names an operation under way.
pub type OpId = u64;

#[derive(Debug)]
struct Pending {
    op: OpId,
    sector: u64,
    value: Sector,
    /// When it completed, if it has.
    completed: Option<u64>,
}

#[derive(Debug)]
enum Op {
    Write { fua: bool, fails: bool },
    Flush { submitted: u64 },
    Read { start: u64, sectors: u64 },
    Wait,
}

/// Result of an operation: sectors read, or nothing.
pub type Outcome = Result<Vec<Sector>, ()>;

/// See the module.
#[derive(Debug)]
pub struct Disk {
    durable: Vec<Sector>,
    now: Vec<Sector>,
    pending: Vec<Pending>,
    under_way: BTreeMap<OpId, Op>,
    outcomes: BTreeMap<OpId, Outcome>,
    /// Writes to these sectors fail.
    broken: Option<std::ops::Range<u64>>,
    next_op: OpId,
    clock: u64,
}

impl Disk {
    /// A disk full of poison.
    pub fn new(sectors: u64) -> Self {
        Self::with(vec![POISON; sectors as usize])
    }

    fn with(durable: Vec<Sector>) -> Self {
        Self {
            now: durable.clone(),
            durable,
            pending: Vec::new(),
            under_way: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            broken: None,
            next_op: 0,
            clock: 0,
        }
    }

    /// What reads return now.
    pub fn peek(&self, sector: u64) -> &Sector {
        &self.now[sector as usize]
    }

    /// Writes behind the cache's back, to set a disk up.
    pub fn set_up(&mut self, sector: u64, value: Sector) {
        self.durable[sector as usize] = value.clone();
        self.now[sector as usize] = value;
    }

    /// From now on writes to these sectors fail.
    pub fn break_writes(&mut self, sectors: std::ops::Range<u64>) {
        self.broken = Some(sectors);
    }

    /// Whether all writes succeed.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none()
    }

    fn submit(&mut self, op: Op) -> OpId {
        self.next_op += 1;
        self.under_way.insert(self.next_op, op);
        self.next_op
    }

    /// Starts a write.
    pub fn write(&mut self, start: u64, values: &[Sector], fua: bool) -> OpId {
        let end = start + values.len() as u64;
        assert!(end <= self.now.len() as u64, "write behind the disk's end");
        let fails = self
            .broken
            .as_ref()
            .is_some_and(|broken| start < broken.end && broken.start < end);
        let op = self.submit(Op::Write { fua, fails });
        for (sector, value) in (start..).zip(values) {
            let value = value.clone();
            self.pending.push(Pending {
                op,
                sector,
                value,
                completed: None,
            });
        }
        op
    }

    /// Starts a read.
    pub fn read(&mut self, start: u64, sectors: u64) -> OpId {
        self.submit(Op::Read { start, sectors })
    }

    /// Starts a flush.
    pub fn flush(&mut self) -> OpId {
        let submitted = self.clock;
        self.submit(Op::Flush { submitted })
    }

    /// Starts something that takes a while and has nothing to do with the disk.
    pub fn wait(&mut self) -> OpId {
        self.submit(Op::Wait)
    }

    /// Operations under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Completes one of the operations under way, any of them.
    pub fn complete_some(&mut self, rng: &Rng) {
        let nth = rng.index(self.under_way.len());
        let Some(id) = self.under_way.keys().nth(nth).copied() else {
            return;
        };
        let Some(op) = self.under_way.remove(&id) else {
            return;
        };
        self.clock += 1;
        let outcome = match op {
            Op::Write { fails: true, .. } => Err(()),
            Op::Write { fua, .. } => {
                self.complete_write(id, fua);
                Ok(Vec::new())
            }
            Op::Flush { submitted } => {
                self.complete_flush(submitted);
                Ok(Vec::new())
            }
            Op::Read { start, sectors } => {
                Ok(self.now[start as usize..(start + sectors) as usize].to_vec())
            }
            Op::Wait => Ok(Vec::new()),
        };
        self.outcomes.insert(id, outcome);
    }

    fn complete_write(&mut self, op: OpId, fua: bool) {
        for pending in self.pending.iter_mut().filter(|pending| pending.op == op) {
            pending.completed = Some(self.clock);
            self.now[pending.sector as usize] = pending.value.clone();
        }
        if fua {
            self.settle(|pending| pending.op == op);
        }
    }

    fn complete_flush(&mut self, submitted: u64) {
        self.settle(|pending| pending.completed.is_some_and(|when| when <= submitted));
    }

    /// Makes those pending writes durable, and forgets older values of the same sectors.
    fn settle(&mut self, which: impl Fn(&Pending) -> bool) {
        let mut durable: Vec<(u64, u64)> = Vec::new();
        let mut chosen: Vec<&Pending> = self.pending.iter().filter(|one| which(one)).collect();
        chosen.sort_by_key(|one| one.completed);
        for one in chosen {
            self.durable[one.sector as usize] = one.value.clone();
            durable.push((one.sector, one.completed.unwrap_or(0)));
        }
        self.pending.retain(|one| {
            let gone = |(sector, when): &(u64, u64)| {
                *sector == one.sector && one.completed.is_some_and(|done| done <= *when)
            };
            !durable.iter().any(gone)
        });
    }

    /// The result of an operation that has completed, once.
    pub fn take_outcome(&mut self, op: OpId) -> Option<Outcome> {
        self.outcomes.remove(&op)
    }

    /// The disk after a power cut.
    pub fn cut(&self, rng: &Rng) -> Disk {
        let mut left = self.durable.clone();
        // All is lost, all is kept, or each sector has its own luck.
        let luck = rng.pick(&[0, 100, 50, 10, 90]);
        let mut pending: Vec<&Pending> = self.pending.iter().collect();
        for index in (1..pending.len()).rev() {
            pending.swap(index, rng.index(index + 1));
        }
        for one in pending {
            if rng.chance(luck) {
                left[one.sector as usize] = one.value.clone();
            }
        }
        Self::with(left)
    }

    /// Sectors that a power cut could still change.
    pub fn volatile(&self) -> usize {
        self.pending.len()
    }
}

/// Bytes as sectors. `bytes` is a multiple of 512 long.
pub fn sectors_of(bytes: &[u8]) -> Vec<Sector> {
    bytes
        .chunks_exact(SECTOR_LEN)
        .map(|chunk| {
            let mut sector = [0; SECTOR_LEN];
            sector.copy_from_slice(chunk);
            Sector::Bytes(Rc::new(sector))
        })
        .collect()
}

/// Sectors as bytes; those that hold data are some pattern.
pub fn bytes_of<'a>(sectors: impl Iterator<Item = &'a Sector>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for sector in sectors {
        match sector {
            Sector::Bytes(sector) => bytes.extend_from_slice(&sector[..]),
            Sector::Tag(0) => bytes.extend_from_slice(&[0; SECTOR_LEN]),
            Sector::Tag(tag) => bytes.extend(tag.to_le_bytes().repeat(SECTOR_LEN / 8)),
        }
    }
    bytes
}
