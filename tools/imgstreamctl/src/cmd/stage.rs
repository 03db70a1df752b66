// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl stage`: the whole of the stage environment.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use imgstream_engine::state;
use imgstream_proto::disk::State;

use crate::blockdev;
use crate::error::{Error, Result};
use crate::medium::{DiskMedium, Medium};
use crate::ondisk::{self, pair, Found};
use crate::power;
use crate::refusal::Refusal;
use crate::stage::drive::Drive;
use crate::stage::{control_area, identity, leave, shrink, Report};
use crate::switch::payload::{self, After, Payload};

/// How long disks are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the steps of the stage environment.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command; returns only if the computer has to stop for a person.
pub fn run(_args: Args) -> Result<()> {
    let mut report = Report::console();
    let payload = Payload::open(Path::new(payload::PATH))?;
    report.line("the stage environment begins");
    let path = wait_for_disk(&payload)?;
    let mut disk = DiskMedium::open_rw(&path)?;
    let after = match find_or_begin(&path, &mut disk, &payload, &mut report)? {
        Ok(found) => {
            go_on(&path, &mut disk, found, Some(&payload), &mut report)?;
            payload.facts.after
        }
        Err(error @ (Error::Refused(_) | Error::Program(_))) => {
            let reason = error.to_string();
            report.line(&format!("refused: {reason}"));
            leave::leave(&path, Some(&reason), &mut report)?;
            After::Reboot
        }
        Err(error) => return Err(error),
    };
    report.line("done; the computer starts again");
    power::leave_now(after)
}

/// The migration on the disk, or a new one. The inner error: no block of the
/// source's files has been overwritten, so the source may be mounted and
/// started. Of everything that comes later that cannot be said.
fn find_or_begin(
    path: &Path,
    disk: &mut DiskMedium,
    payload: &Payload,
    report: &mut Report,
) -> Result<Result<Found>> {
    let place = path.display().to_string();
    let own = payload.control.superblock.uuid;
    Ok(match ondisk::find(disk, &place)? {
        Some(found) if found.superblock.uuid == own => Ok(found),
        Some(found) if !state::ended(found.superblock.state) => Err(Refusal::MigrationAlive {
            place,
            state: found.superblock.state.to_string(),
        }
        .into()),
        _ => begin(path, disk, payload, report),
    })
}

/// From the control area on: everything that a superblock leads to.
pub fn go_on(
    path: &Path,
    disk: &mut DiskMedium,
    mut found: Found,
    payload: Option<&Payload>,
    report: &mut Report,
) -> Result<()> {
    let list = control_area::read_boot_list(disk, &found.superblock)?;
    let mut drive = Drive {
        disk,
        found: &mut found,
        list: &list,
        payload,
        report,
    };
    let after = power::Cmdline::read().after;
    drive.run(&mut |report| {
        // For tests: the host looks at the disk before the source has changed anything.
        if after == Some(After::Poweroff) {
            power::leave_now(After::Poweroff)?;
        }
        let gone = leave::leave(path, None, report)?;
        // While the entry stands, the source starts its stage, which must find out that there is nothing to do.
        Ok(gone || payload.is_some())
    })
}

/// Everything before there is a control area.
fn begin(
    path: &Path,
    disk: &mut DiskMedium,
    payload: &Payload,
    report: &mut Report,
) -> Result<Found> {
    let facts = &payload.facts;
    let changed = |what: &str| Refusal::Changed {
        place: path.display().to_string(),
        what: what.to_string(),
    };
    if identity::lba0_crc32c(disk)? != facts.lba0_crc32c {
        return Err(changed("its first sector is another one").into());
    }
    let partition = partition(path, facts.root_number)
        .ok_or_else(|| changed("the root partition is not there"))?;
    shrink::shrink(&partition, facts, report)?;
    let mut control = payload.control.clone();
    if facts.hash_source {
        report.line("hashing the shrunk source");
        let len = control.superblock.geometry.source_bytes;
        control.superblock.source_hash = identity::hash(disk, len, report)?;
    }
    report.line("writing the control area");
    let source_bytes = control.superblock.geometry.source_bytes;
    pair::wipe(disk, source_bytes)?;
    control_area::create(disk, &control)
}

fn partition(disk: &Path, number: u32) -> Option<PathBuf> {
    let found = blockdev::partitions(disk);
    found
        .into_iter()
        .find(|(n, _)| *n == number)
        .map(|(_, p)| p)
}

/// The disk of the plan: by the superblock of this migration, or by size and
/// file system.
fn wait_for_disk(payload: &Payload) -> Result<PathBuf> {
    let begin = Instant::now();
    loop {
        let found: Vec<PathBuf> = blockdev::disks()
            .into_iter()
            .filter(|path| is_the_disk(path, payload).unwrap_or(false))
            .collect();
        match found.as_slice() {
            [one] => return Ok(one.clone()),
            [] if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(200)),
            [] => return Err(Error::Other("the disk of the plan does not appear".into())),
            several => {
                let places: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
                return Err(Refusal::SecondSuperblock {
                    places: places.join(", "),
                }
                .into());
            }
        }
    }
}

fn is_the_disk(path: &Path, payload: &Payload) -> Result<bool> {
    let mut disk = DiskMedium::open_ro(path)?;
    if disk.size_bytes() != payload.facts.disk_bytes {
        return Ok(false);
    }
    let own = payload.control.superblock.uuid;
    let superblock = ondisk::find(&mut disk, &path.display().to_string());
    if matches!(&superblock, Ok(Some(found)) if found.superblock.uuid == own) {
        return Ok(true);
    }
    identity::has_filesystem(&mut disk, &payload.facts)
}

/// What the target's initramfs does with a migration that is not to be
/// attached: it ends a switch that was cut at its very end, or rolls back.
pub fn from_target(path: &Path, found: Found, report: &mut Report) -> Result<State> {
    let mut disk = DiskMedium::open_rw(path)?;
    if found.superblock.state == State::Storing {
        // This initramfs was loaded by the target's block 0, which is written when all others are durable.
        return end_of_storing(&mut disk, found);
    }
    go_on(path, &mut disk, found, None, report)?;
    Ok(State::RolledBack)
}

fn end_of_storing(disk: &mut DiskMedium, mut found: Found) -> Result<State> {
    use imgstream_proto::disk::boot_list::BootState;
    let list = control_area::read_boot_list(disk, &found.superblock)?;
    disk.flush()?;
    control_area::set_boot_state(disk, &found.superblock, &list, BootState::Live)?;
    let mut next = found.superblock;
    next.state = State::Streaming;
    next.cursor = 0;
    next.clean = true;
    found.replace(disk, next)?;
    Ok(State::Streaming)
}
