// SPDX-License-Identifier: GPL-2.0-only
//! Leaves the stage for the source: takes the stage's entry out of the
//! source's `custom.cfg`. The only time that the stage mounts anything; what
//! has to be identical before and after a roll back has been compared by then.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use super::Report;
use crate::blockdev;
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::program;
use crate::switch::custom_cfg;
use crate::sys;

const MOUNT_POINT: &str = "/run/imgstream/source";
/// Where the boot directory's files are, in the root or in a separate /boot.
const CUSTOM_CFG: [&str; 2] = ["boot/grub/custom.cfg", "grub/custom.cfg"];
/// What tells the running source why nothing happened.
const LAST_REFUSAL: &str = "var/lib/imgstream/last-refusal";

/// Looks at every ext4 partition of the disk; says in the source why, if there
/// is a reason. Whether there was an entry: an image of a disk cannot be
/// mounted here, and a kernel may lack what this file system needs.
pub fn leave(disk: &Path, reason: Option<&str>, report: &mut Report) -> Result<bool> {
    if disk.is_file() {
        return Ok(false);
    }
    let mut found = false;
    let _ = program::run("modprobe", "kmod", &["ext4"]);
    for partition in reread(disk)? {
        let mounted = fs::create_dir_all(MOUNT_POINT)
            .map_err(Error::io("making", Path::new(MOUNT_POINT)))
            .and_then(|()| mount_ext4(&partition));
        match mounted {
            Ok(()) => {}
            Err(_) => continue,
        }
        let done = edit(Path::new(MOUNT_POINT), reason);
        let unmounted = unmount(MOUNT_POINT, UnmountFlags::empty());
        if done? {
            found = true;
            report.line(&format!(
                "the boot entry on {} is gone",
                partition.display()
            ));
        }
        unmounted.map_err(|e| Error::io("unmounting", &partition)(e.into()))?;
    }
    Ok(found)
}

/// The partitions of the table that is on the disk now, which may be another
/// than when the kernel looked first.
fn reread(disk: &Path) -> Result<Vec<PathBuf>> {
    let medium = DiskMedium::open_ro(disk)?;
    for _ in 0..20 {
        if sys::reread_partitions(medium.file()).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    let found = blockdev::partitions(disk);
    Ok(found.into_iter().map(|(_, device)| device).collect())
}

fn mount_ext4(partition: &Path) -> Result<()> {
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    mount(partition, MOUNT_POINT, "ext4", flags, None)
        .map_err(|e| Error::io("mounting", partition)(e.into()))
}

/// Whether there was an entry.
fn edit(root: &Path, reason: Option<&str>) -> Result<bool> {
    if let Some(reason) = reason {
        let path = root.join(LAST_REFUSAL);
        if path.parent().is_some_and(Path::exists) {
            write_durably(&path, &format!("{reason}\n"))?;
        }
    }
    for name in CUSTOM_CFG {
        if remove_entry(&root.join(name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the stage's entry out of one `custom.cfg`; whether it was there.
pub fn remove_entry(path: &Path) -> Result<bool> {
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(false);
    };
    let Some(rest) = custom_cfg::without_entry(&text) else {
        return Ok(false);
    };
    if custom_cfg::was_made_by_us(&text) {
        fs::remove_file(path).map_err(Error::io("removing", path))?;
        sync_directory(path)?;
    } else {
        write_durably(path, &rest)?;
    }
    Ok(true)
}

/// Replaces a file as a whole: a cut leaves the old one or the new one.
pub fn write_durably(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("imgstream-new");
    let io = |e| Error::io("writing", path)(e);
    let mut file = File::create(&new).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&new, path).map_err(io)?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(Error::io("writing", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::custom_cfg::{has_entry, with_entry, Entry};

    fn entry() -> Entry {
        Entry {
            boot_uuid: "x".into(),
            kernel: "/vmlinuz".into(),
            initrds: vec!["/initrd".into()],
            cmdline: String::new(),
        }
    }

    #[test]
    fn the_entry_goes_and_the_reason_stays() {
        for (old, name) in [(None, CUSTOM_CFG[0]), (Some("set a=1\n"), CUSTOM_CFG[1])] {
            let root = tempfile::tempdir().unwrap();
            let cfg = root.path().join(name);
            fs::create_dir_all(cfg.parent().unwrap()).unwrap();
            fs::create_dir_all(root.path().join("var/lib/imgstream")).unwrap();
            fs::write(&cfg, with_entry(old, &entry())).unwrap();
            assert!(edit(root.path(), Some("the disk shrank")).unwrap());
            match old {
                None => assert!(!cfg.exists()),
                Some(text) => assert_eq!(fs::read_to_string(&cfg).unwrap(), text),
            }
            let reason = fs::read_to_string(root.path().join(LAST_REFUSAL)).unwrap();
            assert_eq!(reason, "the disk shrank\n");
            assert!(!edit(root.path(), None).unwrap());
        }
    }

    #[test]
    fn a_system_without_imgstream_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        assert!(!edit(root.path(), Some("x")).unwrap());
        assert!(!root.path().join("var").exists());
        assert!(!has_entry(""));
    }
}
