// SPDX-License-Identifier: GPL-2.0-only
//! The end of a commit. Everything is home and durable, the superblock says
//! `committed`; what is left is to make the disk look like any other: backup
//! GPT at the disk's end, no control area. Every step can be done again; the
//! superblocks go last, because they are what says that there is work left.

use std::path::Path;
use std::time::Duration;

use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use crate::device::control::{Control, Rates};
use crate::device::status::{bytes, Status};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::medium::{DiskMedium, Medium};
use crate::ondisk::{self, pair};
use crate::refusal::Refusal;
use crate::stage::{attach, Report};
use crate::sys;
use crate::table::gpt::{self, Patch};

/// How often the progress of a commit is looked at.
const EVERY: Duration = Duration::from_millis(500);
const ZEROES: usize = 1 << 20;

/// Commits in the initramfs: root was never mounted and never will be.
pub fn commit_here(disk: &Path, report: &mut Report) -> Result<()> {
    let control = Control::open()?;
    if Status::read()?.state != State::Committed.name() {
        report.line("committing");
        control.commit(true, Rates::default())?;
        wait_committed(&mut |status| {
            report.progress("committing", status.copied_bytes, status.image_bytes);
        })?;
    }
    report.line("every block is at its final place");
    // udev may be looking at the partitions.
    attach::wait("the end of the device's use", || control.detach().is_ok())?;
    finish_disk(disk, disk)?;
    report.line("committed; the disk carries nothing of imgstream any more");
    Ok(())
}

/// Waits until the device says `committed`.
pub fn wait_committed(tell: &mut dyn FnMut(&Status)) -> Result<()> {
    loop {
        let status = Status::read()?;
        tell(&status);
        if status.state == State::Committed.name() {
            return Ok(());
        }
        if status.errors_journal > 0 {
            return Err(Error::Other(format!(
                "the commit stopped: {} (resumed at the next boot)",
                status.last_error
            )));
        }
        std::thread::sleep(EVERY);
    }
}

/// Moves the backup GPT to the end of the disk `raw` and wipes the control
/// area. `view` is where the image's own blocks are read and written: the
/// imgstream device while it is attached, else the disk itself.
pub fn finish_disk(raw: &Path, view: &Path) -> Result<()> {
    let place = raw.display().to_string();
    let mut disk = DiskMedium::open_rw(raw)?;
    let Some(found) = ondisk::find(&mut disk, &place)? else {
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
    move_backup(&mut disk, view)?;
    wipe_control_area(&mut disk, &superblock)
}

/// Backup first, durable; then the primary that names it. A cut in between
/// leaves a valid primary with its old backup.
fn move_backup(disk: &mut DiskMedium, view: &Path) -> Result<()> {
    let mut view_medium = DiskMedium::open_rw(view)?;
    // What others read through the page cache while blocks moved below it is old.
    let _ = sys::drop_page_cache(view_medium.file());
    let view_disk = Disk::open(view)?;
    let patches = match gpt::resized(&view_disk, disk.size_bytes()) {
        Ok(patches) => patches,
        // An MBR has no backup.
        Err(Error::Refused(Refusal::PartitionTable { .. })) => return Ok(()),
        Err(error) => return Err(error),
    };
    let [lba0, primary, backup] = patches;
    patch(disk, &backup)?;
    disk.flush()?;
    patch(&mut view_medium, &primary)?;
    patch(&mut view_medium, &lba0)?;
    view_medium.flush()?;
    Ok(())
}

/// Changes some bytes of whole blocks.
fn patch(medium: &mut DiskMedium, patch: &Patch) -> Result<()> {
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
fn wipe_control_area(disk: &mut DiskMedium, superblock: &Superblock) -> Result<()> {
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
