// SPDX-License-Identifier: GPL-2.0-only

//! The 64 bytes with which every structure of the control area (but map segments and journal) begins.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Error, Field};

/// Computes CRC-32C as the standard has it: `crc(b"123456789") == 0xe3069283`.
pub type Crc32c = fn(&[u8]) -> u32;

/// Names a migration (random for each) or an image.
pub type Uuid = [u8; 16];

/// The version of the format that this code writes and reads.
pub const VERSION: u16 = 1;
/// Feature bits without which nothing may be read that this code knows: none so far.
pub const INCOMPAT_KNOWN: u32 = 0;
/// Feature bits without which nothing may be written that this code knows: none so far.
pub const RO_COMPAT_KNOWN: u32 = 0;

/// The bytes of a header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct HeaderDisk {
    magic: [u8; 8],
    /// CRC-32C of everything behind this field, to the end of the structure.
    crc32c: U32,
    version: U16,
    reserved: U16,
    compat: U32,
    ro_compat: U32,
    incompat: U32,
    reserved2: U32,
    uuid: [u8; 16],
    location: U64,
    generation: U64,
}

const _: () = assert!(size_of::<HeaderDisk>() == 64);
const _: () = assert!(offset_of!(HeaderDisk, crc32c) == 8);
const _: () = assert!(offset_of!(HeaderDisk, version) == 12);
const _: () = assert!(offset_of!(HeaderDisk, compat) == 16);
const _: () = assert!(offset_of!(HeaderDisk, ro_compat) == 20);
const _: () = assert!(offset_of!(HeaderDisk, incompat) == 24);
const _: () = assert!(offset_of!(HeaderDisk, uuid) == 32);
const _: () = assert!(offset_of!(HeaderDisk, location) == 48);
const _: () = assert!(offset_of!(HeaderDisk, generation) == 56);

/// Length of a header.
pub const HEADER_LEN: usize = size_of::<HeaderDisk>();
/// The checksum covers everything from this byte on; what is before it is the magic and the sum itself.
pub const CRC_FROM: usize = 12;

/// A checked header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The migration, or the image for a trailer.
    pub uuid: Uuid,
    /// Where the structure stands, in bytes from the start of the disk (of the LUN for a trailer).
    pub location_bytes: u64,
    /// Counts the writes of this structure.
    pub generation: u64,
    /// Features that nobody has to understand.
    pub compat: u32,
    /// Features that must be understood to write the structure; unknown ones make the migration read-only.
    pub ro_compat: u32,
}

impl Header {
    /// A header of version 1 without any feature.
    pub const fn new(uuid: Uuid, location_bytes: u64, generation: u64) -> Self {
        Self {
            uuid,
            location_bytes,
            generation,
            compat: 0,
            ro_compat: 0,
        }
    }

    /// Whether features that this code does not know forbid to write.
    pub const fn must_not_write(&self) -> bool {
        self.ro_compat & !RO_COMPAT_KNOWN != 0
    }

    /// Whether this is a structure of that migration at that place.
    pub fn expect(&self, uuid: &Uuid, location_bytes: u64) -> Result<(), Error> {
        if self.uuid != *uuid {
            return Err(Error::Uuid {
                found: self.uuid,
                expected: *uuid,
            });
        }
        self.expect_location(location_bytes)
    }

    /// Whether this structure stands where it says.
    pub fn expect_location(&self, location_bytes: u64) -> Result<(), Error> {
        if self.location_bytes != location_bytes {
            return Err(Error::Location {
                found: self.location_bytes,
                expected: location_bytes,
            });
        }
        Ok(())
    }

    /// Writes the header over the first bytes of `all` and seals the whole of `all` with the checksum.
    pub(crate) fn seal(&self, magic: [u8; 8], all: &mut [u8], crc: Crc32c) -> Result<(), Error> {
        let short = Error::Short {
            found: all.len(),
            expected: HEADER_LEN,
        };
        let mut raw = HeaderDisk {
            magic,
            crc32c: U32::new(0),
            version: U16::new(VERSION),
            reserved: U16::new(0),
            compat: U32::new(self.compat),
            ro_compat: U32::new(self.ro_compat),
            incompat: U32::new(0),
            reserved2: U32::new(0),
            uuid: self.uuid,
            location: U64::new(self.location_bytes),
            generation: U64::new(self.generation),
        };
        raw.write_to_prefix(all).map_err(|_| short)?;
        raw.crc32c = U32::new(crc(all.get(CRC_FROM..).ok_or(short)?));
        raw.write_to_prefix(all).map_err(|_| short)
    }

    /// Opens the structure that takes the whole of `all`: magic, checksum, version and features, in this order.
    pub(crate) fn open(magic: [u8; 8], all: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let raw = Self::peek(magic, all)?;
        let found = crc(all.get(CRC_FROM..).unwrap_or(&[]));
        if found != raw.crc32c.get() {
            return Err(Error::Crc {
                found,
                expected: raw.crc32c.get(),
            });
        }
        raw.check()
    }

    /// Looks for the magic only, for structures whose length follows from a field.
    pub(crate) fn peek(magic: [u8; 8], all: &[u8]) -> Result<HeaderDisk, Error> {
        let (raw, _) = HeaderDisk::read_from_prefix(all).map_err(|_| Error::Short {
            found: all.len(),
            expected: HEADER_LEN,
        })?;
        if raw.magic != magic {
            return Err(Error::Magic { found: raw.magic });
        }
        Ok(raw)
    }
}

impl HeaderDisk {
    /// Whether this is of that migration and place by its own words, checksum or not.
    pub(crate) fn names(&self, uuid: &Uuid, location_bytes: u64) -> bool {
        self.uuid == *uuid && self.location.get() == location_bytes
    }

    fn check(&self) -> Result<Header, Error> {
        if self.version.get() != VERSION {
            return Err(Error::Version {
                found: self.version.get(),
                expected: VERSION,
            });
        }
        let unknown = self.incompat.get() & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(Error::Incompat { unknown });
        }
        if self.reserved.get() != 0 || self.reserved2.get() != 0 {
            return Err(Error::value(Field::Reserved, self.reserved2.get().into()));
        }
        Ok(Header {
            uuid: self.uuid,
            location_bytes: self.location.get(),
            generation: self.generation.get(),
            compat: self.compat.get(),
            ro_compat: self.ro_compat.get(),
        })
    }
}
