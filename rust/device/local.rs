// SPDX-License-Identifier: GPL-2.0-only

//! What happens when I/O that was sent to the disk completes. Interrupt context, mostly.

use crate::{
    device::{
        inner::{
            covering,
            Member, //
        },
        units::Unit, //
    },
    kapi::{
        bio::{
            Bio,
            Completion,
            Op, //
        },
        blk::BlkStatus, //
    },
};
use core::sync::atomic::Ordering;
use imgstream_engine::{
    block::Run,
    map::Change, //
};
use kernel::sync::Arc;

/// What an I/O to the disk is for.
pub(super) enum Purpose {
    /// A read of present blocks.
    Read,
    /// A read through the source view.
    View,
    /// A write to present blocks: nothing to do afterwards.
    Write,
    /// A discard, or zeroes, at home.
    Zero,
    /// A write of whole blocks that were absent or zero, all claimed.
    NewSlot(Run),
    /// A fill stores claimed blocks.
    Fill(Arc<Unit>, Run),
}

/// An I/O to the disk; in its epoch until it has completed, so that nobody gives its location away meanwhile.
pub(super) struct LocalIo {
    pub(super) member: Member,
    pub(super) purpose: Purpose,
}

impl Completion for LocalIo {
    const ACCOUNTED: bool = true;

    fn done(self, original: Option<Bio>, mut status: BlkStatus) {
        let member = self.member;
        match self.purpose {
            Purpose::Read => return read_done(&member, original, status),
            Purpose::View => {}
            Purpose::Write => count_write(&member, status),
            Purpose::Zero => match refused(&member, original.as_ref(), status) {
                Some(instead) => status = instead,
                None => count_write(&member, status),
            },
            Purpose::NewSlot(run) => {
                count_write(&member, status);
                // The block has the guest's data, or still has no data: now the map says so, then the claim goes.
                settle_claim(&member, run, Change::Written, status);
            }
            Purpose::Fill(unit, run) => {
                // A write error leaves the blocks absent. Readers had their answer before.
                count_write(&member, status);
                if !status.is_ok() {
                    unit.not_stored(run);
                }
                let stored = settle_claim(&member, run, Change::Filled, status);
                let bytes = Run::new(0, stored).bytes();
                member
                    .counters
                    .stored_bytes
                    .fetch_add(bytes, Ordering::Relaxed);
                unit.part_stored();
            }
        }
        if let Some(bio) = original {
            bio.end(status);
        }
    }
}

fn settle_claim(member: &Member, run: Run, change: Change, status: BlkStatus) -> u64 {
    let mut changed = 0;
    if status.is_ok() {
        changed = member.tables.map().apply(run, change);
    }
    member.unclaim(run);
    changed
}

/// Some disks do not know what they can do before they have tried: they say that they can discard, or write zeroes, refuse
/// the first time and say so no more (`sd_disable_write_same()`). How a bio ends that was refused so.
///
/// A discard is only a hint. Zeroes are not supported for once: who wants them writes pages of them then, as
/// `blkdev_issue_zeroout()` does, and is not told that the disk has failed. They are not tried again here, as the bio may
/// hold a part of the reserve that he would wait for who does that.
fn refused(member: &Member, original: Option<&Bio>, status: BlkStatus) -> Option<BlkStatus> {
    let op = original.filter(|_| is_error(status)).map(Bio::op);
    match op? {
        Op::Discard if !member.disk.can_discard() => Some(BlkStatus::OK),
        Op::WriteZeroes if !member.disk.can_write_zeroes() => Some(BlkStatus::NOTSUPP),
        _ => None,
    }
}

/// Whether the disk has failed. I/O that must not wait, and would have to, has not.
fn is_error(status: BlkStatus) -> bool {
    !status.is_ok() && status != BlkStatus::AGAIN
}

fn count_write(member: &Member, status: BlkStatus) {
    if is_error(status) {
        member.counters.errors_write.fetch_add(1, Ordering::Relaxed);
    }
}

/// A clean block that cannot be read is read from the repository instead, if clean can be relied on: the bio is marked
/// and goes to the stream queue, which tries the disk once more and then the repository.
fn read_done(member: &Member, original: Option<Bio>, status: BlkStatus) {
    let Some(mut bio) = original else {
        return;
    };
    if status.is_ok() {
        return bio.end(status);
    }
    if is_error(status) {
        member.counters.errors_read.fetch_add(1, Ordering::Relaxed);
    }
    let block = covering(bio.sector(), bio.sectors()).start;
    let state = member.tables.map().state(block);
    if member.trust.may_fetch(state) && !bio.is_marked() && !bio.is_nowait() {
        bio.mark();
        return member.retry.again(bio);
    }
    bio.end(status);
}
