// SPDX-License-Identifier: GPL-2.0-only
//! Archives that the kernel unpacks into its initramfs (`newc` format of
//! Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The stage's initramfs is the one that the source's own generator made for
//! the running kernel, followed by one of these.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// Writes one archive.
pub struct Writer<W: Write> {
    out: W,
    written_bytes: u64,
    next_inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Writer<W> {
    /// An archive without any file in it.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written_bytes: 0,
            next_inode: 1,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a file and the directories above it. `path` has no leading slash.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::other("a file of 4 GiB does not fit into an initramfs"))?;
        self.file_from(path, mode, size, &mut &contents[..])
    }

    /// As [`Writer::file`], with exactly `size` bytes read from `contents`.
    pub fn file_from(
        &mut self,
        path: &str,
        mode: u32,
        size: u32,
        contents: &mut dyn Read,
    ) -> io::Result<()> {
        self.parents(path)?;
        self.header(path, FILE | mode, size)?;
        let copied = io::copy(&mut contents.take(size.into()), &mut self.out)?;
        if copied != u64::from(size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.written_bytes += copied;
        self.pad(4)
    }

    /// Ends the archive; the result's length is a multiple of 512.
    pub fn finish(mut self) -> io::Result<W> {
        self.header("TRAILER!!!", 0, 0)?;
        self.pad(512)?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/') {
            let directory = &path[..at];
            if self.directories.insert(directory.to_string()) {
                self.header(directory, DIRECTORY | 0o755, 0)?;
            }
        }
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, size: u32) -> io::Result<()> {
        let inode = self.next_inode;
        self.next_inode += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // Magic, then: inode, mode, user, group, links, time, size, four device numbers, name length, checksum.
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        let mut text = String::from("070701");
        for field in fields {
            text.push_str(&format!("{field:08x}"));
        }
        text.push_str(name);
        text.push('\0');
        self.out.write_all(text.as_bytes())?;
        self.written_bytes += text.len() as u64;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = self.written_bytes.next_multiple_of(to) - self.written_bytes;
        self.written_bytes += missing;
        self.out.write_all(&[0; 512][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn archive() -> Vec<u8> {
        let mut cpio = Writer::new(Vec::new());
        cpio.file("imgstream/bin/tool", 0o755, b"#!/bin/sh\n")
            .unwrap();
        cpio.file("imgstream/payload", 0o600, &[7; 5000]).unwrap();
        cpio.finish().unwrap()
    }

    #[test]
    fn length_is_aligned_for_what_follows() {
        assert_eq!(archive().len() % 512, 0);
    }

    #[test]
    fn short_contents_are_an_error() {
        let mut cpio = Writer::new(Vec::new());
        assert!(cpio.file_from("x", 0o600, 8, &mut &b"four"[..]).is_err());
    }

    #[test]
    fn cpio_unpacks_it() {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new("cpio")
            .args(["-id", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn();
        // Only the build root is sure to have cpio.
        let Ok(mut child) = child else { return };
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        assert!(child.wait().unwrap().success());
        let payload = std::fs::read(dir.path().join("imgstream/payload")).unwrap();
        assert_eq!(payload, [7; 5000]);
        assert!(dir.path().join("imgstream/bin/tool").exists());
    }
}
