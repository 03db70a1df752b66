// SPDX-License-Identifier: GPL-2.0-only
//! Everything in a file system that GRUB may read from it: the files that its
//! scripts name and all metadata on the way to them. GRUB reads superblock,
//! group descriptors, inode tables, directories, extent trees and data; it
//! reads neither bitmaps nor the journal.

use super::cfg::{references, Entry, References};
use crate::disk::SECTOR_BYTES;
use crate::error::Result;
use crate::ext4::{Ext4, FileKind, Walk};
use crate::region::Builder;

/// How much of a partition's start belongs to it in any case: `search` probes
/// there for other file systems, and what the source left there must not
/// answer. The highest place is btrfs' superblock at 64 KiB.
const PROBED_BYTES: u64 = 128 << 10;

/// What GRUB's scripts lead to.
#[derive(Clone, Debug, Default)]
pub struct Closure {
    /// Kernels in menu order.
    pub entries: Vec<Entry>,
    /// Named kernels and initramfs archives that are not there.
    pub missing: Vec<String>,
}

/// Adds to `region` what GRUB reads of `boot`, the file system with directory
/// `prefix`, and of `others`, file systems that its scripts may refer to. With
/// `whole_boot` the blocks of `boot` itself are in `region` already.
pub fn closure(
    boot: &Ext4,
    prefix: &str,
    others: &[Ext4],
    whole_boot: bool,
    region: &mut Builder,
) -> Result<Closure> {
    let mut walk = Walk::new(boot);
    let found = read_scripts(&mut walk, prefix)?;
    let mut result = Closure {
        entries: found.entries.clone(),
        missing: Vec::new(),
    };
    for path in boot_paths(&found) {
        if walk.find(path)?.is_none() {
            result.missing.push(path.to_string());
        }
    }
    find_all(&mut walk, &found.files)?;
    if let Some(directory) = walk.find(prefix)? {
        walk.tree(directory.number)?;
    }
    if !whole_boot {
        add_walk(&walk, region)?;
    }
    for other in others {
        let mut walk = Walk::new(other);
        if find_all(&mut walk, &found.files)? {
            add_walk(&walk, region)?;
        }
    }
    Ok(result)
}

/// Kernels and initramfs archives.
fn boot_paths(found: &References) -> impl Iterator<Item = &str> {
    found.entries.iter().flat_map(|entry| {
        std::iter::once(entry.kernel.as_str()).chain(entry.initrds.iter().map(String::as_str))
    })
}

/// Reads grub.cfg and every script that it reads.
fn read_scripts(walk: &mut Walk<'_>, prefix: &str) -> Result<References> {
    let mut all = References::default();
    let mut todo = vec![format!("{prefix}/grub.cfg")];
    let mut done: Vec<String> = Vec::new();
    while let Some(path) = todo.pop() {
        if done.contains(&path) {
            continue;
        }
        if let Some(file) = walk.find(&path)?.filter(|f| f.kind == FileKind::Regular) {
            let text = walk.fs().content(file.number)?;
            let found = references(&String::from_utf8_lossy(&text), prefix);
            all.entries.extend(found.entries);
            all.files.extend(found.files);
            todo.extend(found.scripts);
        }
        done.push(path);
    }
    Ok(all)
}

/// Visits the files among `paths` that are there; a theme brings its directory.
fn find_all(walk: &mut Walk<'_>, paths: &[String]) -> Result<bool> {
    let mut any = false;
    for path in paths {
        let Some(inode) = walk.find(path)? else {
            continue;
        };
        any |= inode.kind == FileKind::Regular;
        if let Some(directory) = path.strip_suffix("/theme.txt") {
            if let Some(directory) = walk.find(directory)? {
                walk.tree(directory.number)?;
            }
        }
    }
    Ok(any)
}

/// Adds the blocks of every visited inode and of what leads to them. Content
/// counts for links and directories; a regular file's content is there too,
/// for it was visited because it is named.
fn add_walk(walk: &Walk<'_>, region: &mut Builder) -> Result<()> {
    let fs = walk.fs();
    let block_bytes = fs.facts().block_bytes;
    let mut add = |block: u64, count: u64| {
        region.add(fs.disk_bytes(block), count.saturating_mul(block_bytes));
    };
    let layout = fs.layout()?;
    add(layout.superblock, 1);
    for range in &layout.descriptors {
        add(range.start, range.end - range.start);
    }
    for inode in walk.visited() {
        add(inode.table_block, 1);
        for block in &inode.blocks {
            add(*block, 1);
        }
    }
    let probed = PROBED_BYTES.min(fs.facts().size_bytes());
    region.add(fs.start_bytes(), probed.max(SECTOR_BYTES));
    Ok(())
}
