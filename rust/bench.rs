// SPDX-License-Identifier: GPL-2.0-only

//! Pass-through devices of both kinds over one disk, to measure what the head and the stream queue cost.
//!
//! Built only with `IMGSTREAM_BENCH=1`; the figures are in Documentation/design/head-and-stream.rst.

use crate::kapi::{
    bdev::Bdev,
    bio::{
        Bio,
        BioSet,
        Completion,
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
        mq::{
            MqDisk,
            MqDriver,
            Request, //
        },
        BlkStatus,
        SECTOR_BYTES, //
    },
    page::{
        PageBuf,
        PagePool,
        PAGE_BYTES, //
    },
    sync::{
        new_irq_spinlock,
        IrqSpinLock, //
    },
    workqueue::Queue,
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    },
};

/// Both devices.
pub(crate) struct Bench {
    _bio: BioDisk<Pass>,
    _mq: MqDisk<Copying>,
}

impl Bench {
    /// Opens the disk and offers it as `imgbench-bio` and `imgbench-mq`.
    pub(crate) fn open(path: Option<&CStr>) -> Result<Self> {
        let path = path.ok_or(EINVAL)?;
        let disk = Arc::new(Bdev::open(path)?, GFP_KERNEL)?;
        let config = |name, limits| Config {
            name,
            size_bytes: disk.size_bytes(),
            limits,
            visibility: Visibility::Whole,
            read_only: false,
        };
        let limits = Limits::stacked(&disk, Features::NOWAIT | Features::IO_STAT).plain();
        let pass = Arc::pin_init(Pass::new(disk.clone()), GFP_KERNEL)?;
        let bio = BioDisk::add(pass, config(c"imgbench-bio", limits))?;
        let limits = Limits::copied(1 << 20)
            .block_bytes(512, 4096)
            .features(Features::IO_STAT);
        let copying = Arc::pin_init(Copying::new(disk.clone())?, GFP_KERNEL)?;
        let mq = MqDisk::add(copying, config(c"imgbench-mq", limits), 128)?;
        Ok(Self { _bio: bio, _mq: mq })
    }
}

/// One clone per bio, as the head does for local blocks.
#[pin_data]
struct Pass {
    disk: Arc<Bdev>,
    #[pin]
    clones: BioSet<EndOriginal>,
}

impl Pass {
    fn new(disk: Arc<Bdev>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            disk,
            clones <- BioSet::new(64, false),
        })
    }
}

impl BioDriver for Pass {
    fn submit(this: ArcBorrow<'_, Self>, bio: Bio) {
        match this.clones.clone_of(&this.disk, bio) {
            Ok(clone) => clone.submit(EndOriginal),
            Err(bio) => bio.end(BlkStatus::AGAIN),
        }
    }
}

struct EndOriginal;

impl Completion for EndOriginal {
    fn done(self, original: Option<Bio>, status: BlkStatus) {
        if let Some(bio) = original {
            bio.end(status);
        }
    }
}

/// Requests through a work queue and own pages, as the stream queue does for blocks that are not there.
#[pin_data]
struct Copying {
    disk: Arc<Bdev>,
    #[pin]
    bios: BioSet<EndRequest>,
    pool: Arc<PagePool>,
    #[pin]
    waiting: IrqSpinLock<KVec<Request>>,
    #[pin]
    work: Work<Copying>,
    queue: Queue,
}

impl_has_work! { impl HasWork<Self> for Copying { self.work } }

impl Copying {
    fn new(disk: Arc<Bdev>) -> Result<impl PinInit<Self, Error>> {
        let pool = PagePool::new(256)?;
        let waiting = KVec::with_capacity(128, GFP_KERNEL)?;
        let queue = Queue::new(c"imgbench")?;
        Ok(try_pin_init!(Self {
            disk,
            bios <- BioSet::new(64, true),
            pool,
            waiting <- new_irq_spinlock!(waiting, c"imgbench:waiting"),
            work <- new_work!("imgbench:work"),
            queue,
        }))
    }

    fn handle(&self, request: Request) -> Result {
        let bytes = request.len_bytes();
        let op = request.op();
        let pages = (bytes as usize).div_ceil(PAGE_BYTES);
        let buf = PageBuf::new(&self.pool, pages)?;
        if op == Op::Write {
            request.copy_out(0, &buf, 0, bytes)?;
        }
        let mut bio = self.bios.over(&self.disk, op, &buf, 0, bytes as usize)?;
        bio.set_sector(request.offset_bytes() / SECTOR_BYTES);
        bio.submit(EndRequest { request, buf });
        Ok(())
    }
}

impl WorkItem for Copying {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        loop {
            let Some(request) = this.waiting.lock().pop() else {
                return;
            };
            let _ = this.handle(request);
        }
    }
}

impl MqDriver for Copying {
    fn queue(this: ArcBorrow<'_, Self>, request: Request) {
        let full = this.waiting.lock().push_within_capacity(request).is_err();
        if !full {
            let _ = this.queue.enqueue(Arc::from(this));
        }
    }
}

struct EndRequest {
    request: Request,
    buf: PageBuf,
}

impl Completion for EndRequest {
    fn done(self, _original: Option<Bio>, status: BlkStatus) {
        let bytes = self.request.len_bytes();
        if !status.is_ok() {
            self.request.fail(status);
        } else if self.request.op() == Op::Write
            || self.request.copy_in(0, &self.buf, 0, bytes).is_ok()
        {
            self.request.done(bytes);
        }
    }
}
