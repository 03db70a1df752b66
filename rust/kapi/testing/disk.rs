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
            limits::Limits,
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
    /// Bios are kept for [`MemoryDisk::take`].
    hold: bool,
    held: BioList,
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
        if behaviour.hold {
            return behaviour.held.push(bio);
        }
        let bad = &behaviour.bad;
        let is_bad = sectors.start < bad.end && bad.start < sectors.end;
        drop(behaviour);
        let result = match is_bad {
            true => Err(EIO),
            false => this.data_of(&bio),
        };
        bio.end(BlkStatus::from(result));
    }
}

impl Memory {
    fn data_of(&self, bio: &Bio) -> Result {
        let copy = match bio.op() {
            Op::Read => bindings::imgstream_bio_copy_to,
            Op::Write => bindings::imgstream_bio_copy_from,
            _ => return Err(EINVAL),
        };
        let start = usize::try_from(bio.sector().saturating_mul(SECTOR_BYTES))?;
        let mut done: u32 = 0;
        let len = bio.sectors() as usize * SECTOR_BYTES as usize;
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

    /// The open disk. Nobody may keep it longer than this object.
    pub(crate) fn bdev(&self) -> Result<&Arc<Bdev>> {
        self.bdev.as_ref().ok_or(ENODEV)
    }

    /// What is on it.
    pub(crate) fn data(&self) -> &PageBuf {
        &self.memory.data
    }

    /// Makes these sectors fail, and no others.
    pub(crate) fn break_sectors(&self, bad: Range<u64>) {
        self.memory.behaviour.lock().bad = bad;
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
        self.bdev = None;
        // SAFETY: Tests run in kernel threads, whose files are closed later, by a work item: now, so that nobody keeps
        // the module.
        unsafe { bindings::flush_delayed_fput() };
    }
}
