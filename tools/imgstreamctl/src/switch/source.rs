// SPDX-License-Identifier: GPL-2.0-only
//! What `migrate` leaves in the source, and how it is taken out again.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use super::custom_cfg::{self, Entry};
use crate::error::{Error, Result};
use crate::stage::leave::{read, remove_entry, write_durably};

/// Directory of everything that has to survive a roll back.
pub const STATE: &str = "/var/lib/imgstream";
/// The initramfs archive of the stage.
pub const OVERLAY: &str = "/boot/imgstream-stage.img";
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
    let copy = Path::new(STATE).join("imgstreamctl");
    if own != copy {
        fs::copy(&own, &copy).map_err(Error::io("writing", &copy))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&copy, mode).map_err(Error::io("writing", &copy))?;
    }
    write_durably(Path::new(UNIT), UNIT_TEXT)?;
    let wanted = Path::new(WANTED);
    if let Some(directory) = wanted.parent() {
        fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
    }
    remove_file(wanted)?;
    symlink(UNIT, wanted).map_err(Error::io("writing", wanted))
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
    remove_entry(&custom_cfg_path())?;
    rustix::fs::sync();
    Ok(())
}

/// Takes everything out, the entry first. The reason of a refusal stays.
pub fn remove() -> Result<()> {
    disarm()?;
    for file in [OVERLAY, WANTED, UNIT] {
        remove_file(Path::new(file))?;
    }
    for name in ["imgstreamctl", "payload"] {
        remove_file(&Path::new(STATE).join(name))?;
    }
    // Fails while last-refusal is in it, which is wanted.
    let _ = fs::remove_dir(STATE);
    rustix::fs::sync();
    Ok(())
}

fn custom_cfg_path() -> PathBuf {
    Path::new(GRUB).join("custom.cfg")
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}
