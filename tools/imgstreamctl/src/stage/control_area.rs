// SPDX-License-Identifier: GPL-2.0-only
//! Writes the control area of a new migration and reads a boot list back.

use imgstream_proto::disk::boot_list::{BootEntry, BootList, BootState};
use imgstream_proto::disk::segment::{segments, Segment, SEGMENT_LEN};
use imgstream_proto::disk::settings::{Settings, SETTINGS_LEN};
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::{Copy2, Extent};

use super::drive::verify;
use crate::error::{Error, Result};
use crate::medium::Medium;
use crate::ondisk::{pair, Found};
use crate::refusal::Refusal;
use crate::switch::payload::{boot_list_header, Control, PLANNED};

/// Sequence number of the segments that a new map consists of; the first
/// transaction of the journal has a higher one.
const FIRST_SEQUENCE: u64 = 0;
/// Generation of a boot list since all of the source's blocks are saved.
const SAVED: u64 = PLANNED + 1;

/// Writes everything of the control area, the superblock pair last: before
/// that is durable there is no migration on this disk. Old superblocks behind
/// the source are wiped first.
pub fn create(disk: &mut dyn Medium, control: &Control) -> Result<Found> {
    let superblock = &control.superblock;
    pair::wipe(disk, superblock.geometry.source_bytes)?;
    for (extent, bytes) in structures(control)? {
        disk.write(extent.start_bytes, &bytes)?;
    }
    disk.flush()?;
    for (extent, bytes) in structures(control)? {
        verify(disk, extent.start_bytes, &bytes)?;
    }
    pair::create(disk, superblock)
}

/// Map, journal, settings and boot list, both copies of each.
fn structures(control: &Control) -> Result<Vec<(Extent, Vec<u8>)>> {
    let superblock = &control.superblock;
    let places = &superblock.places;
    let mut all = Vec::new();
    for copy in Copy2::BOTH {
        let map = *copy.of(&places.map);
        all.push((map, empty_map(superblock, map)?));
        let journal = *copy.of(&places.journal);
        all.push((journal, vec![0; journal.len_bytes as usize]));
        let settings = *copy.of(&places.settings);
        all.push((
            settings,
            encode_settings(superblock, &control.settings, settings)?,
        ));
        let list = &control.boot_list;
        all.push(boot_list(superblock, copy, PLANNED, list)?);
    }
    Ok(all)
}

fn say(error: imgstream_proto::disk::Error) -> Error {
    Error::Other(format!("control area: {error}"))
}

fn empty_map(superblock: &Superblock, place: Extent) -> Result<Vec<u8>> {
    let mut bytes = vec![0; place.len_bytes as usize];
    let count = segments(superblock.geometry.image_blocks());
    for (index, to) in (0..count).zip(bytes.chunks_exact_mut(SEGMENT_LEN)) {
        Segment::absent(index, FIRST_SEQUENCE)
            .encode(&superblock.uuid, to, crc32c::crc32c)
            .map_err(say)?;
    }
    Ok(bytes)
}

fn encode_settings(superblock: &Superblock, settings: &Settings, place: Extent) -> Result<Vec<u8>> {
    let mut bytes = [0; SETTINGS_LEN];
    settings
        .encode(
            &superblock.uuid,
            place.start_bytes,
            &mut bytes,
            crc32c::crc32c,
        )
        .map_err(say)?;
    Ok(bytes.to_vec())
}

fn boot_list(
    superblock: &Superblock,
    copy: Copy2,
    generation: u64,
    entries: &[BootEntry],
) -> Result<(Extent, Vec<u8>)> {
    let place = *copy.of(&superblock.places.boot_list);
    let mut bytes = vec![0; place.len_bytes as usize];
    let header = boot_list_header(superblock, copy as usize, generation);
    BootList::encode(&header, entries, &mut bytes, crc32c::crc32c).map_err(say)?;
    Ok((place, bytes))
}

/// Refuses a disk without a superblock on which boot blocks may have been
/// stored already: what stands where the source was is then a mixture, which
/// e2fsck and resize2fs would destroy, and the source's blocks that they could
/// be replaced by are where the shrink and a new control area write.
///
/// Why the boot list tells: both its copies say `SAVED` durably before the
/// state becomes `storing`, and only that lets a boot block be written. A cut
/// while the control area is created leaves no list or a [`PLANNED`] one, and
/// then all may be done again. Nobody else can have written it: it names its
/// place and the UUID that this migration drew.
pub fn refuse_stored(disk: &mut dyn Medium, superblock: &Superblock) -> Result<()> {
    for copy in Copy2::BOTH {
        let place = *copy.of(&superblock.places.boot_list);
        let mut bytes = vec![0; place.len_bytes as usize];
        disk.read(place.start_bytes, &mut bytes)?;
        let list = BootList::decode(&superblock.uuid, place.start_bytes, &bytes, crc32c::crc32c);
        if list.is_ok_and(|list| list.header().generation >= SAVED) {
            return Err(Refusal::SuperblockLost {
                place: place.start_bytes,
            }
            .into());
        }
    }
    Ok(())
}

/// Writes the boot list with every entry in `state`, one copy after the other.
/// The source's blocks have to be saved, durably.
pub fn set_boot_state(
    disk: &mut dyn Medium,
    superblock: &Superblock,
    list: &[BootEntry],
    state: BootState,
) -> Result<()> {
    let entries: Vec<BootEntry> = list.iter().map(|e| BootEntry { state, ..*e }).collect();
    for copy in Copy2::BOTH {
        let (place, bytes) = boot_list(superblock, copy, SAVED, &entries)?;
        disk.write(place.start_bytes, &bytes)?;
        disk.flush()?;
        verify(disk, place.start_bytes, &bytes)?;
    }
    Ok(())
}

/// Reads the boot list: whichever copy is valid.
pub fn read_boot_list(disk: &mut dyn Medium, superblock: &Superblock) -> Result<Vec<BootEntry>> {
    let mut why = String::new();
    for copy in Copy2::BOTH {
        let place = *copy.of(&superblock.places.boot_list);
        let mut bytes = vec![0; place.len_bytes as usize];
        if let Err(error) = disk.read(place.start_bytes, &mut bytes) {
            why = error.to_string();
            continue;
        }
        match BootList::decode(&superblock.uuid, place.start_bytes, &bytes, crc32c::crc32c) {
            Ok(list) => return Ok(list.entries().collect()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(Refusal::DamagedSuperblock {
        place: "the boot list".into(),
        what: why,
    }
    .into())
}

/// Reads the settings: the newer valid copy.
pub fn read_settings(disk: &mut dyn Medium, superblock: &Superblock) -> Result<Settings> {
    let mut newest: Option<Settings> = None;
    let mut why = String::new();
    for copy in Copy2::BOTH {
        let place = *copy.of(&superblock.places.settings);
        let mut bytes = [0; SETTINGS_LEN];
        if let Err(error) = disk.read(place.start_bytes, &mut bytes) {
            why = error.to_string();
            continue;
        }
        match Settings::decode(&superblock.uuid, place.start_bytes, &bytes, crc32c::crc32c) {
            Ok(found) if newest.is_none_or(|old| found.generation > old.generation) => {
                newest = Some(found);
            }
            Ok(_) => {}
            Err(error) => why = error.to_string(),
        }
    }
    newest.ok_or_else(|| {
        Refusal::DamagedSuperblock {
            place: "the settings".into(),
            what: why,
        }
        .into()
    })
}
