// SPDX-License-Identifier: GPL-2.0-only
//! A raw image file or a disk, opened for reading only.

use std::fs::{self, File, FileType};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::refusal::Refusal;
use crate::root;

/// The only logical block size that is supported.
pub const SECTOR_BYTES: u64 = 512;
/// The unit of the map.
pub const BLOCK_BYTES: u64 = 4096;

/// An image file or a block device.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    is_device: bool,
}

impl Disk {
    /// Opens `path`; refuses logical block sizes other than 512 bytes.
    pub fn open(path: &Path) -> Result<Disk> {
        let (mut file, kind) = open(path)?;
        let size_bytes = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("reading the size of", path))?;
        let disk = Disk {
            file,
            path: path.to_path_buf(),
            size_bytes,
            is_device: kind.is_block_device(),
        };
        disk.check_sector_size()?;
        Ok(disk)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether it is a block device and no file.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// Fills `buffer` from `offset_bytes`.
    pub fn read(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, offset_bytes)
            .map_err(Error::io("reading", &self.path))
    }

    /// Reads `len` bytes from `offset_bytes`, or fewer at the end.
    pub fn read_up_to(&self, offset_bytes: u64, len: usize) -> Result<Vec<u8>> {
        let left = self.size_bytes.saturating_sub(offset_bytes);
        let len = usize::try_from(left).map_or(len, |left| left.min(len));
        let mut buffer = vec![0; len];
        self.read(offset_bytes, &mut buffer)?;
        Ok(buffer)
    }

    /// Reads one sector.
    pub fn read_sector(&self, lba: u64) -> Result<[u8; SECTOR_BYTES as usize]> {
        let mut sector = [0; SECTOR_BYTES as usize];
        self.read(lba.saturating_mul(SECTOR_BYTES), &mut sector)?;
        Ok(sector)
    }

    /// The name that e2fsprogs programs take for the file system that starts
    /// at `start_bytes`.
    pub fn e2fs_name(&self, start_bytes: u64) -> String {
        format!("{}?offset={start_bytes}", self.path.display())
    }

    /// A device says its block size; in an image of a 4Kn disk the GPT header
    /// stands at 4096 instead of at 512.
    fn check_sector_size(&self) -> Result<()> {
        let found = if self.is_device {
            u64::from(
                rustix::fs::ioctl_blksszget(&self.file)
                    .map_err(|e| Error::io("asking the block size of", &self.path)(e.into()))?,
            )
        } else {
            let head = self.read_up_to(0, 2 * BLOCK_BYTES as usize)?;
            let gpt_at = |at: usize| head.get(at..at + 8) == Some(b"EFI PART");
            if gpt_at(BLOCK_BYTES as usize) && !gpt_at(SECTOR_BYTES as usize) {
                BLOCK_BYTES
            } else {
                SECTOR_BYTES
            }
        };
        if found == SECTOR_BYTES {
            return Ok(());
        }
        Err(Refusal::BlockSize {
            place: self.path.display().to_string(),
            found_bytes: found,
        }
        .into())
    }

    /// The bounds of the next stretch of data (not a hole) at or after
    /// `from_bytes`, or `None` when only a hole is left. Where holes are not
    /// known, everything is data.
    pub fn next_data(&self, from_bytes: u64) -> Option<(u64, u64)> {
        use rustix::fs::{seek, SeekFrom};
        if from_bytes >= self.size_bytes {
            return None;
        }
        match seek(&self.file, SeekFrom::Data(from_bytes)) {
            Ok(start) => {
                let end = seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.size_bytes);
                Some((start, end.min(self.size_bytes)))
            }
            Err(rustix::io::Errno::NXIO) => None,
            Err(_) => Some((from_bytes, self.size_bytes)),
        }
    }
}

/// Opens `path` for reading.
pub fn open(path: &Path) -> Result<(File, FileType)> {
    let kind = kind(path)?;
    let file = File::open(path).map_err(|error| not_opened(path, error))?;
    Ok((file, kind))
}

/// A disk or a file: what else has a name may have no end, or wait for somebody.
pub fn kind(path: &Path) -> Result<FileType> {
    let kind = fs::metadata(path)
        .map_err(|error| not_opened(path, error))?
        .file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(kind);
    }
    let place = path.display();
    let found = match kind.is_dir() {
        true => "a directory",
        false => "neither a disk nor a file",
    };
    let sentence = format!("{place} is {found}; a disk, or an image of one, is needed");
    Err(Error::Other(sentence))
}

/// Why a disk or file could not be opened, in a sentence.
pub fn not_opened(path: &Path, error: io::Error) -> Error {
    let place = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::Other(format!("there is no {place}")),
        // Root is refused by a container or a security module.
        io::ErrorKind::PermissionDenied if root::required().is_err() => {
            let what = "open";
            Refusal::NotAllowed { what, place }.into()
        }
        _ => Error::io("opening", path)(error),
    }
}
