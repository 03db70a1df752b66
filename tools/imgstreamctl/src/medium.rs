// SPDX-License-Identifier: GPL-2.0-only
//! A disk that is written to: the stage environment, `commit` and `check` work
//! on it. Block devices are read and written past the page cache, because the
//! kernel keeps one cache for a disk and another for each of its partitions.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::disk;
use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// Alignment of memory, place and length of direct I/O.
const ALIGN: usize = 4096;
/// At most this much memory for one direct request.
const CHUNK: usize = 1 << 20;

/// Something with bytes at addresses that keeps what was flushed.
pub trait Medium {
    /// Its size.
    fn size_bytes(&self) -> u64;
    /// Fills `to` from `at_bytes`. Both place and length are multiples of 4 KiB
    /// or lie within one sector-aligned request of a smaller disk end.
    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()>;
    /// Writes all of `from` at `at_bytes`, aligned as for [`Medium::read`], or
    /// the first sectors of one block.
    fn write(&mut self, at_bytes: u64, from: &[u8]) -> io::Result<()>;
    /// Returns when everything written before is durable.
    fn flush(&mut self) -> io::Result<()>;
}

/// A block device, or a file that stands for one.
pub struct DiskMedium {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    bounce: Vec<u8>,
}

impl DiskMedium {
    /// Opens it for reading and writing, for nobody else: the kernel refuses
    /// a disk that is attached, mounted or part of another device, whatever
    /// name it is called by.
    pub fn open_alone(path: &Path) -> Result<Self> {
        Self::open(path, true, OFlags::EXCL)
    }

    /// Opens it for reading and writing beside others. Only for what nobody
    /// else writes to: superblocks, and the partition table.
    pub fn open_shared(path: &Path) -> Result<Self> {
        Self::open(path, true, OFlags::empty())
    }

    /// Opens it for reading.
    pub fn open_ro(path: &Path) -> Result<Self> {
        Self::open(path, false, OFlags::empty())
    }

    fn open(path: &Path, write: bool, exclusive: OFlags) -> Result<Self> {
        let is_device = disk::kind(path)?.is_block_device();
        let flags = if is_device {
            OFlags::DIRECT | exclusive
        } else {
            OFlags::empty()
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(|error| refusal(path, error))?;
        let size_bytes = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("reading the size of", path))?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            size_bytes,
            bounce: vec![0; CHUNK + ALIGN],
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for ioctls.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Memory of direct I/O.
    fn aligned(bounce: &mut [u8]) -> &mut [u8] {
        let skip = bounce.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut bounce[skip..skip + CHUNK]
    }
}

/// A disk that another holds is in use; anything else is an error.
fn refusal(path: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return disk::not_opened(path, error);
    }
    Error::Refused(Refusal::DiskInUse {
        place: path.display().to_string(),
        by: "it is attached, mounted or part of another device".into(),
    })
}

impl Medium for DiskMedium {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()> {
        let mut at = at_bytes;
        for piece in to.chunks_mut(CHUNK) {
            let memory = &mut Self::aligned(&mut self.bounce)[..piece.len()];
            self.file.read_exact_at(memory, at)?;
            piece.copy_from_slice(memory);
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, at_bytes: u64, from: &[u8]) -> io::Result<()> {
        let mut at = at_bytes;
        for piece in from.chunks(CHUNK) {
            let memory = &mut Self::aligned(&mut self.bounce)[..piece.len()];
            memory.copy_from_slice(piece);
            self.file.write_all_at(memory, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let mut disk = DiskMedium::open_alone(&path).unwrap();
        assert_eq!(disk.size_bytes(), 4 << 20);
        let data: Vec<u8> = (0..CHUNK + 8192).map(|i| (i / 512) as u8).collect();
        disk.write(4096, &data).unwrap();
        disk.flush().unwrap();
        let mut back = vec![0; data.len()];
        disk.read(4096, &mut back).unwrap();
        assert_eq!(back, data);
    }

    #[test]
    fn reading_past_the_end_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(8192).unwrap();
        let mut disk = DiskMedium::open_ro(&path).unwrap();
        assert!(disk.read(4096, &mut [0; 8192]).is_err());
    }
}
