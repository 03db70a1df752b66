// SPDX-License-Identifier: GPL-2.0-only

//! The trailer: the last 4 KiB of a published LUN, which say what image it holds.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{Error, Field};
use super::geometry::{Extent, BLOCK_BYTES, BLOCK_LEN};
use super::header::{Crc32c, Header, HeaderDisk, Uuid};

const MAGIC: [u8; 8] = *b"IMGSTRTL";

/// Length of a trailer.
pub const TRAILER_LEN: usize = BLOCK_LEN;

/// The bytes of a trailer.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct TrailerDisk {
    header: HeaderDisk,
    image_bytes: U64,
    lun_bytes: U64,
    manifest_start: U64,
    manifest_len: U64,
    manifest_crc32c: U32,
    logical_block_bytes: U32,
    reserved: [u8; TRAILER_LEN - 104],
}

const _: () = assert!(size_of::<TrailerDisk>() == TRAILER_LEN);
const _: () = assert!(offset_of!(TrailerDisk, image_bytes) == 64);
const _: () = assert!(offset_of!(TrailerDisk, lun_bytes) == 72);
const _: () = assert!(offset_of!(TrailerDisk, manifest_start) == 80);
const _: () = assert!(offset_of!(TrailerDisk, manifest_len) == 88);
const _: () = assert!(offset_of!(TrailerDisk, manifest_crc32c) == 96);
const _: () = assert!(offset_of!(TrailerDisk, logical_block_bytes) == 100);

/// A checked trailer.
///
/// # Invariants
///
/// A decoded one: `image_bytes` is a multiple of a block and not 0; image, manifest and trailer follow each other
/// without overlap inside of `lun_bytes`; the logical block size is 512 or 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Names the image.
    pub image_uuid: Uuid,
    /// T: size of the image.
    pub image_bytes: u64,
    /// Size of the LUN.
    pub lun_bytes: u64,
    /// Where in the LUN the manifest stands, and its length in bytes.
    pub manifest: Extent,
    /// CRC-32C of the manifest's bytes.
    pub manifest_crc32c: u32,
    /// Logical block size of the image.
    pub logical_block_bytes: u32,
}

impl Trailer {
    /// Where the trailer of a LUN of this size stands.
    pub const fn location_bytes(lun_bytes: u64) -> Option<u64> {
        lun_bytes.checked_sub(BLOCK_BYTES)
    }

    /// The trailer's bytes.
    pub fn encode(&self, to: &mut [u8; TRAILER_LEN], crc: Crc32c) -> Result<(), Error> {
        self.check()?;
        let location = Self::location_bytes(self.lun_bytes)
            .ok_or(Error::value(Field::Place, self.lun_bytes))?;
        let short = Error::Short {
            found: 0,
            expected: TRAILER_LEN,
        };
        to.fill(0);
        let raw = TrailerDisk::mut_from_bytes(to).map_err(|_| short)?;
        raw.image_bytes = U64::new(self.image_bytes);
        raw.lun_bytes = U64::new(self.lun_bytes);
        raw.manifest_start = U64::new(self.manifest.start_bytes);
        raw.manifest_len = U64::new(self.manifest.len_bytes);
        raw.manifest_crc32c = U32::new(self.manifest_crc32c);
        raw.logical_block_bytes = U32::new(self.logical_block_bytes);
        Header::new(self.image_uuid, location, 1).seal(MAGIC, to, crc)
    }

    /// Reads the trailer that stands in the last 4 KiB of a LUN of `lun_bytes`.
    pub fn decode(lun_bytes: u64, from: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let raw = TrailerDisk::ref_from_bytes(from).map_err(|_| Error::Short {
            found: from.len(),
            expected: TRAILER_LEN,
        })?;
        let header = Header::open(MAGIC, from, crc)?;
        let location =
            Self::location_bytes(lun_bytes).ok_or(Error::value(Field::Place, lun_bytes))?;
        header.expect_location(location)?;
        let trailer = Self {
            image_uuid: header.uuid,
            image_bytes: raw.image_bytes.get(),
            lun_bytes: raw.lun_bytes.get(),
            manifest: Extent::new(raw.manifest_start.get(), raw.manifest_len.get()),
            manifest_crc32c: raw.manifest_crc32c.get(),
            logical_block_bytes: raw.logical_block_bytes.get(),
        };
        if trailer.lun_bytes != lun_bytes {
            return Err(Error::value(Field::Length, trailer.lun_bytes));
        }
        trailer.check()?;
        Ok(trailer)
    }

    fn check(&self) -> Result<(), Error> {
        let place = |found| Error::value(Field::Place, found);
        if self.image_bytes == 0 || self.image_bytes % BLOCK_BYTES != 0 {
            return Err(Error::value(Field::Length, self.image_bytes));
        }
        if !matches!(self.logical_block_bytes, 512 | 4096) {
            return Err(Error::value(
                Field::LogicalBlock,
                self.logical_block_bytes.into(),
            ));
        }
        let trailer = Self::location_bytes(self.lun_bytes).ok_or(place(self.lun_bytes))?;
        let end = self
            .manifest
            .end_bytes()
            .ok_or(place(self.manifest.start_bytes))?;
        if self.manifest.start_bytes < self.image_bytes || end > trailer {
            return Err(place(self.manifest.start_bytes));
        }
        Ok(())
    }
}
