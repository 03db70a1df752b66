// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl finish-rollback`: runs once in the source, started by
//! imgstream-source.service, when the stage left it: after a roll back, a
//! refusal, or a cut before anything was overwritten.

use std::path::{Path, PathBuf};

use imgstream_engine::state;
use imgstream_proto::disk::State;

use crate::blockdev;
use crate::error::{Error, Result};
use crate::ext4::Ext4;
use crate::medium::DiskMedium;
use crate::ondisk::{self, pair};
use crate::program;
use crate::refusal::Refusal;
use crate::switch::source;

/// Cleans up in the source after a roll back or a refusal.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    let root = root()?;
    let disk = blockdev::disk_of(&root);
    // After a roll back an entry that still stands is left over.
    if source::is_armed()? && !rolled_back(disk.as_deref())? {
        println!(
            "a migration is about to begin at the next boot; `imgstreamctl cancel` takes it back"
        );
        return Ok(());
    }
    restore()?;
    println!("this system is as it was before `imgstreamctl migrate`");
    Ok(())
}

fn root() -> Result<PathBuf> {
    blockdev::device_of_mount("/")
        .ok_or_else(|| Error::Other("the device of the root file system is not known".into()))
}

fn rolled_back(disk: Option<&Path>) -> Result<bool> {
    let Some(disk) = disk else { return Ok(false) };
    let found = ondisk::find(&mut DiskMedium::open_ro(disk)?, &disk.display().to_string())?;
    Ok(found.is_some_and(|found| found.superblock.state == State::RolledBack))
}

/// Takes everything back that `migrate` and a stage that was cut have done.
pub fn restore() -> Result<()> {
    let root = root()?;
    match blockdev::disk_of(&root) {
        Some(disk) => give_up(&disk, &mut source::disarm)?,
        None => source::disarm()?,
    }
    grow(&root, source::recorded_blocks()?)?;
    if let Some(reason) = source::last_refusal() {
        println!("the migration was refused: {reason}");
    }
    source::remove()
}

/// Superblocks behind the file system end before it grows over them, and after
/// the boot entry: without them the stage would begin anew. In `relocating`
/// nothing of the source was overwritten; any later state means that this
/// system should not be running, and then nothing is touched.
fn give_up(disk: &Path, disarm: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let place = disk.display().to_string();
    let mut medium = DiskMedium::open_shared(disk)?;
    let mut found = ondisk::find(&mut medium, &place)?;
    let now = found.as_ref().map(|found| found.superblock.state);
    if let Some(state) = now.filter(|now| *now != State::Relocating && !state::ended(*now)) {
        return Err(Refusal::MigrationAlive {
            place,
            state: state.to_string(),
        }
        .into());
    }
    if let Some(found) = &mut found {
        // The source's partition has all of the disk, and may be in use again up to its end.
        found.agree(&mut medium, false)?;
    }
    disarm()?;
    found.map_or(Ok(()), |found| pair::wipe_pair(&mut medium, &found))
}

/// Gives the file system its size from before `migrate` again, which need not
/// be that of its partition. Online: the kernel does it, nothing has to be
/// unmounted. One that has it, or has been grown since, is left alone.
fn grow(root: &Path, before: Option<u64>) -> Result<()> {
    let now = Ext4::open_device(root, 0)?.facts().blocks;
    let Some(before) = before.filter(|before| now < *before) else {
        return Ok(());
    };
    let (device, blocks) = (root.to_string_lossy(), before.to_string());
    let output = program::e2fs("resize2fs", &[&device, &blocks])?;
    program::text("resize2fs", output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::Medium;
    use crate::stage::shrink::tests::file_system;

    /// What is left of a migration in `state`, whether the entry was taken out, and how giving up ends.
    fn given_up(state: State, goes: bool) -> (Option<State>, bool, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let superblock = crate::stage::tests::superblock(state);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(superblock.geometry.disk_bytes).unwrap();
        let mut disk = DiskMedium::open_alone(&path).unwrap();
        pair::create(&mut disk, &superblock).unwrap();
        let mut asked = false;
        let done = give_up(&path, &mut || {
            asked = true;
            match goes {
                true => Ok(()),
                false => Err(Error::Other("it stays".into())),
            }
        });
        let left = ondisk::find(&mut disk, "disk").unwrap();
        (left.map(|found| found.superblock.state), asked, done)
    }

    #[test]
    fn superblocks_go_after_the_entry() {
        for state in [State::Relocating, State::RolledBack, State::Cancelled] {
            let (left, asked, done) = given_up(state, true);
            assert!(left.is_none() && asked && done.is_ok(), "{state}");
            let (left, asked, done) = given_up(state, false);
            assert!(left == Some(state) && asked && done.is_err(), "{state}");
        }
    }

    #[test]
    fn what_has_overwritten_the_source_is_not_given_up() {
        for state in [State::Storing, State::Streaming, State::RollingBack] {
            let (left, asked, done) = given_up(state, true);
            assert_eq!(done.unwrap_err().exit(), crate::Exit::MigrationAlive);
            assert!(left == Some(state) && !asked, "{state}");
        }
    }

    #[test]
    fn a_source_that_has_grown_already_keeps_every_byte() {
        let superblock = crate::stage::tests::superblock(State::RolledBack);
        let places = imgstream_engine::pair::locations(&superblock).unwrap();
        for (taken, other) in [(places[0], places[1]), (places[1], places[0])] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            let file = std::fs::File::create(&path).unwrap();
            file.set_len(superblock.geometry.disk_bytes).unwrap();
            let mut disk = DiskMedium::open_alone(&path).unwrap();
            pair::create(&mut disk, &superblock).unwrap();
            disk.write(taken, &[b'f'; 4096]).unwrap();
            give_up(&path, &mut || Ok(())).unwrap();
            for (at, byte) in [(taken, b'f'), (other, 0)] {
                let mut block = [1; 4096];
                disk.read(at, &mut block).unwrap();
                assert_eq!(block, [byte; 4096], "{at}");
            }
        }
    }

    #[test]
    fn both_copies_say_it_before_the_entry_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let superblock = crate::stage::tests::superblock(State::RollingBack);
        let places = imgstream_engine::pair::locations(&superblock).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(superblock.geometry.disk_bytes).unwrap();
        let mut disk = DiskMedium::open_alone(&path).unwrap();
        let mut found = pair::create(&mut disk, &superblock).unwrap();
        let mut old = [0; 4096];
        disk.read(places[1], &mut old).unwrap();
        found.set_state(&mut disk, State::RolledBack, 0).unwrap();
        disk.write(places[1], &old).unwrap();
        let mut asked = false;
        give_up(&path, &mut || {
            asked = true;
            let found = ondisk::find(&mut DiskMedium::open_ro(&path)?, "disk")?.unwrap();
            assert_eq!(found.superblock.state, State::RolledBack);
            assert_eq!(found.stale, None);
            Ok(())
        })
        .unwrap();
        assert!(asked && ondisk::find(&mut disk, "disk").unwrap().is_none());
    }

    #[test]
    fn the_file_system_gets_the_size_it_had() {
        // A partition of 16384 blocks, with a file system of 12288 that was shrunk to 8192.
        let (_dir, partition) = file_system(48);
        let name = partition.to_string_lossy();
        let shrunk = program::e2fs("resize2fs", &[&name, "8192"]).unwrap();
        assert!(shrunk.status.success());
        // resize2fs has cut the file.
        let file = std::fs::OpenOptions::new().write(true).open(&partition);
        file.unwrap().set_len(64 << 20).unwrap();
        for (before, after) in [
            (None, 8192),
            (Some(12288), 12288),
            (Some(12288), 12288),
            // It was grown by hand since.
            (Some(8192), 12288),
        ] {
            grow(&partition, before).unwrap();
            let blocks = Ext4::open_device(&partition, 0).unwrap().facts().blocks;
            assert_eq!(blocks, after, "{before:?}");
        }
    }
}
