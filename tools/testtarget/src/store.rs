// SPDX-License-Identifier: GPL-2.0-only

//! What is served.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Something that can be read at any place.
pub trait Store: Send + Sync {
    /// Its size.
    fn bytes(&self) -> u64;
    /// Reads `buffer.len()` bytes from `offset`; the range lies within the size.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

impl Store for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).map_err(std::io::Error::other)?;
        buffer.copy_from_slice(&self[start..start + buffer.len()]);
        Ok(())
    }
}

impl Store for File {
    fn bytes(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}
