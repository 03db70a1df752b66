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
use crate::switch::payload::{boot_list_header, Control};

/// Sequence number of the segments that a new map consists of; the first
/// transaction of the journal has a higher one.
const FIRST_SEQUENCE: u64 = 0;

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
    let mut found = Found {
        superblock: *superblock,
        stale: None,
    };
    found.replace(disk, *superblock)?;
    Ok(found)
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
        all.push(boot_list(superblock, copy, &control.boot_list)?);
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
    entries: &[BootEntry],
) -> Result<(Extent, Vec<u8>)> {
    let place = *copy.of(&superblock.places.boot_list);
    let mut bytes = vec![0; place.len_bytes as usize];
    let header = boot_list_header(superblock, copy as usize);
    BootList::encode(&header, entries, &mut bytes, crc32c::crc32c).map_err(say)?;
    Ok((place, bytes))
}

/// Writes the boot list with every entry in `state`, one copy after the other.
pub fn set_boot_state(
    disk: &mut dyn Medium,
    superblock: &Superblock,
    list: &[BootEntry],
    state: BootState,
) -> Result<()> {
    let entries: Vec<BootEntry> = list.iter().map(|e| BootEntry { state, ..*e }).collect();
    for copy in Copy2::BOTH {
        let (place, bytes) = boot_list(superblock, copy, &entries)?;
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
        disk.read(place.start_bytes, &mut bytes)?;
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
        disk.read(place.start_bytes, &mut bytes)?;
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
