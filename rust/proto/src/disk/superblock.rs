// SPDX-License-Identifier: GPL-2.0-only

//! The superblock: identity, state and places of one migration. Two copies, of which the newest valid one counts.

mod chap;
mod layout;

use core::net::IpAddr;

use zerocopy::FromBytes;

use super::bounded::Bounded;
use super::error::Error;
use super::geometry::{Extent, Geometry, BLOCK_LEN};
use super::header::{Crc32c, Header, Uuid};
use super::state::State;
use crate::iscsi::digest::Policy;

pub use chap::{Chap, ChapPair, CHAP_LEN, CHAP_TEXT_LEN};
pub use layout::{SuperblockDisk, CHAP_AT};

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

/// The places of [`Places`] in the order of the extents table.
const EXTENTS: usize = 16;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Which digests its connections ask for.
    pub digests: Policy,
    /// Who proves to be who in a login.
    pub chap: Chap,
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

/// A checked superblock. About 1.5 KiB: keep it on the heap in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        raw.fill(self);
        self.header(location_bytes).seal(MAGIC, to, crc)
    }

    /// Whether what was found at `location_bytes` begins as a copy of that migration's superblock for this place. The
    /// rest may be torn, or somebody else's: only the first sector is known to be ours.
    pub fn begins(location_bytes: u64, from: &[u8], uuid: &Uuid) -> bool {
        Header::peek(MAGIC, from).is_ok_and(|raw| raw.names(uuid, location_bytes))
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
