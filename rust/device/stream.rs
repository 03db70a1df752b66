// SPDX-License-Identifier: GPL-2.0-only

//! The stream queue: a hidden blk-mq disk behind the head. What comes here needs the repository, or needed it when it came.
//!
//! blk-mq gives it tags, merging of adjacent requests and accounting. The queue handler only puts requests on a list; a
//! worker looks them up and starts fetches. The worker waits for the disk now and then, never for the network.

use crate::{
    device::{
        inner::{
            covering,
            Core,
            Queues,
            PIECE_BLOCKS, //
        },
        merge,
        units::want,
        waiter::Waiter, //
    },
    kapi::{
        bio::Op,
        blk::{
            mq::{
                MqDriver,
                Request, //
            },
            BlkStatus,
            SECTOR_BYTES, //
        },
        noio::NoIo,
        page::PageBuf,
        sync::{
            new_irq_spinlock,
            IrqSpinLock, //
        },
    },
    source::Priority,
};
use imgstream_engine::{
    block::Run,
    locate::Place, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// Requests at a time.
pub(super) const DEPTH: u32 = 128;

/// The driver of the stream queue.
#[pin_data]
pub(super) struct Stream {
    core: Arc<Core>,
    queues: Arc<Queues>,
    /// Has room for all requests there can be.
    #[pin]
    waiting: IrqSpinLock<KVec<Request>>,
    /// Swapped with `waiting`, so that taking all requests needs no memory.
    #[pin]
    spare: Mutex<KVec<Request>>,
    #[pin]
    work: Work<Stream>,
}

impl_has_work! { impl HasWork<Self> for Stream { self.work } }

impl Stream {
    pub(super) fn new(core: Arc<Core>, queues: Arc<Queues>) -> Result<Arc<Self>> {
        let waiting = KVec::with_capacity(DEPTH as usize, GFP_KERNEL)?;
        let spare = KVec::with_capacity(DEPTH as usize, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                core,
                queues,
                waiting <- new_irq_spinlock!(waiting, c"imgstream:stream"),
                spare <- new_mutex!(spare, "imgstream:stream_spare"),
                work <- new_work!("imgstream:stream"),
            }),
            GFP_KERNEL,
        )
    }

    fn handle(&self, request: Request) {
        let result = match request.op() {
            Op::Read => self.read(&request),
            Op::Write | Op::WriteZeroes => {
                self.write(&request);
                Ok(())
            }
            Op::Flush | Op::Discard | Op::Other => return request.fail(BlkStatus::NOTSUPP),
        };
        if let Err(error) = result {
            request.fail(error.into());
        }
    }

    fn blocks(request: &Request) -> Run {
        let sectors = request.len_bytes() / SECTOR_BYTES as u32;
        covering(request.offset_bytes() / SECTOR_BYTES, sectors)
    }

    fn read(&self, request: &Request) -> Result {
        let all = Self::blocks(request);
        let mut at = all.start;
        while at < all.end() {
            let left = Run::from_to(at, all.end());
            at = at.saturating_add(self.read_front(request, left)?);
        }
        Ok(())
    }

    /// Answers, or has answered later, the first blocks of `run`; how many.
    fn read_front(&self, request: &Request, run: Run) -> Result<u64> {
        let piece = self.core.locate(run.start, run.blocks).ok_or(EINVAL)?;
        let part = Run::new(run.start, piece.blocks.min(PIECE_BLOCKS));
        match piece.place {
            Place::Absent => self.fetch(request, part, true),
            Place::Zero => {
                merge::zero_in(&self.core, request, part);
                Ok(part.blocks)
            }
            Place::Home | Place::Slot => self.read_present(request, part),
        }
    }

    fn fetch(&self, request: &Request, run: Run, store: bool) -> Result<u64> {
        let waiter = Waiter::Read(request.clone());
        want(&self.core, run, waiter, Priority::Demand, store)
    }

    /// Blocks that arrived since the head looked, or that could not be read there. A clean block that cannot be read here
    /// either comes from the repository, if clean can be relied on; it is not stored, as a guest write may be under way.
    fn read_present(&self, request: &Request, run: Run) -> Result<u64> {
        let buf = PageBuf::new(&self.core.pool, usize::try_from(run.blocks)?)?;
        let member = self.core.enter();
        let piece = member.locate(run.start, run.blocks).ok_or(EINVAL)?;
        if !matches!(piece.place, Place::Home | Place::Slot) {
            // Discarded meanwhile: look again.
            return Ok(0);
        }
        let part = Run::new(run.start, piece.blocks);
        let len = part.bytes() as usize;
        let result = merge::local(&member, Op::Read, piece.disk_bytes, &buf, 0, len);
        drop(member);
        match result {
            Ok(()) => merge::copy_in(request, part, &buf, 0),
            Err(_) if piece.place == Place::Slot && self.core.trust.may_fetch(piece.state) => {
                // The fetch takes as many pages, of the same reserve.
                drop(buf);
                return self.fetch(request, part, false);
            }
            Err(error) => return Err(error),
        }
        Ok(part.blocks)
    }

    fn write(&self, request: &Request) {
        let all = Self::blocks(request);
        for block in all.start..all.end() {
            merge::write_block(&self.core, request, block, None);
        }
    }
}

impl MqDriver for Stream {
    fn queue(this: ArcBorrow<'_, Self>, request: Request) {
        let full = this.waiting.lock().push_within_capacity(request);
        if full.is_err() {
            // Cannot be: there is room for as many as the queue is deep. The request ends with an error.
            return;
        }
        let _ = this.queues.stream.enqueue(Arc::from(this));
    }
}

impl WorkItem for Stream {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        let mut spare = this.spare.lock();
        loop {
            core::mem::swap(&mut *this.waiting.lock(), &mut *spare);
            if spare.is_empty() {
                return;
            }
            for request in spare.drain_all() {
                this.handle(request);
            }
        }
    }
}
