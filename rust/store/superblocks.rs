// SPDX-License-Identifier: GPL-2.0-only

//! Finding, checking and writing the superblock pair.

use super::journal::BUFFER_BYTES;
use crate::kapi::{
    bdev::Bdev,
    crypto::crc32c, //
};
use core::mem::MaybeUninit;
use imgstream_engine::{
    pair::{
        self,
        Choice,
        Update, //
    },
    plan,
    state::attachable, //
};
use imgstream_proto::{
    abi::refusal::Refusal,
    disk::{
        superblock::SUPERBLOCK_LEN,
        Copy2,
        Error as Format,
        Superblock, //
    },
    secret::{
        wipe,
        wipe_stack, //
    },
};
use kernel::prelude::*;

/// A superblock pair that was believed.
pub(super) struct Found {
    pub(super) superblock: KBox<Superblock>,
    /// The copy that has to be written again.
    pub(super) stale: Option<Copy2>,
}

/// Looks for a migration on the disk and checks that it can be attached.
pub(super) fn find(disk: &Bdev) -> Result<Found, Refusal> {
    let mut buffer =
        KVec::from_elem(0u8, SUPERBLOCK_LEN, GFP_KERNEL).map_err(|_| Refusal::Memory)?;
    let found = locate(disk, &mut buffer).and_then(|at| read_pair(disk, at, &mut buffer));
    // It has the secrets of CHAP.
    wipe(&mut buffer);
    let found = found?;
    check(disk, &found.superblock)?;
    Ok(found)
}

/// Where the pair stands: the first superblock of the scan says it.
fn locate(disk: &Bdev, buffer: &mut KVec<u8>) -> Result<[u64; 2], Refusal> {
    let mut worst = Refusal::NoSuperblock;
    disk.read(0, buffer).map_err(|_| Refusal::DiskError)?;
    let head = buffer.first_chunk().ok_or(Refusal::Memory)?;
    for place in pair::places(disk.size_bytes(), head) {
        match read_one(disk, place, buffer) {
            Ok(superblock) => {
                if let Some(places) = pair::locations(&superblock) {
                    return Ok(places);
                }
                worst = Refusal::Geometry;
            }
            Err(Format::Version { .. } | Format::Incompat { .. }) => worst = Refusal::NewerFormat,
            Err(error @ Format::Value { .. }) => {
                pr_err!("superblock at byte {place}: {}\n", format_args!("{error}"));
            }
            Err(_) => {}
        }
    }
    Err(worst)
}

fn read_one(disk: &Bdev, place: u64, buffer: &mut KVec<u8>) -> Result<KBox<Superblock>, Format> {
    let unreadable = Format::Short {
        found: 0,
        expected: SUPERBLOCK_LEN,
    };
    // Straight into its place: a superblock fills a good part of a stack.
    let room = KBox::new_uninit(GFP_KERNEL).map_err(|_| unreadable)?;
    disk.read(place, buffer).map_err(|_| unreadable)?;
    let superblock = decode(place, buffer, room);
    // As far as `decode` and what it calls reach.
    wipe_stack::<6656>();
    superblock
}

#[inline(never)]
fn decode(
    place: u64,
    bytes: &[u8],
    room: KBox<MaybeUninit<Superblock>>,
) -> Result<KBox<Superblock>, Format> {
    Ok(room.write(Superblock::decode(place, bytes, crc32c)?))
}

/// The pair that stands at `places`. `buffer` has [`SUPERBLOCK_LEN`].
pub(super) fn read_pair(
    disk: &Bdev,
    places: [u64; 2],
    buffer: &mut KVec<u8>,
) -> Result<Found, Refusal> {
    let [a, b] = places.map(|place| read_one(disk, place, buffer));
    let choice = pair::choose(
        &a.as_deref().map_err(|error| *error),
        &b.as_deref().map_err(|error| *error),
    );
    match choice {
        Choice::Found { copy, stale } => {
            if let Some(stale) = stale {
                pr_warn!("superblock copy {stale:?} is damaged or older; it is written again\n");
            }
            let chosen = if copy == Copy2::A { a } else { b };
            let superblock = chosen.map_err(|_| Refusal::NoSuperblock)?;
            Ok(Found { superblock, stale })
        }
        Choice::None { why } => {
            let [a, b] = why;
            pr_err!("no superblock can be read: {}\n", format_args!("{a}; {b}"));
            Err(Refusal::NoSuperblock)
        }
        Choice::Conflict { generation } => {
            pr_err!("two superblocks of generation {generation} say different things\n");
            Err(Refusal::SuperblocksDiffer)
        }
        Choice::TwoMigrations => Err(Refusal::SuperblocksDiffer),
    }
}

/// Nothing of a superblock is used before this.
fn check(disk: &Bdev, superblock: &Superblock) -> Result<(), Refusal> {
    if superblock.header(0).must_not_write() {
        return Err(Refusal::NewerFormat);
    }
    if !attachable(superblock.state) {
        pr_err!(
            "the migration is {}, which is not attached\n",
            superblock.state.name()
        );
        return Err(Refusal::State);
    }
    let geometry = &superblock.geometry;
    if geometry.logical_block_bytes != disk.logical_block_bytes() {
        return Err(Refusal::BlockSize);
    }
    if geometry.disk_bytes > disk.size_bytes() {
        let (has, needs) = (disk.size_bytes(), geometry.disk_bytes);
        pr_err!("the disk has {has} bytes, the control area was made for {needs}\n");
        return Err(Refusal::Geometry);
    }
    plan::check(geometry, &superblock.places).map_err(|misplaced| {
        pr_err!("the superblock is no plan of this disk: {misplaced:?}\n");
        Refusal::Geometry
    })
}

/// The same superblock once more, in a box of its own. Nothing of it is left on the stack.
pub(super) fn twin(of: &Superblock, room: KBox<MaybeUninit<Superblock>>) -> KBox<Superblock> {
    let twin = write_clone(of, room);
    wipe_stack::<2048>();
    twin
}

#[inline(never)]
fn write_clone(of: &Superblock, room: KBox<MaybeUninit<Superblock>>) -> KBox<Superblock> {
    room.write(of.clone())
}

/// Makes `to` what `from` is, and leaves nothing of it on the stack.
pub(super) fn copy(to: &mut Superblock, from: &Superblock) {
    clone_from(to, from);
    wipe_stack::<2048>();
}

#[inline(never)]
fn clone_from(to: &mut Superblock, from: &Superblock) {
    to.clone_from(from);
}

/// Replaces both copies. `buffer` has [`BUFFER_BYTES`].
pub(super) fn write_pair(
    disk: &Bdev,
    superblock: &Superblock,
    stale: Option<Copy2>,
    buffer: &mut KVec<u8>,
) -> Result {
    const { assert!(BUFFER_BYTES >= SUPERBLOCK_LEN) };
    let bytes = buffer.first_chunk_mut::<SUPERBLOCK_LEN>().ok_or(EIO)?;
    let written = write_both(disk, superblock, stale, bytes);
    // They have the secrets of CHAP.
    wipe(bytes);
    written
}

/// The order is the engine's.
fn write_both(
    disk: &Bdev,
    superblock: &Superblock,
    stale: Option<Copy2>,
    bytes: &mut [u8; SUPERBLOCK_LEN],
) -> Result {
    let places = pair::locations(superblock).ok_or(EIO)?;
    let mut update = Update::new(stale);
    loop {
        match update.next() {
            pair::Step::Write(copy) => {
                let place = *copy.of(&places);
                superblock.encode(place, bytes, crc32c).map_err(|_| EIO)?;
                disk.write(place, bytes)?;
            }
            pair::Step::Flush => disk.flush()?,
            pair::Step::Done => return Ok(()),
        }
        update.advance();
    }
}

#[kunit_tests(imgstream_superblocks)]
mod tests {
    use super::*;
    use crate::kapi::testing::MemoryDisk;

    fn refusal(disk: &MemoryDisk) -> Result<Option<Refusal>> {
        Ok(find(disk.bdev()?).err())
    }

    #[test]
    fn a_disk_without_a_migration_has_none() -> Result {
        let disk = MemoryDisk::plain(c"imgstream_kunit")?;
        assert!(refusal(&disk)? == Some(Refusal::NoSuperblock));
        let data = disk.data();
        for at in (0..data.len()).step_by(512) {
            data.copy_from_slice(at, &[0xff; 512])?;
        }
        assert!(refusal(&disk)? == Some(Refusal::NoSuperblock));
        Ok(())
    }

    #[test]
    fn a_disk_that_cannot_be_read_says_so() -> Result {
        let disk = MemoryDisk::plain(c"imgstream_kunit")?;
        disk.break_sectors(0..u64::MAX);
        assert!(refusal(&disk)? == Some(Refusal::DiskError));
        Ok(())
    }

    #[test]
    fn places_that_cannot_be_read_hold_no_superblock() -> Result {
        let disk = MemoryDisk::plain(c"imgstream_kunit")?;
        // All but the first block, which names the others.
        disk.break_sectors(8..u64::MAX);
        assert!(refusal(&disk)? == Some(Refusal::NoSuperblock));
        Ok(())
    }
}
