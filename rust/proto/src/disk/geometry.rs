// SPDX-License-Identifier: GPL-2.0-only

//! Units, places and the numbers S, R, U, C, D, T.

/// What the disk writes at once, at least.
pub const SECTOR_BYTES: u64 = 512;
/// The same as a length in memory.
pub const SECTOR_LEN: usize = 512;
/// The unit of the map.
pub const BLOCK_BYTES: u64 = 4096;
/// The same as a length in memory.
pub const BLOCK_LEN: usize = 4096;
/// The unit of space of the useful part, on the disk's own grid.
pub const SLOT_BYTES: u64 = 64 << 10;
/// The grid on which the first superblock stands, so that it is found by scanning after a disk grew.
pub const SCAN_GRID_BYTES: u64 = 64 << 20;
/// The disk's tail that is left alone: a backup GPT lives there, and some firmware writes there.
pub const TAIL_BYTES: u64 = 1 << 20;
/// Length of a superblock.
pub const SUPERBLOCK_BYTES: u64 = 4096;
/// Length of one journal copy, unless the disk is small.
pub const JOURNAL_BYTES: u64 = 4 << 20;
/// The least length of one journal copy.
pub const JOURNAL_BYTES_MIN: u64 = 256 << 10;

/// `value` rounded down to a multiple of `to`, which is a power of two.
pub const fn align_down(value: u64, to: u64) -> u64 {
    value & !(to.wrapping_sub(1))
}

/// `value` rounded up to a multiple of `to`, which is a power of two; `None` on overflow.
pub const fn align_up(value: u64, to: u64) -> Option<u64> {
    match value.checked_add(to.wrapping_sub(1)) {
        Some(sum) => Some(align_down(sum, to)),
        None => None,
    }
}

/// Where the superblock copy near the end of a disk of this size stands; `None` if the disk is too small for one.
pub const fn last_superblock_bytes(disk_bytes: u64) -> Option<u64> {
    align_down(disk_bytes, BLOCK_BYTES).checked_sub(TAIL_BYTES + SUPERBLOCK_BYTES)
}

/// Bytes `[start_bytes, start_bytes + len_bytes)` of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start_bytes: u64,
    /// The number of bytes; 0: there is no such place.
    pub len_bytes: u64,
}

impl Extent {
    /// An extent from its start and length.
    pub const fn new(start_bytes: u64, len_bytes: u64) -> Self {
        Self {
            start_bytes,
            len_bytes,
        }
    }

    /// The first byte behind it.
    pub const fn end_bytes(&self) -> Option<u64> {
        self.start_bytes.checked_add(self.len_bytes)
    }

    /// Whether both have a byte in common. Extents that overflow overlap everything.
    pub fn overlaps(&self, other: &Extent) -> bool {
        match (self.end_bytes(), other.end_bytes()) {
            (Some(end), Some(other_end)) => self.start_bytes < other_end && other.start_bytes < end,
            _ => true,
        }
    }

    /// Whether `other` lies in this one as a whole.
    pub fn contains(&self, other: &Extent) -> bool {
        match (self.end_bytes(), other.end_bytes()) {
            (Some(end), Some(other_end)) => {
                self.start_bytes <= other.start_bytes && other_end <= end
            }
            _ => false,
        }
    }
}

/// The places of the disk's parts, as byte addresses.
///
/// # Invariants
///
/// None here: the planner of the engine proves them, and loading checks them again (`engine::plan::check`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Geometry {
    /// D: size of the disk.
    pub disk_bytes: u64,
    /// S: end of the shrunk source.
    pub source_bytes: u64,
    /// R: start of the relocated blocks.
    pub relocated_start_bytes: u64,
    /// U: start of the useful part. In repository mode the slot of the image's byte `x` is disk byte `U + x`.
    pub useful_start_bytes: u64,
    /// C: start of the control area and place of its first superblock.
    pub control_start_bytes: u64,
    /// T: size of the image, a multiple of a block.
    pub image_bytes: u64,
    /// Logical block size that image, disk and device share.
    pub logical_block_bytes: u32,
}

impl Geometry {
    /// Blocks of the image.
    pub const fn image_blocks(&self) -> u64 {
        self.image_bytes / BLOCK_BYTES
    }

    /// Distance, in blocks, from an image address to its slot (repository mode).
    pub const fn offset_blocks(&self) -> u64 {
        self.useful_start_bytes / BLOCK_BYTES
    }

    /// Where the slot of a block stands; `None` for a block behind the image.
    pub const fn slot_bytes(&self, block: u64) -> Option<u64> {
        if block >= self.image_blocks() {
            return None;
        }
        match block.checked_mul(BLOCK_BYTES) {
            Some(bytes) => bytes.checked_add(self.useful_start_bytes),
            None => None,
        }
    }

    /// Where the last superblock copy stands.
    pub const fn last_superblock_bytes(&self) -> Option<u64> {
        last_superblock_bytes(self.disk_bytes)
    }
}
