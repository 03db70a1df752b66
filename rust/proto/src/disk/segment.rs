// SPDX-License-Identifier: GPL-2.0-only

//! Map segments: 512 bytes with the states of 1920 blocks, each verifying itself.
//!
//! A segment stands at `index * 512` of either map copy, and as a record in journal transactions. The newest valid one,
//! by `sequence`, is the truth; so a torn write costs one copy of the segments it touched and nothing else.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Error, Field};
use super::geometry::SECTOR_LEN;
use super::header::{Crc32c, Uuid};

/// Length of a segment: one sector, the unit that a power cut does not tear.
pub const SEGMENT_LEN: usize = SECTOR_LEN;
/// Map words of a segment.
pub const WORDS_PER_SEGMENT: usize = 60;
/// Blocks of a word, two bits each; block 0 of a word in the lowest bits.
pub const BLOCKS_PER_WORD: u64 = 32;
/// Blocks of a segment.
pub const BLOCKS_PER_SEGMENT: u64 = 1920;
/// Segments of a 4 KiB piece of the map, the unit in which checkpoints write it.
pub const SEGMENTS_PER_PAGE: u64 = 8;

const MAGIC: [u8; 4] = *b"ISmp";
const CRC_FROM: usize = 8;

/// The bytes of a segment.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SegmentDisk {
    magic: [u8; 4],
    /// CRC-32C of everything behind this field.
    crc32c: U32,
    uuid_tag: U64,
    index: U64,
    sequence: U64,
    words: [U64; WORDS_PER_SEGMENT],
}

const _: () = assert!(size_of::<SegmentDisk>() == SEGMENT_LEN);
const _: () = assert!(offset_of!(SegmentDisk, crc32c) == 4);
const _: () = assert!(offset_of!(SegmentDisk, uuid_tag) == CRC_FROM);
const _: () = assert!(offset_of!(SegmentDisk, index) == 16);
const _: () = assert!(offset_of!(SegmentDisk, sequence) == 24);
const _: () = assert!(offset_of!(SegmentDisk, words) == 32);
const _: () = assert!(WORDS_PER_SEGMENT as u64 * BLOCKS_PER_WORD == BLOCKS_PER_SEGMENT);

/// A checked segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which part of the map.
    pub index: u64,
    /// Of two images of one segment, the higher is the newer.
    pub sequence: u64,
    /// States, 32 blocks a word.
    pub words: [u64; WORDS_PER_SEGMENT],
}

/// Number of segments that a map of so many blocks has.
pub const fn segments(blocks: u64) -> u64 {
    blocks.div_ceil(BLOCKS_PER_SEGMENT)
}

/// Bytes of one map copy for so many blocks, whole 4 KiB pieces.
pub const fn map_bytes(blocks: u64) -> u64 {
    segments(blocks)
        .div_ceil(SEGMENTS_PER_PAGE)
        .saturating_mul(super::geometry::BLOCK_BYTES)
}

/// The 8 bytes of a migration's UUID that its segments carry.
pub fn uuid_tag(uuid: &Uuid) -> u64 {
    let mut tag = [0; 8];
    for (to, from) in tag.iter_mut().zip(uuid) {
        *to = *from;
    }
    u64::from_le_bytes(tag)
}

impl Segment {
    /// A segment whose blocks are all absent.
    pub const fn absent(index: u64, sequence: u64) -> Self {
        Self {
            index,
            sequence,
            words: [0; WORDS_PER_SEGMENT],
        }
    }

    /// Writes the segment to the first 512 bytes of `to`.
    pub fn encode(&self, uuid: &Uuid, to: &mut [u8], crc: Crc32c) -> Result<(), Error> {
        let short = Error::Short {
            found: to.len(),
            expected: SEGMENT_LEN,
        };
        let mut raw = SegmentDisk {
            magic: MAGIC,
            crc32c: U32::new(0),
            uuid_tag: U64::new(uuid_tag(uuid)),
            index: U64::new(self.index),
            sequence: U64::new(self.sequence),
            words: self.words.map(U64::new),
        };
        raw.crc32c = U32::new(crc(raw.as_bytes().get(CRC_FROM..).ok_or(short)?));
        raw.write_to_prefix(to).map_err(|_| short)
    }

    /// Reads the segment of that migration from the first 512 bytes of `from`.
    pub fn decode(uuid: &Uuid, from: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let short = Error::Short {
            found: from.len(),
            expected: SEGMENT_LEN,
        };
        let (raw, _) = SegmentDisk::ref_from_prefix(from).map_err(|_| short)?;
        if raw.magic != MAGIC {
            let mut found = [0; 8];
            found.copy_from_slice(from.get(..8).ok_or(short)?);
            return Err(Error::Magic { found });
        }
        let found = crc(raw.as_bytes().get(CRC_FROM..).ok_or(short)?);
        if found != raw.crc32c.get() {
            return Err(Error::Crc {
                found,
                expected: raw.crc32c.get(),
            });
        }
        if raw.uuid_tag.get() != uuid_tag(uuid) {
            return Err(Error::Uuid {
                found: tag_as_uuid(raw.uuid_tag.get()),
                expected: tag_as_uuid(uuid_tag(uuid)),
            });
        }
        Ok(Self {
            index: raw.index.get(),
            sequence: raw.sequence.get(),
            words: raw.words.map(|word| word.get()),
        })
    }

    /// As [`Segment::decode`], and it must be segment `index`.
    pub fn decode_at(uuid: &Uuid, index: u64, from: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let segment = Self::decode(uuid, from, crc)?;
        if segment.index != index {
            return Err(Error::value(Field::Sequence, segment.index));
        }
        Ok(segment)
    }
}

fn tag_as_uuid(tag: u64) -> Uuid {
    let mut uuid = [0; 16];
    for (to, from) in uuid.iter_mut().zip(tag.to_le_bytes()) {
        *to = from;
    }
    uuid
}
