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
use crate::ondisk::{self, pair};
use crate::refusal::Refusal;
use crate::stage::{attach, Report};
use crate::sys;
use crate::table::gpt::{self, Patch};
use crate::table::{Kind, Table};
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

/// Refuses what [`finish_disk`] would refuse. `view` is as there.
pub fn check(view: &Path) -> Result<()> {
    Table::read(&read_anew(view)?).map(|_| ())
}

/// Moves the backup GPT to the end of the disk `raw` and wipes the control
/// area. `view` is where the image's own blocks are read and written: the
/// imgstream device while it is attached, else the disk itself.
pub fn finish_disk(raw: &Path, view: &Path) -> Result<()> {
    let mut disk = DiskMedium::open_shared(raw)?;
    let mut image = DiskMedium::open_shared(view)?;
    let place = raw.display().to_string();
    finish_medium(&mut disk, &mut image, &read_anew(view)?, &place)
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
) -> Result<()> {
    let Some(found) = ondisk::find(disk, place)? else {
        return Ok(());
    };
    let superblock = found.superblock;
    if superblock.state != State::Committed {
        return Err(Refusal::WrongState {
            command: "finish-commit",
            state: superblock.state.to_string(),
        }
        .into());
    }
    move_backup(disk, view, table)?;
    wipe_control_area(disk, &superblock)
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
    patch(disk, &backup)?;
    disk.flush()?;
    patch(view, &primary)?;
    patch(view, &lba0)?;
    Ok(view.flush()?)
}

/// Changes some bytes of whole blocks.
fn patch(medium: &mut dyn Medium, patch: &Patch) -> Result<()> {
    let start = patch.offset_bytes / BLOCK_BYTES * BLOCK_BYTES;
    let end = (patch.offset_bytes + patch.bytes.len() as u64)
        .next_multiple_of(BLOCK_BYTES)
        .min(medium.size_bytes());
    let mut blocks = vec![0; (end - start) as usize];
    medium.read(start, &mut blocks)?;
    let at = (patch.offset_bytes - start) as usize;
    blocks[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    Ok(medium.write(start, &blocks)?)
}

/// Everything but the superblocks, then these.
fn wipe_control_area(disk: &mut dyn Medium, superblock: &Superblock) -> Result<()> {
    let zeroes = vec![0; ZEROES];
    for place in superblock.places.all() {
        let mut done = 0;
        while done < place.len_bytes {
            let now = (place.len_bytes - done).min(ZEROES as u64);
            disk.write(place.start_bytes + done, &zeroes[..now as usize])?;
            done += now;
        }
    }
    disk.flush()?;
    pair::wipe_pair(disk, superblock)
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
