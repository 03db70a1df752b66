// SPDX-License-Identifier: GPL-2.0-only

//! Finds the partitions of `/dev/imgstream0` after it was added.
//!
//! The kernel's scan reads through the device while it holds up everybody who opens it. So it does not run before the
//! blocks that it reads are here: with a dead network the device is attached, says in sysfs what it waits for, and can be
//! detached. (The table at the image's start is a part of the boot region and here from the beginning; a GPT's backup is
//! not. Logical partitions of an MBR are described all over the disk: for them the scan itself waits.)

use crate::{
    device::{
        asked::Asked,
        inner::{
            Core,
            Queues, //
        },
        merge,
    },
    kapi::{
        bio::Op,
        blk::disk::PartitionScan,
        noio::NoIo,
        page::PageBuf,
        workqueue::cancel_delayed_sync, //
    },
    source::Priority,
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use imgstream_engine::{
    block::Run,
    locate::Place,
    sweep::Next, //
};
use imgstream_proto::disk::BLOCK_LEN;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    workqueue::{
        impl_has_delayed_work,
        new_delayed_work,
        DelayedWork,
        WorkItem, //
    }, //
};

/// Blocks at the image's start that partition tables are looked for in.
const HEAD_BLOCKS: u64 = 4;
/// Blocks that a GPT's backup touches: 33 sectors.
const BACKUP_BLOCKS: u64 = 5;
/// Where a GPT says that it is one: the second sector.
const SIGNATURE_AT: usize = 512;
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// When to look again for blocks that are being fetched, in milliseconds.
const FETCH_MS: u32 = 20;

/// The scan.
#[pin_data]
pub(super) struct Scan {
    core: Arc<Core>,
    queues: Arc<Queues>,
    /// The image's start, and what a GPT's backup touches.
    head: Arc<Asked>,
    backup: Arc<Asked>,
    /// Taken when the time has come.
    #[pin]
    disk: Mutex<Option<PartitionScan>>,
    done: AtomicBool,
    #[pin]
    work: DelayedWork<Scan>,
}

impl_has_delayed_work! { impl HasDelayedWork<Self> for Scan { self.work } }

impl Scan {
    pub(super) fn new(core: Arc<Core>, queues: Arc<Queues>) -> Result<Arc<Self>> {
        let blocks = core.tables.blocks();
        let head = Run::new(0, HEAD_BLOCKS.min(blocks));
        let backup = Run::from_to(blocks.saturating_sub(BACKUP_BLOCKS), blocks);
        let head = Asked::new(head, Priority::Demand)?;
        let backup = Asked::new(backup, Priority::Demand)?;
        Arc::pin_init(
            pin_init!(Self {
                core,
                queues,
                head,
                backup,
                disk <- new_mutex!(None, "imgstream:scan"),
                done: AtomicBool::new(false),
                work <- new_delayed_work!("imgstream:scan"),
            }),
            GFP_KERNEL,
        )
    }

    /// Has the disk scanned as soon as that need not wait.
    pub(super) fn begin(self: &Arc<Self>, disk: PartitionScan) {
        *self.disk.lock() = Some(disk);
        self.come_again(0);
    }

    /// No scan begins any more; one that runs may still wait for the network.
    pub(super) fn end(&self) {
        drop(self.disk.lock().take());
    }

    /// After [`end`](Self::end), so that it does not come again, and only when fetches end by themselves: returns when none is
    /// running.
    pub(super) fn wait_for_end(self: &Arc<Self>) {
        let _ = cancel_delayed_sync(self);
    }

    /// Whether the partitions are known.
    pub(super) fn done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn come_again(self: &Arc<Self>, ms: u32) {
        self.queues.background.enqueue_at(self.clone(), ms);
    }

    /// Whether all that the scan reads is here; asks for what is not. An error is met by the scan again, and said there.
    fn all_here(&self) -> Result<bool> {
        if !self.is_here(&self.head)? {
            return Ok(false);
        }
        if !self.is_gpt()? {
            return Ok(true);
        }
        self.is_here(&self.backup)
    }

    fn is_here(&self, asked: &Arc<Asked>) -> Result<bool> {
        // Whoever reads the partition table waits for this, so nothing holds it back.
        let in_vain = match asked.go_on(&self.core, usize::MAX, |_| Ok(()))? {
            Next::Done => return Ok(true),
            Next::Stuck(_) => true,
            // What comes is not kept, so it would never be here.
            _ => !self.core.may_change_state(),
        };
        // With a connection the scan's own read ends soon, well or not; without one it would hold up who opens the disk.
        match in_vain && self.core.connected() {
            true => Err(EIO),
            false => Ok(false),
        }
    }

    fn is_gpt(&self) -> Result<bool> {
        let buf = PageBuf::new(&self.core.pool, 1)?;
        let member = self.core.enter();
        let piece = member.locate(0, 1).ok_or(EINVAL)?;
        if !matches!(piece.place, Place::Home | Place::Slot) {
            return Ok(false);
        }
        merge::local(&member, Op::Read, piece.disk_bytes, &buf, 0, BLOCK_LEN)?;
        let mut found = [0; SIGNATURE.len()];
        buf.copy_to_slice(SIGNATURE_AT, &mut found)?;
        Ok(found == *SIGNATURE)
    }
}

impl WorkItem for Scan {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        if this.disk.lock().is_none() {
            return;
        }
        if let Ok(false) = this.all_here() {
            return this.come_again(FETCH_MS);
        }
        // Not with the lock: `end` takes it.
        let disk = this.disk.lock().take();
        if let Some(disk) = disk {
            disk.run();
            this.done.store(true, Ordering::Release);
        }
    }
}
