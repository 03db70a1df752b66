// SPDX-License-Identifier: GPL-2.0-only

//! Attach: the map from both its copies and the journal.
//!
//! Feed every segment of both map copies, then every record of the journal in order ([`crate::journal::replay`]), then
//! [`Loader::finish`]. What differs from the disk afterwards is noted in `pages`; the attach does one
//! [`Checkpoint`](crate::checkpoint::Checkpoint) with [`Loaded::writer`] before the first guest I/O. That makes both copies
//! equal again (a stale copy would otherwise be believed when the good one breaks) and lets the journal go on behind a
//! number that nothing on the disk carries.

use imgstream_proto::disk::journal::Record;
use imgstream_proto::disk::segment::SEGMENTS_PER_PAGE;
use imgstream_proto::disk::superblock::Checkpoint;
use imgstream_proto::disk::{Crc32c, Segment, Superblock, Uuid};

use crate::bits::Bits;
use crate::journal::{Replayed, Writer};
use crate::map::Map;

/// Neither a map copy nor the journal has this segment.
const MISSING: u64 = u64::MAX;

/// The map cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No valid image of this segment anywhere.
    Segment {
        /// Which one.
        index: u64,
    },
    /// A record speaks of a segment that the map does not have.
    NoSuchSegment {
        /// Which one.
        index: u64,
    },
    /// The copy counter is larger than the image.
    Counter {
        /// What it says, in blocks.
        found: u64,
        /// Blocks of the image.
        blocks: u64,
    },
}

/// What the map said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The durable copy counter, in blocks.
    pub counter: u64,
    /// The highest number that any image of a segment has.
    newest: u64,
}

impl Loaded {
    /// The writer with which to go on: an empty journal behind everything that was read.
    pub fn writer(&self, journal_bytes: u64, replayed: &Replayed) -> Writer {
        // One number for the images that the attach's checkpoint writes, the next one for the first transaction.
        let newest = self.newest.max(replayed.head.sequence);
        Writer::new(
            journal_bytes,
            Checkpoint {
                sequence: newest.saturating_add(2),
                position_bytes: replayed.head.position_bytes,
            },
            self.counter,
        )
    }
}

/// The superblock that an attach writes before the first guest I/O: no longer clean, suspect if the last detach was not
/// clean (rule 3), and with the checkpoint of the attach.
pub fn attach(superblock: &mut Superblock, counter: u64, checkpoint: Checkpoint) {
    superblock.generation = superblock.generation.saturating_add(1);
    superblock.suspect |= !superblock.clean;
    superblock.clean = false;
    superblock.copy_counter_blocks = counter;
    superblock.checkpoint = checkpoint;
}

/// Puts the map together.
pub struct Loader<'a> {
    uuid: Uuid,
    map: Map<'a>,
    /// The number of the image that was taken, one for each segment.
    sequences: &'a mut [u64],
    pages: Bits<'a>,
    counter: u64,
    damage: Option<Damage>,
}

impl<'a> Loader<'a> {
    /// A loader of an empty map. `sequences` needs a word for each segment; `pages` a bit for each 4 KiB piece of the
    /// map. `counter` is what the superblock says.
    pub fn new(
        uuid: &Uuid,
        map: Map<'a>,
        sequences: &'a mut [u64],
        pages: Bits<'a>,
        counter: u64,
    ) -> Self {
        sequences.fill(MISSING);
        Self {
            uuid: *uuid,
            map,
            sequences,
            pages,
            counter,
            damage: None,
        }
    }

    /// Takes the newer valid image of a segment. `None`: that copy could not be read.
    pub fn segment(&mut self, index: u64, a: Option<&[u8]>, b: Option<&[u8]>, crc: Crc32c) {
        let decode = |bytes: Option<&[u8]>| {
            bytes.and_then(|bytes| Segment::decode_at(&self.uuid, index, bytes, crc).ok())
        };
        let (a, b) = (decode(a), decode(b));
        if a != b || a.is_none() {
            self.pages.set(index / SEGMENTS_PER_PAGE);
        }
        // A is written first: of two images with the same number it is the newer.
        let newer = match (a, b) {
            (Some(a), Some(b)) if b.sequence > a.sequence => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        };
        if let Some(segment) = newer {
            self.take(&segment);
        }
    }

    /// Applies a record of the journal.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Counter(blocks) => self.counter = self.counter.max(*blocks),
            Record::Segment(segment) if segment.index >= self.map.segments() => {
                let index = segment.index;
                self.damage.get_or_insert(Damage::NoSuchSegment { index });
            }
            Record::Segment(segment) => {
                // In the map already: a checkpoint was cut before its superblock.
                if self
                    .sequence(segment.index)
                    .is_none_or(|has| has < segment.sequence)
                {
                    self.take(segment);
                }
                self.pages.set(segment.index / SEGMENTS_PER_PAGE);
            }
        }
    }

    fn sequence(&self, index: u64) -> Option<u64> {
        let index = usize::try_from(index).ok()?;
        self.sequences
            .get(index)
            .copied()
            .filter(|sequence| *sequence != MISSING)
    }

    fn take(&mut self, segment: &Segment) {
        let place = usize::try_from(segment.index)
            .ok()
            .and_then(|index| self.sequences.get_mut(index));
        if let Some(place) = place {
            *place = segment.sequence;
            self.map.load(segment.index, &segment.words);
        }
    }

    /// Everything was fed: whether the map is whole.
    pub fn finish(self) -> Result<Loaded, Damage> {
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        let blocks = self.map.blocks();
        if self.counter > blocks {
            return Err(Damage::Counter {
                found: self.counter,
                blocks,
            });
        }
        let mut newest = 0;
        for (index, sequence) in (0..self.map.segments()).zip(self.sequences.iter()) {
            if *sequence == MISSING {
                return Err(Damage::Segment { index });
            }
            newest = newest.max(*sequence);
        }
        self.map.recount();
        Ok(Loaded {
            counter: self.counter,
            newest,
        })
    }
}
