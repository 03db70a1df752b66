// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl boot`: what the target's initramfs calls. The superblock on
//! the disk alone decides what this boot is.

mod ask;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use imgstream_engine::state;
use imgstream_proto::abi::status::Connection;
use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::State;

use crate::blockdev;
use crate::device::Status;
use crate::error::{Error, Result};
use crate::finish;
use crate::medium::DiskMedium;
use crate::ondisk::{self, Found, Search};
use crate::power::{self, Cmdline};
use crate::program;
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
    /// Only ask at the console what to do while the repository does not answer, until root is mounted.
    #[arg(long, conflicts_with_all = ["once", "root", "network"])]
    ask: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if let Some(root) = &args.root {
        return check_root(root);
    }
    if let Some(disk) = &args.network {
        return network_for_ever(disk);
    }
    if args.ask {
        return ask::run();
    }
    let cmdline = Cmdline::read();
    if Path::new(ATTACHED).exists() {
        return match args.once {
            true => await_root(&cmdline),
            false => Ok(()),
        };
    }
    let patience = if args.once { Duration::ZERO } else { PATIENCE };
    match look(&cmdline, patience)? {
        None => Ok(()),
        Some((disk, found)) if cmdline.saves_dump => leave(&disk, &found, &cmdline),
        Some((disk, found)) => start(&disk, found, &cmdline),
    }
}

/// The initramfs gives root up after half a minute. What udev has to read of it may not be here yet, and is waited for as long
/// as the repository is gone.
fn await_root(cmdline: &Cmdline) -> Result<()> {
    let root = || cmdline.root.as_deref().and_then(root_device);
    let mut waited = false;
    while root().is_none() && repository_is_gone()? {
        waited = true;
        std::thread::sleep(Duration::from_secs(1));
    }
    if waited {
        let _ = program::run("udevadm", "udev", &["settle", "--timeout=30"]);
    }
    Ok(())
}

fn repository_is_gone() -> Result<bool> {
    let status = Status::read()?;
    let there = Connection::parse(&status.connection) == Some(Connection::Ready);
    Ok(!there && !status.independent)
}

/// In the kernel of kdump. Where the dump would be saved is on imgstream, which
/// does not run there; nobody may be near, and the next boot is a usual one.
fn leave(disk: &Path, found: &Found, cmdline: &Cmdline) -> Result<()> {
    Report::console().line(&format!(
        "{} is {}, so this kernel (kdump) has no root and saves no dump; the computer starts again",
        disk.display(),
        found.superblock.state
    ));
    power::leave_now(cmdline.after.unwrap_or(After::Reboot))
}

/// Waits for a disk with a superblock that has work for us, or for root on a
/// disk without one.
fn look(cmdline: &Cmdline, patience: Duration) -> Result<Option<(PathBuf, Found)>> {
    let begin = Instant::now();
    loop {
        // In this order: root's disk is then among those that are looked at.
        let root = cmdline.root.as_deref().and_then(root_device);
        let search = Search::of(blockdev::disks());
        let root_disk = root.as_deref().and_then(blockdev::disk_of);
        let last = root.is_some() || begin.elapsed() >= patience;
        if let Some(answer) = answer(&search, root_disk.as_deref(), last)? {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a look at all disks says; `None`: look again. A disk that cannot be
/// read or understood is no reason to stop if another carries the migration,
/// or if root is on a disk that certainly carries none. Otherwise it may be
/// the one that is meant, and root on it must not be mounted.
fn answer(
    search: &Search,
    root_disk: Option<&Path>,
    last: bool,
) -> Result<Option<Option<(PathBuf, Found)>>> {
    let found = search.only(|state| !state::ended(state) || state == State::RolledBack)?;
    if found.is_none() && !last {
        return Ok(None);
    }
    let Some(failures) = search.failures() else {
        return Ok(Some(found));
    };
    if found.is_none() && root_disk.is_none_or(|disk| search.failed_on(disk)) {
        return Err(Error::Other(failures));
    }
    println!("imgstream: left out: {failures}");
    Ok(Some(found))
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
    let up = attach::network(disk, &found, &mut report)?;
    let trying = (!up).then(|| try_network(disk)).transpose()?;
    attach::attach(disk, &mut report)?;
    if !Status::read()?.independent {
        ask::spawn()?;
    }
    attach::settle(&mut report)?;
    if let Some(trying) = trying {
        await_network(trying, &mut report)?;
    }
    if cmdline.commit_now {
        finish::commit_here(&mut report)?;
        return power::leave_now(cmdline.after.unwrap_or(After::Reboot));
    }
    Ok(())
}

/// A process of its own, for an attach waits for what the repository has.
fn try_network(disk: &Path) -> Result<Child> {
    let own = Path::new("/proc/self/exe");
    Command::new(own)
        .args(["boot", "--network"])
        .arg(disk)
        .spawn()
        .map_err(Error::io("starting", own))
}

/// The system is not started without a network that it needs: the process
/// loses its programs and `/dev` when the initramfs is left, and the system's
/// own settings may not lead to the repository.
fn await_network(mut trying: Child, report: &mut Report) -> Result<()> {
    let failed = |e| Error::io("waiting for", Path::new("the network"))(e);
    if Status::read()?.independent {
        let _ = trying.kill();
        return trying.wait().map(drop).map_err(failed);
    }
    report.line("the network is waited for: blocks of this system are not on the disk yet");
    let status = trying.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Other("the network could not be set up".into()))
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
    use crate::medium::Medium;
    use crate::ondisk::pair;
    use std::fs::File;

    const MIB: u64 = 1 << 20;

    /// Disks: 0 and 1 carry migrations, 2 none, 3 a damaged superblock; 4 is not there.
    fn disks(directory: &Path) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = (0..5).map(|i| directory.join(format!("disk{i}"))).collect();
        for path in &paths[..4] {
            File::create(path).unwrap().set_len(130 * MIB).unwrap();
        }
        for i in [0, 1, 3] {
            let mut disk = DiskMedium::open_alone(&paths[i]).unwrap();
            let superblock = crate::stage::tests::superblock(State::Streaming);
            pair::create(&mut disk, &superblock).unwrap();
            if i == 3 {
                for at in imgstream_engine::pair::locations(&superblock).unwrap() {
                    let mut block = [0; 4096];
                    disk.read(at, &mut block).unwrap();
                    block[100] ^= 1;
                    disk.write(at, &block).unwrap();
                }
            }
        }
        paths
    }

    #[test]
    fn a_disk_that_nothing_can_be_said_of_stops_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let all = disks(dir.path());
        let of = |which: &[usize]| Search::of(which.iter().map(|i| all[*i].clone()));
        for last in [false, true] {
            let found = answer(&of(&[3, 4, 0, 2]), None, last).unwrap().unwrap();
            assert_eq!(found.unwrap().0, all[0]);
            let error = answer(&of(&[0, 3, 1]), None, last).unwrap_err();
            assert_eq!(error.exit(), crate::Exit::SecondSuperblock);
            assert!(error.to_string().contains("disk0, "), "{error}");
        }
        // Root is on a disk that carries nothing: a plain system.
        let none = answer(&of(&[2, 3, 4]), Some(&all[2]), true).unwrap();
        assert!(none.unwrap().is_none());
        assert!(answer(&of(&[2]), None, true).unwrap().unwrap().is_none());
        // There is time to look again.
        assert!(answer(&of(&[2, 3]), None, false).unwrap().is_none());
    }

    #[test]
    fn root_on_a_disk_that_nothing_can_be_said_of_is_not_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let all = disks(dir.path());
        let search = Search::of([2, 3, 4].map(|i| all[i].clone()));
        for root in [None, Some(&all[3]), Some(&all[4])] {
            let error = answer(&search, root.map(PathBuf::as_path), true).unwrap_err();
            assert!(error.to_string().contains("disk3: "), "{error}");
            assert!(error.to_string().contains("disk4: "), "{error}");
        }
    }

    #[test]
    fn root_is_found_by_the_name_it_was_given() {
        assert_eq!(root_device("/dev/null"), Some(PathBuf::from("/dev/null")));
        assert_eq!(root_device("UUID=no-such-uuid"), None);
    }
}
