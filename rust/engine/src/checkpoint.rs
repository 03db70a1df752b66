// SPDX-License-Identifier: GPL-2.0-only

//! A checkpoint: brings the map copies up to what the journal says, so that the journal's space can be used again.
//!
//! Batch by batch, 4 KiB pieces of the map (eight segments):
//!
//! 1. `Snapshot`: copies pieces as they are in memory now. That may be newer than the journal, so
//! 2. `FlushData` comes next, as in a flush round (rule 1).
//! 3. `WriteMap` to copy A, `FlushMap`, `WriteMap` to copy B, `FlushMap`: a torn piece is in one copy only, and the other,
//!    with the journal's records on top, still says what was recorded. A is the newer of two equal sequence numbers.
//! 4. When no piece is left, `Superblock`: replay begins at what was the head when the checkpoint *began*. Transactions
//!    written between batches stay in the journal.
//!
//! Flush rounds may run whenever the next step is `Snapshot` or `Superblock`, so that flushes do not wait for a long one.

use imgstream_proto::disk::segment::SEGMENTS_PER_PAGE;
use imgstream_proto::disk::superblock;
use imgstream_proto::disk::{Copy2, Crc32c, Error, Segment, Uuid, BLOCK_LEN, SEGMENT_LEN};

use crate::bits::Bits;
use crate::journal::Writer;
use crate::map::Map;

/// The most pieces of a batch, whatever the buffer.
pub const BATCH_PAGES_MAX: usize = 64;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call [`Checkpoint::snapshot`].
    Snapshot,
    /// Flush the disk.
    FlushData,
    /// Write pieces from the buffer to a map copy.
    WriteMap {
        /// To which copy.
        copy: Copy2,
        /// Where in it, in bytes.
        to_bytes: u64,
        /// From where in the buffer.
        from: usize,
        /// How many bytes.
        len: usize,
    },
    /// Flush the disk.
    FlushMap,
    /// Replace the superblock pair by one with this checkpoint and the copy counter that [`Writer::counter`] names then.
    Superblock(superblock::Checkpoint),
    /// The journal has room again.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Snapshot,
    FlushData,
    Write(Copy2),
    Flush(Copy2),
    Superblock,
    Done,
}

/// A checkpoint under way.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    phase: Phase,
    start: superblock::Checkpoint,
    used_at_start: u64,
    /// The next piece of the map to look at.
    scan: u64,
    /// The pieces in the buffer, ascending.
    batch: [u64; BATCH_PAGES_MAX],
    batch_len: usize,
    /// Pieces of the batch written to the copy in hand.
    at: usize,
}

impl Checkpoint {
    /// A checkpoint of everything journaled so far.
    pub fn new(writer: &Writer) -> Self {
        Self {
            phase: Phase::Snapshot,
            start: writer.head(),
            used_at_start: writer.used_bytes(),
            scan: 0,
            batch: [0; BATCH_PAGES_MAX],
            batch_len: 0,
            at: 0,
        }
    }

    /// What to do now.
    pub fn next(&self) -> Step {
        match self.phase {
            Phase::Snapshot => Step::Snapshot,
            Phase::FlushData => Step::FlushData,
            Phase::Write(copy) => self.write(copy),
            Phase::Flush(_) => Step::FlushMap,
            Phase::Superblock => Step::Superblock(self.start),
            Phase::Done => Step::Done,
        }
    }

    fn write(&self, copy: Copy2) -> Step {
        let page = self.batch.get(self.at).copied().unwrap_or(0);
        Step::WriteMap {
            copy,
            to_bytes: page.saturating_mul(BLOCK_LEN as u64),
            from: self.at.saturating_mul(BLOCK_LEN),
            len: self.together().saturating_mul(BLOCK_LEN),
        }
    }

    /// How many pieces from the next one on follow each other on the disk.
    fn together(&self) -> usize {
        let pages = self.batch.get(self.at..self.batch_len).unwrap_or(&[]);
        let first = pages.first().copied().unwrap_or(0);
        pages
            .iter()
            .zip(first..)
            .take_while(|(page, expected)| **page == *expected)
            .count()
    }

    /// Copies pieces that `pages` names, as many as fit, into `buffer`, and takes them out of `pages`.
    pub fn snapshot(
        &mut self,
        map: &Map<'_>,
        pages: &Bits<'_>,
        writer: &Writer,
        uuid: &Uuid,
        buffer: &mut [u8],
        crc: Crc32c,
    ) -> Result<(), Error> {
        self.batch_len = 0;
        self.at = 0;
        let places = buffer.chunks_exact_mut(BLOCK_LEN);
        for (slot, place) in self.batch.iter_mut().zip(places) {
            let Some(page) = pages.next_set(self.scan) else {
                break;
            };
            // As in a flush round: the mark goes first.
            pages.take(page);
            encode_page(map, page, writer.last_sequence(), uuid, place, crc)?;
            *slot = page;
            self.scan = page.saturating_add(1);
            self.batch_len = self.batch_len.saturating_add(1);
        }
        Ok(())
    }

    /// The step that [`Checkpoint::next`] named has succeeded. If one fails, health degrades.
    pub fn advance(&mut self, pages: &Bits<'_>, writer: &mut Writer) {
        self.phase = match self.phase {
            Phase::Snapshot if self.batch_len == 0 => Phase::Superblock,
            Phase::Snapshot => Phase::FlushData,
            Phase::FlushData => Phase::Write(Copy2::A),
            Phase::Write(copy) => {
                self.at = self.at.saturating_add(self.together());
                if self.at < self.batch_len {
                    Phase::Write(copy)
                } else {
                    Phase::Flush(copy)
                }
            }
            Phase::Flush(Copy2::A) => {
                self.at = 0;
                Phase::Write(Copy2::B)
            }
            Phase::Flush(Copy2::B) if pages.next_set(self.scan).is_some() => Phase::Snapshot,
            Phase::Flush(Copy2::B) => Phase::Superblock,
            Phase::Superblock => {
                writer.checkpointed(self.used_at_start);
                Phase::Done
            }
            Phase::Done => Phase::Done,
        };
    }
}

/// The bytes of a 4 KiB piece of the map; segments behind the last one are zeroes.
pub fn encode_page(
    map: &Map<'_>,
    page: u64,
    sequence: u64,
    uuid: &Uuid,
    to: &mut [u8],
    crc: Crc32c,
) -> Result<(), Error> {
    let first = page.saturating_mul(SEGMENTS_PER_PAGE);
    for (index, place) in (first..).zip(to.chunks_exact_mut(SEGMENT_LEN)) {
        if index < map.segments() {
            let words = map.snapshot(index);
            let segment = Segment {
                index,
                sequence,
                words,
            };
            segment.encode(uuid, place, crc)?;
        } else {
            place.fill(0);
        }
    }
    Ok(())
}
