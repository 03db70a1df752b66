// SPDX-License-Identifier: GPL-2.0-only
//! The end of a switch that was cut while boot blocks were stored, where they
//! are not at hand any more: in the initramfs of a system that was started.

use imgstream_proto::disk::boot_list::{BootEntry, BootState};
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use super::{control_area, Report};
use crate::error::Result;
use crate::medium::Medium;
use crate::ondisk::Found;
use crate::switch::payload::pieces;

/// From `storing` to `streaming` if every boot block is the target's, else to
/// `rolling-back`: the source's blocks are all saved before `storing`, and the
/// target has never run.
///
/// That this initramfs runs proves nothing. The source's block 0 leads to the
/// target's loader if both have it in the same place, and the computer may have
/// been started from elsewhere. So the blocks are read, past what a cut may
/// still take: what counts is what is durable.
pub fn end(disk: &mut dyn Medium, found: &mut Found, report: &mut Report) -> Result<()> {
    let list = control_area::read_boot_list(disk, &found.superblock)?;
    disk.flush()?;
    let expected = found.superblock.boot_blocks_crc32c;
    let whole = expected != 0 && crc32c_of(disk, &list)? == expected;
    if !whole {
        report.line("the target's boot blocks are not complete: the source is put back");
        return found.set_state(disk, State::RollingBack, 0);
    }
    control_area::set_boot_state(disk, &found.superblock, &list, BootState::Live)?;
    let next = Superblock {
        state: State::Streaming,
        cursor: 0,
        // Nobody has written to any slot yet.
        clean: true,
        ..found.superblock.clone()
    };
    found.replace(disk, next)
}

fn crc32c_of(disk: &mut dyn Medium, list: &[BootEntry]) -> Result<u32> {
    let mut crc = 0;
    for piece in pieces(list) {
        let mut bytes = vec![0; piece.blocks as usize * BLOCK_LEN];
        disk.read(piece.image_block * BLOCK_BYTES, &mut bytes)?;
        crc = crc32c::crc32c_append(crc, &bytes);
    }
    Ok(crc)
}
