// SPDX-License-Identifier: GPL-2.0-only
//! Block devices as sysfs names them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::SECTOR_BYTES;

const SYS_BLOCK: &str = "/sys/block";
/// Devices that are no disks of this computer, or are made of others.
const NOT_DISKS: [&str; 12] = [
    "loop",
    "ram",
    "zram",
    "sr",
    "fd",
    "dm-",
    "md",
    "imgstream",
    "nbd",
    "mtd",
    "ubi",
    "drbd",
];

/// All whole disks that are not empty, sorted by name.
pub fn disks() -> Vec<PathBuf> {
    disks_below(Path::new(SYS_BLOCK))
}

fn disks_below(sys: &Path) -> Vec<PathBuf> {
    let mut names: Vec<String> = entries(sys)
        .into_iter()
        .filter(|name| !NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| number(&sys.join(name).join("size")).is_some_and(|size| size > 0))
        .filter(|name| number(&sys.join(name).join("hidden")) != Some(1))
        .collect();
    names.sort();
    names.iter().map(|name| device(name)).collect()
}

/// The partitions of a disk that the kernel knows: number and device.
pub fn partitions(disk: &Path) -> Vec<(u32, PathBuf)> {
    partitions_below(Path::new(SYS_BLOCK), disk)
}

fn partitions_below(sys: &Path, disk: &Path) -> Vec<(u32, PathBuf)> {
    let Some(name) = disk.file_name() else {
        return Vec::new();
    };
    let directory = sys.join(name);
    let mut found: Vec<(u32, PathBuf)> = entries(&directory)
        .into_iter()
        .filter_map(|name| {
            let number = number(&directory.join(&name).join("partition"))?;
            Some((u32::try_from(number).ok()?, device(&name)))
        })
        .collect();
    found.sort();
    found
}

/// Where the kernel believes them to be: number, first byte and length, by number.
pub fn extents(disk: &Path) -> Vec<(u32, u64, u64)> {
    extents_below(Path::new(SYS_BLOCK), disk)
}

fn extents_below(sys: &Path, disk: &Path) -> Vec<(u32, u64, u64)> {
    let directory = sys.join(disk.file_name().unwrap_or_default());
    let sectors = |device: &Path, what: &str| {
        let name = device.file_name().unwrap_or_default();
        number(&directory.join(name).join(what)).unwrap_or_default() * SECTOR_BYTES
    };
    partitions_below(sys, disk)
        .iter()
        .map(|(number, device)| (*number, sectors(device, "start"), sectors(device, "size")))
        .collect()
}

/// The whole disk that a device belongs to; the device itself if it is one.
pub fn disk_of(device_path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(device_path).ok()?;
    let name = real.file_name()?.to_str()?.to_string();
    if Path::new(SYS_BLOCK).join(&name).exists() {
        return Some(device(&name));
    }
    let class = fs::canonicalize(Path::new("/sys/class/block").join(&name)).ok()?;
    let parent = class.parent()?.file_name()?.to_str()?.to_string();
    Path::new(SYS_BLOCK)
        .join(&parent)
        .exists()
        .then(|| device(&parent))
}

/// The device that a mounted file system is on.
pub fn device_of_mount(directory: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounted(&mounts, directory).map(PathBuf::from)
}

/// The last mount on a directory counts.
fn mounted(mounts: &str, directory: &str) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?))
        })
        .filter(|(device, at)| *at == directory && device.starts_with("/dev/"))
        .map(|(device, _)| device.to_string())
        .next_back()
}

fn device(name: &str) -> PathBuf {
    // sysfs writes '!' for the '/' of names like cciss/c0d0.
    Path::new("/dev").join(name.replace('!', "/"))
}

fn entries(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory that stands in for /sys/block, with these files.
    pub(crate) fn sys(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn only_disks_with_a_size_count() {
        let sys = sys(&[
            ("vda/size", "100\n"),
            ("sdb/size", "0\n"),
            ("nvme0n1/size", "5\n"),
            ("loop0/size", "5\n"),
            ("imgstream0/size", "5\n"),
            ("nvme0c0n1/size", "5\n"),
            ("nvme0c0n1/hidden", "1\n"),
        ]);
        let expected = [PathBuf::from("/dev/nvme0n1"), PathBuf::from("/dev/vda")];
        assert_eq!(disks_below(sys.path()), expected);
    }

    #[test]
    fn partitions_by_number() {
        let sys = sys(&[
            ("nvme0n1/size", "5\n"),
            ("nvme0n1/nvme0n1p2/partition", "2\n"),
            ("nvme0n1/nvme0n1p2/start", "4096\n"),
            ("nvme0n1/nvme0n1p2/size", "8\n"),
            ("nvme0n1/nvme0n1p1/partition", "1\n"),
            ("nvme0n1/queue/x", "1\n"),
        ]);
        let found = partitions_below(sys.path(), Path::new("/dev/nvme0n1"));
        assert_eq!(found[0], (1, PathBuf::from("/dev/nvme0n1p1")));
        assert_eq!(found[1], (2, PathBuf::from("/dev/nvme0n1p2")));
        assert_eq!(found.len(), 2);
        let extents = extents_below(sys.path(), Path::new("/dev/nvme0n1"));
        assert_eq!(extents[1], (2, 2 << 20, 4096));
    }

    #[test]
    fn the_last_mount_counts() {
        let text = "rootfs / rootfs rw 0 0\n/dev/vda2 / ext4 rw 0 0\n/dev/vda1 /boot ext4 rw 0 0\n";
        assert_eq!(mounted(text, "/").as_deref(), Some("/dev/vda2"));
        assert_eq!(mounted(text, "/boot").as_deref(), Some("/dev/vda1"));
        assert_eq!(mounted(text, "/home"), None);
    }
}
