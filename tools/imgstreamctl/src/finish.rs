// SPDX-License-Identifier: GPL-2.0-only
//! The end of a commit. Everything is home and durable, the superblock says
//! `committed`; what is left is to make the disk look like any other: backup
//! GPT at the disk's end, no control area. Every step can be done again; the
//! superblocks go last, because they are what says that there is work left.
//!
//! Until then every start finds `committed` and leaves the disk alone, so a
//! cut at any place costs nothing: imgstream-finish.service goes on.

mod wait;

use std::path::Path;

use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use crate::device::control::{Control, Rates};
use crate::device::status::{bytes, Status};
use crate::disk::Disk;
use crate::error::Result;
use crate::medium::{DiskMedium, Medium};
use crate::ondisk::{self, pair, Found, Reach};
use crate::refusal::Refusal;
use crate::stage::{attach, Report};
use crate::sys;
use crate::table::gpt::{self, Patch};
use crate::table::{Kind, Partition, Table};
pub use wait::wait_committed;

const ZEROES: usize = 1 << 20;

/// Commits in the initramfs: root was never mounted and is not now. What is
/// left is the running target's work, which finds `committed` at its next
/// start; until then no byte of the image has changed.
pub fn commit_here(report: &mut Report) -> Result<()> {
    let control = Control::open()?;
    if Status::read()?.state != State::Committed.name() {
        report.line("committing");
        control.commit(true, Rates::default())?;
        wait_committed(&mut |status, note| match note {
            Some(note) => report.line(note),
            None => report.progress("committing", status.copied_bytes, status.image_bytes),
        })?;
    }
    // udev may be looking at the partitions.
    attach::wait("the end of the device's use", || control.detach().is_ok())?;
    report.line("committed: every block is at its final place");
    Ok(())
}

/// Who the control area belongs to. Behind the image's last partition the disk
/// looks free to whoever grows a partition, and every start finds `committed`
/// and lets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// To imgstream.
    Ours,
    /// A partition reaches into it.
    TakenOver,
}

impl Area {
    fn of(table: &Table, superblock: &Superblock) -> Self {
        let start = superblock.geometry.control_start_bytes;
        match table.partitions.iter().any(|p| p.end_bytes() > start) {
            true => Self::TakenOver,
            false => Self::Ours,
        }
    }
}

/// Refuses what [`finish_disk`] would refuse, and lets both superblocks say
/// `committed`. `raw`, `view` and `reach` are as there.
pub fn begin_disk(raw: &Path, view: &Path, reach: Reach) -> Result<()> {
    let mut disk = DiskMedium::open_shared(raw)?;
    let place = raw.display().to_string();
    begin(&mut disk, &read_anew(view)?, &place, reach).map(drop)
}

/// Moves the backup GPT to the end of the disk `raw` and wipes the control
/// area, if it is still one; says whether it was. `view` is where the image's
/// own blocks are read and written: the imgstream device while it is attached,
/// else the disk itself. `reach` is where the control area is looked for.
pub fn finish_disk(raw: &Path, view: &Path, reach: Reach) -> Result<Area> {
    let mut disk = DiskMedium::open_shared(raw)?;
    let mut image = DiskMedium::open_shared(view)?;
    let place = raw.display().to_string();
    finish_medium(&mut disk, &mut image, &read_anew(view)?, &place, reach)
}

/// `view` to be read through the page cache, where what was read while blocks
/// moved below it may be old.
fn read_anew(view: &Path) -> Result<Disk> {
    let _ = sys::drop_page_cache(DiskMedium::open_ro(view)?.file());
    Disk::open(view)
}

/// `table` is where the partition table of `view` is read.
fn finish_medium(
    disk: &mut dyn Medium,
    view: &mut dyn Medium,
    table: &Disk,
    place: &str,
    reach: Reach,
) -> Result<Area> {
    let Some((found, area)) = begin(disk, table, place, reach)? else {
        return Ok(Area::Ours);
    };
    move_backup(disk, view, table)?;
    if area == Area::Ours {
        zero_places(disk, &found.superblock)?;
    }
    pair::wipe_pair(disk, &found)?;
    Ok(area)
}

/// The migration that is to be finished. Both copies say so before anything
/// acts on it: an older one that came back after the control area is zero
/// would be a commit that goes on without its map.
fn begin(
    disk: &mut dyn Medium,
    table: &Disk,
    place: &str,
    reach: Reach,
) -> Result<Option<(Found, Area)>> {
    let Some(mut found) = ondisk::find_committed(disk, place, reach)? else {
        return Ok(None);
    };
    if found.superblock.state != State::Committed {
        return Err(Refusal::WrongState {
            command: "finish-commit",
            state: found.superblock.state.to_string(),
        }
        .into());
    }
    let area = Area::of(&Table::read(table)?, &found.superblock);
    found.agree(disk, area == Area::Ours)?;
    Ok(Some((found, area)))
}

/// Backup first, durable; then the primary that names it. A cut in between
/// leaves a valid primary with its old backup, which stands in the image and
/// is not touched. Header and protective MBR are in sectors of their own, and
/// either may be the new one alone.
fn move_backup(disk: &mut dyn Medium, view: &mut dyn Medium, table: &Disk) -> Result<()> {
    // Only what is an MBR has no backup; a damaged GPT stops here.
    if Kind::of(table)? == Kind::Mbr {
        return Ok(());
    }
    let [lba0, primary, backup] = gpt::resized(table, disk.size_bytes())?;
    let last = Table::read(table)?.last().map_or(0, Partition::end_bytes);
    if last > backup.offset_bytes {
        // Whoever made that partition has put the backup elsewhere.
        return Ok(());
    }
    patch(disk, &backup)?;
    disk.flush()?;
    patch(view, &primary)?;
    patch(view, &lba0)?;
    Ok(view.flush()?)
}

/// Changes some bytes of whole blocks. What a partition tool has written
/// already, or an earlier run, is not written again.
fn patch(medium: &mut dyn Medium, patch: &Patch) -> Result<()> {
    let start = patch.offset_bytes / BLOCK_BYTES * BLOCK_BYTES;
    let end = (patch.offset_bytes + patch.bytes.len() as u64)
        .next_multiple_of(BLOCK_BYTES)
        .min(medium.size_bytes());
    let mut blocks = vec![0; (end - start) as usize];
    medium.read(start, &mut blocks)?;
    let at = (patch.offset_bytes - start) as usize;
    let bytes = &mut blocks[at..at + patch.bytes.len()];
    if *bytes == patch.bytes[..] {
        return Ok(());
    }
    bytes.copy_from_slice(&patch.bytes);
    Ok(medium.write(start, &blocks)?)
}

/// Everything of the control area but the superblocks.
fn zero_places(disk: &mut dyn Medium, superblock: &Superblock) -> Result<()> {
    let zeroes = vec![0; ZEROES];
    for place in superblock.places.all() {
        let mut done = 0;
        while done < place.len_bytes {
            let now = (place.len_bytes - done).min(ZEROES as u64);
            disk.write(place.start_bytes + done, &zeroes[..now as usize])?;
            done += now;
        }
    }
    Ok(disk.flush()?)
}

/// One line of progress.
pub fn progress_line(status: &Status, rate_bytes_per_s: u64) -> String {
    let left = status.image_bytes.saturating_sub(status.copied_bytes);
    let eta = match rate_bytes_per_s {
        0 => "time left unknown".to_string(),
        rate => format!("{} s left", left.div_ceil(rate)),
    };
    format!(
        "home {} of {}, {}/s, {eta}",
        bytes(status.copied_bytes),
        bytes(status.image_bytes),
        bytes(rate_bytes_per_s)
    )
}

/// Where the blocks of the image are reached while a device may be attached.
pub fn view_of(raw: &Path) -> std::path::PathBuf {
    let device = Path::new("/dev").join(DISK_NAME);
    if device.exists() {
        device
    } else {
        raw.to_path_buf()
    }
}

const _: () = assert!(ZEROES % BLOCK_LEN == 0);

#[cfg(test)]
mod tests;
