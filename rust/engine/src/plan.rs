// SPDX-License-Identifier: GPL-2.0-only

//! The plan of the disk: proves, before the first write, that source, relocated blocks, image and control area fit.
//!
//! ```text
//! 0            S      R            U                                   C            D-1MiB  D
//! | source ... |      | relocated  | useful part: the image's slots    | control    | tail  |
//! ```

use imgstream_proto::disk::geometry::{
    align_down, align_up, Extent, Geometry, BLOCK_BYTES, JOURNAL_BYTES, JOURNAL_BYTES_MIN,
    SCAN_GRID_BYTES, SLOT_BYTES, SUPERBLOCK_BYTES, TAIL_BYTES,
};
use imgstream_proto::disk::segment::map_bytes;
use imgstream_proto::disk::superblock::Places;
use imgstream_proto::disk::BootList;

/// What has to fit where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// D: size of the disk.
    pub disk_bytes: u64,
    /// Logical block size of the disk.
    pub disk_logical_bytes: u32,
    /// T: size of the image.
    pub image_bytes: u64,
    /// Logical block size that the image was made for.
    pub image_logical_bytes: u32,
    /// Blocks of the boot region, all together.
    pub boot_blocks: u64,
    /// The first block behind the last boot block.
    pub boot_end_block: u64,
    /// Entries of the boot list.
    pub boot_entries: u32,
    /// End of the source on the disk now.
    pub source_bytes: u64,
    /// The least end that the source's file system can be shrunk to.
    pub source_min_bytes: u64,
    /// The source can end at multiples of this after `source_base_bytes` (its file system's block size).
    pub source_granule_bytes: u64,
    /// Start of the source's last partition.
    pub source_base_bytes: u64,
}

/// A plan that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Places of the parts; S is the largest that fits, at most where the source ends now.
    pub geometry: Geometry,
    /// Places in the control area.
    pub places: Places,
    /// Bytes by which the source must shrink; 0: it has room behind it already.
    pub shrink_bytes: u64,
    /// Bytes that could be added to the source's used space and it would still fit.
    pub spare_bytes: u64,
}

/// Why it does not fit, with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The image was made for another logical block size.
    LogicalBlock {
        /// Of the disk.
        disk_bytes: u32,
        /// Of the image.
        image_bytes: u32,
    },
    /// A size or granule that cannot be: T no multiple of a block, or nothing at all.
    Impossible {
        /// The number.
        found: u64,
    },
    /// The disk has no place for a control area.
    DiskTooSmall {
        /// Its size.
        disk_bytes: u64,
        /// The least size.
        needed_bytes: u64,
    },
    /// Even an empty source would leave too little room.
    ImageTooLarge {
        /// T.
        image_bytes: u64,
        /// The largest image that this disk could take, with a source that ends right behind the boot region.
        room_bytes: u64,
    },
    /// The source's file system cannot be shrunk far enough.
    SourceTooLarge {
        /// The least end of the source.
        source_min_bytes: u64,
        /// Where it would have to end.
        source_max_bytes: u64,
        /// Bytes to free in the source's file system (at least).
        missing_bytes: u64,
    },
    /// The boot region reaches behind the end that the source would have.
    BootBeyondSource {
        /// The first byte behind the boot region.
        boot_end_bytes: u64,
        /// S.
        source_max_bytes: u64,
    },
    /// The boot region has more pieces than a boot list takes.
    TooManyBootEntries {
        /// Pieces.
        found: u32,
        /// The most.
        max: u32,
    },
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Refusal::LogicalBlock {
                disk_bytes,
                image_bytes,
            } => write!(
                f,
                "the disk has logical blocks of {disk_bytes} bytes, the image is made for {image_bytes}"
            ),
            Refusal::Impossible { found } => write!(f, "a size of {found} bytes cannot be"),
            Refusal::DiskTooSmall {
                disk_bytes,
                needed_bytes,
            } => write!(
                f,
                "the disk is too small: it has {disk_bytes} bytes, at least {needed_bytes} are needed"
            ),
            Refusal::ImageTooLarge {
                image_bytes,
                room_bytes,
            } => write!(
                f,
                "the image is too large: it has {image_bytes} bytes, this disk has room for {room_bytes}"
            ),
            Refusal::SourceTooLarge {
                source_min_bytes,
                source_max_bytes,
                missing_bytes,
            } => write!(
                f,
                "the source cannot be shrunk far enough: to byte {source_min_bytes}, but it must end at byte \
                 {source_max_bytes}; freeing {missing_bytes} bytes in it would do"
            ),
            Refusal::BootBeyondSource {
                boot_end_bytes,
                source_max_bytes,
            } => write!(
                f,
                "the image's boot region reaches to byte {boot_end_bytes}, the source would end at byte {source_max_bytes}"
            ),
            Refusal::TooManyBootEntries { found, max } => {
                write!(f, "the image's boot region has {found} pieces, at most {max} are possible")
            }
        }
    }
}

impl core::error::Error for Refusal {}

/// Room that the reserved places (settings) take: 4 KiB a copy.
const SETTINGS_BYTES: u64 = BLOCK_BYTES;
/// Journals are at most this part of the disk.
const JOURNAL_SHARE: u64 = 256;

/// Length of one journal copy on a disk of this size.
pub fn journal_bytes(disk_bytes: u64) -> u64 {
    align_down(disk_bytes / JOURNAL_SHARE, BLOCK_BYTES).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES)
}

/// The control area's parts, from its start on: superblock, boot lists, maps, journals, settings; the second superblock
/// stands at the area's end.
fn layout(control_start: u64, demand: &Demand) -> Option<(Places, u64)> {
    let mut at = control_start.checked_add(SUPERBLOCK_BYTES)?;
    let mut pair = |len: u64| -> Option<[Extent; 2]> {
        let a = Extent::new(at, len);
        let b = Extent::new(a.end_bytes()?, len);
        at = b.end_bytes()?;
        Some([a, b])
    };
    let places = Places {
        boot_list: pair(BootList::bytes(demand.boot_entries))?,
        map: pair(map_bytes(demand.image_bytes / BLOCK_BYTES))?,
        journal: pair(journal_bytes(demand.disk_bytes))?,
        settings: pair(SETTINGS_BYTES)?,
        ..Places::default()
    };
    let end = at.checked_add(SUPERBLOCK_BYTES)?;
    Some((places, end.checked_sub(control_start)?))
}

/// At most so many bytes lie between the start of a control area and the end of the disk that it was planned for, if
/// that disk is not larger than this.
pub fn reach_bytes(disk_bytes: u64) -> u64 {
    let parts = [
        SUPERBLOCK_BYTES,
        BootList::bytes(imgstream_proto::disk::boot_list::ENTRIES_MAX),
        map_bytes(disk_bytes / BLOCK_BYTES),
        JOURNAL_BYTES,
        SETTINGS_BYTES,
    ];
    let rounding = SCAN_GRID_BYTES + TAIL_BYTES + BLOCK_BYTES;
    parts.iter().fold(rounding, |sum, part| {
        sum.saturating_add(part.saturating_mul(2))
    })
}

/// Plans the disk; the source keeps as much as possible.
pub fn plan(demand: &Demand) -> Result<Plan, Refusal> {
    check_demand(demand)?;
    let (control_start, places) = place_control(demand)?;
    let source_max = source_max(demand, control_start)?;
    let source = source_max.min(demand.source_bytes);
    check_source(demand, source)?;
    let geometry = geometry(demand, control_start, source)
        .filter(fits)
        .ok_or(Refusal::Impossible { found: source })?;
    Ok(Plan {
        geometry,
        places,
        shrink_bytes: demand.source_bytes.saturating_sub(source),
        spare_bytes: source.saturating_sub(demand.source_min_bytes),
    })
}

fn check_demand(demand: &Demand) -> Result<(), Refusal> {
    let (disk_bytes, image_bytes) = (demand.disk_logical_bytes, demand.image_logical_bytes);
    if disk_bytes != image_bytes || disk_bytes != 512 {
        return Err(Refusal::LogicalBlock {
            disk_bytes,
            image_bytes,
        });
    }
    if demand.image_bytes == 0 || demand.image_bytes % BLOCK_BYTES != 0 {
        let found = demand.image_bytes;
        return Err(Refusal::Impossible { found });
    }
    if demand.source_granule_bytes == 0 {
        return Err(Refusal::Impossible { found: 0 });
    }
    let max = imgstream_proto::disk::boot_list::ENTRIES_MAX;
    if demand.boot_entries > max {
        let found = demand.boot_entries;
        return Err(Refusal::TooManyBootEntries { found, max });
    }
    Ok(())
}

/// C, on the 64 MiB grid below the last superblock, and the places behind it.
fn place_control(demand: &Demand) -> Result<(u64, Places), Refusal> {
    let (_, len) = layout(0, demand).ok_or(Refusal::Impossible {
        found: demand.image_bytes,
    })?;
    let too_small = Refusal::DiskTooSmall {
        disk_bytes: demand.disk_bytes,
        needed_bytes: len
            .saturating_add(TAIL_BYTES)
            .saturating_add(SCAN_GRID_BYTES),
    };
    let start = align_down(demand.disk_bytes, BLOCK_BYTES)
        .checked_sub(TAIL_BYTES)
        .and_then(|end| end.checked_sub(len))
        .map(|start| align_down(start, SCAN_GRID_BYTES))
        .filter(|start| *start != 0)
        .ok_or(too_small)?;
    let (places, _) = layout(start, demand).ok_or(too_small)?;
    Ok((start, places))
}

/// The largest end of the source that leaves room for the relocated blocks and the image.
fn source_max(demand: &Demand, control_start: u64) -> Result<u64, Refusal> {
    let useful_end = align_down(control_start, SLOT_BYTES);
    let relocated = demand.boot_blocks.saturating_mul(BLOCK_BYTES);
    let boot_end = demand.boot_end_block.saturating_mul(BLOCK_BYTES);
    // What an image could have at most: S right behind the boot region, one slot to spare.
    let room = align_up(boot_end, SLOT_BYTES)
        .and_then(|start| align_up(start.checked_add(relocated)?, SLOT_BYTES))
        .and_then(|useful| useful_end.checked_sub(useful)?.checked_sub(SLOT_BYTES))
        .unwrap_or(0);
    let too_large = Refusal::ImageTooLarge {
        image_bytes: demand.image_bytes,
        room_bytes: room,
    };
    // U = C - (T + slot), then R = U - relocated, each on the slot grid; S may be R.
    let useful = align_up(demand.image_bytes, SLOT_BYTES)
        .and_then(|image| useful_end.checked_sub(image)?.checked_sub(SLOT_BYTES))
        .filter(|_| demand.image_bytes <= room)
        .ok_or(too_large)?;
    let start = useful.checked_sub(relocated).ok_or(too_large)?;
    let start = align_down(start, SLOT_BYTES);
    let in_source = start.saturating_sub(demand.source_base_bytes);
    let whole = in_source - in_source % demand.source_granule_bytes.max(1);
    Ok(demand.source_base_bytes.saturating_add(whole).min(start))
}

fn check_source(demand: &Demand, source: u64) -> Result<(), Refusal> {
    if demand.source_min_bytes > source {
        return Err(Refusal::SourceTooLarge {
            source_min_bytes: demand.source_min_bytes,
            source_max_bytes: source,
            missing_bytes: demand.source_min_bytes.saturating_sub(source),
        });
    }
    let boot_end_bytes = demand.boot_end_block.saturating_mul(BLOCK_BYTES);
    if boot_end_bytes > source {
        return Err(Refusal::BootBeyondSource {
            boot_end_bytes,
            source_max_bytes: source,
        });
    }
    Ok(())
}

fn geometry(demand: &Demand, control_start: u64, source: u64) -> Option<Geometry> {
    let relocated_start = align_up(source, SLOT_BYTES)?;
    let relocated_end =
        relocated_start.checked_add(demand.boot_blocks.checked_mul(BLOCK_BYTES)?)?;
    Some(Geometry {
        disk_bytes: demand.disk_bytes,
        source_bytes: source,
        relocated_start_bytes: relocated_start,
        useful_start_bytes: align_up(relocated_end, SLOT_BYTES)?,
        control_start_bytes: control_start,
        image_bytes: demand.image_bytes,
        logical_block_bytes: demand.disk_logical_bytes,
    })
}

/// The first rule of the design: the parts follow each other, and the useful part holds the whole image and a slot more.
pub fn fits(geometry: &Geometry) -> bool {
    let ends = || {
        let image = align_up(geometry.image_bytes, SLOT_BYTES)?;
        let image_end = geometry
            .useful_start_bytes
            .checked_add(image)?
            .checked_add(SLOT_BYTES)?;
        let tail = align_down(geometry.disk_bytes, BLOCK_BYTES).checked_sub(TAIL_BYTES)?;
        Some((image_end, tail))
    };
    let Some((image_end, tail)) = ends() else {
        return false;
    };
    let on_grid = |bytes: u64, grid: u64| bytes % grid == 0;
    on_grid(geometry.image_bytes, BLOCK_BYTES)
        && on_grid(geometry.relocated_start_bytes, SLOT_BYTES)
        && on_grid(geometry.useful_start_bytes, SLOT_BYTES)
        && on_grid(geometry.control_start_bytes, BLOCK_BYTES)
        && geometry.image_bytes != 0
        && geometry.source_bytes <= geometry.relocated_start_bytes
        && geometry.relocated_start_bytes <= geometry.useful_start_bytes
        && image_end <= align_down(geometry.control_start_bytes, SLOT_BYTES)
        && geometry.control_start_bytes < tail
}

/// What is wrong with places that a superblock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// The parts of the disk overlap, or are out of order.
    Geometry,
    /// A place is not inside of the control area, not aligned, or overlaps another.
    Place(Extent),
    /// A place is too short for what it holds.
    TooShort(Extent),
}

/// Checks what was read from a superblock before anything of it is used: nobody can be led to write outside.
pub fn check(geometry: &Geometry, places: &Places) -> Result<(), Misplaced> {
    if !fits(geometry) {
        return Err(Misplaced::Geometry);
    }
    let inside = control_inside(geometry).ok_or(Misplaced::Geometry)?;
    for (index, place) in places.all().enumerate() {
        let aligned = place.start_bytes % BLOCK_BYTES == 0 && place.len_bytes % BLOCK_BYTES == 0;
        let alone = places
            .all()
            .skip(index.saturating_add(1))
            .all(|other| !place.overlaps(&other));
        if !aligned || !alone || !inside.contains(&place) {
            return Err(Misplaced::Place(place));
        }
    }
    check_lengths(geometry, places)
}

/// The control area without its two superblocks.
fn control_inside(geometry: &Geometry) -> Option<Extent> {
    let start = geometry.control_start_bytes.checked_add(SUPERBLOCK_BYTES)?;
    let end = geometry.last_superblock_bytes()?;
    Some(Extent::new(start, end.checked_sub(start)?))
}

fn check_lengths(geometry: &Geometry, places: &Places) -> Result<(), Misplaced> {
    let [boot_a, boot_b] = places.boot_list;
    let [map_a, map_b] = places.map;
    let [journal_a, journal_b] = places.journal;
    let [settings_a, settings_b] = places.settings;
    let map = map_bytes(geometry.image_blocks());
    let needs = [
        (boot_a, BLOCK_BYTES),
        (boot_b, boot_a.len_bytes),
        (map_a, map),
        (map_b, map),
        (journal_a, JOURNAL_BYTES_MIN),
        (journal_b, journal_a.len_bytes),
        (settings_a, SETTINGS_BYTES),
        (settings_b, SETTINGS_BYTES),
    ];
    match needs
        .into_iter()
        .find(|(place, needed)| place.len_bytes < *needed)
    {
        Some((place, _)) => Err(Misplaced::TooShort(place)),
        None if journal_a.len_bytes != journal_b.len_bytes => Err(Misplaced::TooShort(journal_a)),
        None => Ok(()),
    }
}
