// SPDX-License-Identifier: GPL-2.0-only
//! Writing the published form.

use std::fs::{File, Metadata, Permissions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use imgstream_proto::disk::trailer::{Trailer, TRAILER_LEN};
use imgstream_proto::disk::Extent;
use rustix::fs::{access, Access};
use tempfile::NamedTempFile;

use super::copy::{self, Copied, Job};
use super::manifest::{self, Manifest, FORMAT};
use crate::bootregion::BootSetup;
use crate::disk::{BLOCK_BYTES, SECTOR_BYTES};
use crate::error::Error;
use crate::image::Image;
use crate::progress;
use crate::refusal::Refusal;
use crate::signature::Content;
use crate::table::gpt::{self, Patch, Trimmed};
use crate::table::Kind;

/// The LUN's size is a multiple of this: some targets count in MiB.
const LUN_ALIGN_BYTES: u64 = 1 << 20;

/// What to publish.
#[derive(Debug)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a Image,
    /// How it starts.
    pub setup: &'a BootSetup,
    /// Its initramfs archives.
    pub initramfs: Vec<manifest::Initramfs>,
    /// As `uname -m` says it.
    pub architecture: String,
    /// A name for people.
    pub name: String,
    /// Where to.
    pub out: PathBuf,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Result {
    /// The manifest.
    pub manifest: Manifest,
    /// Size of the file.
    pub lun_bytes: u64,
}

/// Writes the published form. The output appears under its name only when it
/// is complete and durable; until then it is a temporary file beside it.
pub fn publish(request: Request<'_>) -> crate::Result<Result> {
    refuse_output(request.image.disk.path(), &request.out)?;
    let directory = directory_of(&request.out);
    let temporary = tempfile::Builder::new()
        .prefix(".imgstream-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(Error::io("making a file in", directory))?;
    let written = fill(&request, &temporary)?;
    let path = temporary.path().to_path_buf();
    temporary
        .as_file()
        .sync_all()
        .map_err(Error::io("syncing", &path))?;
    temporary
        .persist(&request.out)
        .map_err(|e| Error::io("renaming", &path)(e.error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("syncing", directory))?;
    Ok(written)
}

/// Refuses to replace the image itself or anything that is no file, and a
/// directory that no file can be made in.
pub fn refuse_output(image: &Path, out: &Path) -> crate::Result<()> {
    if let Ok(there) = std::fs::metadata(out) {
        refuse_existing(image, out, &there)?;
    }
    refuse_directory(out)
}

fn refuse_existing(image: &Path, out: &Path, there: &Metadata) -> crate::Result<()> {
    let place = out.display().to_string();
    if there.is_dir() {
        let name = Path::new(image.file_stem().unwrap_or_default()).with_extension("img");
        let example = out.join(name);
        return usage(format!(
            "--out {place} is a directory; name a file in it, for example {}",
            example.display()
        ));
    }
    if !there.is_file() {
        return usage(format!("--out {place} is not a file"));
    }
    let image = std::fs::metadata(image).map_err(Error::io("examining", image))?;
    if (there.dev(), there.ino()) == (image.dev(), image.ino()) {
        let by = "it is the image itself".into();
        return Err(Refusal::DiskInUse { place, by }.into());
    }
    Ok(())
}

fn refuse_directory(out: &Path) -> crate::Result<()> {
    let directory = directory_of(out);
    let place = directory.display().to_string();
    if !directory.is_dir() {
        return usage(format!(
            "--out {}: there is no directory {place}",
            out.display()
        ));
    }
    match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Err(rustix::io::Errno::ACCESS) => {
            let what = "write to";
            Err(Refusal::NotAllowed { what, place }.into())
        }
        done => done.map_err(|e| Error::io("writing to", directory)(e.into())),
    }
}

fn usage(sentence: String) -> crate::Result<()> {
    Err(Refusal::Usage(sentence).into())
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn fill(request: &Request<'_>, to: &NamedTempFile) -> crate::Result<Result> {
    let image = request.image;
    let trimmed = trim(image)?;
    let zero = unused(image, trimmed.disk_bytes)?;
    let bar = progress::bytes("copying", trimmed.disk_bytes);
    let job = Job {
        from: &image.disk,
        image_bytes: trimmed.disk_bytes,
        zero: &zero,
        patches: &trimmed.patches,
    };
    let copied = copy::copy(&job, to.as_file(), to.path(), &bar)?;
    bar.finish_and_clear();
    let uuid = uuid::Uuid::new_v4();
    let manifest = describe(request, &trimmed, copied, uuid);
    let lun_bytes = finish(to.as_file(), &manifest, uuid)
        .map_err(|e| Error::io("writing", to.path())(std::io::Error::other(e)))?;
    Ok(Result {
        manifest,
        lun_bytes,
    })
}

/// T, and what changes with it: it ends with the last partition and, on GPT
/// disks, the backup table.
fn trim(image: &Image) -> crate::Result<Trimmed> {
    let end_bytes = image.table.last().map_or(0, |p| p.end_bytes());
    match image.table.kind {
        Kind::Gpt => gpt::trimmed(&image.disk, end_bytes),
        Kind::Mbr => Ok(Trimmed {
            disk_bytes: end_bytes.next_multiple_of(BLOCK_BYTES),
            patches: Vec::<Patch>::new(),
        }),
    }
}

/// Byte ranges whose content means nothing: free blocks, swap space behind its
/// header, everything behind the last partition. Ascending.
fn unused(image: &Image, image_bytes: u64) -> crate::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    for held in &image.held {
        let (start, end) = (held.partition.start_bytes, held.partition.end_bytes());
        if let Some(fs) = &held.fs {
            for free in fs.layout()?.free {
                ranges.push(fs.disk_bytes(free.start)..fs.disk_bytes(free.end).min(end));
            }
        } else if held.content == Content::Swap {
            ranges.push((start + BLOCK_BYTES).min(end)..end);
        }
    }
    let end = image.table.last().map_or(0, |p| p.end_bytes());
    ranges.push(end..image_bytes.max(end));
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}

fn describe(
    request: &Request<'_>,
    trimmed: &Trimmed,
    copied: Copied,
    uuid: uuid::Uuid,
) -> Manifest {
    Manifest {
        format: FORMAT,
        image_uuid: uuid.to_string(),
        name: request.name.clone(),
        architecture: request.architecture.clone(),
        image_bytes: trimmed.disk_bytes,
        logical_block_bytes: SECTOR_BYTES as u32,
        table: request.image.table.kind,
        data_bytes: copied.data_bytes,
        boot_region: request.setup.region.clone(),
        canaries: copied.canaries,
        initramfs: request.initramfs.clone(),
        image_sha256: copied.sha256,
    }
}

/// Writes manifest and trailer behind the image; returns the LUN's size.
fn finish(to: &File, manifest: &Manifest, uuid: uuid::Uuid) -> std::io::Result<u64> {
    let text = serde_json::to_vec_pretty(manifest)?;
    let start = manifest.image_bytes;
    let lun_bytes = (start + text.len() as u64 + BLOCK_BYTES).next_multiple_of(LUN_ALIGN_BYTES);
    let trailer = Trailer {
        image_uuid: uuid.into_bytes(),
        image_bytes: manifest.image_bytes,
        lun_bytes,
        manifest: Extent::new(start, text.len() as u64),
        manifest_crc32c: crc32c::crc32c(&text),
        logical_block_bytes: manifest.logical_block_bytes,
    };
    let mut bytes = [0; TRAILER_LEN];
    trailer
        .encode(&mut bytes, crc32c::crc32c)
        .map_err(|e| std::io::Error::other(e.to_string()))?;
    to.set_len(lun_bytes)?;
    to.write_all_at(&text, start)?;
    to.write_all_at(&bytes, lun_bytes - BLOCK_BYTES)?;
    Ok(lun_bytes)
}
