// SPDX-License-Identifier: GPL-2.0-only

//! Answers and writes of the stream queue, block by block: copies for readers, and writes of parts of blocks that have
//! to be merged with what the rest of the block reads as. Process context; waits for the disk, never for the network.

use crate::{
    device::{
        inner::{
            Core,
            Member, //
        },
        units::want,
        waiter::Waiter, //
    },
    kapi::{
        bio::Op,
        blk::{
            mq::Request,
            BlkStatus,
            SECTOR_BYTES, //
        },
        page::PageBuf, //
    },
    source::Priority,
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    block::{
        Base,
        BlockState,
        Run, //
    },
    locate::Place,
    map::Change,
};
use imgstream_proto::disk::{
    BLOCK_BYTES,
    BLOCK_LEN, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How long to wait for a claim or an exclusion: about the time of a write to the disk.
const WAIT: Delta = Delta::from_micros(200);

/// The bytes that a request and a run of blocks have in common: offset in the request, offset in the run, length.
fn common(request: &Request, run: Run) -> (u32, usize, u32) {
    overlap(request.offset_bytes(), request.len_bytes(), run)
}

fn overlap(start: u64, len: u32, run: Run) -> (u32, usize, u32) {
    let end = start.saturating_add(len.into());
    let from = start.max(run.start_bytes());
    let to = end.min(run.start_bytes().saturating_add(run.bytes()));
    let len = to.saturating_sub(from);
    (
        u32::try_from(from.saturating_sub(start)).unwrap_or(0),
        usize::try_from(from.saturating_sub(run.start_bytes())).unwrap_or(0),
        u32::try_from(len).unwrap_or(0),
    )
}

/// Answers a read with the part of it that lies in `run`; `buf` has that run from `offset` on.
pub(super) fn copy_in(request: &Request, run: Run, buf: &PageBuf, offset: usize) {
    let (to, from, len) = common(request, run);
    match request.copy_in(to, buf, offset.saturating_add(from), len) {
        Ok(()) => request.done(len),
        Err(error) => request.fail(error.into()),
    }
}

/// Answers a read with zeroes.
pub(super) fn zero_in(core: &Core, request: &Request, run: Run) {
    for block in run.start..run.end() {
        copy_in(request, Run::new(block, 1), &core.zeroes, 0);
    }
}

/// Writes the part of the request that lies in `block`. `image` is what the repository says the block is, if that was
/// asked for; without it, an absent block is fetched, and this comes again.
pub(super) fn write_block(
    core: &Arc<Core>,
    request: &Request,
    block: u64,
    image: Option<(&PageBuf, usize)>,
) {
    match try_write_block(core, request, block, image) {
        Ok(len) => request.done(len),
        Err(error) => request.fail(error.into()),
    }
}

fn try_write_block(
    core: &Arc<Core>,
    request: &Request,
    block: u64,
    image: Option<(&PageBuf, usize)>,
) -> Result<u32> {
    let run = Run::new(block, 1);
    let page = PageBuf::new(&core.merges, 1)?;
    loop {
        let member = core.enter();
        if member.is_excluded(run) {
            drop(member);
            fsleep(WAIT);
            continue;
        }
        let piece = member.locate(block, 1).ok_or(EINVAL)?;
        if matches!(piece.place, Place::Home | Place::Slot) {
            return write_part(&member, request, run, &page);
        }
        if !member.may_change_state() {
            return Err(EIO);
        }
        if !member.tables.claims().try_claim(block) {
            drop(member);
            fsleep(WAIT);
            continue;
        }
        // Claimed first, looked at second. Present now: no claim is needed, and another look finds it.
        let (_, _, len) = common(request, run);
        let state = member.tables.map().state(block);
        let outcome = state
            .base(u64::from(len) == BLOCK_BYTES)
            .map(|base| write_merged(&member, request, run, &page, base, image));
        member.unclaim(run);
        drop(member);
        match outcome {
            None => continue,
            Some(Merged::Written(result)) => return result,
            Some(Merged::NeedsImage) => {
                want(
                    core,
                    run,
                    Waiter::Merge(request.clone()),
                    Priority::Demand,
                    true,
                )?;
                // Reported when it comes back with the image.
                return Ok(0);
            }
        }
    }
}

enum Merged {
    Written(Result<u32>),
    NeedsImage,
}

/// Writes to a present block: just the sectors, for others may write other sectors of it at the same time.
fn write_part(member: &Member, request: &Request, run: Run, page: &PageBuf) -> Result<u32> {
    let (inside, len) = payload(request, run, page)?;
    let piece = member.locate(run.start, 1).ok_or(EINVAL)?;
    if piece.place == Place::Slot && piece.state == BlockState::Clean {
        if !member.may_change_state() {
            return Err(EIO);
        }
        member.tables.map().apply(run, Change::Overwritten);
    }
    let at = piece.disk_bytes.saturating_add(inside as u64);
    local(member, Op::Write, at, page, inside, len as usize)?;
    Ok(len)
}

/// Writes a block whose claim is held: the request's bytes over what the block reads as.
fn write_merged(
    member: &Member,
    request: &Request,
    run: Run,
    page: &PageBuf,
    base: Base,
    image: Option<(&PageBuf, usize)>,
) -> Merged {
    if base == Base::Image && image.is_none() {
        return Merged::NeedsImage;
    }
    let write = || {
        match image {
            Some((image, offset)) if base == Base::Image => {
                let mut sector = [0; SECTOR_BYTES as usize];
                for at in (0..BLOCK_LEN).step_by(sector.len()) {
                    image.copy_to_slice(offset.saturating_add(at), &mut sector)?;
                    page.copy_from_slice(at, &sector)?;
                }
            }
            _ => page.fill_zero(0, BLOCK_LEN)?,
        }
        let (_, len) = payload(request, run, page)?;
        let piece = member.locate(run.start, 1).ok_or(EINVAL)?;
        local(member, Op::Write, piece.disk_bytes, page, 0, BLOCK_LEN)?;
        // Only now, with the data written.
        member.tables.map().apply(run, Change::Written);
        Ok(len)
    };
    Merged::Written(write())
}

/// Puts the request's bytes of one block to their place in `page`.
fn payload(request: &Request, run: Run, page: &PageBuf) -> Result<(usize, u32)> {
    let (from, inside, len) = common(request, run);
    if request.op() == Op::WriteZeroes {
        page.fill_zero(inside, len as usize)?;
    } else {
        request.copy_out(from, page, inside, len)?;
    }
    Ok((inside, len))
}

/// Reads or writes the disk and waits. Process context.
pub(super) fn local(
    member: &Member,
    op: Op,
    disk_bytes: u64,
    buf: &PageBuf,
    offset: usize,
    len: usize,
) -> Result {
    let mut bio = member.own.over(&member.disk, op, buf, offset, len)?;
    bio.set_sector(disk_bytes / SECTOR_BYTES);
    let status: BlkStatus = bio.submit_and_wait();
    if !status.is_ok() {
        let counters = &member.counters;
        let counter = match op {
            Op::Read => &counters.errors_read,
            _ => &counters.errors_write,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    status.to_result()
}

#[kunit_tests(imgstream_merge)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;

    #[test]
    fn request_and_run_have_the_right_bytes_in_common() {
        // Blocks 2 and 3 are bytes 8192 to 16383.
        const RUN: Run = Run::new(2, 2);
        let table = [
            ((8192, 8192), (0, 0, 8192)),
            ((8192, 512), (0, 0, 512)),
            ((15_872, 512), (0, 7680, 512)),
            ((11_776, 1024), (0, 3584, 1024)),
            ((7680, 1024), (512, 0, 512)),
            ((15_872, 1024), (0, 7680, 512)),
            ((0, 65_536), (8192, 0, 8192)),
            ((0, u32::MAX), (8192, 0, 8192)),
        ];
        assert!(every(table, |&((start, len), expected)| {
            overlap(start, len, RUN) == expected
        }));
    }

    #[test]
    fn what_does_not_meet_has_nothing_in_common() {
        let table = [
            (0, 8192, Run::new(2, 2)),
            (16_384, 512, Run::new(2, 2)),
            (0, 0, Run::new(0, 1)),
            (4096, 512, Run::new(1, 0)),
            (u64::MAX - 511, 512, Run::new(0, 1)),
        ];
        assert!(every(table, |&(start, len, run)| overlap(start, len, run)
            .2
            == 0));
    }
}
