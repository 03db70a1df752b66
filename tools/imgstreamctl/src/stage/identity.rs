// SPDX-License-Identifier: GPL-2.0-only
//! Is this the disk that the plan was made for, and what is on it.

use std::sync::mpsc;

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

/// SHA-256 of the first `len_bytes`, a multiple of 4 KiB. The machine is down meanwhile, so reading and hashing overlap.
pub fn hash(disk: &mut dyn Medium, len_bytes: u64, report: &mut Report) -> Result<[u8; 32]> {
    /// What is read ahead of the hash at most, in chunks.
    const AHEAD: usize = 4;
    std::thread::scope(|scope| {
        let (chunks, read) = mpsc::sync_channel(AHEAD);
        let hasher = scope.spawn(move || hash_all(&read));
        let sent = read_chunks(disk, len_bytes, report, &chunks);
        drop(chunks);
        let hash = hasher.join();
        sent?;
        hash.map_err(|_| Error::Other("hashing the source failed".into()))
    })
}

fn hash_all(chunks: &mpsc::Receiver<Vec<u8>>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for chunk in chunks {
        hasher.update(&chunk);
    }
    hasher.finalize().into()
}

/// Stops early only if nobody takes the chunks any more.
fn read_chunks(
    disk: &mut dyn Medium,
    len_bytes: u64,
    report: &mut Report,
    chunks: &mpsc::SyncSender<Vec<u8>>,
) -> Result<()> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut done = 0;
    while done < len_bytes {
        let now = CHUNK_BYTES.min(len_bytes - done);
        let mut chunk = vec![0; now as usize];
        disk.read(done, &mut chunk)?;
        done += now;
        report.progress("hashing the source", done, len_bytes);
        if chunks.send(chunk).is_err() {
            break;
        }
    }
    Ok(())
}
