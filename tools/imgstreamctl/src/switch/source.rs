// SPDX-License-Identifier: GPL-2.0-only
//! What `migrate` leaves in the source, and how it is taken out again.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{symlink, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::custom_cfg::{self, Entry};
use crate::error::{Error, Result};
use crate::stage::leave::{read, remove_entry, write_durably};

/// Directory of everything that has to survive a roll back.
pub const STATE: &str = "/var/lib/imgstream";
/// The initramfs archive of the stage.
pub const OVERLAY: &str = "/boot/imgstream-stage.img";
/// What the archive is made from.
pub(super) const PAYLOAD: &str = "/var/lib/imgstream/payload";
/// How many blocks the root file system has before it is shrunk.
const BLOCKS: &str = "/var/lib/imgstream/filesystem-blocks";
const PROGRAM: &str = "/var/lib/imgstream/imgstreamctl";
pub(super) const GRUB: &str = "/boot/grub";
const UNIT: &str = "/etc/systemd/system/imgstream-source.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/imgstream-source.service";
const UNIT_TEXT: &str = include_str!("../../../../initramfs/stage/imgstream-source.service");

/// Whether the next boot is the stage's.
pub fn is_armed() -> Result<bool> {
    is_armed_in(Path::new(GRUB))
}

/// As [`is_armed`], with GRUB's directory somewhere else.
pub(super) fn is_armed_in(grub: &Path) -> Result<bool> {
    Ok(read(&grub.join("custom.cfg"))?.is_some_and(|text| custom_cfg::has_entry(&text)))
}

/// Whether anything is left of what `migrate` installs.
pub fn is_installed() -> bool {
    [OVERLAY, PAYLOAD, BLOCKS, PROGRAM, WANTED, UNIT]
        .iter()
        .any(|file| Path::new(file).symlink_metadata().is_ok())
}

/// Why the stage refused, if it did.
pub fn last_refusal() -> Option<String> {
    let text = fs::read_to_string(Path::new(STATE).join("last-refusal")).ok()?;
    Some(text.trim().to_string())
}

/// Copies this program and installs the unit that cleans up after a roll back.
pub fn install_unit() -> Result<()> {
    fs::create_dir_all(STATE).map_err(Error::io("making", Path::new(STATE)))?;
    let old = Path::new(STATE).join("last-refusal");
    remove_file(&old)?;
    let own = std::env::current_exe().map_err(Error::io("finding", Path::new("imgstreamctl")))?;
    let copy = Path::new(PROGRAM);
    if own != copy {
        fs::copy(&own, copy).map_err(Error::io("writing", copy))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(copy, mode).map_err(Error::io("writing", copy))?;
    }
    write_durably(Path::new(UNIT), UNIT_TEXT)?;
    let wanted = Path::new(WANTED);
    if let Some(directory) = wanted.parent() {
        fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
    }
    remove_file(wanted)?;
    symlink(UNIT, wanted).map_err(Error::io("writing", wanted))
}

/// Records the size that the root file system gets back. Durable with [`arm`].
pub fn record_blocks(blocks: u64) -> Result<()> {
    let path = Path::new(BLOCKS);
    fs::write(path, format!("{blocks}\n")).map_err(Error::io("writing", path))
}

/// The size that was recorded. `None`: no migration was ever about to begin
/// (of a record that is not durable a cut leaves an empty file), or the file
/// system has its size again and a cut left the rest.
pub fn recorded_blocks() -> Result<Option<u64>> {
    let text = read(Path::new(BLOCKS))?.unwrap_or_default();
    blocks_in(&text)
}

fn blocks_in(text: &str) -> Result<Option<u64>> {
    match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::Other(format!("{BLOCKS} is damaged: it says \"{text}\""))),
    }
}

/// Makes the stage the default of the loader: from here on the next boot is
/// its. Durable when it returns.
pub fn arm(entry: &Entry) -> Result<()> {
    rustix::fs::sync();
    let path = custom_cfg_path();
    let old = read(&path)?;
    write_durably(&path, &custom_cfg::with_entry(old.as_deref(), entry))?;
    rustix::fs::sync();
    Ok(())
}

/// Takes the entry out: the next boot is this system's. Durable when it returns.
pub fn disarm() -> Result<()> {
    disarm_in(Path::new("/"))
}

fn disarm_in(root: &Path) -> Result<()> {
    remove_entry(&below(root, GRUB).join("custom.cfg"))?;
    rustix::fs::sync();
    Ok(())
}

/// Takes everything out, the entry first. The reason of a refusal stays. May be
/// cut and done again: the unit, which does that at the next boot, goes last.
pub fn remove() -> Result<()> {
    remove_in(Path::new("/"), &mut remove_file)
}

/// The order is what counts. While the archive or the program is there, the
/// unit lets the program do all of it again; then it has only itself and the
/// directory to remove, and needs no program (`imgstream-source.service`). Of
/// the last two a cut may leave the unit where nothing starts it.
fn remove_in(root: &Path, remove: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    disarm_in(root)?;
    for file in [PAYLOAD, OVERLAY] {
        overwrite(&below(root, file))?;
    }
    for file in [PAYLOAD, OVERLAY, BLOCKS, PROGRAM] {
        remove(&below(root, file))?;
    }
    // Fails while last-refusal is in it, which is wanted.
    let _ = fs::remove_dir(below(root, STATE));
    // /boot and /var may be file systems of their own: nothing may be there again when the unit is not.
    rustix::fs::sync();
    for file in [WANTED, UNIT] {
        remove(&below(root, file))?;
    }
    rustix::fs::sync();
    Ok(())
}

fn below(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

fn custom_cfg_path() -> PathBuf {
    Path::new(GRUB).join("custom.cfg")
}

/// Makes a file in which secrets may be written: empty, and for root alone.
pub(super) fn create_secret(path: &Path) -> Result<File> {
    let io = |e| Error::io("writing", path)(e);
    // The mode counts only for a file that was not there.
    remove_secret(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(io)
}

/// Removes a file in which secrets may be, and what was in it.
pub(super) fn remove_secret(path: &Path) -> Result<()> {
    overwrite(path)?;
    remove_file(path)
}

/// Overwrites a file with zeroes where it stands, durably. Nothing is there: nothing to do.
fn overwrite(path: &Path) -> Result<()> {
    let io = |e| Error::io("overwriting", path)(e);
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io)?,
    };
    let len = file.metadata().map_err(io)?.len();
    std::io::copy(&mut std::io::repeat(0).take(len), &mut file).map_err(io)?;
    file.sync_all().map_err(io)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A source in which everything is installed and the next boot is the stage's.
    fn armed() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let entry = Entry {
            boot_uuid: "x".into(),
            kernel: "/vmlinuz".into(),
            initrds: Vec::new(),
            cmdline: String::new(),
        };
        let custom_cfg = custom_cfg::with_entry(None, &entry);
        // The program says that it was called, and removes nothing.
        let program = "#!/bin/sh\n[ \"$*\" = finish-rollback ] && : >\"$0-ran\"\n";
        for (path, text) in [
            ("/boot/grub/custom.cfg", custom_cfg.as_str()),
            (OVERLAY, "archive"),
            (PAYLOAD, "payload"),
            (BLOCKS, "4096\n"),
            (PROGRAM, program),
            (UNIT, UNIT_TEXT),
        ] {
            let path = below(root.path(), path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(below(root.path(), PROGRAM), executable).unwrap();
        let wanted = below(root.path(), WANTED);
        fs::create_dir_all(wanted.parent().unwrap()).unwrap();
        symlink(UNIT, wanted).unwrap();
        root
    }

    /// What systemd does at a boot of the source. The program would be ours.
    fn boot(root: &Path) {
        let is_there = |path| below(root, path).symlink_metadata().is_ok();
        if !(is_there(WANTED) && is_there(UNIT)) {
            return;
        }
        let unit = UNIT_TEXT.replace("\\\n", " ");
        let (_, rest) = unit.split_once("ExecStart=/bin/sh -c '").unwrap();
        let (script, _) = rest.split_once("'\n").unwrap();
        let mut script = script.to_string();
        for top in ["/boot/", "/var/", "/etc/"] {
            script = script.replace(top, &format!("@{top}"));
        }
        let script = script.replace('@', &root.display().to_string());
        let status = Command::new("sh").args(["-ec", &script]).status().unwrap();
        assert!(status.success(), "{script}");
        let ran = below(root, PROGRAM).with_file_name("imgstreamctl-ran");
        if ran.exists() {
            fs::remove_file(ran).unwrap();
            remove_in(root, &mut remove_file).unwrap();
        }
    }

    fn left(root: &Path) -> Vec<&'static str> {
        [OVERLAY, STATE, PAYLOAD, BLOCKS, PROGRAM, WANTED, UNIT]
            .into_iter()
            .filter(|path| below(root, path).symlink_metadata().is_ok())
            .collect()
    }

    #[test]
    fn what_a_cut_leaves_is_removed_at_the_next_boot() {
        for cut in 0.. {
            let root = armed();
            let mut steps = 0;
            let whole = remove_in(root.path(), &mut |path| {
                steps += 1;
                match steps > cut {
                    true => Err(Error::Other("power cut".into())),
                    false => remove_file(path),
                }
            })
            .is_ok();
            assert!(!is_armed_in(&below(root.path(), GRUB)).unwrap());
            let nearly = left(root.path()) == [UNIT];
            boot(root.path());
            let rest: &[&str] = if nearly { &[UNIT] } else { &[] };
            assert_eq!(left(root.path()), rest, "cut after {cut} steps");
            remove_in(root.path(), &mut remove_file).unwrap();
            assert!(left(root.path()).is_empty(), "cut after {cut} steps");
            if whole {
                assert_eq!(cut, 6);
                return;
            }
        }
    }

    #[test]
    fn what_may_hold_secrets_is_overwritten_where_it_stands() {
        let root = armed();
        let links = [OVERLAY, PAYLOAD].map(|file| {
            let link = root.path().join(file.replace('/', "-"));
            fs::hard_link(below(root.path(), file), &link).unwrap();
            (link, fs::read(below(root.path(), file)).unwrap().len())
        });
        remove_in(root.path(), &mut remove_file).unwrap();
        for (link, len) in links {
            assert_eq!(fs::read(link).unwrap(), vec![0; len]);
        }
    }

    #[test]
    fn what_may_hold_secrets_is_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        fs::write(&path, "old, and everybody may read it").unwrap();
        let file = create_secret(&path).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(
            (found.permissions().mode() & 0o777, found.len()),
            (0o600, 0)
        );
    }

    #[test]
    fn the_reason_of_a_refusal_stays() {
        let root = armed();
        let reason = below(root.path(), STATE).join("last-refusal");
        fs::write(&reason, "why\n").unwrap();
        // All is gone but the unit, the link to it, and the directory with the reason.
        for file in [OVERLAY, PAYLOAD, BLOCKS, PROGRAM] {
            fs::remove_file(below(root.path(), file)).unwrap();
        }
        boot(root.path());
        assert_eq!(left(root.path()), [STATE]);
        assert!(reason.exists());
    }

    #[test]
    fn a_unit_whose_program_is_lost_does_not_forget_the_rest() {
        let root = armed();
        fs::remove_file(below(root.path(), PROGRAM)).unwrap();
        let booted = std::panic::catch_unwind(|| boot(root.path()));
        assert!(booted.is_err());
        let all_others = [OVERLAY, STATE, PAYLOAD, BLOCKS, WANTED, UNIT];
        assert_eq!(left(root.path()), all_others);
    }

    #[test]
    fn a_record_is_there_or_not() {
        assert_eq!(blocks_in("786432\n").unwrap(), Some(786_432));
        assert_eq!(blocks_in("").unwrap(), None);
        let error = blocks_in("78643x").unwrap_err().to_string();
        assert!(error.contains("filesystem-blocks is damaged"), "{error}");
    }
}
