// SPDX-License-Identifier: GPL-2.0-only
//! An image or disk with a Linux system: its partitions and what they hold.

use crate::disk::{Disk, BLOCK_BYTES};
use crate::error::Result;
use crate::ext4::Ext4;
use crate::refusal::Refusal;
use crate::signature::{self, Content};
use crate::table::{Partition, Role, Table};

/// A partition and what is in it.
#[derive(Clone, Debug)]
pub struct Held {
    /// The partition.
    pub partition: Partition,
    /// What its signatures say.
    pub content: Content,
    /// The file system, when it is one of ext2, ext3, ext4.
    pub fs: Option<Ext4>,
}

/// An image or disk.
#[derive(Debug)]
pub struct Image {
    /// Where it is read from.
    pub disk: Disk,
    /// Its partition table.
    pub table: Table,
    /// Its partitions, ascending by start.
    pub held: Vec<Held>,
}

impl Image {
    /// Reads the partition table and looks into every partition. Refuses LVM,
    /// LUKS, md and hibernated systems by name.
    pub fn read(disk: Disk) -> Result<Image> {
        let image = Image::look(disk)?;
        for held in &image.held {
            image.refuse_container(held)?;
        }
        Ok(image)
    }

    /// As [`Image::read`], without a judgement on what the partitions hold.
    pub fn look(disk: Disk) -> Result<Image> {
        let table = Table::read(&disk)?;
        let mut held = Vec::new();
        for partition in table.data() {
            held.push(look_into(&disk, partition)?);
        }
        Ok(Image { disk, table, held })
    }

    /// Refuses a partition that is LVM, LUKS, md or hibernated.
    pub fn refuse_container(&self, held: &Held) -> Result<(), Refusal> {
        signature::refuse_containers(held.content, self.place_of(held))
    }

    /// How messages name a partition.
    pub fn place_of(&self, held: &Held) -> String {
        format!("partition {} of {}", held.partition.number, self.place())
    }

    /// How messages name it.
    pub fn place(&self) -> String {
        self.disk.path().display().to_string()
    }

    /// Its ext file systems.
    pub fn filesystems(&self) -> impl Iterator<Item = (&Partition, &Ext4)> {
        self.held
            .iter()
            .filter_map(|held| Some((&held.partition, held.fs.as_ref()?)))
    }

    /// What is slower than it has to be, as sentences.
    pub fn warnings(&self) -> Vec<String> {
        let misaligned = self
            .held
            .iter()
            .filter(|held| held.content != Content::Unknown)
            .filter(|held| held.partition.start_bytes % BLOCK_BYTES != 0)
            .map(|held| {
                let (number, start) = (held.partition.number, held.partition.start_bytes);
                format!(
                    "partition {number} starts at byte {start}, which is not a multiple of 4 KiB: every write in it will be slow"
                )
            });
        let small = self
            .filesystems()
            .filter(|(_, fs)| fs.facts().block_bytes < BLOCK_BYTES)
            .map(|(partition, fs)| {
                format!(
                    "the file system in partition {} has blocks of {} bytes: writes of less than 4 KiB to blocks that are not here yet wait for the network",
                    partition.number,
                    fs.facts().block_bytes
                )
            });
        misaligned.chain(small).collect()
    }
}

fn look_into(disk: &Disk, partition: &Partition) -> Result<Held> {
    let content = match partition.role {
        // Code, which no signature describes.
        Role::BiosBoot => Content::Unknown,
        _ => signature::probe(disk, partition)?,
    };
    let fs = match content {
        Content::Ext => Some(Ext4::open(disk, partition.start_bytes)?),
        _ => None,
    };
    Ok(Held {
        partition: partition.clone(),
        content,
        fs,
    })
}
