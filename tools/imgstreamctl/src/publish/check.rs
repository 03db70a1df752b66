// SPDX-License-Identifier: GPL-2.0-only
//! May this image be published: file systems without errors, imgstream and a
//! NIC driver in the initramfs.

use super::manifest;
use crate::bootregion::BootSetup;
use crate::error::Result;
use crate::ext4::{Ext4, Walk};
use crate::grub::Entry;
use crate::image::Image;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::refusal::Refusal;
use crate::signature::{self, Content};

/// What was found in the image's initramfs archives.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those that hold imgstream; the first belongs to the default entry.
    pub initramfs: Vec<manifest::Initramfs>,
    /// The default kernel's machine.
    pub machine: Option<&'static str>,
    /// Entries that will not start under imgstream, as sentences.
    pub warnings: Vec<String>,
}

/// Refuses an image whose file systems have errors.
pub fn filesystems(image: &Image) -> Result<()> {
    for (_, fs) in image.filesystems() {
        fs.check()?;
        refuse_hibernated_files(image, fs)?;
    }
    Ok(())
}

/// Hibernation into a swap file: the places where distributions put one.
fn refuse_hibernated_files(image: &Image, fs: &Ext4) -> Result<()> {
    let mut walk = Walk::new(fs);
    for path in ["/swapfile", "/swap.img", "/swap/swapfile"] {
        let Some(inode) = walk.find(path)? else {
            continue;
        };
        let head = fs.swap_head(&image.disk, inode.number)?;
        if signature::of_head(&head) == Content::Hibernated {
            let place = path.to_string();
            return Err(Refusal::Hibernated { place }.into());
        }
    }
    Ok(())
}

/// Looks into the initramfs of every entry. The first entry, which GRUB starts
/// by default, has to hold imgstream and a NIC driver; others are warned of.
pub fn initramfs(setup: &BootSetup, nic_driver: Option<&str>) -> Result<Found> {
    let mut found = Found::default();
    let mut walk = Walk::new(&setup.boot);
    for (i, entry) in setup.closure.entries.iter().enumerate() {
        match check_entry(&mut walk, entry, nic_driver) {
            Ok((kernel, initramfs)) => {
                if i == 0 {
                    found.machine = kernel.map(|k| k.machine);
                }
                found.initramfs.push(initramfs);
            }
            Err(error) if i == 0 => return Err(error),
            Err(error) => found.warnings.push(format!(
                "the entry with {} will not start: {error}",
                entry.kernel
            )),
        }
    }
    Ok(found)
}

fn check_entry(
    walk: &mut Walk<'_>,
    entry: &Entry,
    nic_driver: Option<&str>,
) -> Result<(Option<Kernel>, manifest::Initramfs)> {
    let kernel = read_kernel(walk, entry)?;
    let path = entry.initrds.last().cloned().unwrap_or_default();
    let mut contents = Initramfs::default();
    for initrd in &entry.initrds {
        let bytes = read_file(walk, initrd)?;
        contents.merge(Initramfs::read(initrd, &bytes)?);
    }
    if let Some(what) = contents.lacks(kernel.as_ref().map(|k| k.release.as_str())) {
        return Err(Refusal::ImgstreamMissing { initrd: path, what }.into());
    }
    let nic_drivers = contents.nic_drivers();
    refuse_nic(&path, &nic_drivers, nic_driver)?;
    let initramfs = manifest::Initramfs {
        path,
        kernels: contents.imgstream_kernels(),
        nic_drivers,
    };
    Ok((kernel, initramfs))
}

fn refuse_nic(initrd: &str, found: &[String], wanted: Option<&str>) -> Result<(), Refusal> {
    let fine = match wanted {
        Some(name) => found.contains(&name.replace('-', "_")),
        None => !found.is_empty(),
    };
    if fine {
        return Ok(());
    }
    Err(Refusal::NicDriverMissing {
        initrd: initrd.to_string(),
        wanted: wanted.unwrap_or("any").to_string(),
    })
}

fn read_kernel(walk: &mut Walk<'_>, entry: &Entry) -> Result<Option<Kernel>> {
    Ok(Kernel::read(&read_file(walk, &entry.kernel)?))
}

fn read_file(walk: &mut Walk<'_>, path: &str) -> Result<Vec<u8>> {
    match walk.find(path)? {
        Some(inode) => walk.fs().content(inode.number),
        None => Err(Refusal::BootSetup {
            place: "the image".into(),
            what: format!("grub.cfg names {path}, which is not there"),
        }
        .into()),
    }
}
