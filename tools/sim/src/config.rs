// SPDX-License-Identifier: GPL-2.0-only

//! What a run of the model looks like: sizes, places and how much of what happens.

use imgstream_engine::block::Run;
use imgstream_engine::locate::BootRun;
use imgstream_proto::disk::superblock::Places;
use imgstream_proto::disk::{Extent, Geometry, BLOCK_BYTES};

use crate::rng::Rng;

/// Sectors of a block.
pub const SECTORS: u64 = 8;

/// What a run looks like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Blocks of the image.
    pub image_blocks: u64,
    /// Blocks that the guest works on.
    pub hot: Vec<u64>,
    /// Distance from image address to slot, in blocks.
    pub offset_blocks: u64,
    /// Bytes of a journal copy.
    pub journal_bytes: u64,
    /// Percent of guest operations that flush.
    pub flush: u64,
    /// Percent that discard or zero.
    pub discard: u64,
    /// Percent that read.
    pub read: u64,
    /// Whether the image is being committed.
    pub commit: bool,
    /// Whether blocks are filled in the background.
    pub fill: bool,
    /// Whether slots cannot be read now and then, and are fetched again where that is allowed.
    pub repair: bool,
    /// Percent of fetches that the target cuts short and calls good.
    pub short: u64,
    /// Percent of lives in which the journal cannot be written from some point on.
    pub journal_errors: u64,
    /// Percent of rounds that a checkpoint follows although none is due.
    pub checkpoint: u64,
    /// Percent of lives that end with a clean detach.
    pub detach: u64,
    /// Lives: attaches until the run ends.
    pub lives: u64,
    /// Steps of a life, at most.
    pub steps: u64,
}

/// Boot blocks of every run: 0 to 2 and 5.
const BOOT: [(u64, u64); 2] = [(0, 3), (5, 1)];
/// Blocks behind the source, where its boot blocks are kept.
const RELOCATED_BLOCKS: u64 = 4;

impl Config {
    /// The run of this seed: every kind of run comes up.
    pub fn any(rng: &Rng) -> Self {
        let wide = rng.chance(20);
        let image_blocks = if wide { 4000 } else { 24 + rng.below(40) };
        let hot = if wide {
            vec![0, 1, 7, 1919, 1920, 1921, 2500, 3839, 3840, 3999]
        } else {
            (0..image_blocks).collect()
        };
        Self {
            image_blocks,
            hot,
            offset_blocks: 12 + rng.below(8),
            journal_bytes: rng.pick(&[16 << 10, 32 << 10, 64 << 10]),
            flush: rng.pick(&[5, 15, 30]),
            discard: rng.pick(&[5, 15]),
            read: rng.pick(&[20, 40]),
            commit: !wide && rng.chance(40),
            fill: !wide && rng.chance(60),
            repair: rng.chance(40),
            short: rng.pick(&[0, 10]),
            journal_errors: rng.pick(&[0, 0, 0, 20]),
            checkpoint: rng.pick(&[0, 10, 80]),
            detach: rng.pick(&[0, 30, 60]),
            lives: 2 + rng.below(4),
            steps: rng.pick(&[300, 800, 2000]),
        }
    }

    /// Where everything is.
    pub fn geometry(&self) -> Geometry {
        let slots_end = self.offset_blocks + self.image_blocks;
        let control_start = (slots_end + 2).next_multiple_of(16);
        let end = control_start + self.control_blocks();
        Geometry {
            disk_bytes: (end + 256) * BLOCK_BYTES,
            source_bytes: (self.offset_blocks - RELOCATED_BLOCKS) * BLOCK_BYTES,
            relocated_start_bytes: (self.offset_blocks - RELOCATED_BLOCKS) * BLOCK_BYTES,
            useful_start_bytes: self.offset_blocks * BLOCK_BYTES,
            control_start_bytes: control_start * BLOCK_BYTES,
            image_bytes: self.image_blocks * BLOCK_BYTES,
            logical_block_bytes: 512,
        }
    }

    fn control_blocks(&self) -> u64 {
        // Superblocks, boot lists, settings that nobody looks at, maps and journals.
        2 + 2 + 2 * self.map_blocks() + 2 * self.journal_bytes / BLOCK_BYTES
    }

    fn map_blocks(&self) -> u64 {
        imgstream_proto::disk::segment::map_bytes(self.image_blocks) / BLOCK_BYTES
    }

    /// Places of the control area.
    pub fn places(&self) -> Places {
        let mut at = self.geometry().control_start_bytes + BLOCK_BYTES;
        let mut pair = |len: u64| {
            let pair = [Extent::new(at, len), Extent::new(at + len, len)];
            at += 2 * len;
            pair
        };
        Places {
            boot_list: pair(BLOCK_BYTES),
            map: pair(self.map_blocks() * BLOCK_BYTES),
            journal: pair(self.journal_bytes),
            ..Places::default()
        }
    }

    /// The boot list, live.
    pub fn boot(&self) -> Vec<BootRun> {
        let mut relocated = self.geometry().relocated_start_bytes;
        let mut runs = Vec::new();
        for (start, blocks) in BOOT {
            runs.push(BootRun {
                run: Run::new(start, blocks),
                live: true,
                relocated_bytes: relocated,
            });
            relocated += blocks * BLOCK_BYTES;
        }
        runs
    }
}
