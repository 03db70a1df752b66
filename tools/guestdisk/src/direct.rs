// SPDX-License-Identifier: GPL-2.0-only

//! I/O past the page cache, so that a device sees what is asked of it and nothing else: neither read-ahead nor the
//! neighbours of a block in a large folio. And through it, where that is what a test wants.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use imgstream_proto::disk::BLOCK_LEN;
use rustix::fs::OFlags;

/// What a device is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// The same, each write durable when it returns: the block layer gets it with REQ_FUA.
    Durable,
    /// The same as [`Access::Write`], through the page cache.
    Cached,
}

/// Opens a device, or a file where that works.
pub(crate) fn open(path: &Path, access: Access) -> Result<File> {
    let flags = match access {
        Access::Durable => OFlags::DIRECT | OFlags::DSYNC,
        Access::Read | Access::Write => OFlags::DIRECT,
        Access::Cached => OFlags::empty(),
    };
    OpenOptions::new()
        .read(true)
        .write(access != Access::Read)
        .custom_flags(flags.bits() as i32)
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
