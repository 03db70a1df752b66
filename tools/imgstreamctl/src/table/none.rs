// SPDX-License-Identifier: GPL-2.0-only
//! What is in the place of a partition table, and what to do with it.

use std::path::{Path, PathBuf};

use super::bad;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::signature::{self, Content};

/// As far as the last signature that is looked for.
const HEAD_BYTES: usize = 70 * 1024;
/// Images of disks that are not raw: where they say so, how, and their names.
const IMAGES: [(usize, &[u8], &str); 4] = [
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
];
const PACKED: [(usize, &[u8], &str); 4] = [
    (0, b"\x1f\x8b", "packed with gzip"),
    (0, b"\xfd7zXZ\0", "packed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (0, b"BZh", "packed with bzip2"),
];
const ISO: [(usize, &[u8], &str); 1] = [(0x8001, b"CD001", "the image of a CD")];

const WHOLE: &str =
    "name the disk of an installed system that starts by BIOS and GRUB, or its raw image";

/// The refusal of a disk or file that has no partition table.
pub(super) fn refusal(disk: &Disk) -> Result<Error> {
    let head = disk.read_up_to(0, HEAD_BYTES)?;
    let content = signature::of_head(&head);
    if let Err(container) = signature::refuse_containers(content, disk.path().display().to_string())
    {
        return Ok(container.into());
    }
    let known = known(disk.path(), &head).or_else(|| of_content(content));
    Ok(match known {
        Some((found, instead)) => Refusal::NotRaw {
            place: disk.path().display().to_string(),
            found,
            instead,
        }
        .into(),
        None => bad(disk, "its first sector has no partition table"),
    })
}

/// What it is, and what to do.
fn known(path: &Path, head: &[u8]) -> Option<(String, String)> {
    let whole = |found: &str| Some((found.to_string(), WHOLE.to_string()));
    if head.is_empty() {
        return whole("empty");
    }
    if head.iter().all(|byte| *byte == 0) {
        return whole("blank (it begins with zeroes)");
    }
    if let Some(found) = magic(head, &IMAGES) {
        let instead = format!("make a raw one with: {}", convert(path));
        return Some((found.into(), instead));
    }
    if let Some(found) = magic(head, &PACKED) {
        return Some((found.into(), "unpack it first".into()));
    }
    if let Some(found) = magic(head, &ISO) {
        let instead = "install a system from it, and name that system's disk";
        return Some((found.into(), instead.into()));
    }
    match is_text(&head[..head.len().min(SECTOR_BYTES as usize)]) {
        true => whole("a text file"),
        false => None,
    }
}

fn of_content(content: Content) -> Option<(String, String)> {
    let found = match content {
        Content::Unknown => return None,
        Content::Swap => "swap space".to_string(),
        file_system => format!("a file system ({file_system}) without a partition table"),
    };
    Some((found, WHOLE.into()))
}

fn magic(head: &[u8], table: &[(usize, &[u8], &'static str)]) -> Option<&'static str> {
    let stands = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|h| h.starts_with(magic));
    table
        .iter()
        .find(|(at, magic, _)| stands(*at, magic))
        .map(|(_, _, name)| *name)
}

fn is_text(bytes: &[u8]) -> bool {
    let printable = |byte: &u8| *byte >= b' ' && *byte != 0x7f || b"\t\n\r\x0c".contains(byte);
    bytes.iter().all(printable)
}

/// The command that makes a raw image beside this one.
fn convert(path: &Path) -> String {
    let mut raw = path.with_extension("raw");
    if raw == path {
        raw = PathBuf::from(format!("{}.raw", path.display()));
    }
    format!("qemu-img convert -O raw {} {}", word(path), word(&raw))
}

/// As one word of a shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:,@%".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_copied() {
        let command = |path: &str| convert(Path::new(path));
        assert_eq!(
            command("/srv/debian13.qcow2"),
            "qemu-img convert -O raw /srv/debian13.qcow2 /srv/debian13.raw"
        );
        assert_eq!(
            command("my disk.raw"),
            "qemu-img convert -O raw 'my disk.raw' 'my disk.raw.raw'"
        );
    }
}
