// SPDX-License-Identifier: GPL-2.0-only

//! The boot list: which blocks of the image are on their final place from the start, and where the source's blocks are
//! that stood there.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Error, Field};
use super::geometry::BLOCK_BYTES;
use super::header::{Crc32c, Header, HeaderDisk, Uuid};

const MAGIC: [u8; 8] = *b"IMGSTRBL";

/// Length of the list's head, before the first entry.
pub const HEAD_LEN: usize = size_of::<BootListDisk>();
/// Length of an entry.
pub const ENTRY_LEN: usize = size_of::<BootEntryDisk>();
/// The most entries a list may have (a bound for readers; 24 MiB).
pub const ENTRIES_MAX: u32 = 1 << 20;

/// The bytes of the list's head; the entries follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct BootListDisk {
    header: HeaderDisk,
    count: U32,
    reserved: U32,
}

/// The bytes of an entry.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct BootEntryDisk {
    image_block: U64,
    blocks: U32,
    state: U32,
    relocated_bytes: U64,
}

const _: () = assert!(size_of::<BootListDisk>() == 72);
const _: () = assert!(offset_of!(BootListDisk, count) == 64);
const _: () = assert!(size_of::<BootEntryDisk>() == 24);
const _: () = assert!(offset_of!(BootEntryDisk, blocks) == 8);
const _: () = assert!(offset_of!(BootEntryDisk, state) == 12);
const _: () = assert!(offset_of!(BootEntryDisk, relocated_bytes) == 16);

/// How far a boot run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum BootState {
    /// The source's blocks are relocated; what stands at the home location is not yet the target's.
    Saved = 1,
    /// The target's blocks are home: guest I/O goes there.
    Live = 2,
}

/// A run of boot blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// First block, an image address and thereby also the home location.
    pub image_block: u64,
    /// Number of blocks, not 0.
    pub blocks: u32,
    /// How far it is.
    pub state: BootState,
    /// Disk byte where the source's blocks were saved.
    pub relocated_bytes: u64,
}

impl BootEntry {
    /// The first block behind the run.
    pub const fn end_block(&self) -> Option<u64> {
        self.image_block.checked_add(self.blocks as u64)
    }

    /// Disk byte behind the saved blocks.
    pub const fn relocated_end_bytes(&self) -> Option<u64> {
        match (self.blocks as u64).checked_mul(BLOCK_BYTES) {
            Some(len) => self.relocated_bytes.checked_add(len),
            None => None,
        }
    }

    fn encode(&self) -> BootEntryDisk {
        BootEntryDisk {
            image_block: U64::new(self.image_block),
            blocks: U32::new(self.blocks),
            state: U32::new(self.state as u32),
            relocated_bytes: U64::new(self.relocated_bytes),
        }
    }
}

impl BootEntryDisk {
    fn check(&self) -> Result<BootEntry, Error> {
        let state = match self.state.get() {
            1 => BootState::Saved,
            2 => BootState::Live,
            found => return Err(Error::value(Field::State, found.into())),
        };
        Ok(BootEntry {
            image_block: self.image_block.get(),
            blocks: self.blocks.get(),
            state,
            relocated_bytes: self.relocated_bytes.get(),
        })
    }
}

/// A checked boot list over the bytes it was read from.
///
/// # Invariants
///
/// Every entry decodes; entries ascend by `image_block`, do not overlap, are not empty, and neither their image nor their
/// relocated addresses overflow; relocated places are aligned to a block.
#[derive(Clone, Copy)]
pub struct BootList<'a> {
    header: Header,
    entries: &'a [BootEntryDisk],
}

impl<'a> BootList<'a> {
    /// Bytes on disk, whole 4 KiB pieces, for a list of so many entries.
    pub const fn bytes(entries: u32) -> u64 {
        let len =
            (HEAD_LEN as u64).saturating_add((ENTRY_LEN as u64).saturating_mul(entries as u64));
        len.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
    }

    /// Writes a list; `to` is its whole place on disk. What is behind the last entry is zeroed. The entries must ascend
    /// and not overlap.
    pub fn encode(
        header: &Header,
        entries: &[BootEntry],
        to: &mut [u8],
        crc: Crc32c,
    ) -> Result<(), Error> {
        let count = u32::try_from(entries.len())
            .ok()
            .filter(|count| *count <= ENTRIES_MAX)
            .ok_or(Error::value(Field::Count, entries.len() as u64))?;
        check_order(entries.iter().copied().map(Ok))?;
        let used = used_len(count)?;
        let short = Error::Short {
            found: to.len(),
            expected: used,
        };
        to.fill(0);
        let used = to.get_mut(..used).ok_or(short)?;
        let (head, rest) = BootListDisk::mut_from_prefix(used).map_err(|_| short)?;
        head.count = U32::new(count);
        let raw = <[BootEntryDisk]>::mut_from_bytes(rest).map_err(|_| short)?;
        for (to, from) in raw.iter_mut().zip(entries) {
            *to = from.encode();
        }
        header.seal(MAGIC, used, crc)
    }

    /// Reads the list of that migration that stands at `location_bytes`.
    pub fn decode(
        uuid: &Uuid,
        location_bytes: u64,
        from: &'a [u8],
        crc: Crc32c,
    ) -> Result<Self, Error> {
        let short = |expected| Error::Short {
            found: from.len(),
            expected,
        };
        Header::peek(MAGIC, from)?;
        let (head, _) = BootListDisk::ref_from_prefix(from).map_err(|_| short(HEAD_LEN))?;
        let used_len = used_len(head.count.get())?;
        let used = from.get(..used_len).ok_or(short(used_len))?;
        let header = Header::open(MAGIC, used, crc)?;
        header.expect(uuid, location_bytes)?;
        let rest = used.get(HEAD_LEN..).ok_or(short(used_len))?;
        let entries = <[BootEntryDisk]>::ref_from_bytes(rest).map_err(|_| short(used_len))?;
        check_order(entries.iter().map(BootEntryDisk::check))?;
        // INVARIANT: `check_order` saw every entry.
        Ok(Self { header, entries })
    }

    /// The header, for generation and features.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, ascending.
    pub fn entries(&self) -> impl Iterator<Item = BootEntry> + 'a {
        // By the invariant every entry decodes, so nothing is dropped here.
        self.entries.iter().filter_map(|raw| raw.check().ok())
    }

    /// Number of bytes that matter, from the start of its place.
    pub fn used_len(&self) -> usize {
        HEAD_LEN.saturating_add(self.entries.len().saturating_mul(ENTRY_LEN))
    }
}

fn used_len(count: u32) -> Result<usize, Error> {
    if count > ENTRIES_MAX {
        return Err(Error::value(Field::Count, count.into()));
    }
    usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(ENTRY_LEN))
        .and_then(|len| len.checked_add(HEAD_LEN))
        .ok_or(Error::value(Field::Count, count.into()))
}

fn check_order(entries: impl Iterator<Item = Result<BootEntry, Error>>) -> Result<(), Error> {
    let mut end = 0;
    for entry in entries {
        let entry = entry?;
        if entry.image_block < end || entry.blocks == 0 {
            return Err(Error::value(Field::Order, entry.image_block));
        }
        let place = Error::value(Field::Place, entry.relocated_bytes);
        entry.relocated_end_bytes().ok_or(place)?;
        if entry.relocated_bytes % BLOCK_BYTES != 0 {
            return Err(place);
        }
        end = entry
            .end_block()
            .filter(|end| end.checked_mul(BLOCK_BYTES).is_some())
            .ok_or(Error::value(Field::Order, entry.image_block))?;
    }
    Ok(())
}
