// SPDX-License-Identifier: GPL-2.0-only
//! Shrinks the source's file system with e2fsprogs.
//!
//! resize2fs is not made to be cut: a power cut while it moves blocks may need
//! e2fsck to decide. That is said in the documentation; the next boot of the
//! stage lets e2fsck repair what it can and goes on.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use super::partitions::{self, Locked};
use super::Report;
use crate::blockdev;
use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::switch::payload::Facts;

/// Where the stage's initramfs holds the programs and their libraries.
const STAGE: &str = "/imgstream";
const LOADER: &str = "lib/ld-linux-x86-64.so.2";
/// e2fsck: "errors left uncorrected", and all that is worse.
const UNCORRECTED: i32 = 4;

/// What dumpe2fs says about a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Size {
    blocks: u64,
    /// Not if its superblock is torn, either: resize2fs marks it before all else.
    clean: bool,
}

/// Shrinks to what the plan says; does nothing if that was done before. After a
/// refusal the source may be started: resize2fs has changed nothing, or e2fsck
/// is content with what it left.
pub fn shrink(partition: &Path, facts: &Facts, report: &mut Report) -> Result<()> {
    let _locked = lock(partition)?;
    let before = size(partition)?;
    if before.clean && before.blocks == facts.filesystem_blocks_after {
        report.line("the file system is shrunk already");
        return Ok(());
    }
    report.line("checking the source's file system");
    check(partition, !before.clean)?;
    // Once more: the check may have replayed the journal.
    let before = size(partition)?;
    report.line(&format!(
        "shrinking the source's file system from {} to {}",
        bytes_of(facts, before.blocks),
        bytes_of(facts, facts.filesystem_blocks_after)
    ));
    let count = facts.filesystem_blocks_after.to_string();
    let output = run("resize2fs", &[&partition.to_string_lossy(), &count])?;
    let after = size(partition).map_err(stop)?;
    if output.status.success() && after.clean && after.blocks == facts.filesystem_blocks_after {
        return Ok(());
    }
    let said = said(&output);
    check(partition, true)?;
    Err(Refusal::CannotShrink {
        place: partition.display().to_string(),
        what: said,
    }
    .into())
}

/// Checks a file system that does not show what it has to: because resize2fs
/// was cut in it, or because of something else that the kernel `refused` to
/// mount it for. Says whether there was a reason to.
pub fn mend(partition: &Path, refused: bool, report: &mut Report) -> Result<bool> {
    let _locked = lock(partition)?;
    let clean = size(partition)?.clean;
    if clean && !refused {
        return Ok(false);
    }
    report.line("checking the source's file system, which cannot be used as it is");
    check(partition, !clean)?;
    Ok(true)
}

/// Nobody else looks at the partition meanwhile.
fn lock(partition: &Path) -> Result<Option<Locked>> {
    let disk = blockdev::disk_of(partition);
    disk.map(|disk| partitions::lock(&disk)).transpose()
}

fn bytes_of(facts: &Facts, blocks: u64) -> String {
    crate::device::status::bytes(blocks * facts.filesystem_block_bytes)
}

/// Only harmless repairs are made, unless resize2fs may have been cut here: it
/// marks the file system before it starts and the plan had found it clean.
/// What e2fsck cannot repair then may have its files half moved: nothing may
/// mount it, so that is no refusal, after which the source would be started.
fn check(partition: &Path, may_be_cut: bool) -> Result<()> {
    let output = e2fsck(partition, "-p")?;
    if corrected(&output) || may_be_cut && corrected(&e2fsck(partition, "-y")?) {
        return Ok(());
    }
    let refusal = Refusal::FilesystemErrors {
        place: partition.display().to_string(),
        what: said(&output),
    };
    Err(if may_be_cut {
        stop(refusal.into())
    } else {
        refusal.into()
    })
}

fn corrected(output: &Output) -> bool {
    output.status.code().is_some_and(|code| code < UNCORRECTED)
}

/// An error after which the stage waits for a person.
fn stop(error: Error) -> Error {
    Error::HalfShrunk(Box::new(error))
}

/// Forced, because only that checks everything that resize2fs relies on.
fn e2fsck(partition: &Path, how: &str) -> Result<Output> {
    run("e2fsck", &["-f", how, &partition.to_string_lossy()])
}

fn size(partition: &Path) -> Result<Size> {
    let output = run("dumpe2fs", &["-h", &partition.to_string_lossy()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let size = parse_size(&text).ok_or_else(|| Refusal::FilesystemErrors {
        place: partition.display().to_string(),
        what: said(&output),
    })?;
    Ok(Size {
        // It prints what a superblock with a wrong checksum says, and fails.
        clean: size.clean && output.status.success(),
        ..size
    })
}

fn parse_size(dumpe2fs: &str) -> Option<Size> {
    let value = |name: &str| {
        dumpe2fs
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    Some(Size {
        blocks: value("Block count")?.parse().ok()?,
        clean: value("Filesystem state")? == "clean",
    })
}

/// Runs a program: the one in the stage's initramfs, with its own loader and
/// libraries, or else the installed one.
fn run(name: &'static str, arguments: &[&str]) -> Result<Output> {
    let own = Path::new(STAGE).join("bin").join(name);
    let mut command = if own.exists() {
        let mut command = Command::new(Path::new(STAGE).join(LOADER));
        command.args([
            Path::new("--library-path"),
            &Path::new(STAGE).join("lib"),
            &own,
        ]);
        command
    } else {
        Command::new(name)
    };
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => crate::program::Error::Missing(name, "e2fsprogs").into(),
            _ => Error::from(crate::program::Error::Run(name, e)),
        })
}

/// The last lines of what a program said, as one.
fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&all).replace('\r', "\n");
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let from = lines.len().saturating_sub(3);
    lines[from..].join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn dumpe2fs_is_understood() {
        let text =
            "Filesystem state:         clean with errors\nBlock count:              262144\n";
        let size = parse_size(text).unwrap();
        assert_eq!(size.blocks, 262_144);
        assert!(!size.clean);
        assert_eq!(parse_size("Block count: 7\n"), None);
    }

    /// A file system in a file, mke2fs and the rest being at hand.
    pub(crate) fn file_system(mib: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fs");
        std::fs::File::create(&path)
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
        let made = run(
            "mke2fs",
            &["-q", "-t", "ext4", "-b", "4096", &path.to_string_lossy()],
        );
        assert!(made.unwrap().status.success());
        (dir, path)
    }

    fn facts(after: u64) -> Facts {
        Facts {
            disk_bytes: 0,
            lba0_crc32c: 0,
            root_number: 2,
            root_start_bytes: 0,
            root_uuid: String::new(),
            filesystem_block_bytes: 4096,
            filesystem_blocks_before: 16384,
            filesystem_blocks_after: after,
            hash_source: false,
            after: crate::switch::payload::After::Reboot,
        }
    }

    #[test]
    fn shrinks_once() {
        let (_dir, path) = file_system(64);
        let mut report = Report::to(|_| {});
        shrink(&path, &facts(8192), &mut report).unwrap();
        assert_eq!(size(&path).unwrap().blocks, 8192);
        shrink(&path, &facts(8192), &mut report).unwrap();
        assert_eq!(size(&path).unwrap().blocks, 8192);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_lost() {
        let (_dir, path) = file_system(64);
        let mut report = Report::to(|_| {});
        let error = shrink(&path, &facts(64), &mut report).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::CannotShrink, "{error}");
        let size = size(&path).unwrap();
        assert_eq!((size.blocks, size.clean), (16384, true));
    }

    #[test]
    fn what_was_cut_and_cannot_be_repaired_is_not_started() {
        let (_dir, path) = file_system(64);
        let name = path.to_string_lossy().into_owned();
        // What resize2fs marks, and a file system that is longer than its device: e2fsck gives up on that.
        let marked = run("debugfs", &["-w", "-R", "ssv state 2", &name]);
        assert!(marked.unwrap().status.success());
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(32 << 20).unwrap();
        let error = shrink(&path, &facts(4096), &mut Report::to(|_| {})).unwrap_err();
        assert!(matches!(error, Error::HalfShrunk(_)), "{error}");
    }

    /// A file system whose shrink was cut, and the superblock that it had before.
    pub(crate) fn half_shrunk() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        // Large enough for a second superblock.
        let (dir, path) = file_system(192);
        let before = superblock(&path);
        let name = path.to_string_lossy();
        // Killed at the first write beyond 32 KiB: the file system is marked by then.
        let limited = format!("ulimit -f 64 && exec resize2fs '{name}' 8192");
        let output = Command::new("sh").args(["-c", &limited]).output();
        assert!(!output.unwrap().status.success());
        assert!(superblock(&path) != before);
        (dir, path, before)
    }

    fn superblock(path: &Path) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let file = std::fs::File::open(path).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 1024).unwrap();
        bytes
    }

    /// One sector of its superblock did not come to the disk.
    pub(crate) fn tear(path: &Path, before: &[u8], sector: usize) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let old = &before[sector * 512..][..512];
        let at = 1024 + sector as u64 * 512;
        std::os::unix::fs::FileExt::write_all_at(&file, old, at).unwrap();
    }

    #[test]
    fn what_was_cut_is_mended_and_shrunk() {
        for torn in [None, Some(0), Some(1)] {
            let (_dir, path, before) = half_shrunk();
            if let Some(sector) = torn {
                tear(&path, &before, sector);
            }
            assert!(!size(&path).unwrap().clean, "{torn:?}");
            let mut report = Report::to(|_| {});
            assert!(mend(&path, false, &mut report).unwrap(), "{torn:?}");
            assert!(size(&path).unwrap().clean, "{torn:?}");
            assert!(!mend(&path, false, &mut report).unwrap(), "{torn:?}");
            assert!(mend(&path, true, &mut report).unwrap(), "{torn:?}");
            shrink(&path, &facts(8192), &mut report).unwrap();
            assert_eq!(size(&path).unwrap().blocks, 8192, "{torn:?}");
        }
    }

    #[test]
    fn a_broken_file_system_is_refused() {
        let (_dir, path) = file_system(64);
        let zero = vec![0; 4096];
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Superblocks, descriptors and bitmaps of the first group.
        for block in 0..40 {
            std::os::unix::fs::FileExt::write_all_at(&file, &zero, block * 4096).unwrap();
        }
        let error = shrink(&path, &facts(8192), &mut Report::to(|_| {})).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::FilesystemErrors, "{error}");
    }
}
