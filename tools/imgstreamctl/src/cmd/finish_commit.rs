// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl finish-commit`: the last act of a commit, in the running
//! target. Called by `commit --wait` and by imgstream-finish.service, which
//! also goes on after a cut, and does what a commit from the initramfs left.
//!
//! As long as the superblock says `committed`, everything is done again:
//! hooks, initramfs, partition table, control area. It goes when all of that
//! is durable; the unit goes after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::State;
use rustix::fs::{flock, FlockOperation};

use crate::at_hand;
use crate::blockdev;
use crate::device::Status;
use crate::error::{Error, Result};
use crate::finish::{self, Area};
use crate::medium::DiskMedium;
use crate::ondisk::{self, Reach};
use crate::program;
use crate::refusal::Refusal;

/// What the boot path has of imgstream. The udev rules stay: until the next
/// boot they keep the links that mounts depend on, and then they match nothing.
const HOOKS: [&str; 5] = [
    "/usr/share/initramfs-tools/hooks/imgstream",
    "/usr/share/initramfs-tools/scripts/local-top/imgstream",
    "/usr/share/initramfs-tools/scripts/local-block/imgstream",
    "/usr/share/initramfs-tools/scripts/local-premount/imgstream",
    "/etc/kernel/preinst.d/imgstream",
];
/// What goes when all is done.
const UNIT: [&str; 2] = [
    "/usr/lib/systemd/system/multi-user.target.wants/imgstream-finish.service",
    "/usr/lib/systemd/system/imgstream-finish.service",
];

const LOCK: &str = "/run/imgstream-finish.lock";
/// The last sentence of every commit, whoever did the end of it.
pub const COMMITTED: &str = "committed: from the next boot on this is a plain disk";

/// Takes the driver out of the boot path after a commit.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Wait until the commit is done, if one may still come.
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if args.wait {
        // Beside it: a repository that is gone already is waited for.
        if is_attached() {
            std::thread::spawn(at_hand::read);
        }
        wait_for_commit();
    }
    let Some(disk) = disk()? else { return Ok(()) };
    match state_on(&disk)? {
        Some(State::Committed) => finish(&disk),
        // Wiped before, and cut before the unit was gone. An image that was never migrated keeps all of it.
        None if !is_attached() && has_begun() => remove(&UNIT),
        _ => Ok(()),
    }
}

/// Removes hooks, builds the initramfs anew, finishes the disk. The service
/// and `commit --wait` may both want to: the second waits for the first, and
/// does what that has left.
pub fn finish(disk: &Path) -> Result<()> {
    let _lock = lock(Path::new(LOCK), &mut |line| println!("{line}"))?;
    last_steps(state_on(disk)?, &mut || take_out(disk))?;
    println!("{COMMITTED}");
    Ok(())
}

/// Whether nothing of imgstream is left on a disk of which every block is home.
pub fn is_finished(disk: &Path) -> Result<bool> {
    Ok(state_on(disk)?.is_none())
}

/// The superblock goes last: without one somebody else has done all of it.
fn last_steps(found: Option<State>, take_out: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    match found {
        Some(State::Committed) => take_out(),
        None => Ok(()),
        Some(state) => Err(Refusal::WrongState {
            command: "finish-commit",
            state: state.to_string(),
        }
        .into()),
    }
}

fn take_out(disk: &Path) -> Result<()> {
    let view = finish::view_of(disk);
    // What would stop the last step stops before the first.
    finish::begin_disk(disk, &view, reach())?;
    println!("taking imgstream out of the boot path");
    remove(&HOOKS)?;
    rebuild_initramfs()?;
    make_durable()?;
    println!("moving the backup of the partition table to the end of the disk");
    if finish::finish_disk(disk, &view, reach())? == Area::TakenOver {
        println!(
            "a partition has been grown over imgstream's control area: what stands there is left alone"
        );
    }
    remove(&UNIT)?;
    make_durable()
}

/// Held until the file is closed. Who has to wait for it is told so.
fn lock(path: &Path, tell: &mut dyn FnMut(&str)) -> Result<File> {
    let file = File::create(path).map_err(Error::io("writing", path))?;
    let done = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            tell(
                "imgstream-finish.service, or another commit, does the end of it; waiting for that",
            );
            flock(&file, FlockOperation::LockExclusive)
        }
        done => done,
    };
    done.map_err(|e| Error::io("locking", path)(e.into()))?;
    Ok(file)
}

/// While the image is streamed, somebody may commit at any time.
fn wait_for_commit() {
    while is_attached() {
        match Status::read() {
            Ok(status) if status.state != State::Committed.name() => {
                std::thread::sleep(Duration::from_secs(2));
            }
            _ => return,
        }
    }
}

fn is_attached() -> bool {
    Path::new("/sys/block").join(DISK_NAME).exists()
}

/// The disk that is attached, or else the one that root is on.
fn disk() -> Result<Option<PathBuf>> {
    if is_attached() {
        let name = Status::read()?.disk;
        return Ok(Some(Path::new("/dev").join(name)));
    }
    Ok(blockdev::device_of_mount("/").and_then(|device| blockdev::disk_of(&device)))
}

/// Whether the hooks are gone: the end of a commit has begun with that. An
/// image that was never migrated has them, and is started again and again.
fn has_begun() -> bool {
    !Path::new(HOOKS[0]).exists()
}

fn reach() -> Reach {
    match has_begun() {
        true => Reach::Disk,
        false => Reach::Room,
    }
}

fn state_on(disk: &Path) -> Result<Option<State>> {
    let mut medium = DiskMedium::open_ro(disk)?;
    let found = ondisk::find_committed(&mut medium, &disk.display().to_string(), reach())?;
    Ok(found.map(|found| found.superblock.state))
}

fn remove(files: &[&str]) -> Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing", Path::new(file))(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A cut leaves the old initramfs or the new one: update-initramfs makes each
/// beside the old one and renames it when it is whole, and ext4 writes a file's
/// data before it commits a rename over another file. Either starts the target,
/// because the old one does nothing on a disk that is `committed`.
fn rebuild_initramfs() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("update-initramfs")
        .args(["-u", "-k", "all"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .status()
        .map_err(|e| program::Error::Run("update-initramfs", e))?;
    if status.success() {
        return Ok(());
    }
    Err(program::Error::Failed {
        program: "update-initramfs",
        said: status.to_string(),
    }
    .into())
}

/// Unlike sync(2), this says when something could not be written.
fn make_durable() -> Result<()> {
    for place in ["/", "/boot", "/etc", "/usr"].map(Path::new) {
        File::open(place)
            .and_then(|directory| Ok(rustix::fs::syncfs(directory)?))
            .map_err(Error::io("writing", place))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn who_waits_for_the_other_says_so_and_goes_on_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let silent = &mut |line: &str| panic!("nobody holds it, but: {line}");
        let held = lock(&path, silent).unwrap();
        let (said, heard) = mpsc::channel();
        let second = {
            let path = path.clone();
            std::thread::spawn(move || {
                let tell = &mut |line: &str| said.send(line.to_string()).unwrap();
                lock(&path, tell).map(drop)
            })
        };
        let line = heard.recv().unwrap();
        assert!(line.contains("imgstream-finish.service"), "{line}");
        assert!(line.contains("waiting"), "{line}");
        drop(held);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn what_another_has_done_is_not_done_again() {
        let steps = |found| {
            let mut taken_out = false;
            let done = last_steps(found, &mut || {
                taken_out = true;
                Ok(())
            });
            (taken_out, done.map_err(|error| error.exit()))
        };
        assert_eq!(steps(Some(State::Committed)), (true, Ok(())));
        assert_eq!(steps(None), (false, Ok(())));
        let contradiction = (false, Err(crate::Exit::WrongState));
        assert_eq!(steps(Some(State::Committing)), contradiction);
    }
}
