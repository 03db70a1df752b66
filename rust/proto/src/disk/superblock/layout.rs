// SPDX-License-Identifier: GPL-2.0-only

//! The bytes of a superblock, written and checked field by field.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    Canary, Chap, Checkpoint, ImageIdentity, Origin, Places, Portal, Superblock, CANARIES,
    CHAP_LEN, EXTENTS, NAME_LEN, PORTALS, SUPERBLOCK_LEN, VPD83_LEN,
};
use crate::disk::address::{address_bytes, address_from};
use crate::disk::bounded::{len16, string};
use crate::disk::error::{Error, Field};
use crate::disk::geometry::{Extent, Geometry};
use crate::disk::header::{Header, HeaderDisk};
use crate::disk::state::State;
use crate::iscsi::digest::Policy;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct ExtentDisk {
    start: U64,
    len: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct PortalDisk {
    /// 0: none; 4: IPv4 in the first four bytes of the address; 6: IPv6.
    family: U16,
    port: U16,
    /// Zone of a link-local IPv6 address.
    scope_id: U32,
    address: [u8; 16],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct CanaryDisk {
    block: U64,
    crc32c: U32,
    /// 1: there is one.
    used: U32,
}

/// The bytes of a superblock.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SuperblockDisk {
    header: HeaderDisk,
    state: U32,
    flags: U32,
    cursor: U64,
    disk_bytes: U64,
    source_bytes: U64,
    relocated_start: U64,
    useful_start: U64,
    control_start: U64,
    image_bytes: U64,
    logical_block_bytes: U32,
    trailer_crc32c: U32,
    image_uuid: [u8; 16],
    lun_bytes: U64,
    root_hash: [u8; 32],
    source_hash: [u8; 32],
    copy_counter_blocks: U64,
    checkpoint_sequence: U64,
    checkpoint_position: U64,
    canaries: [CanaryDisk; CANARIES],
    lun: U64,
    target_name_len: U16,
    initiator_name_len: U16,
    vpd83_len: U16,
    isid: [u8; 6],
    boot_blocks_crc32c: U32,
    target_name: [u8; NAME_LEN],
    initiator_name: [u8; NAME_LEN],
    vpd83: [u8; VPD83_LEN],
    portals: [PortalDisk; PORTALS],
    extents: [ExtentDisk; EXTENTS],
    /// Names and secrets for CHAP; zero: no authentication.
    chap: [u8; CHAP_LEN],
    digests: U32,
    reserved2: [u8; SUPERBLOCK_LEN - 1716],
}

const _: () = assert!(size_of::<SuperblockDisk>() == SUPERBLOCK_LEN);
const _: () = assert!(offset_of!(SuperblockDisk, state) == 64);
const _: () = assert!(offset_of!(SuperblockDisk, flags) == 68);
const _: () = assert!(offset_of!(SuperblockDisk, cursor) == 72);
const _: () = assert!(offset_of!(SuperblockDisk, disk_bytes) == 80);
const _: () = assert!(offset_of!(SuperblockDisk, source_bytes) == 88);
const _: () = assert!(offset_of!(SuperblockDisk, relocated_start) == 96);
const _: () = assert!(offset_of!(SuperblockDisk, useful_start) == 104);
const _: () = assert!(offset_of!(SuperblockDisk, control_start) == 112);
const _: () = assert!(offset_of!(SuperblockDisk, image_bytes) == 120);
const _: () = assert!(offset_of!(SuperblockDisk, logical_block_bytes) == 128);
const _: () = assert!(offset_of!(SuperblockDisk, trailer_crc32c) == 132);
const _: () = assert!(offset_of!(SuperblockDisk, image_uuid) == 136);
const _: () = assert!(offset_of!(SuperblockDisk, lun_bytes) == 152);
const _: () = assert!(offset_of!(SuperblockDisk, root_hash) == 160);
const _: () = assert!(offset_of!(SuperblockDisk, source_hash) == 192);
const _: () = assert!(offset_of!(SuperblockDisk, copy_counter_blocks) == 224);
const _: () = assert!(offset_of!(SuperblockDisk, checkpoint_sequence) == 232);
const _: () = assert!(offset_of!(SuperblockDisk, checkpoint_position) == 240);
const _: () = assert!(offset_of!(SuperblockDisk, canaries) == 248);
const _: () = assert!(offset_of!(SuperblockDisk, lun) == 312);
const _: () = assert!(offset_of!(SuperblockDisk, target_name_len) == 320);
const _: () = assert!(offset_of!(SuperblockDisk, isid) == 326);
const _: () = assert!(offset_of!(SuperblockDisk, boot_blocks_crc32c) == 332);
const _: () = assert!(offset_of!(SuperblockDisk, target_name) == 336);
const _: () = assert!(offset_of!(SuperblockDisk, initiator_name) == 560);
const _: () = assert!(offset_of!(SuperblockDisk, vpd83) == 784);
const _: () = assert!(offset_of!(SuperblockDisk, portals) == 848);
const _: () = assert!(offset_of!(SuperblockDisk, extents) == 944);
/// Where names and secrets stand.
pub const CHAP_AT: usize = offset_of!(SuperblockDisk, chap);
const _: () = assert!(CHAP_AT == 1200);
const _: () = assert!(offset_of!(SuperblockDisk, digests) == 1712);

/// Set at a clean detach, cleared durably at attach: while it is missing, what stands in clean slots is not believed.
const FLAG_CLEAN: u32 = 1 << 0;
/// An attach found that the last detach was not clean. Never cleared in version 1, which has no hashes to prove slots.
const FLAG_SUSPECT: u32 = 1 << 1;
const FLAGS_KNOWN: u32 = FLAG_CLEAN | FLAG_SUSPECT;

impl SuperblockDisk {
    pub(super) fn fill(&mut self, from: &Superblock) {
        self.state = U32::new(from.state.number());
        self.flags = U32::new(flags(from));
        self.cursor = U64::new(from.cursor);
        self.disk_bytes = U64::new(from.geometry.disk_bytes);
        self.source_bytes = U64::new(from.geometry.source_bytes);
        self.relocated_start = U64::new(from.geometry.relocated_start_bytes);
        self.useful_start = U64::new(from.geometry.useful_start_bytes);
        self.control_start = U64::new(from.geometry.control_start_bytes);
        self.image_bytes = U64::new(from.geometry.image_bytes);
        self.logical_block_bytes = U32::new(from.geometry.logical_block_bytes);
        self.trailer_crc32c = U32::new(from.image.trailer_crc32c);
        self.image_uuid = from.image.uuid;
        self.lun_bytes = U64::new(from.image.lun_bytes);
        self.root_hash = from.image.root_hash;
        self.source_hash = from.source_hash;
        self.boot_blocks_crc32c = U32::new(from.boot_blocks_crc32c);
        self.copy_counter_blocks = U64::new(from.copy_counter_blocks);
        self.checkpoint_sequence = U64::new(from.checkpoint.sequence);
        self.checkpoint_position = U64::new(from.checkpoint.position_bytes);
        self.canaries = from.image.canaries.map(CanaryDisk::encode);
        self.lun = U64::new(from.origin.lun);
        self.target_name_len = len16(from.origin.target_name.len());
        self.initiator_name_len = len16(from.origin.initiator_name.len());
        self.vpd83_len = len16(from.origin.vpd83.len());
        self.isid = from.origin.isid;
        self.target_name = from.origin.target_name.padded();
        self.initiator_name = from.origin.initiator_name.padded();
        self.vpd83 = from.origin.vpd83.padded();
        self.portals = from.origin.portals.map(PortalDisk::encode);
        self.digests = U32::new(from.origin.digests as u32);
        self.chap.copy_from_slice(from.origin.chap.as_bytes());
        self.extents = from.places.to_table().map(|place| ExtentDisk {
            start: U64::new(place.start_bytes),
            len: U64::new(place.len_bytes),
        });
    }

    pub(super) fn check(&self, header: &Header) -> Result<Superblock, Error> {
        let flags = self.flags.get();
        if flags & !FLAGS_KNOWN != 0 {
            return Err(Error::value(Field::Flags, flags.into()));
        }
        Ok(Superblock {
            uuid: header.uuid,
            generation: header.generation,
            compat: header.compat,
            ro_compat: header.ro_compat,
            state: State::try_from(self.state.get())?,
            cursor: self.cursor.get(),
            clean: flags & FLAG_CLEAN != 0,
            suspect: flags & FLAG_SUSPECT != 0,
            geometry: self.geometry()?,
            image: self.image()?,
            source_hash: self.source_hash,
            boot_blocks_crc32c: self.boot_blocks_crc32c.get(),
            copy_counter_blocks: self.copy_counter_blocks.get(),
            checkpoint: Checkpoint {
                sequence: self.checkpoint_sequence.get(),
                position_bytes: self.checkpoint_position.get(),
            },
            origin: self.origin()?,
            places: self.places()?,
        })
    }

    fn geometry(&self) -> Result<Geometry, Error> {
        let logical = self.logical_block_bytes.get();
        if !matches!(logical, 512 | 4096) {
            return Err(Error::value(Field::LogicalBlock, logical.into()));
        }
        Ok(Geometry {
            disk_bytes: self.disk_bytes.get(),
            source_bytes: self.source_bytes.get(),
            relocated_start_bytes: self.relocated_start.get(),
            useful_start_bytes: self.useful_start.get(),
            control_start_bytes: self.control_start.get(),
            image_bytes: self.image_bytes.get(),
            logical_block_bytes: logical,
        })
    }

    fn image(&self) -> Result<ImageIdentity, Error> {
        let mut canaries = [None; CANARIES];
        for (to, from) in canaries.iter_mut().zip(&self.canaries) {
            *to = from.check()?;
        }
        Ok(ImageIdentity {
            uuid: self.image_uuid,
            lun_bytes: self.lun_bytes.get(),
            trailer_crc32c: self.trailer_crc32c.get(),
            root_hash: self.root_hash,
            canaries,
        })
    }

    fn origin(&self) -> Result<Origin, Error> {
        let mut portals = [None; PORTALS];
        for (to, from) in portals.iter_mut().zip(&self.portals) {
            *to = from.check()?;
        }
        let digests = self.digests.get();
        Ok(Origin {
            target_name: string(&self.target_name, self.target_name_len)?,
            lun: self.lun.get(),
            vpd83: string(&self.vpd83, self.vpd83_len)?,
            portals,
            initiator_name: string(&self.initiator_name, self.initiator_name_len)?,
            isid: self.isid,
            digests: Policy::from_number(digests)
                .ok_or(Error::value(Field::Digests, digests.into()))?,
            chap: Chap::check(&self.chap)?,
        })
    }

    fn places(&self) -> Result<Places, Error> {
        let mut table = [Extent::default(); EXTENTS];
        for (to, from) in table.iter_mut().zip(&self.extents) {
            *to = Extent::new(from.start.get(), from.len.get());
            to.end_bytes()
                .ok_or(Error::value(Field::Place, to.start_bytes))?;
        }
        Ok(Places::from_table(table))
    }
}

fn flags(of: &Superblock) -> u32 {
    let clean = if of.clean { FLAG_CLEAN } else { 0 };
    let suspect = if of.suspect { FLAG_SUSPECT } else { 0 };
    clean | suspect
}

impl CanaryDisk {
    fn encode(canary: Option<Canary>) -> Self {
        Self {
            block: U64::new(canary.map_or(0, |canary| canary.block)),
            crc32c: U32::new(canary.map_or(0, |canary| canary.crc32c)),
            used: U32::new(canary.is_some().into()),
        }
    }

    fn check(&self) -> Result<Option<Canary>, Error> {
        match self.used.get() {
            0 => Ok(None),
            1 => Ok(Some(Canary {
                block: self.block.get(),
                crc32c: self.crc32c.get(),
            })),
            found => Err(Error::value(Field::Count, found.into())),
        }
    }
}

impl PortalDisk {
    fn encode(portal: Option<Portal>) -> Self {
        let (family, address) = address_bytes(portal.map(|portal| portal.address));
        Self {
            family: U16::new(family),
            port: U16::new(portal.map_or(0, |portal| portal.port)),
            scope_id: U32::new(portal.map_or(0, |portal| portal.scope_id)),
            address,
        }
    }

    fn check(&self) -> Result<Option<Portal>, Error> {
        let address = address_from(self.family.get(), &self.address)?;
        Ok(address.map(|address| Portal {
            address,
            port: self.port.get(),
            scope_id: self.scope_id.get(),
        }))
    }
}
