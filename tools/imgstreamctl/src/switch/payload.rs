// SPDX-License-Identifier: GPL-2.0-only
//! What travels from the running source into the stage environment: the facts
//! of the plan, the control structures as they will stand on the disk, and the
//! target's boot blocks. One file; every part is covered by a checksum, because
//! it comes through the loader and the kernel's unpacker.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use imgstream_proto::disk::boot_list::{BootEntry, BootList, BootState};
use imgstream_proto::disk::settings::{Settings, SETTINGS_LEN};
use imgstream_proto::disk::superblock::{Superblock, SUPERBLOCK_LEN};
use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::source;
use crate::error::{Error, Result};

/// Where it is in the stage's initramfs.
pub const PATH: &str = "/imgstream/payload";
const MAGIC: &[u8; 8] = b"IMGSTPL1";
/// Bound for the parts that are read as a whole.
const HEAD_MAX: u64 = 64 << 20;

/// What the stage has to know beyond the control structures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// D.
    pub disk_bytes: u64,
    /// CRC-32C of the disk's first sector: boot code, disk id and table.
    pub lba0_crc32c: u32,
    /// The partition with the root file system.
    pub root_number: u32,
    /// Where it begins.
    pub root_start_bytes: u64,
    /// UUID of the file system in it.
    pub root_uuid: String,
    /// Block size of the file system.
    pub filesystem_block_bytes: u64,
    /// Its size before the shrink.
    pub filesystem_blocks_before: u64,
    /// Its size after the shrink.
    pub filesystem_blocks_after: u64,
    /// Whether the SHA-256 of `[0, S)` is recorded after the shrink.
    pub hash_source: bool,
    /// What the stage does at its end.
    pub after: After,
}

/// How the stage ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum After {
    /// The computer starts again, into the target.
    Reboot,
    /// It is switched off.
    Poweroff,
}

/// Sizes and checksums of the parts, at the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    facts: Facts,
    control_start_bytes: u64,
    boot_list_start_bytes: u64,
    settings_start_bytes: u64,
    boot_list_len: u64,
    blocks_len: u64,
    control_crc32c: u32,
}

/// The control structures of a migration that is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// State `relocating`.
    pub superblock: Superblock,
    /// The boot blocks, `saved`.
    pub boot_list: Vec<BootEntry>,
    /// Network and tunables.
    pub settings: Settings,
}

/// Writes the file, and the checksum of the boot blocks into its superblock.
/// `fill` puts the boot blocks of one entry into the buffer.
pub fn write(
    path: &Path,
    facts: &Facts,
    control: &Control,
    fill: &mut dyn FnMut(&BootEntry, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let io = |e| Error::io("writing", path)(e);
    // The superblock has the secrets of CHAP.
    let file = source::create_secret(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    // Of head and control only the length is known yet.
    out.write_all(&vec![0; BLOCK_LEN + encode(control)?.len()])
        .map_err(io)?;
    let (mut crc, mut blocks_len) = (0, 0);
    for entry in pieces(&control.boot_list) {
        let mut bytes = vec![0; entry.blocks as usize * BLOCK_LEN];
        fill(&entry, &mut bytes)?;
        crc = crc32c::crc32c_append(crc, &bytes);
        blocks_len += bytes.len() as u64;
        out.write_all(&bytes).map_err(io)?;
    }
    let mut control = control.clone();
    control.superblock.boot_blocks_crc32c = crc;
    let control_bytes = encode(&control)?;
    let places = &control.superblock.places;
    let head = Head {
        facts: facts.clone(),
        control_start_bytes: control.superblock.geometry.control_start_bytes,
        boot_list_start_bytes: places.boot_list[0].start_bytes,
        settings_start_bytes: places.settings[0].start_bytes,
        boot_list_len: places.boot_list[0].len_bytes,
        blocks_len,
        control_crc32c: crc32c::crc32c(&control_bytes),
    };
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    file.write_all_at(&encode_head(&head)?, 0).map_err(io)?;
    file.write_all_at(&control_bytes, BLOCK_BYTES).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Entries cut into runs of at most 1 MiB: what is in memory at a time.
pub fn pieces(list: &[BootEntry]) -> impl Iterator<Item = BootEntry> + '_ {
    const MOST: u32 = 256;
    list.iter().flat_map(|entry| {
        (0..entry.blocks.div_ceil(MOST)).map(|i| BootEntry {
            image_block: entry.image_block + u64::from(i * MOST),
            blocks: MOST.min(entry.blocks - i * MOST),
            state: entry.state,
            relocated_bytes: entry.relocated_bytes + u64::from(i * MOST) * BLOCK_BYTES,
        })
    })
}

fn encode(control: &Control) -> Result<Zeroizing<Vec<u8>>> {
    let say = |e: imgstream_proto::disk::Error| Error::Other(format!("control area: {e}"));
    let superblock = &control.superblock;
    let places = &superblock.places;
    let list_len = places.boot_list[0].len_bytes as usize;
    // Room for all of it, so that it does not grow and leave a part behind where it was.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SUPERBLOCK_LEN + SETTINGS_LEN + list_len));
    let mut copy = Zeroizing::new([0; SUPERBLOCK_LEN]);
    superblock
        .encode(
            superblock.geometry.control_start_bytes,
            &mut copy,
            crc32c::crc32c,
        )
        .map_err(say)?;
    bytes.extend_from_slice(&*copy);
    let mut copy = [0; SETTINGS_LEN];
    control
        .settings
        .encode(
            &superblock.uuid,
            places.settings[0].start_bytes,
            &mut copy,
            crc32c::crc32c,
        )
        .map_err(say)?;
    bytes.extend_from_slice(&copy);
    let mut list = vec![0; list_len];
    let header = boot_list_header(superblock, 0, PLANNED);
    BootList::encode(&header, &control.boot_list, &mut list, crc32c::crc32c).map_err(say)?;
    bytes.extend_from_slice(&list);
    Ok(bytes)
}

/// Generation of a boot list as it is created: the source's blocks are not saved yet.
pub const PLANNED: u64 = 1;

/// The header of a copy of the boot list.
pub fn boot_list_header(
    superblock: &Superblock,
    copy: usize,
    generation: u64,
) -> imgstream_proto::disk::Header {
    let at = superblock.places.boot_list[copy].start_bytes;
    imgstream_proto::disk::Header::new(superblock.uuid, at, generation)
}

/// Magic, length, checksum, JSON: one block.
fn encode_head(head: &Head) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(head).map_err(|e| Error::Other(e.to_string()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&json).to_le_bytes());
    bytes.extend_from_slice(&json);
    if bytes.len() > BLOCK_LEN {
        return Err(Error::Other("the plan's facts are too long".into()));
    }
    bytes.resize(BLOCK_LEN, 0);
    Ok(bytes)
}

/// An opened payload.
#[derive(Debug)]
pub struct Payload {
    /// What the plan said.
    pub facts: Facts,
    /// What will stand in the control area.
    pub control: Control,
    file: File,
    blocks_at: u64,
}

impl Payload {
    /// Opens and checks all of it, the boot blocks included.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io("reading", path)(e);
        let damaged = || io(io::Error::other("the stage's payload is damaged"));
        let file = File::open(path).map_err(io)?;
        let head = read_head(&file).map_err(io)?.ok_or_else(damaged)?;
        let len = (SUPERBLOCK_LEN + SETTINGS_LEN) as u64 + head.boot_list_len;
        if head.boot_list_len > HEAD_MAX {
            return Err(damaged());
        }
        let mut bytes = Zeroizing::new(vec![0; len as usize]);
        file.read_exact_at(&mut bytes, BLOCK_BYTES).map_err(io)?;
        if crc32c::crc32c(&bytes) != head.control_crc32c {
            return Err(damaged());
        }
        let payload = Self {
            control: decode(&head, &bytes).map_err(|_| damaged())?,
            facts: head.facts.clone(),
            file,
            blocks_at: BLOCK_BYTES + len,
        };
        match payload.blocks_crc32c(head.blocks_len).map_err(io)? {
            crc if crc == payload.control.superblock.boot_blocks_crc32c => Ok(payload),
            _ => Err(damaged()),
        }
    }

    /// Reads the target's boot blocks from number `index` of the list on.
    pub fn blocks(&self, index: u64, to: &mut [u8]) -> io::Result<()> {
        self.file
            .read_exact_at(to, self.blocks_at + index * BLOCK_BYTES)
    }

    fn blocks_crc32c(&self, len: u64) -> io::Result<u32> {
        let expected: u64 = self
            .control
            .boot_list
            .iter()
            .map(|e| u64::from(e.blocks))
            .sum();
        if expected * BLOCK_BYTES != len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut buffer = vec![0; 256 * BLOCK_LEN];
        let (mut crc, mut done) = (0, 0);
        while done < len {
            let now = buffer.len().min((len - done) as usize);
            self.blocks(done / BLOCK_BYTES, &mut buffer[..now])?;
            crc = crc32c::crc32c_append(crc, &buffer[..now]);
            done += now as u64;
        }
        Ok(crc)
    }
}

fn read_head(file: &File) -> io::Result<Option<Head>> {
    let mut bytes = vec![0; BLOCK_LEN];
    file.read_exact_at(&mut bytes, 0)?;
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let json = (word(8) as usize)
        .checked_add(16)
        .and_then(|end| bytes.get(16..end));
    Ok(json
        .filter(|json| bytes.starts_with(MAGIC) && crc32c::crc32c(json) == word(12))
        .and_then(|json| serde_json::from_slice(json).ok()))
}

fn decode(head: &Head, bytes: &[u8]) -> Result<Control, imgstream_proto::disk::Error> {
    let (superblock, rest) = bytes.split_at(SUPERBLOCK_LEN);
    let (settings, list) = rest.split_at(SETTINGS_LEN);
    let superblock = Superblock::decode(head.control_start_bytes, superblock, crc32c::crc32c)?;
    let uuid = superblock.uuid;
    let settings = Settings::decode(&uuid, head.settings_start_bytes, settings, crc32c::crc32c)?;
    let list = BootList::decode(&uuid, head.boot_list_start_bytes, list, crc32c::crc32c)?;
    Ok(Control {
        superblock,
        boot_list: list.entries().collect(),
        settings,
    })
}

/// Runs of image blocks with the places where the source's blocks are saved,
/// one after the other from `relocated_start_bytes` on.
pub fn boot_entries(
    runs: impl IntoIterator<Item = (u64, u64)>,
    relocated_start_bytes: u64,
) -> Vec<BootEntry> {
    let mut at = relocated_start_bytes;
    let mut entries = Vec::new();
    for (mut block, mut blocks) in runs {
        while blocks > 0 {
            let now = u32::try_from(blocks).unwrap_or(u32::MAX);
            entries.push(BootEntry {
                image_block: block,
                blocks: now,
                state: BootState::Saved,
                relocated_bytes: at,
            });
            at += u64::from(now) * BLOCK_BYTES;
            block += u64::from(now);
            blocks -= u64::from(now);
        }
    }
    entries
}
