// SPDX-License-Identifier: GPL-2.0-only
//! Copying an image without what nobody reads: free blocks become holes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use super::manifest::{Canary, CANARIES};
use crate::disk::{Disk, BLOCK_BYTES};
use crate::error::{Error, Result};
use crate::table::gpt::Patch;

const CHUNK_BYTES: u64 = 1 << 20;

/// What to copy.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// From where.
    pub from: &'a Disk,
    /// T.
    pub image_bytes: u64,
    /// Byte ranges that read as zeroes instead, ascending.
    pub zero: &'a [Range<u64>],
    /// Bytes that replace those of `from`.
    pub patches: &'a [Patch],
}

/// What was seen while copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// Bytes in blocks that are not all zero.
    pub data_bytes: u64,
    /// SHA-256 of the copy, in hexadecimal.
    pub sha256: String,
    /// Canaries, spread over the data.
    pub canaries: Vec<Canary>,
}

/// Copies into `to`, an empty file. Blocks of zeroes are left out.
pub(super) fn copy(
    job: &Job<'_>,
    to: &File,
    to_path: &Path,
    progress: &ProgressBar,
) -> Result<Copied> {
    let mut seen = Seen::new(job.image_bytes);
    let mut at = 0;
    while at < job.image_bytes {
        let len = CHUNK_BYTES.min(job.image_bytes - at);
        let chunk = read_chunk(job, at, len)?;
        seen.chunk(at, &chunk);
        write_data(to, at, &chunk).map_err(Error::io("writing", to_path))?;
        at += len;
        progress.set_position(at);
    }
    Ok(seen.finish())
}

/// One chunk as it will be in the copy.
fn read_chunk(job: &Job<'_>, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut chunk = vec![0; len as usize];
    let is_hole = job
        .from
        .next_data(at)
        .is_none_or(|(start, _)| start >= at + len);
    if !is_hole {
        let here = job.from.read_up_to(at, chunk.len())?;
        chunk[..here.len()].copy_from_slice(&here);
    }
    let first = job.zero.partition_point(|range| range.end <= at);
    for range in job.zero[first..].iter().take_while(|r| r.start < at + len) {
        let start = range.start.max(at) - at;
        let end = range.end.min(at + len) - at;
        chunk[start as usize..end as usize].fill(0);
    }
    for patch in job.patches {
        apply(patch, at, &mut chunk);
    }
    Ok(chunk)
}

/// Puts the part of `patch` that falls into the chunk at `at` there.
fn apply(patch: &Patch, at: u64, chunk: &mut [u8]) {
    let chunk_end = at + chunk.len() as u64;
    let patch_end = patch.offset_bytes + patch.bytes.len() as u64;
    let (start, end) = (patch.offset_bytes.max(at), patch_end.min(chunk_end));
    if start < end {
        let from = (start - patch.offset_bytes) as usize..(end - patch.offset_bytes) as usize;
        chunk[(start - at) as usize..(end - at) as usize].copy_from_slice(&patch.bytes[from]);
    }
}

fn is_zero(block: &[u8]) -> bool {
    block == &[0; BLOCK_BYTES as usize][..block.len()]
}

/// Writes the runs of blocks that are not zero.
fn write_data(to: &File, at: u64, chunk: &[u8]) -> std::io::Result<()> {
    let block_len = BLOCK_BYTES as usize;
    let mut run_start = None;
    for (start, block) in (0..).step_by(block_len).zip(chunk.chunks(block_len)) {
        match (is_zero(block), run_start) {
            (false, None) => run_start = Some(start),
            (true, Some(from)) => {
                to.write_all_at(&chunk[from..start], at + from as u64)?;
                run_start = None;
            }
            _ => {}
        }
    }
    match run_start {
        Some(from) => to.write_all_at(&chunk[from..], at + from as u64),
        None => Ok(()),
    }
}

/// Counts, hashes and picks canaries as chunks go by.
struct Seen {
    image_bytes: u64,
    data_bytes: u64,
    hash: Sha256,
    canaries: Vec<Canary>,
}

impl Seen {
    fn new(image_bytes: u64) -> Seen {
        Seen {
            image_bytes,
            data_bytes: 0,
            hash: Sha256::new(),
            canaries: Vec::new(),
        }
    }

    fn chunk(&mut self, at: u64, chunk: &[u8]) {
        self.hash.update(chunk);
        let block_len = BLOCK_BYTES as usize;
        for (block, bytes) in (at / BLOCK_BYTES..).zip(chunk.chunks(block_len)) {
            if !is_zero(bytes) {
                self.data_bytes += BLOCK_BYTES;
                self.consider(block, bytes);
            }
        }
    }

    /// The first block with data at or after 1, 3, 5 and 7 eighths.
    fn consider(&mut self, block: u64, bytes: &[u8]) {
        let next = self.canaries.len();
        let from = self.image_bytes / BLOCK_BYTES * (2 * next as u64 + 1) / 8;
        if next < CANARIES && block >= from {
            self.canaries.push(Canary {
                block,
                crc32c: crc32c::crc32c(bytes),
            });
        }
    }

    fn finish(self) -> Copied {
        let hash = self.hash.finalize();
        Copied {
            data_bytes: self.data_bytes,
            sha256: hex(&hash),
            canaries: self.canaries,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
