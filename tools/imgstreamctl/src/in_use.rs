// SPDX-License-Identifier: GPL-2.0-only
//! Is a disk used by anything: mounts, swap space, devices built on it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::blockdev;
use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// Refuses a disk of which something is mounted, or that others are built on.
/// The running system's disk is used by it, and is not asked.
pub fn refuse(disk: &Path) -> Result<()> {
    let disk = &fs::canonicalize(disk).map_err(Error::io("examining", disk))?;
    let Some(by) = user(disk) else {
        return Ok(());
    };
    Err(Refusal::DiskInUse {
        place: disk.display().to_string(),
        by,
    }
    .into())
}

/// What is mounted of a disk, or built on it.
pub fn user(disk: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let on_disk = |device: &str| blockdev::disk_of(Path::new(device)).as_deref() == Some(disk);
    user_of(&mounts, &swaps, on_disk)
        .or_else(|| holder(Path::new("/sys/class/block"), disk).map(|h| format!("{h} is on it")))
}

/// The first mount or swap space that is on the disk in question.
fn user_of(mounts: &str, swaps: &str, on_disk: impl Fn(&str) -> bool) -> Option<String> {
    let mounts = mounts.lines().map(|line| (line, "is mounted"));
    let swaps = swaps.lines().map(|line| (line, "is used as swap"));
    mounts
        .chain(swaps)
        .filter_map(|(line, how)| Some((line.split_whitespace().next()?, how)))
        .filter(|(device, _)| device.starts_with("/dev/"))
        .find(|(device, _)| on_disk(device))
        .map(|(device, how)| format!("{device} {how}"))
}

/// A device that is built on the disk or one of its partitions.
fn holder(sys: &Path, disk: &Path) -> Option<String> {
    let name = disk.file_name()?;
    let directory = sys.join(name);
    let below = fs::read_dir(&directory).ok()?;
    let mut places: Vec<PathBuf> = below
        .filter_map(|entry| Some(entry.ok()?.path().join("holders")))
        .collect();
    places.push(directory.join("holders"));
    places
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .find_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockdev::tests::sys;

    #[test]
    fn holders_of_partitions_are_found() {
        let with = sys(&[("vdb/vdb1/holders/dm-3", ""), ("vdb/size", "9")]);
        assert_eq!(
            holder(with.path(), Path::new("/dev/vdb")).as_deref(),
            Some("dm-3")
        );
        let without = sys(&[("vdb/vdb1/partition", "1")]);
        assert_eq!(holder(without.path(), Path::new("/dev/vdb")), None);
    }

    #[test]
    fn mounts_and_swap_are_users() {
        let mounts =
            "proc /proc proc rw 0 0\n/dev/vda2 / ext4 rw 0 0\n/dev/vdb1 /srv ext4 rw 0 0\n";
        let swaps = "Filename Type Size\n/dev/vdc1 partition 100\n";
        let user = |disk: &str| user_of(mounts, swaps, |device| device.starts_with(disk));
        assert_eq!(user("/dev/vdb").as_deref(), Some("/dev/vdb1 is mounted"));
        assert_eq!(
            user("/dev/vdc").as_deref(),
            Some("/dev/vdc1 is used as swap")
        );
        assert_eq!(user("/dev/vdd"), None);
    }
}
