// SPDX-License-Identifier: GPL-2.0-only

//! The superblock: identity, state and places of one migration. Two copies, of which the newest valid one counts.

use core::mem::{offset_of, size_of};
use core::net::{IpAddr, Ipv6Addr};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bounded::Bounded;
use super::error::{Error, Field};
use super::geometry::{Extent, Geometry, BLOCK_LEN};
use super::header::{Crc32c, Header, HeaderDisk, Uuid};
use super::state::State;

/// The magic of a superblock; whoever scans a disk looks for it.
pub const MAGIC: [u8; 8] = *b"IMGSTRSB";
/// Length of a superblock.
pub const SUPERBLOCK_LEN: usize = BLOCK_LEN;
/// The longest iSCSI name (223 bytes, RFC 7143), rounded up.
pub const NAME_LEN: usize = 224;
/// The longest designator of VPD page 83 that is kept.
pub const VPD83_LEN: usize = 64;
/// Portals of the target.
pub const PORTALS: usize = 4;
/// Blocks whose checksum tells one image from another.
pub const CANARIES: usize = 4;

/// An iSCSI name.
pub type Name = Bounded<NAME_LEN>;
/// A designator: its kind in the first byte, then its value; empty: the unit shows none.
pub type Vpd83 = Bounded<VPD83_LEN>;

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

/// The places of [`Places`] in the order of the extents table.
const EXTENTS: usize = 16;

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
    /// Place for CHAP names and secrets; zero in version 1.
    chap: [u8; 512],
    reserved2: [u8; SUPERBLOCK_LEN - 1712],
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
const _: () = assert!(offset_of!(SuperblockDisk, chap) == 1200);

/// Set at a clean detach, cleared durably at attach: while it is missing, what stands in clean slots is not believed.
const FLAG_CLEAN: u32 = 1 << 0;
/// An attach found that the last detach was not clean. Never cleared in version 1, which has no hashes to prove slots.
const FLAG_SUSPECT: u32 = 1 << 1;
const FLAGS_KNOWN: u32 = FLAG_CLEAN | FLAG_SUSPECT;

/// A portal of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Zone (interface index) of a link-local IPv6 address; 0 otherwise.
    pub scope_id: u32,
}

/// A block of the image whose checksum is known: the source of the image is checked against it on every connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The block, an image address.
    pub block: u64,
    /// CRC-32C of its 4096 bytes.
    pub crc32c: u32,
}

/// Where replay begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Sequence number of the first transaction that the map does not hold.
    pub sequence: u64,
    /// Where it stands, or will stand, in bytes from the start of the journal.
    pub position_bytes: u64,
}

/// What image this is and how to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageIdentity {
    /// The image's UUID, as in its trailer.
    pub uuid: Uuid,
    /// Size of the published LUN.
    pub lun_bytes: u64,
    /// CRC-32C of the whole last block (4096 bytes) of the LUN, the trailer, as it is read.
    pub trailer_crc32c: u32,
    /// Root of the hash tree; zero in version 1.
    pub root_hash: [u8; 32],
    /// Blocks to check.
    pub canaries: [Option<Canary>; CANARIES],
}

/// Where the image comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// iSCSI name of the target.
    pub target_name: Name,
    /// Logical unit, the 8 bytes of SAM as a big-endian number.
    pub lun: u64,
    /// The designator of VPD page 83 that the unit showed at first contact.
    pub vpd83: Vpd83,
    /// Portals, tried in order.
    pub portals: [Option<Portal>; PORTALS],
    /// Our own iSCSI name.
    pub initiator_name: Name,
    /// Our session identifier.
    pub isid: [u8; 6],
}

/// Places of the control area; pairs are the two copies. A place of length 0 does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The boot list.
    pub boot_list: [Extent; 2],
    /// The map.
    pub map: [Extent; 2],
    /// The journal.
    pub journal: [Extent; 2],
    /// The settings.
    pub settings: [Extent; 2],
    /// Cache mode's lookup table (later).
    pub lookup: [Extent; 2],
    /// The hash tree (later).
    pub hash_tree: [Extent; 2],
    /// The guest's LBA 0 while a switch is under way (later).
    pub lba0: [Extent; 2],
    /// The recovery bundle (later).
    pub bundle: Extent,
    /// Room for promoted blocks (later).
    pub promotion: Extent,
}

impl Places {
    fn to_table(self) -> [Extent; EXTENTS] {
        let [b0, b1] = self.boot_list;
        let [m0, m1] = self.map;
        let [j0, j1] = self.journal;
        let [s0, s1] = self.settings;
        let [l0, l1] = self.lookup;
        let [h0, h1] = self.hash_tree;
        let [z0, z1] = self.lba0;
        [
            b0,
            b1,
            m0,
            m1,
            j0,
            j1,
            s0,
            s1,
            l0,
            l1,
            h0,
            h1,
            z0,
            z1,
            self.bundle,
            self.promotion,
        ]
    }

    fn from_table(table: [Extent; EXTENTS]) -> Self {
        let [b0, b1, m0, m1, j0, j1, s0, s1, l0, l1, h0, h1, z0, z1, bundle, promotion] = table;
        Self {
            boot_list: [b0, b1],
            map: [m0, m1],
            journal: [j0, j1],
            settings: [s0, s1],
            lookup: [l0, l1],
            hash_tree: [h0, h1],
            lba0: [z0, z1],
            bundle,
            promotion,
        }
    }

    /// All places there are.
    pub fn all(&self) -> impl Iterator<Item = Extent> {
        self.to_table()
            .into_iter()
            .filter(|place| place.len_bytes != 0)
    }
}

/// A checked superblock. About 1 KiB: keep it on the heap in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The migration.
    pub uuid: Uuid,
    /// Counts the writes of the pair.
    pub generation: u64,
    /// Features that nobody has to understand; kept when the superblock is written again.
    pub compat: u32,
    /// Features that must be understood to write.
    pub ro_compat: u32,
    /// What the migration is doing.
    pub state: State,
    /// How far that state's work is; its unit belongs to the state.
    pub cursor: u64,
    /// The last detach was clean.
    pub clean: bool,
    /// Some earlier detach was not: rule 3.
    pub suspect: bool,
    /// Where the parts of the disk are.
    pub geometry: Geometry,
    /// What image this is.
    pub image: ImageIdentity,
    /// SHA-256 of the source's [0, S) after the shrink; zero: not recorded.
    pub source_hash: [u8; 32],
    /// CRC-32C of the target's boot blocks, in the order of the boot list; zero: not recorded, and equal to nothing.
    pub boot_blocks_crc32c: u32,
    /// Image blocks below this are home. Counter records of the journal may raise it.
    pub copy_counter_blocks: u64,
    /// Where replay begins.
    pub checkpoint: Checkpoint,
    /// Where the image comes from.
    pub origin: Origin,
    /// Where the rest of the control area is.
    pub places: Places,
}

impl Superblock {
    /// A superblock of generation 0 in `state` with everything else empty.
    pub fn new(uuid: Uuid, state: State, geometry: Geometry) -> Self {
        Self {
            uuid,
            generation: 0,
            compat: 0,
            ro_compat: 0,
            state,
            cursor: 0,
            clean: false,
            suspect: false,
            geometry,
            image: ImageIdentity::default(),
            source_hash: [0; 32],
            boot_blocks_crc32c: 0,
            copy_counter_blocks: 0,
            checkpoint: Checkpoint::default(),
            origin: Origin::default(),
            places: Places::default(),
        }
    }

    /// The header's view of it, for [`Header::must_not_write`].
    pub const fn header(&self, location_bytes: u64) -> Header {
        Header {
            uuid: self.uuid,
            location_bytes,
            generation: self.generation,
            compat: self.compat,
            ro_compat: self.ro_compat,
        }
    }

    /// Writes the copy that stands at `location_bytes`.
    pub fn encode(
        &self,
        location_bytes: u64,
        to: &mut [u8; SUPERBLOCK_LEN],
        crc: Crc32c,
    ) -> Result<(), Error> {
        to.fill(0);
        let raw = SuperblockDisk::mut_from_bytes(to).map_err(|_| Error::Short {
            found: 0,
            expected: SUPERBLOCK_LEN,
        })?;
        self.fill(raw);
        self.header(location_bytes).seal(MAGIC, to, crc)
    }

    fn fill(&self, raw: &mut SuperblockDisk) {
        raw.state = U32::new(self.state.number());
        raw.flags = U32::new(self.flags());
        raw.cursor = U64::new(self.cursor);
        raw.disk_bytes = U64::new(self.geometry.disk_bytes);
        raw.source_bytes = U64::new(self.geometry.source_bytes);
        raw.relocated_start = U64::new(self.geometry.relocated_start_bytes);
        raw.useful_start = U64::new(self.geometry.useful_start_bytes);
        raw.control_start = U64::new(self.geometry.control_start_bytes);
        raw.image_bytes = U64::new(self.geometry.image_bytes);
        raw.logical_block_bytes = U32::new(self.geometry.logical_block_bytes);
        raw.trailer_crc32c = U32::new(self.image.trailer_crc32c);
        raw.image_uuid = self.image.uuid;
        raw.lun_bytes = U64::new(self.image.lun_bytes);
        raw.root_hash = self.image.root_hash;
        raw.source_hash = self.source_hash;
        raw.boot_blocks_crc32c = U32::new(self.boot_blocks_crc32c);
        raw.copy_counter_blocks = U64::new(self.copy_counter_blocks);
        raw.checkpoint_sequence = U64::new(self.checkpoint.sequence);
        raw.checkpoint_position = U64::new(self.checkpoint.position_bytes);
        raw.canaries = self.image.canaries.map(CanaryDisk::encode);
        raw.lun = U64::new(self.origin.lun);
        raw.target_name_len = len16(self.origin.target_name.len());
        raw.initiator_name_len = len16(self.origin.initiator_name.len());
        raw.vpd83_len = len16(self.origin.vpd83.len());
        raw.isid = self.origin.isid;
        raw.target_name = self.origin.target_name.padded();
        raw.initiator_name = self.origin.initiator_name.padded();
        raw.vpd83 = self.origin.vpd83.padded();
        raw.portals = self.origin.portals.map(PortalDisk::encode);
        raw.extents = self.places.to_table().map(|place| ExtentDisk {
            start: U64::new(place.start_bytes),
            len: U64::new(place.len_bytes),
        });
    }

    fn flags(&self) -> u32 {
        let clean = if self.clean { FLAG_CLEAN } else { 0 };
        let suspect = if self.suspect { FLAG_SUSPECT } else { 0 };
        clean | suspect
    }

    /// Reads the copy that was found at `location_bytes`.
    pub fn decode(location_bytes: u64, from: &[u8], crc: Crc32c) -> Result<Self, Error> {
        let raw = SuperblockDisk::ref_from_bytes(from).map_err(|_| Error::Short {
            found: from.len(),
            expected: SUPERBLOCK_LEN,
        })?;
        let header = Header::open(MAGIC, from, crc)?;
        header.expect_location(location_bytes)?;
        raw.check(&header)
    }
}

impl SuperblockDisk {
    fn check(&self, header: &Header) -> Result<Superblock, Error> {
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
        Ok(Origin {
            target_name: string(&self.target_name, self.target_name_len)?,
            lun: self.lun.get(),
            vpd83: string(&self.vpd83, self.vpd83_len)?,
            portals,
            initiator_name: string(&self.initiator_name, self.initiator_name_len)?,
            isid: self.isid,
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

/// An address as family (0: none, 4, 6) and 16 bytes, of which IPv4 uses the first four.
pub(crate) fn address_bytes(address: Option<IpAddr>) -> (u16, [u8; 16]) {
    match address {
        None => (0, [0; 16]),
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, d] = v4.octets();
            (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        Some(IpAddr::V6(v6)) => (6, v6.octets()),
    }
}

pub(crate) fn address_from(family: u16, bytes: &[u8; 16]) -> Result<Option<IpAddr>, Error> {
    let [a, b, c, d, ..] = *bytes;
    match family {
        0 => Ok(None),
        4 => Ok(Some(IpAddr::from([a, b, c, d]))),
        6 => Ok(Some(IpAddr::V6(Ipv6Addr::from(*bytes)))),
        found => Err(Error::value(Field::Family, found.into())),
    }
}

/// A string's length; by its invariant it is at most [`NAME_LEN`].
pub(crate) fn len16(len: usize) -> U16 {
    U16::new(u16::try_from(len).unwrap_or(0))
}

pub(crate) fn string<const N: usize>(bytes: &[u8; N], len: U16) -> Result<Bounded<N>, Error> {
    Bounded::cut(bytes, len.get().into()).ok_or(Error::value(Field::Length, len.get().into()))
}
