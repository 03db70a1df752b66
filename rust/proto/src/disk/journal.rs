// SPDX-License-Identifier: GPL-2.0-only

//! Journal transactions: a head of one sector, then records of one sector each.
//!
//! A transaction starts at a multiple of 4 KiB, never goes over the journal's end, and is sealed as a whole. What a
//! record holds is an after-image, so that reading one twice changes nothing.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Error, Field};
use super::geometry::{BLOCK_BYTES, SECTOR_LEN};
use super::header::{Crc32c, Uuid};
use super::segment::{Segment, SEGMENT_LEN};

const MAGIC: [u8; 8] = *b"IMGSTRJN";
const RECORD_MAGIC: [u8; 4] = *b"ISrc";
const CRC_FROM: usize = 12;

/// Length of a record and of the head.
pub const RECORD_LEN: usize = SECTOR_LEN;
/// The most records of a transaction: with its head 512 KiB.
pub const RECORDS_MAX: u32 = 1023;
/// The longest transaction, in bytes.
pub const TRANSACTION_BYTES_MAX: u64 = 512 << 10;
/// Transactions start at multiples of this and are this long, or several times.
pub const TRANSACTION_ALIGN: u64 = BLOCK_BYTES;

const KIND_COUNTER: u32 = 1;

/// The bytes of a transaction's head.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct HeadDisk {
    magic: [u8; 8],
    /// CRC-32C of the whole transaction behind this field.
    crc32c: U32,
    records: U32,
    uuid: [u8; 16],
    sequence: U64,
    position: U64,
    len: U32,
    reserved: [u8; RECORD_LEN - 52],
}

const _: () = assert!(size_of::<HeadDisk>() == RECORD_LEN);
const _: () = assert!(offset_of!(HeadDisk, crc32c) == 8);
const _: () = assert!(offset_of!(HeadDisk, records) == CRC_FROM);
const _: () = assert!(offset_of!(HeadDisk, uuid) == 16);
const _: () = assert!(offset_of!(HeadDisk, sequence) == 32);
const _: () = assert!(offset_of!(HeadDisk, position) == 40);
const _: () = assert!(offset_of!(HeadDisk, len) == 48);

/// The bytes of a record that is no map segment. The transaction's checksum covers it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordDisk {
    magic: [u8; 4],
    kind: U32,
    value: U64,
    reserved: [u8; RECORD_LEN - 16],
}

const _: () = assert!(size_of::<RecordDisk>() == RECORD_LEN);
const _: () = assert!(offset_of!(RecordDisk, kind) == 4);
const _: () = assert!(offset_of!(RecordDisk, value) == 8);

/// What a transaction says.
// A segment is most of a sector; records are looked at one by one and never kept in numbers.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A map segment as it is from now on.
    Segment(Segment),
    /// The copy counter as it is from now on, in blocks.
    Counter(u64),
}

impl Record {
    fn encode(&self, uuid: &Uuid, to: &mut [u8], crc: Crc32c) -> Result<(), Error> {
        let short = Error::Short {
            found: to.len(),
            expected: RECORD_LEN,
        };
        match self {
            Record::Segment(segment) => segment.encode(uuid, to, crc),
            Record::Counter(blocks) => RecordDisk {
                magic: RECORD_MAGIC,
                kind: U32::new(KIND_COUNTER),
                value: U64::new(*blocks),
                reserved: [0; RECORD_LEN - 16],
            }
            .write_to_prefix(to)
            .map_err(|_| short),
        }
    }

    fn decode(uuid: &Uuid, from: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let (raw, _) = RecordDisk::ref_from_prefix(from).map_err(|_| Error::Short {
            found: from.len(),
            expected: RECORD_LEN,
        })?;
        if raw.magic != RECORD_MAGIC {
            return Segment::decode(uuid, from, crc).map(Record::Segment);
        }
        match raw.kind.get() {
            KIND_COUNTER => Ok(Record::Counter(raw.value.get())),
            found => Err(Error::value(Field::RecordKind, found.into())),
        }
    }
}

/// Length of a transaction with so many records, whole 4 KiB pieces; `None` if there may be no such transaction.
pub const fn transaction_bytes(records: u32) -> Option<u64> {
    if records > RECORDS_MAX {
        return None;
    }
    let len = (records as u64 + 1) * RECORD_LEN as u64;
    Some(len.div_ceil(TRANSACTION_ALIGN) * TRANSACTION_ALIGN)
}

/// Puts a transaction together in a buffer of the caller.
pub struct Builder<'b> {
    uuid: Uuid,
    buffer: &'b mut [u8],
    records: u32,
    crc: Crc32c,
}

impl<'b> Builder<'b> {
    /// Starts an empty transaction in `buffer`.
    pub fn new(uuid: &Uuid, buffer: &'b mut [u8], crc: Crc32c) -> Self {
        Self {
            uuid: *uuid,
            buffer,
            records: 0,
            crc,
        }
    }

    /// Records so far.
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Whether another record has no place.
    pub fn is_full(&self) -> bool {
        match transaction_bytes(self.records.saturating_add(1)) {
            Some(len) => len > self.buffer.len() as u64,
            None => true,
        }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record) -> Result<(), Error> {
        let short = Error::Short {
            found: self.buffer.len(),
            expected: RECORD_LEN,
        };
        if self.is_full() {
            return Err(short);
        }
        let place = record_place(self.records).ok_or(short)?;
        let to = self.buffer.get_mut(place).ok_or(short)?;
        record.encode(&self.uuid, to, self.crc)?;
        self.records = self.records.saturating_add(1);
        Ok(())
    }

    /// Seals the transaction that will stand at `position_bytes` of the journal; its bytes.
    pub fn seal(self, sequence: u64, position_bytes: u64) -> Result<&'b [u8], Error> {
        let used = record_place(self.records).map_or(0, |next| next.start);
        let short = Error::Short {
            found: self.buffer.len(),
            expected: used,
        };
        let len = transaction_bytes(self.records).ok_or(short)?;
        let whole = usize::try_from(len).map_err(|_| short)?;
        let bytes = self.buffer.get_mut(..whole).ok_or(short)?;
        bytes.get_mut(used..).ok_or(short)?.fill(0);
        let mut head = HeadDisk {
            magic: MAGIC,
            crc32c: U32::new(0),
            records: U32::new(self.records),
            uuid: self.uuid,
            sequence: U64::new(sequence),
            position: U64::new(position_bytes),
            len: U32::new(u32::try_from(len).map_err(|_| short)?),
            reserved: [0; RECORD_LEN - 52],
        };
        head.write_to_prefix(bytes).map_err(|_| short)?;
        head.crc32c = U32::new((self.crc)(bytes.get(CRC_FROM..).ok_or(short)?));
        head.write_to_prefix(bytes).map_err(|_| short)?;
        Ok(bytes)
    }
}

/// What the head of a transaction says, before its checksum was looked at: good for nothing but to learn how much to
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its number.
    pub sequence: u64,
    /// Its length; between one and [`TRANSACTION_BYTES_MAX`], a multiple of 4 KiB.
    pub len_bytes: u64,
}

impl Probe {
    /// Looks at the first sector at `position_bytes` for a head of that migration that belongs there.
    pub fn new(uuid: &Uuid, position_bytes: u64, from: &[u8]) -> Result<Self, Error> {
        let (head, _) = HeadDisk::ref_from_prefix(from).map_err(|_| Error::Short {
            found: from.len(),
            expected: RECORD_LEN,
        })?;
        if head.magic != MAGIC {
            return Err(Error::Magic { found: head.magic });
        }
        if head.uuid != *uuid {
            return Err(Error::Uuid {
                found: head.uuid,
                expected: *uuid,
            });
        }
        if head.position.get() != position_bytes {
            return Err(Error::Location {
                found: head.position.get(),
                expected: position_bytes,
            });
        }
        let records = head.records.get();
        let len_bytes =
            transaction_bytes(records).ok_or(Error::value(Field::Count, records.into()))?;
        if u64::from(head.len.get()) != len_bytes {
            return Err(Error::value(Field::Length, head.len.get().into()));
        }
        Ok(Self {
            sequence: head.sequence.get(),
            len_bytes,
        })
    }
}

/// A checked transaction over the bytes it was read from.
///
/// # Invariants
///
/// The checksum was right, and each of the records decodes.
#[derive(Clone, Copy)]
pub struct Transaction<'a> {
    uuid: Uuid,
    probe: Probe,
    records: &'a [u8],
    crc: Crc32c,
}

impl<'a> Transaction<'a> {
    /// Reads the transaction of that migration that stands at `position_bytes`; `from` may be longer than it.
    pub fn decode(
        uuid: &Uuid,
        position_bytes: u64,
        from: &'a [u8],
        crc: Crc32c,
    ) -> Result<Self, Error> {
        let probe = Probe::new(uuid, position_bytes, from)?;
        let short = Error::Short {
            found: from.len(),
            expected: usize::try_from(probe.len_bytes).unwrap_or(usize::MAX),
        };
        let whole = usize::try_from(probe.len_bytes).map_err(|_| short)?;
        let bytes = from.get(..whole).ok_or(short)?;
        let (head, _) = HeadDisk::ref_from_prefix(bytes).map_err(|_| short)?;
        let found = crc(bytes.get(CRC_FROM..).ok_or(short)?);
        if found != head.crc32c.get() {
            return Err(Error::Crc {
                found,
                expected: head.crc32c.get(),
            });
        }
        let end = record_place(head.records.get()).map_or(0, |next| next.start);
        let records = bytes.get(RECORD_LEN..end).ok_or(short)?;
        for record in records.chunks_exact(RECORD_LEN) {
            Record::decode(uuid, record, crc)?;
        }
        // INVARIANT: the sum was compared, and every record was decoded.
        Ok(Self {
            uuid: *uuid,
            probe,
            records,
            crc,
        })
    }

    /// Its number.
    pub const fn sequence(&self) -> u64 {
        self.probe.sequence
    }

    /// Its length.
    pub const fn len_bytes(&self) -> u64 {
        self.probe.len_bytes
    }

    /// What it says.
    pub fn records(&self) -> impl Iterator<Item = Record> + 'a {
        let (uuid, crc) = (self.uuid, self.crc);
        // By the invariant every record decodes, so nothing is dropped here.
        self.records
            .chunks_exact(RECORD_LEN)
            .filter_map(move |bytes| Record::decode(&uuid, bytes, crc).ok())
    }
}

fn record_place(index: u32) -> Option<core::ops::Range<usize>> {
    let start = usize::try_from(index)
        .ok()?
        .checked_add(1)?
        .checked_mul(RECORD_LEN)?;
    Some(start..start.checked_add(SEGMENT_LEN)?)
}
