// SPDX-License-Identifier: GPL-2.0-only

//! The source view: `/dev/imgstream0-source`, the disk as it was before the switch, read-only. Boot locations are read
//! from where the source's blocks were relocated to; everything else below S has not changed. Only before commit.

use crate::{
    device::{
        inner::{
            covering,
            Core,
            BLOCK_SECTORS, //
        },
        local::{
            LocalIo,
            Purpose, //
        },
    },
    kapi::{
        bdev::Bdev,
        bio::{
            Bio,
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
    },
};
use imgstream_engine::{
    block::Run,
    locate::BootRun, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The driver of the view.
pub(super) struct View {
    core: Arc<Core>,
}

impl View {
    /// Offers the view.
    pub(super) fn open(core: &Arc<Core>) -> Result<BioDisk<Self>> {
        let limits = Limits::stacked(&core.disk, Features::IO_STAT)
            .block_bytes(core.tables.geometry().logical_block_bytes, 4096)
            .plain();
        let config = Config {
            name: c"imgstream0-source",
            size_bytes: core.tables.geometry().source_bytes,
            limits,
            visibility: Visibility::Whole,
            read_only: true,
        };
        let view = Self { core: core.clone() };
        BioDisk::add(Arc::new(view, GFP_KERNEL)?, config)
    }
}

impl BioDriver for View {
    fn submit(this: ArcBorrow<'_, Self>, bio: Bio) {
        if bio.op() != Op::Read {
            return bio.end(BlkStatus::NOTSUPP);
        }
        let member = this.core.enter();
        let Some((sector, sectors)) = place(member.tables.boot(), bio.sector(), bio.sectors())
        else {
            return bio.end(BlkStatus::IOERR);
        };
        let bio = if sectors < bio.sectors() {
            match bio.split_front(sectors, &member.splits) {
                Some(front) => front,
                None => return,
            }
        } else {
            bio
        };
        match member.clones.clone_of(&member.disk, bio) {
            Ok(mut clone) => {
                clone.set_sector(sector);
                clone.submit(LocalIo {
                    member,
                    purpose: Purpose::View,
                });
            }
            Err(bio) => bio.end(BlkStatus::AGAIN),
        }
    }

    fn below(&self) -> Option<&Bdev> {
        Some(&self.core.disk)
    }
}

/// Where the source's `sector` is now, and how many from it on, at most `sectors`, follow it.
fn place(boot: &[BootRun], sector: u64, sectors: u32) -> Option<(u64, u32)> {
    let all = covering(sector, sectors);
    let next = boot.partition_point(|entry| entry.run.end() <= all.start);
    let (blocks, moved) = match boot.get(next) {
        Some(entry) if entry.run.contains(all.start) => {
            let inside = Run::from_to(entry.run.start, all.start).bytes();
            let from = entry.relocated_bytes.checked_add(inside)?;
            (Run::from_to(all.start, entry.run.end()), Some(from))
        }
        Some(entry) => (Run::from_to(all.start, entry.run.start), None),
        None => (all, None),
    };
    let end = blocks.end().checked_mul(BLOCK_SECTORS)?;
    let count = u32::try_from(end.checked_sub(sector)?)
        .unwrap_or(u32::MAX)
        .min(sectors);
    let start = match moved {
        Some(bytes) => (bytes / SECTOR_BYTES).checked_add(sector % BLOCK_SECTORS)?,
        None => sector,
    };
    Some((start, count))
}
