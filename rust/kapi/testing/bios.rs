// SPDX-License-Identifier: GPL-2.0-only

//! Bios that come in, by way of a disk in memory that keeps them, and how they end.

use super::MemoryDisk;
use crate::kapi::{
    bio::{
        Bio,
        BioSet,
        Completion,
        Op, //
    },
    blk::{
        BlkStatus,
        SECTOR_BYTES, //
    },
    page::{
        PageBuf,
        PagePool, //
    }, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// How bios with a [`Note`] ended.
pub(crate) struct Ends {
    times: AtomicU32,
    status: AtomicU32,
    originals: AtomicU32,
}

impl Ends {
    /// How often, and what the status was the last time.
    pub(crate) fn seen(&self) -> (u32, u32) {
        let times = self.times.load(Ordering::SeqCst);
        (times, self.status.load(Ordering::SeqCst))
    }

    /// How many of them were clones.
    pub(crate) fn originals(&self) -> u32 {
        self.originals.load(Ordering::SeqCst)
    }
}

/// Notes how a bio ended; ends what it was cloned from with the same status.
pub(crate) struct Note(Arc<Ends>);

impl Completion for Note {
    fn done(self, original: Option<Bio>, status: BlkStatus) {
        self.0.times.fetch_add(1, Ordering::SeqCst);
        self.0
            .status
            .store(status.as_raw().into(), Ordering::SeqCst);
        if let Some(original) = original {
            self.0.originals.fetch_add(1, Ordering::SeqCst);
            original.end(status);
        }
    }
}

pub(crate) fn note() -> Result<(Note, Arc<Ends>)> {
    let ends = Ends {
        times: AtomicU32::new(0),
        status: AtomicU32::new(0),
        originals: AtomicU32::new(0),
    };
    let ends = Arc::new(ends, GFP_KERNEL)?;
    Ok((Note(ends.clone()), ends))
}

/// A disk, and bios that are sent to it.
pub(crate) struct Bench {
    pub(crate) set: Arc<BioSet<Note>>,
    pub(crate) buf: PageBuf,
    pub(crate) disk: MemoryDisk,
}

pub(crate) const PAGES: usize = 3;

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            set: Arc::pin_init(BioSet::new(4, true), GFP_KERNEL)?,
            buf: PageBuf::new(&PagePool::new(PAGES)?, PAGES)?,
            disk: MemoryDisk::plain(c"imgstream_kunit")?,
        })
    }

    /// Sends a bio over the first sectors of the buffer.
    pub(crate) fn send(&self, op: Op, sector: u64, sectors: u64) -> Result<Arc<Ends>> {
        let len = (sectors * SECTOR_BYTES) as usize;
        let mut bio = self.set.over(self.disk.bdev()?, op, &self.buf, 0, len)?;
        bio.set_sector(sector);
        let (note, ends) = note()?;
        bio.submit(note);
        Ok(ends)
    }

    /// A bio as a driver gets it, and how it ends.
    pub(crate) fn incoming(&self, op: Op, sector: u64, sectors: u64) -> Result<(Bio, Arc<Ends>)> {
        self.disk.hold(true);
        let ends = self.send(op, sector, sectors)?;
        Ok((self.disk.take().ok_or(EIO)?, ends))
    }
}
