// SPDX-License-Identifier: GPL-2.0-only
//! An ext2, ext3 or ext4 file system inside an image or disk, read through the
//! programs of e2fsprogs. Nothing here writes.

mod debugfs;
mod facts;
mod layout;
mod path;

use std::path::{Path, PathBuf};

pub use debugfs::{DirEntry, FileKind, Inode};
pub use facts::Facts;
pub use layout::Layout;
pub use path::Walk;

use crate::disk::{Disk, BLOCK_BYTES};
use crate::error::{Error, Result};
use crate::program;
use crate::refusal::Refusal;

/// A file system.
#[derive(Debug, Clone)]
pub struct Ext4 {
    /// How e2fsprogs name it: `path?offset=N`.
    name: String,
    path: PathBuf,
    start_bytes: u64,
    facts: Facts,
}

impl Ext4 {
    /// Reads the superblock of the file system that starts at `start_bytes`.
    pub fn open(disk: &Disk, start_bytes: u64) -> Result<Ext4> {
        let path = disk.path().to_path_buf();
        Ext4::named(path, disk.e2fs_name(start_bytes), start_bytes)
    }

    /// The same through the partition's own device.
    pub fn open_device(device: &Path, start_bytes: u64) -> Result<Ext4> {
        let name = device.display().to_string();
        Ext4::named(device.to_path_buf(), name, start_bytes)
    }

    fn named(path: PathBuf, name: String, start_bytes: u64) -> Result<Ext4> {
        // Not dumpe2fs: that of e2fsprogs 1.47.2 takes the name for a tag, as it holds a '='.
        let asked = ["-R", "show_super_stats -h", &name];
        let said = program::text("debugfs", debugfs::debugfs(&asked)?)?;
        Ok(Ext4 {
            facts: Facts::parse(&said)?,
            path,
            name,
            start_bytes,
        })
    }

    /// How messages and e2fsprogs name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its superblock says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where it starts on its disk.
    pub fn start_bytes(&self) -> u64 {
        self.start_bytes
    }

    /// Where on the disk its block `block` stands.
    pub fn disk_bytes(&self, block: u64) -> u64 {
        self.start_bytes
            .saturating_add(block.saturating_mul(self.facts.block_bytes))
    }

    /// The start of a file, as much as holds the header of swap space.
    pub fn swap_head(&self, disk: &Disk, number: u32) -> Result<Vec<u8>> {
        let block_bytes = self.facts.block_bytes;
        let mut head = Vec::new();
        for logical in 0..BLOCK_BYTES.div_ceil(block_bytes) {
            let block = self.map_block(number, logical)?;
            let len = usize::try_from(block_bytes).unwrap_or(BLOCK_BYTES as usize);
            head.extend(disk.read_up_to(self.disk_bytes(block), len)?);
        }
        Ok(head)
    }

    /// Where its structures are, and which blocks are free.
    pub fn layout(&self) -> Result<Layout> {
        if !self.name.contains('?') {
            return groups(&self.name);
        }
        // A sparse copy of the structures alone, whose name dumpe2fs
        // understands (see named()).
        let copy = tempfile::NamedTempFile::new()
            .map_err(Error::io("making a file in", &std::env::temp_dir()))?;
        let (start, path) = (self.start_bytes.to_string(), self.path.to_string_lossy());
        let copied = copy.path().to_string_lossy();
        let output = program::e2fs("e2image", &["-r", "-o", &start, &path, &copied])?;
        program::text("e2image", output)?;
        groups(&copied)
    }

    /// The smallest size in bytes that `resize2fs` believes it can reach.
    pub fn minimum_bytes(&self) -> Result<u64> {
        const KEY: &str = "Estimated minimum size of the filesystem:";
        let output = program::e2fs("resize2fs", &["-P", &self.name])?;
        let said = program::text("resize2fs", output)?;
        let blocks: u64 = facts::field(&said, KEY)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| program::Error::Answer {
                program: "resize2fs",
                asked: "-P".into(),
                said: said.clone(),
            })?;
        Ok(blocks.saturating_mul(self.facts.block_bytes))
    }

    /// Refuses a file system in which errors were recorded; it may be mounted.
    pub fn refuse_errors(&self) -> Result<(), Refusal> {
        if !self.facts.has_errors {
            return Ok(());
        }
        Err(self.has_errors("they are recorded in its superblock".into()))
    }

    /// Refuses a file system that is not clean according to its superblock.
    /// Before the journal is replayed its bitmaps may be out of date.
    pub fn refuse_unclean(&self) -> Result<(), Refusal> {
        let what = if self.facts.needs_recovery {
            "its journal has not been replayed"
        } else if !self.facts.clean {
            "its superblock says so"
        } else {
            return Ok(());
        };
        Err(self.has_errors(what.into()))
    }

    /// Lets `e2fsck -fn` look at every structure, and refuses errors.
    pub fn check(&self) -> Result<()> {
        self.refuse_unclean()?;
        let output = program::e2fs("e2fsck", &["-fn", &self.name])?;
        match output.status.code() {
            Some(0) => Ok(()),
            // 4: errors left. Anything else is no judgement on the file system.
            Some(4) => Err(self.has_errors(first_complaint(&output.stdout)).into()),
            _ => Err(program::failed("e2fsck", &output).into()),
        }
    }

    fn has_errors(&self, what: String) -> Refusal {
        Refusal::FilesystemErrors {
            place: self.name.clone(),
            what,
        }
    }
}

/// What dumpe2fs says about the block groups.
fn groups(name: &str) -> Result<Layout> {
    let said = program::text("dumpe2fs", program::e2fs("dumpe2fs", &[name])?)?;
    Ok(Layout::parse(&said)?)
}

/// The first line of e2fsck that is neither a heading nor a repair question.
fn first_complaint(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("Pass "))
        .unwrap_or("e2fsck found errors")
        .to_string()
}
