// SPDX-License-Identifier: GPL-2.0-only

//! What the stage environment of a source finds, and what a cut in it leaves.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{anyhow, ensure, Context, Result};
use imgstream_engine::session::Facts as Target;
use imgstream_proto::disk::settings::{Settings, Tunables};
use imgstream_proto::disk::{BootState, State, Superblock, BLOCK_BYTES};
use imgstreamctl::disk::Disk;
use imgstreamctl::medium::DiskMedium;
use imgstreamctl::ondisk;
use imgstreamctl::stage::{control_area, identity};
use imgstreamctl::switch::payload::{self, After, Control, Facts};
use imgstreamctl::table::{Partition, Table};

use crate::disk::{planned, superblock, TAIL_BYTES};
use crate::stamp;

/// Places in the superblock of ext4, from the start of its partition on.
const EXT4_BLOCKS: usize = 1024 + 0x4;
const EXT4_UUID: usize = 1024 + 0x68;

/// Writes to `path` what `imgstreamctl migrate` would put into the stage of a source on `disk`: an ext4 file system in the
/// last partition, which may be damaged. The first blocks of the image are boot blocks.
pub(crate) fn payload(
    path: &Path,
    disk: &Path,
    portals: &[SocketAddr],
    target: &str,
    found: &Target,
    boot_blocks: u32,
) -> Result<()> {
    let disk = Disk::open(disk)?;
    let table = Table::read(&disk)?;
    let root = table.last().context("no partition")?;
    let image_bytes = found.capacity.bytes() - TAIL_BYTES;
    let source = root.start_bytes..root.end_bytes();
    let plan = planned(disk.size_bytes(), image_bytes, boot_blocks, source)?;
    let superblock = Superblock {
        state: State::Relocating,
        ..superblock(&plan, portals, target, found)?
    };
    let facts = facts(&disk, root, plan.geometry.source_bytes)?;
    let control = Control {
        boot_list: payload::boot_entries(
            [(0, boot_blocks.into())],
            plan.geometry.relocated_start_bytes,
        ),
        superblock,
        settings: Settings {
            generation: 1,
            network: None,
            tunables: Tunables::default(),
        },
    };
    payload::write(path, &facts, &control, &mut |entry, to| {
        for (number, to) in (entry.image_block..).zip(to.chunks_mut(BLOCK_BYTES as usize)) {
            to.copy_from_slice(&stamp::block("image", number));
        }
        Ok(())
    })?;
    println!(
        "S {} R {}",
        plan.geometry.source_bytes, plan.geometry.relocated_start_bytes
    );
    Ok(())
}

fn facts(disk: &Disk, root: &Partition, source_bytes: u64) -> Result<Facts> {
    let head = disk.read_up_to(root.start_bytes, BLOCK_BYTES as usize)?;
    let uuid = head.get(EXT4_UUID..EXT4_UUID + 16);
    let uuid = uuid::Uuid::from_slice(uuid.context("no file system")?)?;
    let before = u32::from_le_bytes(head[EXT4_BLOCKS..EXT4_BLOCKS + 4].try_into()?);
    let after = (source_bytes - root.start_bytes) / BLOCK_BYTES;
    ensure!(after < u64::from(before), "the source need not shrink");
    Ok(Facts {
        disk_bytes: disk.size_bytes(),
        lba0_crc32c: identity::lba0_crc32c(&mut DiskMedium::open_ro(disk.path())?)?,
        root_number: root.number,
        root_start_bytes: root.start_bytes,
        root_uuid: uuid.to_string(),
        filesystem_block_bytes: BLOCK_BYTES,
        filesystem_blocks_before: before.into(),
        filesystem_blocks_after: after,
        hash_source: true,
        after: After::Reboot,
    })
}

/// Takes back what the stage wrote last, after the last boot block: the machine was cut before that.
pub(crate) fn storing(path: &Path) -> Result<()> {
    let mut disk = DiskMedium::open_alone(path)?;
    let place = path.display().to_string();
    let mut found = ondisk::find(&mut disk, &place)?.ok_or_else(|| anyhow!("no superblock"))?;
    let list = control_area::read_boot_list(&mut disk, &found.superblock)?;
    control_area::set_boot_state(&mut disk, &found.superblock, &list, BootState::Saved)?;
    let next = Superblock {
        state: State::Storing,
        clean: false,
        ..found.superblock.clone()
    };
    Ok(found.replace(&mut disk, next)?)
}
