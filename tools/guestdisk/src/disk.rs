// SPDX-License-Identifier: GPL-2.0-only

//! Images as LUNs, and disks with a control area.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use crc32c::crc32c;
use imgstream_engine::pair::{locations, scan};
use imgstream_engine::plan::{plan, Demand, Plan};
use imgstream_engine::session::Facts;
use imgstream_proto::disk::boot_list::BootList;
use imgstream_proto::disk::header::CRC_FROM;
use imgstream_proto::disk::segment::{segments, Segment, SEGMENT_LEN};
use imgstream_proto::disk::superblock::{
    Chap, Checkpoint, ImageIdentity, Origin, Portal, SUPERBLOCK_LEN,
};
use imgstream_proto::disk::trailer::TRAILER_LEN;
use imgstream_proto::disk::{
    BootEntry, BootState, Bounded, Copy2, Extent, Header, State, Superblock, Trailer, BLOCK_BYTES,
};
use imgstream_proto::iscsi::digest::Policy;

use crate::probe::{INITIATOR, ISID};
use crate::stamp;

/// Bytes of a LUN behind the image: a block that stands for the manifest, and the trailer.
pub(crate) const TAIL_BYTES: u64 = 2 * BLOCK_BYTES;
/// Where the words of a header's incompatible features stand, see Documentation/imgstream-format.rst.
const INCOMPAT_AT: usize = 24;
/// The migration's UUID.
const UUID: [u8; 16] = *b"imgstream testdk";

fn size_bytes(file: &mut File) -> Result<u64> {
    Ok(file.seek(SeekFrom::End(0))?)
}

/// Writes an image and its trailer.
pub(crate) fn lun(path: &Path) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let lun_bytes = size_bytes(&mut file)?;
    let image_bytes = lun_bytes - TAIL_BYTES;
    for number in 0..image_bytes / BLOCK_BYTES {
        file.write_all_at(&stamp::block("image", number), number * BLOCK_BYTES)?;
    }
    let manifest = stamp::block("manifest", 0);
    file.write_all_at(&manifest, image_bytes)?;
    let trailer = Trailer {
        image_uuid: *b"image of testdsk",
        image_bytes,
        lun_bytes,
        manifest: Extent::new(image_bytes, BLOCK_BYTES),
        manifest_crc32c: crc32c(&manifest),
        logical_block_bytes: 512,
    };
    let mut bytes = [0; TRAILER_LEN];
    trailer
        .encode(&mut bytes, crc32c)
        .map_err(|e| anyhow!("{e}"))?;
    file.write_all_at(&bytes, lun_bytes - BLOCK_BYTES)?;
    Ok(())
}

/// Writes source, unless it is there `as_is`, boot blocks, relocated blocks and control area.
pub(crate) fn lay_out(
    path: &Path,
    portals: &[SocketAddr],
    target: &str,
    facts: &Facts,
    boot_blocks: u32,
    as_is: bool,
) -> Result<()> {
    let mut disk = OpenOptions::new().read(true).write(true).open(path)?;
    let disk_bytes = size_bytes(&mut disk)?;
    let image_bytes = facts.capacity.bytes() - TAIL_BYTES;
    let plan = planned(disk_bytes, image_bytes, boot_blocks, 0..disk_bytes)?;
    let boot = [BootEntry {
        image_block: 0,
        blocks: boot_blocks,
        state: BootState::Live,
        relocated_bytes: plan.geometry.relocated_start_bytes,
    }];
    if !as_is {
        for number in 0..plan.geometry.source_bytes / BLOCK_BYTES {
            disk.write_all_at(&stamp::block("source", number), number * BLOCK_BYTES)?;
        }
    }
    let mut block = [0; BLOCK_BYTES as usize];
    for number in 0..u64::from(boot_blocks) {
        let home = number * BLOCK_BYTES;
        disk.read_exact_at(&mut block, home)?;
        disk.write_all_at(&block, plan.geometry.relocated_start_bytes + home)?;
        disk.write_all_at(&stamp::block("image", number), home)?;
    }
    let superblock = superblock(&plan, portals, target, facts)?;
    control_area(&disk, &superblock, &boot)?;
    disk.sync_all()?;
    println!(
        "D {} S {} R {} U {} C {} T {}",
        disk_bytes,
        plan.geometry.source_bytes,
        plan.geometry.relocated_start_bytes,
        plan.geometry.useful_start_bytes,
        plan.geometry.control_start_bytes,
        plan.geometry.image_bytes
    );
    Ok(())
}

/// The superblock of a disk: the first valid copy.
pub(crate) fn superblock_of(disk: &mut File) -> Result<Superblock> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    for at in scan(size_bytes(disk)?) {
        disk.read_exact_at(&mut bytes, at)?;
        if let Ok(superblock) = Superblock::decode(at, &bytes, crc32c) {
            return Ok(superblock);
        }
    }
    Err(anyhow!("no superblock"))
}

/// Sets an unknown bit among the features without which nothing may be read.
pub(crate) fn newer(path: &Path) -> Result<()> {
    let mut disk = OpenOptions::new().read(true).write(true).open(path)?;
    let superblock = superblock_of(&mut disk)?;
    let mut bytes = [0; SUPERBLOCK_LEN];
    for at in locations(&superblock).ok_or_else(|| anyhow!("no place for the superblock"))? {
        disk.read_exact_at(&mut bytes, at)?;
        bytes[INCOMPAT_AT + 3] |= 0x80;
        let crc = crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
        disk.write_all_at(&bytes, at)?;
    }
    Ok(disk.sync_all()?)
}

/// Has connections ask for other digests.
pub(crate) fn digest(path: &Path, policy: Policy) -> Result<()> {
    change(path, |superblock| superblock.origin.digests = policy)
}

/// Keeps names and secrets in both superblocks.
pub(crate) fn chap(path: &Path, words: &[String]) -> Result<()> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let chap = match words[..] {
        [user, secret] => Chap::new((user, secret), None),
        [user, secret, name, other] => Chap::new((user, secret), Some((name, other))),
        _ => None,
    };
    let chap = chap.ok_or_else(|| anyhow!("no names and secrets"))?;
    change(path, |superblock| superblock.origin.chap = chap)
}

fn change(path: &Path, change: impl FnOnce(&mut Superblock)) -> Result<()> {
    let mut disk = OpenOptions::new().read(true).write(true).open(path)?;
    let mut superblock = superblock_of(&mut disk)?;
    change(&mut superblock);
    let mut bytes = [0; SUPERBLOCK_LEN];
    for at in locations(&superblock).ok_or_else(|| anyhow!("no place for the superblock"))? {
        superblock
            .encode(at, &mut bytes, crc32c)
            .map_err(|e| anyhow!("{e}"))?;
        disk.write_all_at(&bytes, at)?;
    }
    Ok(disk.sync_all()?)
}

/// The plan for a source whose last partition is `source`.
pub(crate) fn planned(
    disk_bytes: u64,
    image_bytes: u64,
    boot_blocks: u32,
    source: Range<u64>,
) -> Result<Plan> {
    let demand = Demand {
        disk_bytes,
        disk_logical_bytes: 512,
        image_bytes,
        image_logical_bytes: 512,
        boot_blocks: boot_blocks.into(),
        boot_end_block: boot_blocks.into(),
        boot_entries: 1,
        source_bytes: source.end,
        source_min_bytes: 4 << 20,
        source_granule_bytes: BLOCK_BYTES,
        source_base_bytes: source.start,
    };
    plan(&demand).map_err(|refusal| anyhow!("{refusal}"))
}

pub(crate) fn superblock(
    plan: &Plan,
    portals: &[SocketAddr],
    target: &str,
    facts: &Facts,
) -> Result<Superblock> {
    let too_long = || anyhow!("too long");
    let mut vpd83 = vec![facts.designator.kind()];
    vpd83.extend_from_slice(facts.designator.value());
    let mut trailer = [0; TRAILER_LEN];
    Trailer {
        image_uuid: *b"image of testdsk",
        image_bytes: plan.geometry.image_bytes,
        lun_bytes: facts.capacity.bytes(),
        manifest: Extent::new(plan.geometry.image_bytes, BLOCK_BYTES),
        manifest_crc32c: crc32c(&stamp::block("manifest", 0)),
        logical_block_bytes: 512,
    }
    .encode(&mut trailer, crc32c)
    .map_err(|e| anyhow!("{e}"))?;
    let portal = |at: SocketAddr| Portal {
        address: at.ip(),
        port: at.port(),
        scope_id: 0,
    };
    let mut places = [None; 4];
    for (n, at) in portals.iter().enumerate() {
        *places.get_mut(n).ok_or_else(too_long)? = Some(portal(*at));
    }
    Ok(Superblock {
        uuid: UUID,
        generation: 1,
        state: State::Streaming,
        geometry: plan.geometry,
        places: plan.places,
        clean: true,
        checkpoint: Checkpoint {
            sequence: 1,
            position_bytes: 0,
        },
        image: ImageIdentity {
            uuid: *b"image of testdsk",
            lun_bytes: facts.capacity.bytes(),
            trailer_crc32c: crc32c(&trailer),
            ..ImageIdentity::default()
        },
        origin: Origin {
            target_name: Bounded::new(target.as_bytes()).ok_or_else(too_long)?,
            lun: 1,
            vpd83: Bounded::new(&vpd83).ok_or_else(too_long)?,
            portals: places,
            initiator_name: Bounded::new(INITIATOR.as_bytes()).ok_or_else(too_long)?,
            isid: ISID,
            digests: Policy::Prefer,
            chap: Chap::NONE,
        },
        compat: 0,
        ro_compat: 0,
        cursor: 0,
        suspect: false,
        source_hash: [0; 32],
        boot_blocks_crc32c: 0,
        copy_counter_blocks: 0,
    })
}

fn control_area(disk: &File, superblock: &Superblock, boot: &[BootEntry]) -> Result<()> {
    let say = |e: imgstream_proto::disk::Error| anyhow!("control area: {e}");
    let places = &superblock.places;
    for copy in Copy2::BOTH {
        let place = copy.of(&places.boot_list);
        let mut bytes = vec![0; place.len_bytes as usize];
        let header = Header::new(superblock.uuid, place.start_bytes, 1);
        BootList::encode(&header, boot, &mut bytes, crc32c).map_err(say)?;
        disk.write_all_at(&bytes, place.start_bytes)?;
        let place = copy.of(&places.map);
        let mut bytes = vec![0; place.len_bytes as usize];
        let count = segments(superblock.geometry.image_blocks());
        for (index, to) in (0..count).zip(bytes.chunks_exact_mut(SEGMENT_LEN)) {
            let segment = Segment::absent(index, 0);
            segment.encode(&superblock.uuid, to, crc32c).map_err(say)?;
        }
        disk.write_all_at(&bytes, place.start_bytes)?;
        let place = copy.of(&places.journal);
        disk.write_all_at(&vec![0; place.len_bytes as usize], place.start_bytes)?;
    }
    disk.sync_all().context("flushing")?;
    let places = locations(superblock).ok_or_else(|| anyhow!("no place for the superblock"))?;
    for location in places {
        let mut bytes = [0; SUPERBLOCK_LEN];
        superblock
            .encode(location, &mut bytes, crc32c)
            .map_err(say)?;
        disk.write_all_at(&bytes, location)?;
    }
    Ok(())
}
