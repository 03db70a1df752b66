// SPDX-License-Identifier: GPL-2.0-only
//! What is found out about the source's disk, without writing to it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::blockdev;
use crate::disk::{not_opened, Disk, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::ext4::{Ext4, Facts};
use crate::grub;
use crate::image::{Held, Image};
use crate::in_use;
use crate::medium::DiskMedium;
use crate::ondisk;
use crate::refusal::Refusal;
use crate::table::{Kind, Partition, Role};

use super::Refusals;

/// The source's disk. Nothing in it is a guess.
#[derive(Clone, Debug)]
pub struct Source {
    /// The whole disk, for example `/dev/vda`, or an image of one.
    pub disk: PathBuf,
    /// D.
    pub disk_bytes: u64,
    /// 512.
    pub logical_block_bytes: u32,
    /// Its partition table.
    pub table: Kind,
    /// The partition with the root file system: the last one.
    pub root: Partition,
    /// Its device, for example `/dev/vda2`; the disk itself when that is a file.
    pub root_device: PathBuf,
    /// Whether the running system is on it.
    pub live: bool,
    /// What the root file system's superblock says.
    pub facts: Facts,
    /// Its free blocks, in its own blocks.
    free: Vec<Range<u64>>,
    /// The smallest size of the file system that resize2fs believes in.
    pub minimum_bytes: u64,
}

/// The disk that is meant.
#[derive(Clone, Debug)]
pub struct Which {
    /// The whole disk.
    pub disk: PathBuf,
    /// The device of the running system's root, when that is on it.
    pub mounted: Option<PathBuf>,
}

impl Which {
    /// `disk`, or the disk of the running system.
    pub fn find(disk: Option<&Path>) -> Result<Which> {
        let root_device = blockdev::device_of_mount("/");
        let running = root_device.as_deref().and_then(blockdev::disk_of);
        let path = match (disk, &running) {
            (Some(disk), _) => disk.to_path_buf(),
            (None, Some(running)) => {
                refuse_layers(root_device.as_deref().unwrap_or(running))?;
                running.clone()
            }
            (None, None) => return Err(Error::Other("which disk? name it with --disk".into())),
        };
        let disk = fs::canonicalize(&path).map_err(|error| not_opened(&path, error))?;
        let mounted = root_device.filter(|_| running.as_ref() == Some(&disk));
        Ok(Which { disk, mounted })
    }
}

/// What was found out about a disk; what is not there was refused.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// D.
    pub disk_bytes: Option<u64>,
    /// What the root file system's superblock says.
    pub facts: Option<Facts>,
    /// The smallest size of the root file system that resize2fs believes in.
    pub minimum_bytes: Option<u64>,
    /// All of it.
    pub source: Option<Source>,
}

impl Inspection {
    /// Looks at the disk, and at all of it even if something is refused.
    pub fn of(which: &Which, refusals: &mut Refusals) -> Inspection {
        let mut found = Inspection::default();
        found.source = found.look(which, refusals);
        found
    }

    fn look(&mut self, which: &Which, refusals: &mut Refusals) -> Option<Source> {
        let mounted = which.mounted.as_deref();
        if mounted.is_none() {
            refusals.take(in_use::refuse(&which.disk));
        }
        let disk = refusals.take(Disk::open(&which.disk))?;
        self.disk_bytes = Some(disk.size_bytes());
        // What else is on the disk of a living migration is not the source.
        refusals.take(refuse_alive(&which.disk))?;
        let image = refusals.take(Image::look(disk))?;
        for held in &image.held {
            refusals.take(image.refuse_container(held));
        }
        refusals.take(refuse_boot_setup(&image));
        let root = refusals.take(find_root(&image, mounted))?;
        refusals.take(refuse_not_last(&image, root));
        self.filesystem(which, &image, root, refusals)
    }

    fn filesystem(
        &mut self,
        which: &Which,
        image: &Image,
        root: &Held,
        refusals: &mut Refusals,
    ) -> Option<Source> {
        if image.refuse_container(root).is_err() {
            return None;
        }
        let mounted = which.mounted.as_deref();
        let fs = refusals.take(filesystem(image, root, mounted))?;
        self.facts = Some(fs.facts().clone());
        refusals.take(sound(&fs, mounted.is_some()))?;
        self.minimum_bytes = refusals.take(minimum(&fs));
        let layout = refusals.take(fs.layout());
        Some(Source {
            disk: which.disk.clone(),
            disk_bytes: image.disk.size_bytes(),
            logical_block_bytes: SECTOR_BYTES as u32,
            table: image.table.kind,
            root_device: mounted.unwrap_or(&which.disk).to_path_buf(),
            live: mounted.is_some(),
            minimum_bytes: self.minimum_bytes?,
            free: layout?.free,
            facts: fs.facts().clone(),
            root: root.partition.clone(),
        })
    }
}

impl Source {
    /// Used bytes of the root file system behind its first `bytes`.
    pub fn used_beyond(&self, bytes: u64) -> u64 {
        let from = bytes / self.facts.block_bytes;
        let free: u64 = self
            .free
            .iter()
            .map(|range| range.end.saturating_sub(range.start.max(from)))
            .sum();
        let all = self.facts.blocks.saturating_sub(from);
        all.saturating_sub(free)
            .saturating_mul(self.facts.block_bytes)
    }
}

/// The root file system.
fn filesystem(image: &Image, root: &Held, mounted: Option<&Path>) -> Result<Ext4> {
    match (&root.fs, mounted) {
        (None, _) => Err(Refusal::FilesystemKind {
            place: image.place_of(root),
            found: root.content.to_string(),
        }
        .into()),
        // The page caches of disk and partition differ while it is mounted.
        (Some(_), Some(device)) => Ext4::open_device(device, root.partition.start_bytes),
        (Some(fs), None) => Ok(fs.clone()),
    }
}

/// Refuses errors: all of them, or the recorded ones if it is mounted.
fn sound(fs: &Ext4, mounted: bool) -> Result<()> {
    if !mounted {
        return fs.check();
    }
    rustix::fs::sync();
    Ok(fs.refuse_errors()?)
}

/// The file system's least size, or why it has none.
fn minimum(fs: &Ext4) -> Result<u64> {
    let refuse = |what: &str| Refusal::CannotShrink {
        place: fs.name().to_string(),
        what: what.to_string(),
    };
    if fs.facts().has("stable_inodes") {
        return Err(refuse("it has the feature stable_inodes").into());
    }
    fs.minimum_bytes().map_err(|error| match error {
        Error::Program(crate::program::Error::Failed { said, .. }) => {
            let last = said.lines().last().unwrap_or_default();
            refuse(&format!("resize2fs says: {last}")).into()
        }
        other => other,
    })
}

/// Refuses a disk whose migration has not ended.
fn refuse_alive(path: &Path) -> Result<()> {
    let place = path.display().to_string();
    let mut medium = DiskMedium::open_ro(path)?;
    match ondisk::find(&mut medium, &place)? {
        Some(found) if !imgstream_engine::state::ended(found.superblock.state) => {
            Err(Refusal::MigrationAlive {
                place,
                state: found.superblock.state.name().to_string(),
            }
            .into())
        }
        _ => Ok(()),
    }
}

/// The source starts by GRUB from LBA 0: so does everything that follows.
fn refuse_boot_setup(image: &Image) -> Result<()> {
    let what = match grub::core::sectors(&image.disk)? {
        Ok(_) => return Ok(()),
        Err(_) if image.table.data().any(|p| p.role == Role::Esp) => {
            "it starts by UEFI only, which is not supported yet"
        }
        Err(what) => what,
    };
    Err(Refusal::BootSetup {
        place: image.place(),
        what: what.to_string(),
    }
    .into())
}

/// The partition with the root file system.
fn find_root<'a>(image: &'a Image, mounted: Option<&Path>) -> Result<&'a Held> {
    let found = match mounted {
        Some(device) => {
            let number = number_of(image.disk.path(), device);
            let is_it = |held: &&Held| Some(held.partition.number) == number;
            image.held.iter().find(is_it)
        }
        None => root_of_image(image)?.or(last(image)),
    };
    Ok(found.ok_or_else(|| Refusal::FilesystemKind {
        place: image.place(),
        found: "no root file system".into(),
    })?)
}

fn last(image: &Image) -> Option<&Held> {
    image
        .held
        .iter()
        .max_by_key(|held| held.partition.end_bytes())
}

/// Only the last partition can give up space at the disk's end.
fn refuse_not_last(image: &Image, root: &Held) -> Result<(), Refusal> {
    let root = root.partition.number;
    match last(image).map(|held| held.partition.number) {
        Some(last) if last != root => Err(Refusal::RootNotLast {
            disk: image.place(),
            root,
            last,
        }),
        _ => Ok(()),
    }
}

/// In an image nothing is mounted: the root file system has an fstab.
fn root_of_image(image: &Image) -> Result<Option<&Held>> {
    for held in &image.held {
        if let Some(fs) = &held.fs {
            if crate::ext4::Walk::new(fs).find("/etc/fstab")?.is_some() {
                return Ok(Some(held));
            }
        }
    }
    Ok(None)
}

fn number_of(disk: &Path, device: &Path) -> Option<u32> {
    let device = fs::canonicalize(device).ok()?;
    blockdev::partitions(disk)
        .into_iter()
        .find(|(_, path)| *path == device)
        .map(|(number, _)| number)
}

/// Refuses a root that stands on LVM, LUKS or md, by name.
fn refuse_layers(root: &Path) -> Result<()> {
    let real = fs::canonicalize(root).map_err(Error::io("examining", root))?;
    let name = real.file_name().unwrap_or_default();
    let sys = Path::new("/sys/class/block").join(name);
    Ok(layer(&sys, root.display().to_string()).map_or(Ok(()), Err)?)
}

/// What the device with this directory in sysfs is made of.
fn layer(sys: &Path, place: String) -> Option<Refusal> {
    if sys.join("md").exists() {
        return Some(Refusal::Md { place });
    }
    let uuid = fs::read_to_string(sys.join("dm/uuid")).ok()?;
    if uuid.starts_with("LVM-") {
        Some(Refusal::Lvm { place })
    } else if uuid.starts_with("CRYPT-") {
        Some(Refusal::Luks { place })
    } else {
        Some(Refusal::FilesystemKind {
            place,
            found: "a device-mapper device".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockdev::tests::sys;

    #[test]
    fn layers_are_refused_by_name() {
        let of = |files: &[(&str, &str)]| {
            let sys = sys(files);
            layer(sys.path(), "/dev/dm-0".into()).map(|refusal| refusal.exit())
        };
        use crate::exit::Exit;
        assert_eq!(of(&[("dm/uuid", "LVM-abc\n")]), Some(Exit::Lvm));
        assert_eq!(of(&[("dm/uuid", "CRYPT-LUKS2-abc\n")]), Some(Exit::Luks));
        assert_eq!(of(&[("dm/uuid", "mpath-x\n")]), Some(Exit::FilesystemKind));
        assert_eq!(of(&[("md/level", "raid1\n")]), Some(Exit::Md));
        assert_eq!(of(&[("partition", "2\n")]), None);
    }
}
