// SPDX-License-Identifier: GPL-2.0-only

//! A disk in memory, for what needs one to send bios to, or to receive bios from.

use crate::{
    bindings,
    kapi::{
        bdev::Bdev,
        bio::{
            Bio,
            BioList,
            Op, //
        },
        blk::{
            disk::{
                BioDisk,
                BioDriver,
                Config,
                Visibility, //
            },
            limits::{
                Features,
                Limits, //
            },
            BlkStatus,
            SECTOR_BYTES, //
        },
        page::{
            PageBuf,
            PagePool, //
        },
        sync::{
            new_irq_spinlock,
            IrqSpinLock, //
        },
    },
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
};

/// Pages of the disk.
const PAGES: usize = 64;

/// What the disk does with bios.
struct Behaviour {
    /// These sectors cannot be read or written.
    bad: Range<u64>,
    /// So many bios are answered before the disk fails all.
    left: usize,
    /// What came, as far as there is room.
    asked: KVec<(Op, u64)>,
    /// Bios are kept for [`MemoryDisk::take`].
    hold: bool,
    held: BioList,
}

/// Room for what a disk is asked.
const ASKED: usize = 128;

impl Behaviour {
    fn asked(&mut self, bio: &Bio) {
        let op = match (bio.is_preflush(), bio.sectors()) {
            (true, 0) => Op::Flush,
            _ => bio.op(),
        };
        // Without room nobody wants to know.
        let _ = self.asked.push_within_capacity((op, bio.sector()));
    }

    /// Whether a bio for these sectors fails.
    fn fails(&mut self, sectors: &Range<u64>) -> bool {
        let dead = self.left == 0;
        self.left = self.left.saturating_sub(1);
        dead || sectors.start < self.bad.end && self.bad.start < sectors.end
    }
}

/// The driver.
#[pin_data]
struct Memory {
    data: PageBuf,
    #[pin]
    behaviour: IrqSpinLock<Behaviour>,
}

impl BioDriver for Memory {
    fn submit(this: ArcBorrow<'_, Self>, bio: Bio) {
        let sectors = bio.sector()..bio.sector().saturating_add(bio.sectors().into());
        let mut behaviour = this.behaviour.lock();
        behaviour.asked(&bio);
        if behaviour.hold {
            return behaviour.held.push(bio);
        }
        let fails = behaviour.fails(&sectors);
        drop(behaviour);
        let result = match fails {
            true => Err(EIO),
            false => this.data_of(&bio),
        };
        bio.end(BlkStatus::from(result));
    }
}

impl Memory {
    fn data_of(&self, bio: &Bio) -> Result {
        let start = usize::try_from(bio.sector().saturating_mul(SECTOR_BYTES))?;
        let len = bio.sectors() as usize * SECTOR_BYTES as usize;
        let copy = match bio.op() {
            Op::Read => bindings::imgstream_bio_copy_to,
            Op::Write => bindings::imgstream_bio_copy_from,
            Op::WriteZeroes => return self.data.fill_zero(start, len),
            _ => return Err(EINVAL),
        };
        let mut done: u32 = 0;
        self.data.each_part(start, len, |page, part| {
            let (at, len) = (part.offset as u32, part.len as u32);
            // SAFETY: `done + len` is at most the bio's length, and the part is inside of the page.
            unsafe { copy(bio.as_ptr(), done, page.as_ptr(), at, len) };
            done = done.saturating_add(len);
            Ok(())
        })
    }
}

/// A disk in memory that is opened. Its name is used by one at a time.
pub(crate) struct MemoryDisk {
    // Closed before the disk goes.
    bdev: Option<Arc<Bdev>>,
    memory: Arc<Memory>,
    _disk: BioDisk<Memory>,
}

impl MemoryDisk {
    /// A disk of zeroes that does what it is told.
    pub(crate) fn new(name: &'static CStr, limits: Limits) -> Result<Self> {
        let data = PageBuf::new(&PagePool::new(PAGES)?, PAGES)?;
        data.fill_zero(0, data.len())?;
        let behaviour = Behaviour {
            bad: 0..0,
            left: usize::MAX,
            asked: KVec::new(),
            hold: false,
            held: BioList::new(),
        };
        let memory = Arc::pin_init(
            pin_init!(Memory {
                data,
                behaviour <- new_irq_spinlock!(behaviour, c"imgstream:kunit_disk"),
            }),
            GFP_KERNEL,
        )?;
        let config = Config {
            name,
            size_bytes: memory.data.len() as u64,
            limits,
            visibility: Visibility::Whole,
            read_only: false,
        };
        let disk = BioDisk::add(memory.clone(), config)?;
        let bdev = Bdev::open_own(disk.part0()?)?;
        Ok(Self {
            bdev: Some(Arc::new(bdev, GFP_KERNEL)?),
            memory,
            _disk: disk,
        })
    }

    /// One with sectors of 512 bytes.
    pub(crate) fn plain(name: &'static CStr) -> Result<Self> {
        Self::new(name, Limits::copied(1 << 20).block_bytes(512, 4096))
    }

    /// The same with a cache, so that it is flushed.
    pub(crate) fn cached(name: &'static CStr) -> Result<Self> {
        let limits = Limits::copied(1 << 20).block_bytes(512, 4096);
        Self::new(name, limits.features(Features::WRITE_CACHE))
    }

    /// The open disk. Nobody may keep it longer than this object.
    pub(crate) fn bdev(&self) -> Result<&Arc<Bdev>> {
        self.bdev.as_ref().ok_or(ENODEV)
    }

    /// Closes it, and leaves the disk.
    pub(crate) fn close(&mut self) {
        self.bdev = None;
        // SAFETY: Tests run in kernel threads, whose files are closed later, by a work item: now, so that nobody keeps
        // the module.
        unsafe { bindings::flush_delayed_fput() };
    }

    /// What is on it.
    pub(crate) fn data(&self) -> &PageBuf {
        &self.memory.data
    }

    /// Makes these sectors fail, and no others.
    pub(crate) fn break_sectors(&self, bad: Range<u64>) {
        self.memory.behaviour.lock().bad = bad;
    }

    /// Answers so many more, then fails everything.
    pub(crate) fn fail_after(&self, bios: usize) {
        self.memory.behaviour.lock().left = bios;
    }

    /// Forgets what it was asked, and writes down what it is asked from now on: operations, and their first sectors.
    pub(crate) fn watch(&self) -> Result {
        let mut room = KVec::with_capacity(ASKED, GFP_KERNEL)?;
        core::mem::swap(&mut self.memory.behaviour.lock().asked, &mut room);
        Ok(())
    }

    /// What it was asked since then.
    pub(crate) fn asked(&self) -> KVec<(Op, u64)> {
        core::mem::take(&mut self.memory.behaviour.lock().asked)
    }

    /// Whether bios are kept instead of being answered.
    pub(crate) fn hold(&self, hold: bool) {
        self.memory.behaviour.lock().hold = hold;
    }

    /// The first bio that is kept.
    pub(crate) fn take(&self) -> Option<Bio> {
        self.memory.behaviour.lock().held.pop()
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        // Outside of the lock: bios that are left end here.
        let held = self.memory.behaviour.lock().held.take();
        drop(held);
        self.close();
    }
}
