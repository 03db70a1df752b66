// SPDX-License-Identifier: GPL-2.0-only

//! What every sector of the device may read as.
//!
//! A sector has a base (after a power cut: one of several values, until a read has seen which) and the values written
//! since. A read that runs beside writes may see any of the values of that time; after a cut a sector holds the last
//! flushed value or any later one.

use std::collections::BTreeMap;

use crate::disk::{image, Sector};

/// The past of one sector.
#[derive(Clone, Debug)]
struct Past {
    base: Vec<Sector>,
    /// Values written since, in order; version `n` is `log[n - 1]`, version 0 the base.
    log: Vec<Sector>,
    /// The newest version whose write has completed.
    completed: usize,
    /// The newest version that was promised to survive.
    flushed: usize,
    /// A write is under way: the guest starts no other one.
    busy: bool,
}

impl Past {
    /// A sector that nobody has written: the image's.
    fn new(sector: u64) -> Self {
        Self {
            base: vec![image(sector)],
            log: Vec::new(),
            completed: 0,
            flushed: 0,
            busy: false,
        }
    }

    fn versions(&self, from: usize) -> Vec<Sector> {
        let mut values = Vec::new();
        if from == 0 {
            values.extend(self.base.iter().cloned());
        }
        values.extend(self.log.iter().skip(from.saturating_sub(1)).cloned());
        values
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Sectors that were written at some time; all others read as the image.
    written: BTreeMap<u64, Past>,
    /// Something was seen that must not be.
    violation: Option<String>,
}

/// A read under way: for each sector the oldest version that it may see.
#[derive(Debug)]
pub struct ReadTicket {
    start: u64,
    oldest: Vec<usize>,
}

/// A flush under way: for each written sector the version that it covers.
#[derive(Debug)]
pub struct FlushTicket(Vec<(u64, usize)>);

impl Oracle {
    /// A device that reads as the image.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes something that must not be; the first one stays.
    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The first thing that must not be.
    pub fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    fn completed(&self, sector: u64) -> usize {
        self.written.get(&sector).map_or(0, |past| past.completed)
    }

    /// Begins a write of these values; false if one of the sectors is being written.
    pub fn begin_write(&mut self, start: u64, values: &[Sector]) -> bool {
        let busy = |sector: &u64| self.written.get(sector).is_some_and(|past| past.busy);
        if (start..start + values.len() as u64).any(|sector| busy(&sector)) {
            return false;
        }
        for (sector, value) in (start..).zip(values) {
            let past = self
                .written
                .entry(sector)
                .or_insert_with(|| Past::new(sector));
            past.busy = true;
            past.log.push(value.clone());
        }
        true
    }

    /// The write has ended. If it failed, nobody knows which version is there.
    pub fn end_write(&mut self, start: u64, count: usize, ok: bool, durable: bool) {
        let range = start..start + count as u64;
        for (_, past) in self.written.range_mut(range) {
            past.busy = false;
            if ok {
                past.completed = past.log.len();
            }
            if ok && durable {
                past.flushed = past.log.len();
            }
        }
    }

    /// Begins a read.
    pub fn begin_read(&mut self, start: u64, count: usize) -> ReadTicket {
        let sectors = start..start + count as u64;
        ReadTicket {
            start,
            oldest: sectors.map(|sector| self.completed(sector)).collect(),
        }
    }

    /// The read has ended with these values.
    pub fn end_read(&mut self, ticket: &ReadTicket, values: &[Sector]) {
        for ((sector, value), oldest) in (ticket.start..).zip(values).zip(&ticket.oldest) {
            let past = self.written.get_mut(&sector);
            let allowed = match &past {
                Some(past) => past.versions(*oldest),
                None => vec![image(sector)],
            };
            if !allowed.contains(value) {
                let block = sector / 8;
                self.fail(format!(
                    "sector {sector} (block {block}) reads {value:?}, allowed {allowed:?}"
                ));
                return;
            }
            if let Some(past) = past.filter(|past| *oldest == 0 && past.log.is_empty()) {
                // Now it is known which of the values the cut has left, and it stays that.
                past.base = vec![value.clone()];
            }
        }
    }

    /// Begins a flush.
    pub fn begin_flush(&self) -> FlushTicket {
        let versions = self.written.iter();
        FlushTicket(
            versions
                .map(|(sector, past)| (*sector, past.completed))
                .collect(),
        )
    }

    /// The flush has succeeded.
    pub fn end_flush(&mut self, ticket: &FlushTicket) {
        for (sector, version) in &ticket.0 {
            if let Some(past) = self.written.get_mut(sector) {
                past.flushed = past.flushed.max(*version);
            }
        }
    }

    /// A power cut.
    pub fn cut(&mut self) {
        for past in self.written.values_mut() {
            past.base = past.versions(past.flushed);
            past.log.clear();
            past.completed = 0;
            past.flushed = 0;
            past.busy = false;
        }
    }
}
