// SPDX-License-Identifier: GPL-2.0-only

//! A flush round: makes all that completed before it durable, data first, then the states that speak of it.
//!
//! Rules 1 and 2. The order of the steps is the proof:
//!
//! 1. `TakeWaiters`: whoever waits for a flush now is covered; who comes later waits for the next round.
//! 2. `Snapshot`: the segments that changed are taken and copied. A state in the copy was set after its data had
//!    completed (or, for `Overwritten`, speaks of a slot whose old bytes are good too).
//! 3. `FlushData`: all data that completed before this point, hence all that the copy speaks of, becomes durable. A flush
//!    *before* the snapshot would not do: data could complete, and its state be copied, in between.
//! 4. `WriteJournal` to both copies, `FlushJournal`: only now states are written, and only those of the copy.
//! 5. More segments than fit in a transaction: again from 2, going over the set of changed segments once. What changes
//!    behind the scan while it runs belongs to the next round, so that a round ends.
//! 6. `Done`: the waiters are told.
//!
//! A step that fails ends the round, and the journal: health degrades (rule 10), the waiters are told the error.

use imgstream_proto::disk::journal::{transaction_bytes, Builder, Record, RECORDS_MAX};
use imgstream_proto::disk::segment::SEGMENTS_PER_PAGE;
use imgstream_proto::disk::{Copy2, Crc32c, Error, Segment, Uuid};

use crate::bits::Bits;
use crate::journal::{Slot, Writer};
use crate::map::Map;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Move everybody who waits to this round.
    TakeWaiters,
    /// The journal has no room: do a whole checkpoint, then go on.
    Checkpoint,
    /// Call [`Round::snapshot`].
    Snapshot,
    /// Flush the disk.
    FlushData,
    /// Write the first `len_bytes` of the buffer to the journal.
    WriteJournal {
        /// To which copy.
        copy: Copy2,
        /// Where in it.
        position_bytes: u64,
        /// How much.
        len_bytes: u64,
    },
    /// Flush the disk.
    FlushJournal,
    /// Everything that waited is durable.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    TakeWaiters,
    Snapshot,
    FlushData,
    Write(Copy2),
    FlushJournal,
    Done,
}

/// A flush round under way.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    phase: Phase,
    /// A counter to record with the first transaction.
    counter: Option<u64>,
    /// The counter that the transaction in the buffer records.
    in_buffer: Option<u64>,
    /// The next segment to look at.
    scan: u64,
    /// The transaction in the buffer.
    slot: Option<Slot>,
    /// Longest transaction that buffer and journal allow.
    max_bytes: u64,
}

impl Round {
    /// A round that also records the copy counter if one is given. `buffer_bytes` is the length of the buffer that
    /// [`Round::snapshot`] will get.
    pub fn new(counter: Option<u64>, writer: &Writer, buffer_bytes: u64) -> Self {
        Self {
            phase: Phase::TakeWaiters,
            counter,
            in_buffer: None,
            scan: 0,
            slot: None,
            max_bytes: buffer_bytes.min(writer.transaction_max()),
        }
    }

    /// What to do now.
    pub fn next(&self, writer: &Writer) -> Step {
        match (self.phase, &self.slot) {
            (Phase::TakeWaiters, _) => Step::TakeWaiters,
            (Phase::Snapshot, _) if writer.place(self.max_bytes).is_none() => Step::Checkpoint,
            (Phase::Snapshot, _) => Step::Snapshot,
            (Phase::FlushData, _) => Step::FlushData,
            (Phase::Write(copy), Some(slot)) => Step::WriteJournal {
                copy,
                position_bytes: slot.position_bytes,
                len_bytes: slot.len_bytes,
            },
            (Phase::FlushJournal, _) => Step::FlushJournal,
            (Phase::Write(_) | Phase::Done, _) => Step::Done,
        }
    }

    /// Takes changed segments, as many as fit, and puts the transaction together in `buffer`. The 4 KiB piece of the map
    /// that each belongs to is noted in `pages` for the next checkpoint.
    pub fn snapshot(
        &mut self,
        map: &Map<'_>,
        pages: &Bits<'_>,
        writer: &Writer,
        uuid: &Uuid,
        buffer: &mut [u8],
        crc: Crc32c,
    ) -> Result<(), Error> {
        let len = usize::try_from(self.max_bytes).unwrap_or(usize::MAX);
        let len = len.min(buffer.len());
        let mut builder = Builder::new(uuid, buffer.get_mut(..len).unwrap_or(&mut []), crc);
        self.in_buffer = self.counter.take();
        if let Some(blocks) = self.in_buffer {
            builder.push(&Record::Counter(blocks))?;
        }
        while !builder.is_full() && builder.records() < RECORDS_MAX {
            let Some(index) = map.changed().next_set(self.scan) else {
                self.scan = map.segments();
                break;
            };
            self.scan = index.saturating_add(1);
            // The mark goes before the words are read: a change that comes in between marks the segment again.
            map.changed().take(index);
            pages.set(index / SEGMENTS_PER_PAGE);
            builder.push(&Record::Segment(Segment {
                index,
                sequence: writer.head().sequence,
                words: map.snapshot(index),
            }))?;
        }
        self.seal(builder, writer)
    }

    fn seal(&mut self, builder: Builder<'_>, writer: &Writer) -> Result<(), Error> {
        self.slot = None;
        if builder.records() != 0 {
            let len = transaction_bytes(builder.records());
            // `next` asked for a checkpoint unless the longest one fits; without a place nothing is written.
            let slot = len.and_then(|len| writer.place(len)).ok_or(Error::Short {
                found: 0,
                expected: usize::try_from(self.max_bytes).unwrap_or(usize::MAX),
            })?;
            builder.seal(slot.sequence, slot.position_bytes)?;
            self.slot = Some(slot);
        }
        Ok(())
    }

    /// The step that [`Round::next`] named has succeeded.
    pub fn advance(&mut self, map: &Map<'_>, writer: &mut Writer) {
        self.phase = match self.phase {
            Phase::TakeWaiters => Phase::Snapshot,
            Phase::Snapshot => Phase::FlushData,
            Phase::FlushData if self.slot.is_some() => Phase::Write(Copy2::A),
            Phase::FlushData => Phase::Done,
            Phase::Write(Copy2::A) => Phase::Write(Copy2::B),
            Phase::Write(Copy2::B) => Phase::FlushJournal,
            Phase::FlushJournal => {
                if let Some(slot) = self.slot.take() {
                    writer.written(&slot, self.in_buffer.take());
                }
                match map.changed().next_set(self.scan) {
                    Some(_) => Phase::Snapshot,
                    None => Phase::Done,
                }
            }
            Phase::Done => Phase::Done,
        };
    }
}
