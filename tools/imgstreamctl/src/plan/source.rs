// SPDX-License-Identifier: GPL-2.0-only
//! What is found out about the source's disk, without writing to it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::blockdev;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::ext4::{Ext4, Facts};
use crate::grub;
use crate::image::{Held, Image};
use crate::in_use;
use crate::medium::DiskMedium;
use crate::ondisk;
use crate::refusal::Refusal;
use crate::table::{Kind, Partition, Role};

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
    /// The driver of the interface with the default route, when live.
    pub nic_driver: Option<String>,
}

impl Source {
    /// Looks at `disk`, or at the disk of the running system.
    pub fn inspect(disk: Option<&Path>) -> Result<Source> {
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
        let real = fs::canonicalize(&path).map_err(Error::io("opening", &path))?;
        let live = running.is_some_and(|running| running == real);
        if live {
            Source::of(&real, root_device.as_deref())
        } else {
            in_use::refuse(&real)?;
            Source::of(&real, None)
        }
    }

    /// `mounted` is the device of the running system's root.
    fn of(path: &Path, mounted: Option<&Path>) -> Result<Source> {
        let disk = Disk::open(path)?;
        refuse_alive(path)?;
        let image = Image::read(disk)?;
        refuse_boot_setup(&image)?;
        let root = find_root(&image, mounted)?;
        let partition = root.partition.clone();
        let fs = match mounted {
            // The page caches of disk and partition differ while it is mounted.
            Some(device) => Ext4::open_device(device, partition.start_bytes)?,
            None => root.fs.clone().ok_or_else(|| kind_refusal(&image, root))?,
        };
        if mounted.is_some() {
            rustix::fs::sync();
            fs.refuse_errors()?;
        } else {
            fs.check()?;
        }
        Ok(Source {
            disk: path.to_path_buf(),
            disk_bytes: image.disk.size_bytes(),
            logical_block_bytes: SECTOR_BYTES as u32,
            table: image.table.kind,
            root_device: mounted.unwrap_or(path).to_path_buf(),
            live: mounted.is_some(),
            minimum_bytes: minimum(&fs)?,
            free: fs.layout()?.free,
            facts: fs.facts().clone(),
            nic_driver: mounted.and_then(|_| nic_driver()),
            root: partition,
        })
    }

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

/// The partition with the root file system; it has to be the last one.
fn find_root<'a>(image: &'a Image, mounted: Option<&Path>) -> Result<&'a Held> {
    let last = image
        .held
        .iter()
        .max_by_key(|held| held.partition.end_bytes());
    let root = match mounted {
        Some(device) => {
            let number = number_of(image.disk.path(), device);
            image
                .held
                .iter()
                .find(|held| Some(held.partition.number) == number)
        }
        None => root_of_image(image)?.or(last),
    };
    let (Some(root), Some(last)) = (root, last) else {
        return Err(Refusal::FilesystemKind {
            place: image.place(),
            found: "no root file system".into(),
        }
        .into());
    };
    if root.partition.number != last.partition.number {
        return Err(Refusal::RootNotLast {
            disk: image.place(),
            root: root.partition.number,
            last: last.partition.number,
        }
        .into());
    }
    match root.fs {
        Some(_) => Ok(root),
        None => Err(kind_refusal(image, root)),
    }
}

fn kind_refusal(image: &Image, held: &Held) -> Error {
    Refusal::FilesystemKind {
        place: format!("partition {} of {}", held.partition.number, image.place()),
        found: held.content.to_string(),
    }
    .into()
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

/// The driver of the interface that has the default route. A VLAN or bridge on
/// top of an interface has none of its own and is not judged.
fn nic_driver() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let interface = default_interface(&routes)?;
    let device = Path::new("/sys/class/net")
        .join(interface)
        .join("device/driver");
    let module = fs::canonicalize(device.join("module"));
    let driver = module.or_else(|_| fs::canonicalize(&device)).ok()?;
    Some(driver.file_name()?.to_str()?.replace('-', "_"))
}

fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let interface = words.next()?;
        (words.next()? == "00000000").then_some(interface)
    })
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

    #[test]
    fn the_default_route_names_the_interface() {
        let routes = "Iface\tDestination\tGateway\n\
                      eth0\t0002000A\t00000000\n\
                      eth1\t00000000\t0202000A\n";
        assert_eq!(default_interface(routes), Some("eth1"));
        assert_eq!(default_interface("Iface\tDestination\n"), None);
    }
}
