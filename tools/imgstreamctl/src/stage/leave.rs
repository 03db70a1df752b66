// SPDX-License-Identifier: GPL-2.0-only
//! The way from the stage back into the source: the stage's entry in the
//! source's `custom.cfg`. The only time that the stage mounts anything: before
//! it changes something, and when what has to be identical before and after a
//! roll back has been compared.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use super::{partitions, Report};
use crate::error::{Error, Result};
use crate::program;
use crate::switch::custom_cfg;
use crate::sys;

const MOUNT_POINT: &str = "/run/imgstream/source";
/// Where the boot directory's files are, in the root or in a separate /boot.
const CUSTOM_CFG: [&str; 2] = ["boot/grub/custom.cfg", "grub/custom.cfg"];
/// What tells the running source why nothing happened.
const LAST_REFUSAL: &str = "var/lib/imgstream/last-refusal";
/// Where ext2, ext3 and ext4 have their magic number.
const EXT_MAGIC: (u64, [u8; 2]) = (1024 + 0x38, [0x53, 0xef]);

/// The boot entry that makes the next boot the stage's.
pub trait WayBack {
    /// Whether the entry is there; an error if that cannot be found out.
    fn stands(&mut self) -> Result<bool>;
    /// Takes it out, durably, and says in the source why, if there is a
    /// reason. After an error the next boot may be the stage's again.
    fn leave(&mut self, reason: Option<&str>, report: &mut Report) -> Result<()>;
}

/// The entry in a file system of this disk.
pub struct OnDisk<'a>(pub &'a Path);

impl WayBack for OnDisk<'_> {
    fn stands(&mut self) -> Result<bool> {
        let found = look(self.0, MountFlags::RDONLY, &mut |root| has_entry_in(root))?;
        Ok(found.is_some())
    }

    fn leave(&mut self, reason: Option<&str>, report: &mut Report) -> Result<()> {
        let found = look(self.0, MountFlags::empty(), &mut |root| edit(root, reason))?;
        let Some(partition) = found else {
            return Err(Error::Other(format!(
                "no file system of {} has a boot entry of the stage",
                self.0.display()
            )));
        };
        report.line(&format!(
            "the boot entry on {} is gone",
            partition.display()
        ));
        Ok(())
    }
}

/// Mounts one ext4 file system of the disk after the other. The one for which
/// `what` said yes; if it was none, why one could not be asked. An image of a
/// disk cannot be mounted here, and a kernel may lack what a file system needs.
fn look(
    disk: &Path,
    flags: MountFlags,
    what: &mut dyn FnMut(&Path) -> Result<bool>,
) -> Result<Option<PathBuf>> {
    if disk.is_file() {
        let text = format!("{} is a file: what is in it is not mounted", disk.display());
        return Err(Error::Other(text));
    }
    let _ = program::run("modprobe", "kmod", &["ext4"]);
    let (mut found, mut failed) = (None, None);
    for partition in partitions::current(disk)? {
        let is_it = match is_ext(&partition) {
            Ok(true) => mounted(&partition, flags, what),
            other => other,
        };
        match is_it {
            Ok(true) => found = Some(partition),
            Ok(false) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match (found, failed) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

/// Looks at what is on the disk: of a partition that somebody has open the
/// kernel may have kept what stood there before the disk was written to.
fn is_ext(partition: &Path) -> Result<bool> {
    let file = File::open(partition).map_err(Error::io("opening", partition))?;
    sys::drop_page_cache(&file).map_err(Error::io("reading", partition))?;
    let (at, magic) = EXT_MAGIC;
    let mut found = [0; 2];
    Ok(file.read_exact_at(&mut found, at).is_ok() && found == magic)
}

fn mounted(
    partition: &Path,
    flags: MountFlags,
    what: &mut dyn FnMut(&Path) -> Result<bool>,
) -> Result<bool> {
    let point = Path::new(MOUNT_POINT);
    fs::create_dir_all(point).map_err(Error::io("making", point))?;
    let flags = flags | MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
    mount(partition, point, "ext4", flags, None)
        .map_err(|e| Error::io("mounting", partition)(e.into()))?;
    let done = what(point);
    let unmounted = unmount(point, UnmountFlags::empty());
    let done = done?;
    unmounted.map_err(|e| Error::io("unmounting", partition)(e.into()))?;
    Ok(done)
}

/// The text of one `custom.cfg`; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(Error::io("reading", path)(e)),
    }
}

fn has_entry_in(root: &Path) -> Result<bool> {
    for name in CUSTOM_CFG {
        if read(&root.join(name))?.is_some_and(|text| custom_cfg::has_entry(&text)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there was an entry. It goes first; for the reason there may be no
/// room, and the console has said it.
fn edit(root: &Path, reason: Option<&str>) -> Result<bool> {
    let mut found = false;
    for name in CUSTOM_CFG {
        found |= remove_entry(&root.join(name))?;
    }
    let path = root.join(LAST_REFUSAL);
    if let (Some(reason), true) = (reason, path.parent().is_some_and(Path::exists)) {
        let _ = write_durably(&path, &format!("{reason}\n"));
    }
    Ok(found)
}

/// Takes the stage's entry out of one `custom.cfg`; whether it was there.
pub fn remove_entry(path: &Path) -> Result<bool> {
    let Some(text) = read(path)? else {
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
    fn no_entry_stays_where_there_are_two_and_no_room_for_the_reason() {
        let root = tempfile::tempdir().unwrap();
        for name in CUSTOM_CFG {
            let cfg = root.path().join(name);
            fs::create_dir_all(cfg.parent().unwrap()).unwrap();
            fs::write(&cfg, with_entry(None, &entry())).unwrap();
        }
        // A directory stands where the reason would go.
        fs::create_dir_all(root.path().join(LAST_REFUSAL).join("full")).unwrap();
        assert!(has_entry_in(root.path()).unwrap());
        assert!(edit(root.path(), Some("why")).unwrap());
        assert!(!has_entry_in(root.path()).unwrap());
    }

    #[test]
    fn a_system_without_imgstream_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        assert!(!edit(root.path(), Some("x")).unwrap());
        assert!(!root.path().join("var").exists());
        assert!(!has_entry(""));
    }
}
