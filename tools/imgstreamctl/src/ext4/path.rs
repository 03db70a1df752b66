// SPDX-License-Identifier: GPL-2.0-only
//! Walking paths as a boot loader does, and remembering every inode on the way.

use std::collections::{btree_map, BTreeMap, VecDeque};

use super::{DirEntry, Ext4, FileKind, Inode};
use crate::error::Result;

const ROOT: u32 = 2;
/// GRUB follows eight; more is a loop.
const MAX_LINKS: u32 = 8;

/// A walk over a file system: what was visited stays known.
#[derive(Debug)]
pub struct Walk<'a> {
    fs: &'a Ext4,
    visited: BTreeMap<u32, Inode>,
    listed: BTreeMap<u32, Vec<DirEntry>>,
}

impl<'a> Walk<'a> {
    /// Starts at the root directory.
    pub fn new(fs: &'a Ext4) -> Walk<'a> {
        Walk {
            fs,
            visited: BTreeMap::new(),
            listed: BTreeMap::new(),
        }
    }

    /// The file system.
    pub fn fs(&self) -> &'a Ext4 {
        self.fs
    }

    /// Every inode that was looked at, links and directories included.
    pub fn visited(&self) -> impl Iterator<Item = &Inode> {
        self.visited.values()
    }

    /// Goes to `path`, following links; `None` when nothing is there.
    pub fn find(&mut self, path: &str) -> Result<Option<Inode>> {
        let mut todo: VecDeque<String> = components(path);
        let mut trail = vec![ROOT];
        let mut inode = self.visit(ROOT)?;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                trail.truncate(trail.len().saturating_sub(1).max(1));
                inode = self.visit(trail.last().copied().unwrap_or(ROOT))?;
                continue;
            }
            let Some(child) = self.child(&inode, &name)? else {
                return Ok(None);
            };
            inode = self.visit(child)?;
            let Some(target) = inode.target.clone() else {
                trail.push(child);
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Ok(None);
            }
            if target.starts_with('/') {
                trail.truncate(1);
            }
            inode = self.visit(trail.last().copied().unwrap_or(ROOT))?;
            for name in components(&target).into_iter().rev() {
                todo.push_front(name);
            }
        }
        Ok(Some(inode))
    }

    /// Visits everything below directory `number`.
    pub fn tree(&mut self, number: u32) -> Result<()> {
        let mut directories = vec![number];
        while let Some(directory) = directories.pop() {
            self.visit(directory)?;
            let entries = self.entries(directory)?.to_vec();
            let numbers: Vec<u32> = entries.iter().map(|e| e.inode).collect();
            self.visit_all(&numbers)?;
            directories.extend(
                entries
                    .iter()
                    .filter(|e| e.kind == FileKind::Directory)
                    .map(|e| e.inode),
            );
        }
        Ok(())
    }

    /// The names in directory `number`.
    pub fn entries(&mut self, number: u32) -> Result<&[DirEntry]> {
        Ok(match self.listed.entry(number) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(place) => place.insert(self.fs.list(number)?),
        })
    }

    fn child(&mut self, directory: &Inode, name: &str) -> Result<Option<u32>> {
        if directory.kind != FileKind::Directory {
            return Ok(None);
        }
        let entries = self.entries(directory.number)?;
        Ok(entries.iter().find(|e| e.name == name).map(|e| e.inode))
    }

    fn visit(&mut self, number: u32) -> Result<Inode> {
        if let Some(inode) = self.visited.get(&number) {
            return Ok(inode.clone());
        }
        self.visit_all(&[number])?;
        Ok(self.visited[&number].clone())
    }

    fn visit_all(&mut self, numbers: &[u32]) -> Result<()> {
        let mut new: Vec<u32> = numbers
            .iter()
            .copied()
            .filter(|n| !self.visited.contains_key(n))
            .collect();
        new.sort_unstable();
        new.dedup();
        for inode in self.fs.inodes(&new)? {
            self.visited.insert(inode.number, inode);
        }
        Ok(())
    }
}

/// The names in `path`; `.` and empty ones mean nothing.
fn components(path: &str) -> VecDeque<String> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .map(str::to_string)
        .collect()
}
