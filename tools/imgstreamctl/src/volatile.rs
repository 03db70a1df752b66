// SPDX-License-Identifier: GPL-2.0-only
//! For tests: a disk in memory that loses power at any write or flush, with
//! all, some or none of what was not flushed.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES};

use crate::medium::Medium;

const SECTOR_LEN: usize = SECTOR_BYTES as usize;

/// What becomes of sectors that were written and not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None is there.
    Lost,
    /// All are there.
    Kept,
    /// Of each block the first sectors are there.
    FirstKept(usize),
    /// Of each block the last sectors are there.
    LastKept(usize),
}

impl Fate {
    /// Those that are tried.
    pub(crate) const ALL: [Fate; 5] = [
        Fate::Lost,
        Fate::Kept,
        Fate::FirstKept(1),
        Fate::LastKept(7),
        Fate::LastKept(4),
    ];

    fn keeps(self, sector: usize) -> bool {
        match self {
            Fate::Lost => false,
            Fate::Kept => true,
            Fate::FirstKept(count) => sector < count,
            Fate::LastKept(count) => sector >= BLOCK_LEN / SECTOR_LEN - count,
        }
    }
}

/// Blocks by number. They are shared between the copies of a disk: a test makes thousands.
pub(crate) type Blocks = BTreeMap<u64, Rc<[u8]>>;

/// A sparse disk in memory. Blocks that were never written are zero.
#[derive(Clone, Default)]
pub(crate) struct Volatile {
    pub(crate) size_bytes: u64,
    pub(crate) durable: Blocks,
    /// Written, not flushed.
    pub(crate) cached: Blocks,
    /// Writes and flushes until the power fails.
    pub(crate) left: Option<usize>,
}

impl Volatile {
    pub(crate) fn new(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            ..Self::default()
        }
    }

    fn step(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("power cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Power is back.
    pub(crate) fn restart(&mut self, fate: Fate) {
        for (number, new) in std::mem::take(&mut self.cached) {
            let mut left = self.block(number);
            let sectors = left.chunks_mut(SECTOR_LEN).zip(new.chunks(SECTOR_LEN));
            for (_, (old, new)) in sectors.enumerate().filter(|(i, _)| fate.keeps(*i)) {
                old.copy_from_slice(new);
            }
            self.durable.insert(number, left.into());
        }
        self.left = None;
    }

    pub(crate) fn block(&self, number: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK_LEN];
        self.copy_block(number, &mut block);
        block
    }

    fn copy_block(&self, number: u64, to: &mut [u8]) {
        let cached = self.cached.get(&number);
        match cached.or_else(|| self.durable.get(&number)) {
            Some(block) => to.copy_from_slice(&block[..to.len()]),
            None => to.fill(0),
        }
    }
}

impl Medium for Volatile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()> {
        assert_eq!(at_bytes % BLOCK_BYTES, 0);
        for (number, to) in (at_bytes / BLOCK_BYTES..).zip(to.chunks_mut(BLOCK_LEN)) {
            self.copy_block(number, to);
        }
        Ok(())
    }

    fn write(&mut self, at_bytes: u64, from: &[u8]) -> io::Result<()> {
        let first = (at_bytes % BLOCK_BYTES) as usize;
        assert_eq!((first % SECTOR_LEN, from.len() % SECTOR_LEN), (0, 0));
        // Whole blocks, or sectors of one.
        assert!((first == 0 && from.len() % BLOCK_LEN == 0) || first + from.len() <= BLOCK_LEN);
        self.step()?;
        for (number, from) in (at_bytes / BLOCK_BYTES..).zip(from.chunks(BLOCK_LEN)) {
            let mut block = self.block(number);
            block[first..first + from.len()].copy_from_slice(from);
            self.cached.insert(number, block.into());
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        self.durable.extend(std::mem::take(&mut self.cached));
        Ok(())
    }
}

/// Runs `work` with a cut at every step and every fate until one run needs no
/// cut; says how many steps were cut. `work` says whether it needed none.
pub(crate) fn cut_everywhere(
    start: &Volatile,
    mut work: impl FnMut(&mut Volatile, usize, Fate) -> bool,
) -> usize {
    for cut in 0.. {
        let mut whole = true;
        for fate in Fate::ALL {
            let mut disk = start.clone();
            disk.left = Some(cut);
            whole &= work(&mut disk, cut, fate);
        }
        if whole {
            return cut;
        }
    }
    0
}
