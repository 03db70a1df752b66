// SPDX-License-Identifier: GPL-2.0-only

//! Writes for the engine's machines: flush rounds, checkpoints, superblock pairs.

#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use super::{
    superblocks::{
        copy,
        twin,
        write_pair, //
    },
    tables::Tables, //
};
use crate::kapi::{
    bdev::Bdev,
    crypto::crc32c, //
};
use core::sync::atomic::AtomicU64;
use imgstream_engine::{
    bits::Bits,
    checkpoint::{
        self,
        Checkpoint, //
    },
    journal::Writer,
    round::{
        self,
        Round, //
    },
    state::transition, //
};
use imgstream_proto::disk::{
    Copy2,
    Error as Format,
    Extent,
    State,
    Superblock, //
};
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::Arc, //
};

/// Room for a transaction of 126 segments (1 GB of the image) or a checkpoint's batch of 16 pieces of the map. One
/// allocation of this size is made at attach, physically contiguous, so larger ones might fail.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// The control area, as far as it is written while attached.
///
/// # Invariants
///
/// `superblock` is what both copies on the disk say, unless a write of them failed (then health is degraded and nothing
/// is written any more). `pages` has a bit for each 4 KiB piece of the map.
pub(super) struct Journal {
    disk: Arc<Bdev>,
    superblock: KBox<Superblock>,
    /// Room for the next one, so that writing it needs no memory.
    next: KBox<Superblock>,
    stale: Option<Copy2>,
    writer: Writer,
    /// Pieces of the map that the journal knows better.
    pages: KVVec<AtomicU64>,
    buffer: KVec<u8>,
}

impl Journal {
    /// After loading: the control area as it was found. [`Journal::attach`] must follow.
    pub(super) fn new(
        disk: Arc<Bdev>,
        found: KBox<Superblock>,
        stale: Option<Copy2>,
        writer: Writer,
        pages: KVVec<AtomicU64>,
        buffer: KVec<u8>,
    ) -> Result<Self> {
        Ok(Self {
            disk,
            next: twin(&found, KBox::new_uninit(GFP_KERNEL)?),
            superblock: found,
            stale,
            writer,
            pages,
            buffer,
        })
    }

    /// What both copies on the disk say.
    pub(super) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Takes the disk into use: one checkpoint, whose superblock is that of an attached disk.
    pub(super) fn attach(&mut self, tables: &Tables) -> Result {
        let counter = self.writer.counter();
        self.checkpoint(tables, |superblock, at| {
            imgstream_engine::load::attach(superblock, counter, at)
        })
    }

    /// Flushes the disk, no more.
    pub(super) fn flush_disk(&self) -> Result {
        self.disk.flush()
    }

    /// One flush round; `take_waiters` is called when those who wait then are covered.
    pub(super) fn round(
        &mut self,
        tables: &Tables,
        counter: Option<u64>,
        mut take_waiters: impl FnMut(),
    ) -> Result {
        if self.superblock.state == State::Committed {
            // Everything is home, and the control area is not ours any more.
            take_waiters();
            return self.disk.flush();
        }
        let map = tables.map();
        let len = self.buffer.len() as u64;
        let mut round = Round::new(counter, &self.writer, len);
        loop {
            match round.next(&self.writer) {
                round::Step::TakeWaiters => take_waiters(),
                round::Step::Checkpoint => {
                    self.make_room(tables)?;
                    continue;
                }
                round::Step::Snapshot => round
                    .snapshot(
                        &map,
                        &Bits::new(&self.pages),
                        &self.writer,
                        &self.superblock.uuid,
                        &mut self.buffer,
                        crc32c,
                    )
                    .map_err(unencodable)?,
                round::Step::FlushData | round::Step::FlushJournal => self.disk.flush()?,
                round::Step::WriteJournal {
                    copy,
                    position_bytes,
                    len_bytes,
                } => {
                    let place = *copy.of(&self.superblock.places.journal);
                    self.write(place, position_bytes, 0, usize::try_from(len_bytes)?)?;
                }
                round::Step::Done => return Ok(()),
            }
            round.advance(&map, &mut self.writer);
        }
    }

    /// Whether the state may become `to` now.
    pub(super) fn may_become(&self, to: State) -> Result {
        transition(self.superblock.state, to).map_err(|_| EINVAL)
    }

    /// Replaces the state in both copies, after [`Journal::may_become`].
    pub(super) fn set_state(&mut self, to: State) -> Result {
        let counter = self.writer.counter();
        self.replace(|next| {
            next.state = to;
            next.copy_counter_blocks = counter;
        })
    }

    /// Marks the detach as clean; everything has been recorded before.
    pub(super) fn mark_clean(&mut self) -> Result {
        if self.superblock.state == State::Committed {
            return Ok(());
        }
        let counter = self.writer.counter();
        self.replace(|next| {
            next.clean = true;
            next.copy_counter_blocks = counter;
        })
    }

    /// A checkpoint if the journal is more than half full.
    pub(super) fn checkpoint_if_due(&mut self, tables: &Tables) -> Result {
        if self.writer.half_full() && self.superblock.state != State::Committed {
            self.make_room(tables)?;
        }
        Ok(())
    }

    fn make_room(&mut self, tables: &Tables) -> Result {
        let counter = self.writer.counter();
        self.checkpoint(tables, |next, at| {
            next.generation = next.generation.saturating_add(1);
            next.copy_counter_blocks = counter;
            next.checkpoint = at;
        })
    }

    fn checkpoint(
        &mut self,
        tables: &Tables,
        change: impl Fn(&mut Superblock, imgstream_proto::disk::superblock::Checkpoint),
    ) -> Result {
        let map = tables.map();
        let mut checkpoint = Checkpoint::new(&self.writer);
        loop {
            match checkpoint.next() {
                checkpoint::Step::Snapshot => checkpoint
                    .snapshot(
                        &map,
                        &Bits::new(&self.pages),
                        &self.writer,
                        &self.superblock.uuid,
                        &mut self.buffer,
                        crc32c,
                    )
                    .map_err(unencodable)?,
                checkpoint::Step::FlushData | checkpoint::Step::FlushMap => self.disk.flush()?,
                checkpoint::Step::WriteMap {
                    copy,
                    to_bytes,
                    from,
                    len,
                } => {
                    let place = *copy.of(&self.superblock.places.map);
                    self.write(place, to_bytes, from, len)?;
                }
                checkpoint::Step::Superblock(at) => {
                    self.write_superblock(|next| change(next, at))?
                }
                checkpoint::Step::Done => return Ok(()),
            }
            checkpoint.advance(&Bits::new(&self.pages), &mut self.writer);
        }
    }

    /// Writes both copies with the next generation.
    fn replace(&mut self, change: impl FnOnce(&mut Superblock)) -> Result {
        self.write_superblock(|next| {
            change(next);
            next.generation = next.generation.saturating_add(1);
        })
    }

    fn write_superblock(&mut self, change: impl FnOnce(&mut Superblock)) -> Result {
        copy(&mut self.next, &self.superblock);
        change(&mut self.next);
        write_pair(&self.disk, &self.next, self.stale, &mut self.buffer)?;
        // INVARIANT: Both copies are durable.
        core::mem::swap(&mut self.superblock, &mut self.next);
        self.stale = None;
        Ok(())
    }

    /// Writes `len` bytes of the buffer from `from` on to `position` of a place.
    fn write(&self, place: Extent, position: u64, from: usize, len: usize) -> Result {
        let end = from.checked_add(len).ok_or(EINVAL)?;
        let bytes = self.buffer.get(from..end).ok_or(EIO)?;
        let to = place.start_bytes.checked_add(position).ok_or(EIO)?;
        if !place.contains(&Extent::new(to, len as u64)) {
            // The machines stay inside; what is next to the control area is the image.
            return Err(EIO);
        }
        self.disk.write(to, bytes)
    }
}

/// The engine encodes what it made itself, so this is a mistake of ours: not a reason to write anything.
fn unencodable(_: Format) -> Error {
    EIO
}
