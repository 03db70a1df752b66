// SPDX-License-Identifier: GPL-2.0-only

//! The rules of durability and order, each of which the model can leave out.

/// What the model does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// Rule 1: states are journaled without flushing the data they speak of.
    NoFlushBeforeJournal,
    /// Rule 1: the flush comes before the snapshot instead of after it.
    FlushBeforeSnapshot,
    /// Rule 2: FLUSH flushes the disk only, and records nothing.
    FlushWithoutRound,
    /// Rule 3: clean is believed after an unclean attach.
    CleanBelieved,
    /// Rule 3: an unclean attach is forgotten at the next clean one.
    SuspicionForgotten,
    /// Rule 4: a fill stores all that it fetched.
    FillIgnoresClaims,
    /// Rule 5: nobody waits for I/O that looked up the old place.
    NoDrain,
    /// Rule 5: batches are not bounded by the durable counter.
    NoOverlapBound,
    /// Rule 6: blocks are stored from the reader's pages.
    StoreFromReader,
    /// Rule 7: a read that the target calls good is believed.
    BytesNotCounted,
    /// Rule 8: discards are not recorded.
    DiscardForgotten,
    /// Rule 8: a partial write to a zero block is merged with what is in the slot.
    ZeroMergedWithSlot,
    /// Rule 8: a dirty block whose slot cannot be read is fetched again.
    DirtyRefetched,
    /// Rule 8: a commit uses what it fetched for a bad slot although the guest has written there meanwhile.
    RescueNotAsked,
    /// Rule 9: blocks are routed home before the counter is durable.
    RouteBeforeRecord,
    /// Rule 9: superblocks carry the counter that I/O is routed by, not the one that the journal made durable.
    OldCounterInSuperblock,
    /// Rule 10: a failed journal write is ignored.
    JournalErrorIgnored,
}
