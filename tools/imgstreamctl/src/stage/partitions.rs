// SPDX-License-Identifier: GPL-2.0-only
//! The partitions of the table that a disk has now. The kernel knows those of
//! the table that it has read last, and boot blocks replace tables.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{flock, FlockOperation};

use crate::blockdev;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::in_use;
use crate::program;
use crate::refusal::Refusal;
use crate::sys;
use crate::table::{Role, Table};

/// Their devices. As long as the table is the one that the kernel knows, it
/// does not matter who has a partition open.
pub fn current(disk: &Path) -> Result<Vec<PathBuf>> {
    if !is_known(disk) {
        let locked = lock(disk)?;
        sys::reread_partitions(&locked.0).map_err(|error| refusal(disk, error))?;
        drop(locked);
        let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    }
    let found = blockdev::partitions(disk);
    Ok(found.into_iter().map(|(_, device)| device).collect())
}

/// Whether the kernel knows what the table says, and nothing else. A table
/// that is not understood here is the kernel's to judge.
fn is_known(disk: &Path) -> bool {
    let table = Disk::open(disk).and_then(|disk| Table::read(&disk));
    table.is_ok_and(|table| are_same(&table, blockdev::extents(disk)))
}

/// Of an extended partition the kernel shows two sectors.
fn are_same(table: &Table, mut known: Vec<(u32, u64, u64)>) -> bool {
    let extended = table.partitions.iter().filter(|p| p.role == Role::Extended);
    let extended: Vec<u32> = extended.map(|p| p.number).collect();
    known.retain(|(number, ..)| !extended.contains(number));
    let data = table.data();
    let mut said: Vec<_> = data
        .map(|p| (p.number, p.start_bytes, p.len_bytes))
        .collect();
    said.sort();
    said == known
}

/// The lock of a disk, until it is dropped.
pub struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Not only closed: a program that is being started has the file, too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Keeps udev away from a disk and its partitions. It opens them to see what is
/// in them, when a disk appears and when somebody closes one that he wrote to,
/// and as long as one is open no table is read again. It holds the disk's lock
/// meanwhile, and leaves a disk alone that somebody else has locked.
pub fn lock(disk: &Path) -> Result<Locked> {
    let file = File::open(disk).map_err(Error::io("opening", disk))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| Error::io("locking", disk)(error.into()))?;
    Ok(Locked(file))
}

fn refusal(disk: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Error::io("reading the new partition table of", disk)(error);
    }
    let by = in_use::user(disk).unwrap_or_else(|| "a program has a partition of it open".into());
    Refusal::DiskInUse {
        place: disk.display().to_string(),
        by: format!("{by}, and its partition table has changed"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, Partition};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_table_is_known_when_the_kernel_has_the_same_partitions() {
        let partition = |number, role, start_bytes| Partition {
            number,
            role,
            start_bytes,
            len_bytes: 4096,
        };
        let table = Table {
            kind: Kind::Mbr,
            partitions: vec![
                partition(5, Role::Data, 8192),
                partition(2, Role::Extended, 16384),
                partition(1, Role::Data, 65536),
            ],
            chain_lbas: Vec::new(),
        };
        let known = vec![(1, 65536, 4096), (2, 16384, 1024), (5, 8192, 4096)];
        assert!(are_same(&table, known.clone()));
        for i in [0, 2] {
            let mut other = known.clone();
            other[i].1 += 512;
            assert!(!are_same(&table, other), "{i} elsewhere");
            let mut other = known.clone();
            other[i].2 += 512;
            assert!(!are_same(&table, other), "{i} longer");
            let mut other = known.clone();
            other.remove(i);
            assert!(!are_same(&table, other), "{i} missing");
        }
        let more = [known, vec![(6, 131_072, 4096)]].concat();
        assert!(!are_same(&table, more));
        assert!(!are_same(&table, Vec::new()));
    }

    /// Whether somebody waits for a lock of this process.
    fn is_waited_for() -> bool {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let own = format!(" {} ", std::process::id());
        locks
            .lines()
            .any(|line| line.contains("->") && line.contains(&own))
    }

    #[test]
    fn who_looks_at_the_disk_is_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let udev = File::open(path.path()).unwrap();
        let released = AtomicBool::new(false);
        flock(&udev, FlockOperation::LockShared).unwrap();
        std::thread::scope(|scope| {
            let locked = scope.spawn(|| {
                let _locked = lock(path.path()).unwrap();
                assert!(released.load(Ordering::SeqCst));
            });
            while !locked.is_finished() && !is_waited_for() {
                std::thread::yield_now();
            }
            released.store(true, Ordering::SeqCst);
            flock(&udev, FlockOperation::Unlock).unwrap();
        });
        // Nobody is locked out afterwards.
        flock(&udev, FlockOperation::NonBlockingLockExclusive).unwrap();
    }

    #[test]
    fn a_partition_that_stays_open_is_a_refusal() {
        let error = refusal(Path::new("/dev/none"), io::ErrorKind::ResourceBusy.into());
        assert_eq!(error.exit(), crate::Exit::DiskInUse);
        assert!(
            error.to_string().contains("partition of it open"),
            "{error}"
        );
        let error = refusal(Path::new("/dev/none"), io::ErrorKind::InvalidInput.into());
        assert_eq!(error.exit(), crate::Exit::Failure);
    }
}
