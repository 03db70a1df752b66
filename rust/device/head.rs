// SPDX-License-Identifier: GPL-2.0-only

//! The head: `/dev/imgstream0`. Bio-based, without tags, never waiting for anything but its own reserves.
//!
//! It looks a bio's first blocks up, splits off what has one answer, and sends that as a clone to the disk. Only what
//! needs the repository, or merging, goes to the stream queue: so a dead network fills that queue and holds nothing
//! else up. The order in every path is: enter the epoch, look at the exclusion, look the location up, act.

use crate::{
    device::{
        inner::{
            covering,
            Core,
            Member,
            BLOCK_SECTORS, //
        },
        local::{
            LocalIo,
            Purpose,
            Whole, //
        },
        stream::Stream, //
    },
    kapi::{
        bio::{
            Bio,
            Op, //
        },
        blk::{
            disk::BioDriver,
            mq::MqDisk,
            BlkStatus,
            SECTOR_BYTES, //
        },
    },
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    block::{
        BlockState,
        Run, //
    },
    locate::{
        Piece,
        Place, //
    },
    map::Change,
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The driver of `/dev/imgstream0`.
pub(super) struct Head {
    core: Arc<Core>,
    stream: MqDisk<Stream>,
}

impl BioDriver for Head {
    fn submit(this: ArcBorrow<'_, Self>, bio: Bio) {
        this.core.counters.guest_ios.fetch_add(1, Ordering::Relaxed);
        if bio.is_preflush() {
            // With data, the bio comes back here without this demand: see `retry::flushed`.
            return this.core.store.flush(bio);
        }
        if bio.sectors() == 0 {
            return bio.end(BlkStatus::OK);
        }
        match bio.op() {
            Op::Read => this.read(bio),
            Op::Write if bio.is_fua() => this.write_durably(bio),
            Op::Write => this.write(bio),
            Op::Discard | Op::WriteZeroes => this.zero(bio),
            Op::Flush | Op::Other => bio.end(BlkStatus::NOTSUPP),
        }
    }
}

/// The first blocks of a bio: what they are, and how many of the bio's sectors are in them.
struct First {
    piece: Piece,
    run: Run,
    sectors: u32,
    /// The disk's sector that the bio's first sector has (in the slot, for absent and zero blocks).
    sector: u64,
}

impl Head {
    pub(super) fn new(core: Arc<Core>, stream: MqDisk<Stream>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { core, stream }, GFP_KERNEL)?)
    }

    fn first(member: &Member, bio: &Bio) -> Option<First> {
        let all = covering(bio.sector(), bio.sectors());
        let piece = member.locate(all.start, all.blocks)?;
        let run = Run::new(all.start, piece.blocks);
        let inside = run
            .end()
            .checked_mul(BLOCK_SECTORS)?
            .checked_sub(bio.sector())?;
        Some(First {
            piece,
            run,
            sectors: u32::try_from(inside).unwrap_or(u32::MAX).min(bio.sectors()),
            sector: (piece.disk_bytes / SECTOR_BYTES).checked_add(bio.sector() % BLOCK_SECTORS)?,
        })
    }

    /// Splits `sectors` off the front, if that is not all. The rest is submitted again and comes after the front part.
    fn front(member: &Member, bio: Bio, sectors: u32) -> Option<Bio> {
        if sectors >= bio.sectors() {
            return Some(bio);
        }
        if bio.is_nowait() {
            // A split would have to be undone if the rest had to wait.
            bio.end(BlkStatus::AGAIN);
            return None;
        }
        bio.split_front(sectors, &member.splits)
    }

    fn send(member: Member, bio: Bio, sector: u64, purpose: Purpose) -> Result<(), Bio> {
        let mut clone = member.clones.clone_of(&member.disk, bio)?;
        clone.set_sector(sector);
        clone.submit(LocalIo { member, purpose });
        Ok(())
    }

    fn to_stream(&self, bio: Bio) {
        if bio.is_nowait() {
            return bio.end(BlkStatus::AGAIN);
        }
        self.stream.send(bio);
    }

    fn read(&self, bio: Bio) {
        let member = self.core.enter();
        let Some(first) = Self::first(&member, &bio) else {
            return bio.end(BlkStatus::IOERR);
        };
        let Some(bio) = Self::front(&member, bio, first.sectors) else {
            return;
        };
        match first.piece.place {
            Place::Home | Place::Slot if bio.is_marked() => self.to_stream(bio),
            Place::Home | Place::Slot => {
                if let Err(bio) = Self::send(member, bio, first.sector, Purpose::Read) {
                    bio.end(BlkStatus::AGAIN);
                }
            }
            Place::Zero => bio.end_zeroed(),
            Place::Absent if bio.is_readahead() && !member.connected() => bio.end(BlkStatus::IOERR),
            Place::Absent => self.to_stream(bio),
        }
    }

    /// FUA: the data first, as any other write, then a flush round that covers it. At home no state changes, so that the
    /// disk can do both at once.
    fn write_durably(&self, bio: Bio) {
        let member = self.core.enter();
        let home = Self::first(&member, &bio).is_some_and(|first| {
            first.piece.place == Place::Home && first.sectors == bio.sectors()
        });
        if home {
            return self.write_in(member, bio);
        }
        let whole = match member.wholes.clone_of(&member.disk, bio) {
            Ok(whole) => whole,
            Err(bio) => return bio.end(BlkStatus::AGAIN),
        };
        let retry = member.retry.clone();
        // The copy enters an epoch of its own.
        drop(member);
        whole.submit_beside_without_durability(Whole { retry });
    }

    fn write(&self, bio: Bio) {
        self.write_in(self.core.enter(), bio);
    }

    fn write_in(&self, member: Member, bio: Bio) {
        if let Some(bio) = self.not_excluded(&member, bio) {
            let Some(first) = Self::first(&member, &bio) else {
                return bio.end(BlkStatus::IOERR);
            };
            match first.piece.place {
                Place::Home => Self::write_present(member, bio, first),
                Place::Slot => {
                    if first.piece.state == BlockState::Clean && !member.may_change_state() {
                        return bio.end(BlkStatus::IOERR);
                    }
                    Self::write_present(member, bio, first);
                }
                Place::Absent | Place::Zero => self.write_new(member, bio, first),
            }
        }
    }

    /// Gives the bio back unless `settle` is moving its blocks; then it waits.
    fn not_excluded(&self, member: &Member, bio: Bio) -> Option<Bio> {
        let run = covering(bio.sector(), bio.sectors());
        if !member.is_excluded(run) {
            return Some(bio);
        }
        if bio.is_nowait() {
            bio.end(BlkStatus::AGAIN);
            return None;
        }
        member.retry.block(bio, || member.is_excluded(run));
        None
    }

    fn write_present(member: Member, bio: Bio, first: First) {
        let Some(bio) = Self::front(&member, bio, first.sectors) else {
            return;
        };
        if first.piece.place == Place::Slot && first.piece.state == BlockState::Clean {
            // At submission: if the write is lost in a power cut, the block reads as before, whatever the map says.
            member.tables.map().apply(first.run, Change::Overwritten);
        }
        if let Err(bio) = Self::send(member, bio, first.sector, Purpose::Write) {
            bio.end(BlkStatus::AGAIN);
        }
    }

    /// A write to blocks that have no data here. Whole blocks go to their slots, without the network; they are claimed
    /// at submission, so that a fill that is under way drops them (rule 4).
    fn write_new(&self, member: Member, bio: Bio, first: First) {
        if !member.may_change_state() {
            return bio.end(BlkStatus::IOERR);
        }
        let (sectors, whole) = whole_front(bio.sector(), first.sectors);
        let Some(bio) = Self::front(&member, bio, sectors) else {
            return;
        };
        if !whole {
            return self.to_stream(bio);
        }
        let run = covering(bio.sector(), bio.sectors());
        let Some(bio) = Self::claim(&member, bio, run) else {
            return;
        };
        let claims = member.tables.clone();
        let retry = member.retry.clone();
        if let Err(bio) = Self::send(member, bio, first.sector, Purpose::NewSlot(run)) {
            claims.claims().release_run(run);
            retry.wake();
            bio.end(BlkStatus::AGAIN);
        }
    }

    /// Claims the run and gives the bio back; or lets the bio wait for whoever has claimed a part of it.
    fn claim(member: &Member, bio: Bio, run: Run) -> Option<Bio> {
        let claims = member.tables.claims();
        if claims.try_claim_all(run) {
            return Some(bio);
        }
        // What was claimed before the one that failed has been given back: somebody may have seen it taken meanwhile.
        member.retry.wake();
        if bio.is_nowait() {
            bio.end(BlkStatus::AGAIN);
            return None;
        }
        let taken = || (run.start..run.end()).any(|block| claims.claimed(block));
        member.retry.block(bio, taken);
        None
    }

    /// Discard and write-zeroes: recorded, so that nothing comes back from the repository or from old contents (rule 8).
    fn zero(&self, bio: Bio) {
        let member = self.core.enter();
        let Some(bio) = self.not_excluded(&member, bio) else {
            return;
        };
        let Some(first) = Self::first(&member, &bio) else {
            return bio.end(BlkStatus::IOERR);
        };
        if first.piece.place == Place::Home {
            return self.zero_home(member, bio, first);
        }
        if !member.may_change_state() {
            return bio.end(BlkStatus::IOERR);
        }
        let (sectors, whole) = whole_front(bio.sector(), first.sectors);
        let Some(bio) = Self::front(&member, bio, sectors) else {
            return;
        };
        match (whole, bio.op()) {
            (true, _) => Self::zero_blocks(&member, bio),
            // A part of a block: a discard is only a hint; zeroes are merged.
            (false, Op::Discard) => bio.end(BlkStatus::OK),
            (false, _) => self.to_stream(bio),
        }
    }

    fn zero_blocks(member: &Member, bio: Bio) {
        let run = covering(bio.sector(), bio.sectors());
        // Claimed, so that a fill that is storing is through before the blocks become zero.
        let Some(bio) = Self::claim(member, bio, run) else {
            return;
        };
        member.tables.map().apply(run, Change::Zeroed);
        member.tables.claims().release_run(run);
        member.retry.wake();
        bio.end(BlkStatus::OK);
    }

    fn zero_home(&self, member: Member, bio: Bio, first: First) {
        let discard = bio.op() == Op::Discard;
        let Some(bio) = Self::front(&member, bio, first.sectors) else {
            return;
        };
        if discard && !member.disk.can_discard() {
            return bio.end(BlkStatus::OK);
        }
        if !discard && !member.disk.can_write_zeroes() {
            return self.to_stream(bio);
        }
        if let Err(bio) = Self::send(member, bio, first.sector, Purpose::Write) {
            bio.end(BlkStatus::AGAIN);
        }
    }
}

/// How many sectors from `sector` on, at most `sectors`, are either whole blocks (then `true`) or a part of one block.
fn whole_front(sector: u64, sectors: u32) -> (u32, bool) {
    let block = BLOCK_SECTORS as u32;
    let inside = (sector % BLOCK_SECTORS) as u32;
    if inside != 0 {
        return (sectors.min(block - inside), false);
    }
    if sectors < block {
        return (sectors, false);
    }
    (sectors - sectors % block, true)
}
