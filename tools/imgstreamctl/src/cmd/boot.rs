// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl boot`: what the target's initramfs calls. The superblock on
//! the disk alone decides what this boot is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use imgstream_engine::state;
use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::State;

use crate::blockdev;
use crate::error::{Error, Result};
use crate::finish;
use crate::medium::DiskMedium;
use crate::ondisk::{self, Found};
use crate::power::{self, Cmdline};
use crate::refusal::Refusal;
use crate::stage::{attach, Report};
use crate::switch::payload::After;

/// How long root, or a disk with a superblock, is waited for here. After that
/// the initramfs waits for root itself, and asks again once a second.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTACHED: &str = "/run/imgstream/attached";

/// Starts the target: called by its initramfs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not wait for disks.
    #[arg(long)]
    once: bool,
    /// Only say whether this device may be mounted as root.
    #[arg(long, value_name = "DEVICE", conflicts_with = "once")]
    root: Option<PathBuf>,
    /// Only set the network up for this disk, however long it takes.
    #[arg(long, value_name = "DISK", conflicts_with_all = ["once", "root"])]
    network: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if let Some(root) = &args.root {
        return check_root(root);
    }
    if let Some(disk) = &args.network {
        return network_for_ever(disk);
    }
    if Path::new(ATTACHED).exists() {
        return Ok(());
    }
    let cmdline = Cmdline::read();
    let patience = if args.once { Duration::ZERO } else { PATIENCE };
    match look(&cmdline, patience)? {
        None => Ok(()),
        Some((disk, found)) => start(&disk, found, &cmdline),
    }
}

/// Waits for a disk with a superblock that has work for us, or for root on a
/// disk without one.
fn look(cmdline: &Cmdline, patience: Duration) -> Result<Option<(PathBuf, Found)>> {
    let begin = Instant::now();
    loop {
        // In this order: root's disk is then among those that are looked at.
        let root = cmdline.root.as_deref().and_then(root_device);
        if let Some(found) = alive()? {
            return Ok(Some(found));
        }
        if root.is_some() || begin.elapsed() >= patience {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The one disk with a migration that is not over.
fn alive() -> Result<Option<(PathBuf, Found)>> {
    let mut all = Vec::new();
    for path in blockdev::disks() {
        let mut disk = match DiskMedium::open_ro(&path) {
            Ok(disk) => disk,
            Err(_) => continue,
        };
        if let Some(found) = ondisk::find(&mut disk, &path.display().to_string())? {
            let state = found.superblock.state;
            if !state::ended(state) || state == State::RolledBack {
                all.push((path, found));
            }
        }
    }
    the_only_one(all)
}

/// With two candidates nobody can tell which is meant.
fn the_only_one(mut all: Vec<(PathBuf, Found)>) -> Result<Option<(PathBuf, Found)>> {
    if all.len() > 1 {
        let places: Vec<String> = all.iter().map(|(p, _)| p.display().to_string()).collect();
        return Err(Refusal::SecondSuperblock {
            places: places.join(", "),
        }
        .into());
    }
    Ok(all.pop())
}

/// The device that `root=` names, if udev has made it.
fn root_device(root: &str) -> Option<PathBuf> {
    let path = match root.split_once('=') {
        Some(("UUID", id)) => Path::new("/dev/disk/by-uuid").join(id),
        Some(("LABEL", id)) => Path::new("/dev/disk/by-label").join(id),
        Some(("PARTUUID", id)) => Path::new("/dev/disk/by-partuuid").join(id),
        Some(("PARTLABEL", id)) => Path::new("/dev/disk/by-partlabel").join(id),
        _ => PathBuf::from(root),
    };
    path.exists().then_some(path)
}

fn start(disk: &Path, found: Found, cmdline: &Cmdline) -> Result<()> {
    let mut report = Report::console();
    let state = found.superblock.state;
    report.line(&format!("{} is {state}", disk.display()));
    let state = match state {
        State::Storing | State::RollingBack | State::RolledBack => {
            crate::cmd::stage::from_target(disk, found.clone(), &mut report)?
        }
        other => other,
    };
    if state == State::RolledBack {
        report.line("the computer starts again, into the source");
        return power::leave_now(cmdline.after.unwrap_or(After::Reboot));
    }
    if !state::attachable(state) {
        return Err(Error::Other(format!(
            "{} is in state {state}, in which this system cannot be started",
            disk.display()
        )));
    }
    if !attach::network(disk, &found, &mut report)? {
        try_network_later(disk)?;
    }
    attach::attach(disk, &mut report)?;
    if cmdline.commit_now {
        finish::commit_here(disk, &mut report)?;
        return power::leave_now(cmdline.after.unwrap_or(After::Reboot));
    }
    Ok(())
}

/// A process of its own, which goes on when the initramfs is left.
fn try_network_later(disk: &Path) -> Result<()> {
    let own = Path::new("/proc/self/exe");
    Command::new(own)
        .args(["boot", "--network"])
        .arg(disk)
        .spawn()
        .map_err(Error::io("starting", own))?;
    Ok(())
}

fn network_for_ever(disk: &Path) -> Result<()> {
    let mut report = Report::console();
    let mut medium = DiskMedium::open_ro(disk)?;
    let place = disk.display().to_string();
    let Some(found) = ondisk::find(&mut medium, &place)? else {
        return Err(Refusal::NoSuperblock { place }.into());
    };
    let mut quiet = Report::to(|_| {});
    while !attach::network(disk, &found, &mut quiet)? {
        std::thread::sleep(Duration::from_secs(5));
    }
    report.line("network: the interface is up now");
    Ok(())
}

/// Root on a disk that is being migrated is only what imgstream shows.
fn check_root(root: &Path) -> Result<()> {
    let Some(disk) = blockdev::disk_of(root) else {
        // Not a block device (or not there): not our matter.
        return Ok(());
    };
    if disk.ends_with(DISK_NAME) {
        return Ok(());
    }
    if fs::metadata(ATTACHED).is_ok() {
        return Err(Error::Other(format!(
            "root is {}, but {DISK_NAME} is attached",
            root.display()
        )));
    }
    let mut medium = DiskMedium::open_ro(&disk)?;
    match ondisk::find(&mut medium, &disk.display().to_string())? {
        Some(found) if !state::ended(found.superblock.state) => Err(Error::Other(format!(
            "root is {}, but {} is {}",
            root.display(),
            disk.display(),
            found.superblock.state
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgstream_proto::disk::superblock::Superblock;
    use imgstream_proto::disk::Geometry;

    fn candidate(path: &str) -> (PathBuf, Found) {
        let superblock = Superblock::new([7; 16], State::Streaming, Geometry::default());
        let found = Found {
            superblock,
            stale: None,
        };
        (path.into(), found)
    }

    #[test]
    fn two_disks_are_not_guessed_between() {
        assert!(the_only_one(Vec::new()).unwrap().is_none());
        let one = the_only_one(vec![candidate("/dev/vda")]).unwrap();
        assert_eq!(one.unwrap().0, Path::new("/dev/vda"));
        let error = the_only_one(vec![candidate("/dev/vda"), candidate("/dev/vdb")]).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::SecondSuperblock);
        assert!(error.to_string().contains("/dev/vda, /dev/vdb"), "{error}");
    }

    #[test]
    fn root_is_found_by_the_name_it_was_given() {
        assert_eq!(root_device("/dev/null"), Some(PathBuf::from("/dev/null")));
        assert_eq!(root_device("UUID=no-such-uuid"), None);
    }
}
