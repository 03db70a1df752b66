// SPDX-License-Identifier: GPL-2.0-only
//! Is this the disk that the plan was made for, and what is on it.

use imgstream_proto::disk::{BLOCK_LEN, SECTOR_LEN};
use sha2::{Digest, Sha256};

use super::Report;
use crate::error::{Error, Result};
use crate::medium::Medium;
use crate::switch::payload::Facts;

/// Where the superblock of ext4 stands in its file system.
const EXT4_SUPERBLOCK: u64 = 1024;
/// Where the UUID stands in that.
const EXT4_UUID: usize = 0x68;

/// Whether the file system of the plan begins where the plan says.
pub fn has_filesystem(disk: &mut dyn Medium, facts: &Facts) -> Result<bool> {
    let mut block = [0; BLOCK_LEN];
    if facts.root_start_bytes.saturating_add(BLOCK_LEN as u64) > disk.size_bytes() {
        return Ok(false);
    }
    disk.read(facts.root_start_bytes, &mut block)?;
    let at = EXT4_SUPERBLOCK as usize + EXT4_UUID;
    let uuid =
        uuid::Uuid::from_slice(&block[at..at + 16]).map_err(|e| Error::Other(e.to_string()))?;
    Ok(uuid.to_string() == facts.root_uuid)
}

/// CRC-32C of the disk's first sector.
pub fn lba0_crc32c(disk: &mut dyn Medium) -> Result<u32> {
    let mut block = [0; BLOCK_LEN];
    disk.read(0, &mut block)?;
    Ok(crc32c::crc32c(&block[..SECTOR_LEN]))
}

/// SHA-256 of the first `len_bytes`, a multiple of 4 KiB.
pub fn hash(disk: &mut dyn Medium, len_bytes: u64, report: &mut Report) -> Result<[u8; 32]> {
    const CHUNK: usize = 1 << 20;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < len_bytes {
        let now = CHUNK.min((len_bytes - done) as usize);
        disk.read(done, &mut buffer[..now])?;
        hasher.update(&buffer[..now]);
        done += now as u64;
        report.progress("hashing the source", done, len_bytes);
    }
    Ok(hasher.finalize().into())
}
