// SPDX-License-Identifier: GPL-2.0-only

//! I/O past the page cache, so that a device sees what is asked of it and nothing else: neither read-ahead nor the
//! neighbours of a block in a large folio.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use imgstream_proto::disk::BLOCK_LEN;
use rustix::fs::OFlags;

/// Opens a device, or a file where that works.
pub(crate) fn open(path: &Path, write: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

/// Memory that direct I/O takes.
pub(crate) struct Aligned {
    memory: Vec<u8>,
    skip: usize,
}

impl Aligned {
    /// Room for `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK_LEN];
        let skip = memory.as_ptr().align_offset(BLOCK_LEN);
        Self { memory, skip }
    }

    /// The first `len` bytes of it.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.skip..self.skip + len]
    }
}
