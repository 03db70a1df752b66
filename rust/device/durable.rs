// SPDX-License-Identifier: GPL-2.0-only

//! Writes that have to be durable when they complete (FUA): the data first, as any other write, then a flush round that
//! covers it.
//!
//! The data is written by a copy of the bio without that demand, and copies come from a reserve when memory is short. A
//! copy that has to be merged with what the repository has may keep its place in the reserve for as long as the network
//! is dead. So there are two reserves, and local writes wait for local writes only. Of the second one no more is given
//! out than there is ([`Retry::enter`]); nobody ever waits in its allocation, and who finds it empty waits in a list.
//!
//! Which reserve it is to be is asked before the copy is made, and no block becomes absent after that, see
//! [`Change`](imgstream_engine::map::Change): nothing from the first one ever gets into the stream queue.
//!
//! A copy that would have to wait until a batch of the commit, or a claim, ends does not wait either: who ends that may need
//! a copy itself. It ends with `AGAIN`, and the original is looked at again: that one waits, and holds nothing. What of it
//! was written meanwhile is written once more, as it may be until it completes.

use crate::{
    device::{
        inner::{
            covering,
            Inner,
            Member,
            BLOCK_SECTORS, //
        },
        retry::Retry, //
    },
    kapi::{
        bio::{
            Bio,
            Completion, //
        },
        blk::BlkStatus, //
    },
};
use imgstream_engine::locate::Place;
use kernel::sync::Arc;

/// A copy of a write, without the demand to be durable; or that one is about to be made.
pub(super) struct Whole {
    retry: Arc<Retry>,
    /// Whether it may wait for the network, and has taken room for that.
    merged: bool,
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.merged {
            self.retry.leave();
        }
    }
}

/// Writes the data of `bio` by a copy, then makes it durable.
pub(super) fn write(member: Member, bio: Bio) {
    let merged = is_merged(&member, &bio);
    if merged && bio.is_nowait() {
        return bio.end(BlkStatus::AGAIN);
    }
    let retry = member.retry.clone();
    let (set, bio) = match merged {
        true => (&member.merged_wholes, retry.enter(bio)),
        false => (&member.wholes, Some(bio)),
    };
    let Some(bio) = bio else {
        return;
    };
    let whole = Whole { retry, merged };
    match set.clone_of(&member.disk, bio) {
        Ok(copy) => {
            // The copy enters an epoch of its own.
            drop(member);
            copy.submit_beside_without_durability(whole);
        }
        Err(bio) => bio.end(BlkStatus::AGAIN),
    }
}

/// Whether a write is merged with what the repository has: one of its ends is a part of an absent block. What lies between
/// are whole blocks.
fn is_merged(member: &Member, bio: &Bio) -> bool {
    let run = covering(bio.sector(), bio.sectors());
    let end = bio.sector().saturating_add(bio.sectors().into());
    let absent = |block| {
        let piece = member.locate(block, 1);
        piece.is_some_and(|piece| piece.place == Place::Absent)
    };
    (bio.sector() % BLOCK_SECTORS != 0 && absent(run.start))
        || (end % BLOCK_SECTORS != 0 && absent(run.end().saturating_sub(1)))
}

/// Whether this is a copy that must not wait for anything but the disk.
pub(super) fn is_local(inner: &Inner, bio: &Bio) -> bool {
    inner.wholes.has_made(bio)
}

impl Completion for Whole {
    fn done(self, original: Option<Bio>, status: BlkStatus) {
        match original {
            Some(bio) if status.is_ok() => self.retry.flush(bio),
            Some(bio) if status == BlkStatus::AGAIN && !self.merged && !bio.is_nowait() => {
                self.retry.again(bio);
            }
            Some(bio) => bio.end(status),
            None => {}
        }
    }
}
