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
use crate::stage::leave::{OnDisk, WayBack};
use crate::stage::{control_area, identity, shrink, stored, Report};
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
    let after = migrate(&path, &payload, &mut OnDisk(&path), &mut report)?;
    report.line("done; the computer starts again");
    power::leave_now(after)
}

/// Does what is left to do, and says how the stage ends. An error: a person
/// has to look. The source is only left for while none of its blocks has been
/// overwritten, and only if its boot entry is gone then: the next boot would
/// be the stage's again.
fn migrate(
    path: &Path,
    payload: &Payload,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<After> {
    let begun = find_own(path, payload)?;
    let untouched = is_untouched(&begun);
    match try_migrate(path, payload, begun, way, report) {
        Err(error) if untouched => back(path, payload, error, way, report),
        done => done,
    }
}

fn try_migrate(
    path: &Path,
    payload: &Payload,
    begun: Option<Found>,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<After> {
    // Taken back, by `cancel` and a loader that does not replay the journal of a file system.
    let root = || root_of(path, payload).ok();
    if is_untouched(&begun) && !stands(root, way, report)? {
        report.line("there is no boot entry of the stage: the migration was cancelled");
        return Ok(After::Reboot);
    }
    switch(path, payload, begun, way, report)?;
    Ok(payload.facts.after)
}

/// Whether the boot entry stands. Where resize2fs was cut it may not be seen,
/// and the kernel may not mount the file system: that is checked then, and
/// asked again.
fn stands(
    root: impl Fn() -> Option<PathBuf>,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<bool> {
    let answer = way.stands();
    if matches!(answer, Ok(true)) {
        return answer;
    }
    if let Err(error) = &answer {
        report.line(&format!("the boot entry cannot be looked for: {error}"));
    }
    match root() {
        Some(root) if shrink::mend(&root, answer.is_err(), report)? => way.stands(),
        _ => answer,
    }
}

/// To the source after an error, if the disk says, as it will to the source,
/// that none of it was overwritten, and it may be mounted.
fn back(
    path: &Path,
    payload: &Payload,
    error: Error,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<After> {
    if matches!(error, Error::HalfShrunk(_)) || !is_untouched(&find_own(path, payload)?) {
        return Err(error);
    }
    report.line(&format!("refused: {error}"));
    way.leave(Some(&error.to_string()), report)?;
    Ok(After::Reboot)
}

/// Whether no block of the source has been overwritten.
fn is_untouched(found: &Option<Found>) -> bool {
    let state = found.as_ref().map(|found| found.superblock.state);
    matches!(state, None | Some(State::Relocating))
}

/// From where the disk is to the end.
fn switch(
    path: &Path,
    payload: &Payload,
    begun: Option<Found>,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<()> {
    let mut found = match begun {
        Some(found) if found.superblock.state != State::Relocating => found,
        begun => begin(path, payload, begun, report)?,
    };
    go_on(path, &mut found, Some(payload), way, report)
}

/// This migration's superblock. `None`: there is none, and nothing of the
/// source has been overwritten.
fn find_own(path: &Path, payload: &Payload) -> Result<Option<Found>> {
    let place = path.display().to_string();
    let mut disk = DiskMedium::open_ro(path)?;
    let own = &payload.control.superblock;
    match ondisk::find(&mut disk, &place)? {
        Some(found) if found.superblock.uuid == own.uuid => Ok(Some(found)),
        Some(found) if !state::ended(found.superblock.state) => Err(Refusal::MigrationAlive {
            place,
            state: found.superblock.state.to_string(),
        }
        .into()),
        _ => control_area::refuse_stored(&mut disk, own).map(|()| None),
    }
}

/// From the control area on: everything that a superblock leads to.
///
/// At the end of a roll back the superblocks go only when the boot entry is
/// gone. While it stands, the next boot is the stage's, and without a
/// superblock that would begin the migration anew:
///
/// | who                      | entry removed | superblocks | then                                  |
/// |--------------------------|---------------|-------------|---------------------------------------|
/// | the stage (payload)      | yes           | wiped       | the source starts                     |
/// | the stage (payload)      | no            | stay        | stops with the reason                 |
/// | the stage (payload)      | was, in a cut | wiped       | the source starts                     |
/// | the target, or by hand   | yes           | wiped       | the source starts                     |
/// | the target, or by hand   | no            | stay        | the source's stage, or its unit, ends |
/// |                          |               |             | it: it sees `rolled-back`             |
pub fn go_on(
    path: &Path,
    found: &mut Found,
    payload: Option<&Payload>,
    way: &mut dyn WayBack,
    report: &mut Report,
) -> Result<()> {
    drive(path, found, payload, report)?;
    if found.superblock.state != State::RolledBack {
        return Ok(());
    }
    // For tests: the host looks at the disk before the source has changed anything.
    if power::Cmdline::read().after == Some(After::Poweroff) {
        power::leave_now(After::Poweroff)?;
    }
    match way.leave(None, report) {
        Ok(()) => wipe(path, found),
        // GRUB reads a file system without replaying its journal, and still saw the entry.
        Err(_) if payload.is_some() && !way.stands()? => wipe(path, found),
        Err(error) if payload.is_some() => Err(error),
        Err(error) => {
            report.line(&format!("the rest is left to the source: {error}"));
            Ok(())
        }
    }
}

fn wipe(path: &Path, found: &Found) -> Result<()> {
    pair::wipe_pair(&mut DiskMedium::open_alone(path)?, found)
}

/// The disk is only held while it is written to: file systems on it are
/// mounted before and after.
fn drive(
    path: &Path,
    found: &mut Found,
    payload: Option<&Payload>,
    report: &mut Report,
) -> Result<()> {
    let mut disk = DiskMedium::open_alone(path)?;
    let list = control_area::read_boot_list(&mut disk, &found.superblock)?;
    let mut drive = Drive {
        disk: &mut disk,
        found,
        list: &list,
        payload,
        report,
    };
    drive.run()
}

/// Everything before boot blocks are saved. Done as a whole again after a cut,
/// also when the control area stands: the source may have run meanwhile.
fn begin(
    path: &Path,
    payload: &Payload,
    begun: Option<Found>,
    report: &mut Report,
) -> Result<Found> {
    let facts = &payload.facts;
    shrink::shrink(&root_of(path, payload)?, facts, report)?;
    let mut disk = DiskMedium::open_alone(path)?;
    let mut control = payload.control.clone();
    if facts.hash_source {
        report.line("hashing the shrunk source");
        let len = control.superblock.geometry.source_bytes;
        control.superblock.source_hash = identity::hash(&mut disk, len, report)?;
    }
    let Some(mut found) = begun else {
        report.line("writing the control area");
        return control_area::create(&mut disk, &control);
    };
    found.replace(&mut disk, control.superblock)?;
    Ok(found)
}

/// The partition of the plan, if the disk is as it was then.
fn root_of(path: &Path, payload: &Payload) -> Result<PathBuf> {
    let facts = &payload.facts;
    let changed = |what: &str| Refusal::Changed {
        place: path.display().to_string(),
        what: what.to_string(),
    };
    if identity::lba0_crc32c(&mut DiskMedium::open_ro(path)?)? != facts.lba0_crc32c {
        return Err(changed("its first sector is another one").into());
    }
    let found = blockdev::partitions(path);
    let root = found.into_iter().find(|(n, _)| *n == facts.root_number);
    Ok(root
        .ok_or_else(|| changed("the root partition is not there"))?
        .1)
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

/// What an initramfs with imgstream does with a migration that is not to be
/// attached: it ends a switch that was cut at its very end, or rolls back.
pub fn from_target(path: &Path, mut found: Found, report: &mut Report) -> Result<State> {
    if found.superblock.state == State::Storing {
        stored::end(&mut DiskMedium::open_alone(path)?, &mut found, report)?;
    }
    if found.superblock.state == State::Streaming {
        return Ok(State::Streaming);
    }
    go_on(path, &mut found, None, &mut OnDisk(path), report)?;
    Ok(State::RolledBack)
}

#[cfg(test)]
mod tests;
