// SPDX-License-Identifier: GPL-2.0-only
//! The boot region: the image blocks that firmware and loader may read before
//! a driver of ours runs.

use crate::disk::SECTOR_BYTES;
use crate::error::Result;
use crate::ext4::Ext4;
use crate::grub::{self, Closure};
use crate::image::Image;
use crate::refusal::Refusal;
use crate::region::{Builder, Region};
use crate::table::{Partition, Role};

/// How an image starts.
#[derive(Clone, Debug)]
pub struct BootSetup {
    /// The boot region.
    pub region: Region,
    /// The file system with GRUB's files.
    pub boot: Ext4,
    /// Whether that is a file system of its own.
    pub separate: bool,
    /// Kernels that GRUB offers.
    pub closure: Closure,
}

/// Finds out how `image` starts; refuses what is not BIOS and GRUB.
/// `boot_partition` says which partition is meant when several have a
/// grub.cfg.
pub fn find(image: &Image, boot_partition: Option<u32>) -> Result<BootSetup> {
    let mut region = Builder::default();
    add_fixed(image, &mut region)?;
    let home = find_grub(image, boot_partition)?;
    if home.separate {
        region.add(home.partition.start_bytes, home.partition.len_bytes);
    }
    let others: Vec<Ext4> = image
        .filesystems()
        .filter(|(partition, _)| partition.number != home.partition.number)
        .map(|(_, fs)| fs.clone())
        .collect();
    let closure = grub::closure(&home.fs, home.prefix, &others, home.separate, &mut region)?;
    if closure.entries.is_empty() {
        return Err(refuse(image, "grub.cfg names no kernel"));
    }
    Ok(BootSetup {
        region: region.build(),
        boot: home.fs,
        separate: home.separate,
        closure,
    })
}

/// Everything before the first partition, the BIOS boot partition, the chain
/// of logical partitions, the sectors of GRUB's core image.
fn add_fixed(image: &Image, region: &mut Builder) -> Result<()> {
    region.add(0, image.table.first_bytes());
    for lba in &image.table.chain_lbas {
        region.add(lba.saturating_mul(SECTOR_BYTES), SECTOR_BYTES);
    }
    let bios_boot = |p: &&Partition| p.role == Role::BiosBoot;
    for partition in image.table.data().filter(bios_boot) {
        region.add(partition.start_bytes, partition.len_bytes);
    }
    match grub::core::sectors(&image.disk)? {
        Ok(core) => {
            for run in core {
                region.add(run.lba * SECTOR_BYTES, run.count * SECTOR_BYTES);
            }
            Ok(())
        }
        Err(_) if image.table.data().any(|p| p.role == Role::Esp) => Err(refuse(
            image,
            "it starts by UEFI only, which is not supported yet",
        )),
        Err(what) => Err(refuse(image, what)),
    }
}

/// A file system with a grub.cfg.
struct Home {
    partition: Partition,
    fs: Ext4,
    /// Directory of grub.cfg.
    prefix: &'static str,
    separate: bool,
}

/// Finds grub.cfg. A separate /boot wins over a directory of that name in a
/// root file system: there it is usually hidden below the mount.
fn find_grub(image: &Image, wanted: Option<u32>) -> Result<Home> {
    refuse_missing(image, wanted)?;
    for (prefix, separate) in [("/grub", true), ("/boot/grub", false)] {
        let mut found = Vec::new();
        for (partition, fs) in image.filesystems() {
            if wanted.is_none_or(|number| number == partition.number) && has_cfg(fs, prefix)? {
                found.push(Home {
                    partition: partition.clone(),
                    fs: fs.clone(),
                    prefix,
                    separate,
                });
            }
        }
        if found.len() > 1 {
            let numbers: Vec<String> = found
                .iter()
                .map(|h| h.partition.number.to_string())
                .collect();
            let what = format!(
                "partitions {} have a grub.cfg each; name one with --boot-partition",
                numbers.join(" and ")
            );
            return Err(refuse(image, &what));
        }
        if let Some(home) = found.pop() {
            return Ok(home);
        }
    }
    match wanted {
        Some(number) => {
            let what = format!("its partition {number} is no ext4 file system with a grub.cfg");
            Err(refuse(image, &what))
        }
        None => Err(refuse(image, "no ext4 file system in it has a grub.cfg")),
    }
}

/// A partition that is asked for is there.
fn refuse_missing(image: &Image, wanted: Option<u32>) -> Result<(), Refusal> {
    let numbers: Vec<u32> = image.table.data().map(|p| p.number).collect();
    match wanted {
        Some(number) if !numbers.contains(&number) => {
            let there: Vec<String> = numbers.iter().map(u32::to_string).collect();
            Err(Refusal::Usage(format!(
                "--boot-partition {number}: {} has no such partition, only {}",
                image.place(),
                there.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

fn has_cfg(fs: &Ext4, prefix: &str) -> Result<bool> {
    let mut walk = crate::ext4::Walk::new(fs);
    Ok(walk.find(&format!("{prefix}/grub.cfg"))?.is_some())
}

fn refuse(image: &Image, what: &str) -> crate::Error {
    Refusal::BootSetup {
        place: image.place(),
        what: what.to_string(),
    }
    .into()
}
