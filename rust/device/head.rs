// SPDX-License-Identifier: GPL-2.0-only

//! The head: `/dev/imgstream0`. Bio-based, without tags, never waiting for anything but its own reserves.
//!
//! It looks a bio's first blocks up, splits off what has one answer, and sends that as a clone to the disk; or, where there
//! are zeroes to write, as a bio of our own. Only what needs the repository goes to the stream queue, to be fetched or
//! merged with: so a dead network fills that queue and holds nothing else up. The order in every path is: enter the epoch,
//! look at the exclusion, look the location up, act.
//!
//! Bios are submitted here by the driver's own workers, too (rounds, retries, the commit), and none of these may wait
//! for the network. So nobody waits here for a tag of the stream queue: what is for it goes on a list, and a work item
//! with a queue of its own *feeds* it, splitting and waiting for tags.

use crate::{
    device::{
        durable,
        inner::{
            covering,
            Core,
            Member,
            Queues,
            BLOCK_SECTORS,
            PIECE_BLOCKS, //
        },
        local::{
            LocalIo,
            Purpose, //
        },
        stream::Stream, //
    },
    kapi::{
        bdev::Bdev,
        bio::{
            Bio,
            BioList,
            BioSet,
            Clone,
            Completion,
            Op, //
        },
        blk::{
            disk::BioDriver,
            mq::MqDisk,
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
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    block::{
        Base,
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
    },
    workqueue::{
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// Zeroes that are written at a time: a piece, as much as fits into a bio.
const ZEROES_SECTORS: u32 = (PIECE_BLOCKS * BLOCK_SECTORS) as u32;

/// The driver of `/dev/imgstream0`.
#[pin_data]
pub(super) struct Head {
    core: Arc<Core>,
    queues: Arc<Queues>,
    stream: MqDisk<Stream>,
    /// For the stream queue; linked through the bios, so waiting needs no memory.
    #[pin]
    fed: IrqSpinLock<BioList>,
    #[pin]
    work: Work<Head>,
}

impl_has_work! { impl HasWork<Self> for Head { self.work } }

/// Who asks what is to become of a bio.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The block layer: must not wait for the stream queue.
    In,
    /// The feeding work item.
    Feed,
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
        Self::act(this, bio, Way::In);
    }

    fn below(&self) -> Option<&Bdev> {
        Some(&self.core.disk)
    }
}

impl WorkItem for Head {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _noio = NoIo::enter();
        let mut fed = this.fed.lock().take();
        // What it is may have changed meanwhile: it is looked up again.
        while let Some(bio) = fed.pop() {
            Self::act(this.as_arc_borrow(), bio, Way::Feed);
        }
    }
}

/// What is under way in the stream queue: a clone, so that the original is counted for the device that it was sent to.
pub(super) struct Streamed;

impl Completion for Streamed {
    const ACCOUNTED: bool = true;

    fn done(self, original: Option<Bio>, status: BlkStatus) {
        if let Some(bio) = original {
            bio.end(status);
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
    pub(super) fn new(
        core: Arc<Core>,
        queues: Arc<Queues>,
        stream: MqDisk<Stream>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                core,
                queues,
                stream,
                fed <- new_irq_spinlock!(BioList::new(), c"imgstream:fed"),
                work <- new_work!("imgstream:feed"),
            }),
            GFP_KERNEL,
        )
    }

    /// What becomes of a bio with data.
    fn act(this: ArcBorrow<'_, Self>, bio: Bio, way: Way) {
        match bio.op() {
            Op::Read => Self::read(this, bio, way),
            Op::Write if bio.is_fua() => Self::write_durably(this, bio, way),
            Op::Write => Self::write_in(this, this.core.enter(), bio, way),
            Op::Discard | Op::WriteZeroes => Self::zero(this, bio, way),
            Op::Flush | Op::Other => bio.end(BlkStatus::NOTSUPP),
        }
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
    fn front(splits: &BioSet<()>, bio: Bio, sectors: u32) -> Option<Bio> {
        if sectors >= bio.sectors() {
            return Some(bio);
        }
        if bio.is_nowait() {
            // A split would have to be undone if the rest had to wait.
            bio.end(BlkStatus::AGAIN);
            return None;
        }
        bio.split_front(sectors, splits)
    }

    /// Gives both back if there is no memory right now and the bio must not wait.
    fn send(member: Member, bio: Bio, sector: u64, purpose: Purpose) -> Result<(), (Member, Bio)> {
        let mut clone = match member.clones.clone_of(&member.disk, bio) {
            Ok(clone) => clone,
            Err(bio) => return Err((member, bio)),
        };
        clone.set_sector(sector);
        clone.submit(LocalIo { member, purpose });
        Ok(())
    }

    /// The first sectors of a bio are for the stream queue. The reserves of what gets there are its own (no copy of a local
    /// durable write is among it, see [`durable`]), and nobody who waits for a tag is a member of an epoch: neither local I/O
    /// nor a commit waits for the network because of it.
    fn to_stream(this: ArcBorrow<'_, Self>, member: Member, bio: Bio, sectors: u32, way: Way) {
        drop(member);
        if bio.is_nowait() {
            return bio.end(BlkStatus::AGAIN);
        }
        if way == Way::In {
            this.fed.lock().push(bio);
            let _ = this.queues.feed.enqueue(Arc::from(this));
            return;
        }
        let front = match sectors < bio.sectors() {
            true => bio.split_front(sectors, &this.core.stream_splits),
            false => Some(bio),
        };
        if let Some(front) = front {
            let set = &this.core.streamed;
            this.stream.send(set, front, Streamed);
        }
    }

    fn read(this: ArcBorrow<'_, Self>, bio: Bio, way: Way) {
        let member = this.core.enter();
        let Some(first) = Self::first(&member, &bio) else {
            return bio.end(BlkStatus::IOERR);
        };
        let wanted = !bio.is_readahead() || member.connected();
        let apart = first.sectors < bio.sectors();
        let streamed = match first.piece.place {
            // A front part that is not of one kind any more, or one that comes from a worker: they must not wait for a front
            // part, and the stream queue takes blocks of any kind. Nor may the feeder, which all front parts may wait for.
            _ if apart && (way == Way::Feed || bio.is_marked()) => true,
            _ if apart && member.read_splits.has_made(&bio) => true,
            Place::Home | Place::Slot => bio.is_marked(),
            Place::Zero => false,
            Place::Absent => wanted,
        };
        if streamed {
            return Self::to_stream(this, member, bio, first.sectors, way);
        }
        if apart {
            // Not in an epoch: what the disk cannot read waits for the network, and its front part with it.
            drop(member);
            if let Some(front) = Self::front(&this.core.read_splits, bio, first.sectors) {
                Self::read(this, front, way);
            }
            return;
        }
        match first.piece.place {
            Place::Home | Place::Slot => {
                if let Err((_, bio)) = Self::send(member, bio, first.sector, Purpose::Read) {
                    bio.end(BlkStatus::AGAIN);
                }
            }
            Place::Zero => {
                bio.account_at_once();
                bio.end_zeroed();
            }
            Place::Absent => bio.end(BlkStatus::IOERR),
        }
    }

    /// FUA: the data first, as any other write, then a flush round that covers it. At home no state changes, so that the
    /// disk can do both at once.
    fn write_durably(this: ArcBorrow<'_, Self>, bio: Bio, way: Way) {
        let member = this.core.enter();
        let home = Self::first(&member, &bio).is_some_and(|first| {
            first.piece.place == Place::Home && first.sectors == bio.sectors()
        });
        if home {
            return Self::write_in(this, member, bio, way);
        }
        let run = covering(bio.sector(), bio.sectors());
        let bio = Self::not_excluded(&member, bio);
        let bio = bio.and_then(|bio| Self::not_claimed(&member, bio, run));
        if let Some(bio) = bio {
            durable::write(member, bio);
        }
    }

    fn write_in(this: ArcBorrow<'_, Self>, member: Member, bio: Bio, way: Way) {
        if let Some(bio) = Self::not_excluded(&member, bio) {
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
                Place::Absent | Place::Zero => Self::write_new(this, member, bio, first, way),
            }
        }
    }

    /// Lets the bio wait while `still` is true. Who waits here holds nothing of a reserve that local I/O waits for, as
    /// whoever ends the wait may need that: a copy from one ends, so that its original waits, see [`durable`], and nothing
    /// is split before it is claimed.
    fn wait(member: &Member, bio: Bio, still: impl FnOnce() -> bool) {
        if bio.is_nowait() || durable::is_local(member, &bio) {
            return bio.end(BlkStatus::AGAIN);
        }
        member.retry.block(bio, still);
    }

    /// Gives the bio back unless `settle` is moving its blocks; then it waits.
    fn not_excluded(member: &Member, bio: Bio) -> Option<Bio> {
        let run = covering(bio.sector(), bio.sectors());
        if !member.is_excluded(run) {
            return Some(bio);
        }
        Self::wait(member, bio, || member.is_excluded(run));
        None
    }

    /// The same for blocks that somebody has claimed.
    fn not_claimed(member: &Member, bio: Bio, run: Run) -> Option<Bio> {
        let claimed = || member.tables.claims().any_claimed(run);
        if !claimed() {
            return Some(bio);
        }
        Self::wait(member, bio, claimed);
        None
    }

    fn write_present(member: Member, bio: Bio, first: First) {
        let Some(bio) = Self::front(&member.splits, bio, first.sectors) else {
            return;
        };
        Self::overwrite(&member, &first.piece, first.run);
        if let Err((_, bio)) = Self::send(member, bio, first.sector, Purpose::Write) {
            bio.end(BlkStatus::AGAIN);
        }
    }

    /// Says that blocks with data are about to be written.
    fn overwrite(member: &Member, piece: &Piece, run: Run) {
        if piece.place == Place::Slot && piece.state == BlockState::Clean {
            // At submission: if the write is lost in a power cut, the block reads as before, whatever the map says.
            member.tables.map().apply(run, Change::Overwritten);
        }
    }

    /// A write to blocks that have no data here. Whole blocks go to their slots, without the network; they are claimed
    /// at submission, so that a fill that is under way drops them (rule 4).
    fn write_new(this: ArcBorrow<'_, Self>, member: Member, bio: Bio, first: First, way: Way) {
        if !member.may_change_state() {
            return bio.end(BlkStatus::IOERR);
        }
        let (sectors, whole) = whole_front(bio.sector(), first.sectors);
        if !whole && first.piece.place == Place::Zero {
            return Self::write_padded(this, member, bio, sectors, way);
        }
        if !whole {
            return Self::to_stream(this, member, bio, sectors, way);
        }
        let Some((bio, run)) = Self::claim_front(&member, bio, sectors) else {
            return;
        };
        let sent = Self::send(member, bio, first.sector, Purpose::NewSlot(run));
        if let Err((member, bio)) = sent {
            member.unclaim(run);
            bio.end(BlkStatus::AGAIN);
        }
    }

    /// A write to a part of a block of zeroes: goes to its slot with zeroes round it, in a page of ours.
    fn write_padded(this: ArcBorrow<'_, Self>, member: Member, bio: Bio, sectors: u32, way: Way) {
        if bio.is_nowait() {
            // There may be no page right now.
            return bio.end(BlkStatus::AGAIN);
        }
        let Some((bio, run)) = Self::claim(&member, bio, sectors) else {
            return;
        };
        // Claimed first, looked at second: if somebody has written the rest of it meanwhile, nothing is round it any more.
        let state = member.tables.map().state(run.start);
        if state.base(false) != Some(Base::Zeroes) {
            member.unclaim(run);
            return Self::write_in(this, member, bio, way);
        }
        let Some(bio) = Self::claimed_front(&member, bio, sectors, run) else {
            return;
        };
        match Self::padded(&member, &bio, run) {
            Ok(whole) => {
                let purpose = Purpose::NewSlot(run);
                whole.instead_of(bio).submit(LocalIo { member, purpose });
            }
            Err(error) => {
                member.unclaim(run);
                bio.end(error.into());
            }
        }
    }

    /// The write of a block that has the bio's data and otherwise zeroes.
    fn padded(member: &Member, bio: &Bio, run: Run) -> Result<Clone<LocalIo>> {
        let piece = member.locate(run.start, 1).ok_or(EINVAL)?;
        let page = PageBuf::new(&member.pads, 1)?;
        page.fill_zero(0, page.len())?;
        let inside = (bio.sector() % BLOCK_SECTORS).saturating_mul(SECTOR_BYTES);
        bio.copy_out(&page, inside as usize)?;
        let own = &member.own;
        let mut whole = own.over(&member.disk, Op::Write, &page, 0, page.len())?;
        whole.set_sector(piece.disk_bytes / SECTOR_BYTES);
        Ok(whole)
    }

    /// Claims the first sectors, which are whole blocks, and splits them off; or lets the bio wait for whoever has claimed
    /// a part of them.
    fn claim_front(member: &Member, bio: Bio, sectors: u32) -> Option<(Bio, Run)> {
        let (bio, run) = Self::claim(member, bio, sectors)?;
        Some((Self::claimed_front(member, bio, sectors, run)?, run))
    }

    /// The same without splitting them off.
    fn claim(member: &Member, bio: Bio, sectors: u32) -> Option<(Bio, Run)> {
        let run = covering(bio.sector(), sectors);
        let bio = Self::not_claimed(member, bio, run)?;
        let claims = member.tables.claims();
        if !claims.try_claim_all(run) {
            // What was claimed before the one that failed has been given back: somebody may have seen it taken meanwhile.
            member.retry.wake();
            Self::wait(member, bio, || claims.any_claimed(run));
            return None;
        }
        Some((bio, run))
    }

    /// Splits what was claimed off.
    fn claimed_front(member: &Member, bio: Bio, sectors: u32, run: Run) -> Option<Bio> {
        let front = Self::front(&member.splits, bio, sectors);
        if front.is_none() {
            member.unclaim(run);
        }
        front
    }

    /// Discard and write-zeroes: recorded, so that nothing comes back from the repository or from old contents (rule 8).
    fn zero(this: ArcBorrow<'_, Self>, bio: Bio, way: Way) {
        let member = this.core.enter();
        let Some(bio) = Self::not_excluded(&member, bio) else {
            return;
        };
        let Some(first) = Self::first(&member, &bio) else {
            return bio.end(BlkStatus::IOERR);
        };
        if first.piece.place == Place::Home {
            return Self::zero_home(member, bio, first);
        }
        if !member.may_change_state() {
            return bio.end(BlkStatus::IOERR);
        }
        let (sectors, whole) = whole_front(bio.sector(), first.sectors);
        if whole {
            return Self::zero_blocks(&member, bio, sectors);
        }
        let discard = bio.op() == Op::Discard;
        if !discard && first.piece.place == Place::Absent {
            // Merged.
            return Self::to_stream(this, member, bio, sectors, way);
        }
        let Some(bio) = Self::front(&member.splits, bio, sectors) else {
            return;
        };
        // A discard of a part of a block is only a hint; zeroes among zeroes are there.
        if discard || first.piece.place == Place::Zero {
            return Self::answer(bio);
        }
        Self::write_zeroes(member, bio, &first);
    }

    fn zero_blocks(member: &Member, bio: Bio, sectors: u32) {
        // Claimed, so that a fill that is storing is through before the blocks become zero.
        let Some((bio, run)) = Self::claim_front(member, bio, sectors) else {
            return;
        };
        member.tables.map().apply(run, Change::Zeroed);
        member.unclaim(run);
        Self::answer(bio);
    }

    /// Ends a bio for which nothing has to be done on the disk.
    fn answer(bio: Bio) {
        bio.account_at_once();
        bio.end(BlkStatus::OK);
    }

    /// Home stays home, so nothing is recorded. A disk that cannot write zeroes by itself gets pages of them.
    fn zero_home(member: Member, bio: Bio, first: First) {
        let discard = bio.op() == Op::Discard;
        let in_pages = !discard && !member.disk.can_write_zeroes();
        let sectors = match in_pages {
            true => first.sectors.min(ZEROES_SECTORS),
            false => first.sectors,
        };
        let Some(bio) = Self::front(&member.splits, bio, sectors) else {
            return;
        };
        if in_pages {
            return Self::write_zeroes(member, bio, &first);
        }
        if discard && !member.disk.can_discard() {
            return Self::answer(bio);
        }
        if let Err((_, bio)) = Self::send(member, bio, first.sector, Purpose::Zero) {
            bio.end(BlkStatus::AGAIN);
        }
    }

    /// Writes zeroes for a bio of at most [`ZEROES_SECTORS`] to blocks with data, as any other data.
    fn write_zeroes(member: Member, bio: Bio, first: &First) {
        if bio.is_nowait() {
            // There may be no bio right now.
            return bio.end(BlkStatus::AGAIN);
        }
        let run = covering(bio.sector(), bio.sectors());
        Self::overwrite(&member, &first.piece, run);
        let len = SECTOR_BYTES.saturating_mul(bio.sectors().into());
        let own = &member.own;
        match own.zeroes(&member.disk, &member.zeroes, len as usize) {
            Ok(mut zeroes) => {
                zeroes.set_sector(first.sector);
                let purpose = Purpose::Write;
                zeroes.instead_of(bio).submit(LocalIo { member, purpose });
            }
            Err(error) => bio.end(error.into()),
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
