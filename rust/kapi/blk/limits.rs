// SPDX-License-Identifier: GPL-2.0-only

//! Limits and features of a disk, complete before the disk is added.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h), `struct queue_limits`.

use crate::{
    bindings,
    kapi::{
        bdev::Bdev,
        blk::SECTOR_BYTES, //
    },
};

/// Limits under construction.
pub(crate) struct Limits(pub(super) bindings::queue_limits);

impl Limits {
    /// Limits of a device whose bios go to `below` as clones: what the disk asks of alignment is kept, its size limits
    /// are not, since the block layer splits the clones again. Of `features`, [`Features::NOWAIT`] is taken away if the
    /// disk lacks it: it would fail the clones.
    pub(crate) fn stacked(below: &Bdev, features: Features) -> Self {
        let mut lim = pin_init::zeroed();
        // SAFETY: `lim` is ours.
        unsafe { bindings::blk_set_stacking_limits(&mut lim) };
        // Before stacking, which clears what both have to have.
        let mut this = Self(lim).features(features);
        // SAFETY: The limits are ours, `below` is open.
        unsafe { bindings::imgstream_queue_limits_stack(&mut this.0, below.as_ptr()) };
        this
    }

    /// Limits of a queue whose data this module copies: nothing about segments matters.
    pub(crate) fn copied(max_bytes: u32) -> Self {
        let mut lim: bindings::queue_limits = pin_init::zeroed();
        lim.max_hw_sectors = max_bytes / SECTOR_BYTES as u32;
        lim.max_segments = u16::MAX;
        lim.max_segment_size = u32::MAX;
        lim.dma_alignment = 3;
        lim.seg_boundary_mask = usize::MAX;
        Self(lim)
    }

    /// Logical and physical block size.
    pub(crate) fn block_bytes(mut self, logical: u32, physical: u32) -> Self {
        self.0.logical_block_size = logical;
        self.0.physical_block_size = physical;
        self.0.io_min = physical;
        self
    }

    /// Switches features of `BLK_FEAT_*` on.
    pub(crate) fn features(mut self, features: Features) -> Self {
        self.0.features |= features.0;
        self
    }

    /// Discards of up to `max_bytes`, in multiples of `granularity` bytes.
    pub(crate) fn discard(mut self, max_bytes: u32, granularity: u32) -> Self {
        self.0.max_hw_discard_sectors = max_bytes / SECTOR_BYTES as u32;
        self.0.max_user_discard_sectors = u32::MAX;
        self.0.max_discard_segments = 1;
        self.0.discard_granularity = granularity;
        self.0.discard_alignment = 0;
        self
    }

    /// Write-zeroes of up to `max_bytes`.
    pub(crate) fn write_zeroes(mut self, max_bytes: u32) -> Self {
        self.0.max_write_zeroes_sectors = max_bytes / SECTOR_BYTES as u32;
        self.0.max_hw_wzeroes_unmap_sectors = 0;
        self.0.max_user_wzeroes_unmap_sectors = u32::MAX;
        self
    }

    /// Without any of discard and write-zeroes.
    pub(crate) fn plain(mut self) -> Self {
        self.0.max_hw_discard_sectors = 0;
        self.0.max_discard_segments = 0;
        self.0.max_write_zeroes_sectors = 0;
        self.0.max_hw_wzeroes_unmap_sectors = 0;
        self.0.max_secure_erase_sectors = 0;
        self
    }
}

/// A set of queue features.
#[derive(Clone, Copy)]
pub(crate) struct Features(bindings::blk_features_t);

impl Features {
    /// There is a volatile cache that a flush empties.
    pub(crate) const WRITE_CACHE: Self = Self(bindings::BLK_FEAT_WRITE_CACHE);
    /// Writes can be made durable one by one.
    pub(crate) const FUA: Self = Self(bindings::BLK_FEAT_FUA);
    /// Asking not to wait is understood.
    pub(crate) const NOWAIT: Self = Self(bindings::BLK_FEAT_NOWAIT);
    /// I/O is counted.
    pub(crate) const IO_STAT: Self = Self(bindings::BLK_FEAT_IO_STAT);
}

impl core::ops::BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[kernel::prelude::kunit_tests(imgstream_limits)]
mod tests {
    use super::*;
    use crate::kapi::testing::{
        every,
        MemoryDisk, //
    };
    use kernel::error::Result;

    const NONE: Features = Features(0);

    fn limits_over(below: Limits, features: Features) -> Result<Limits> {
        let disk = MemoryDisk::new(c"imgstream_below", below)?;
        Ok(Limits::stacked(disk.bdev()?, features))
    }

    #[test]
    fn stacked_limits_have_the_blocks_of_the_disk_below() -> Result {
        let table = [(512, 512), (512, 4096), (4096, 4096), (1024, 2048)];
        assert!(every(table, |&(logical, physical)| {
            let below = Limits::copied(1 << 20).block_bytes(logical, physical);
            limits_over(below, NONE).is_ok_and(|Limits(limits)| {
                (limits.logical_block_size, limits.physical_block_size) == (logical, physical)
            })
        }));
        Ok(())
    }

    #[test]
    fn stacked_limits_have_the_strictest_alignment() -> Result {
        assert!(every([3, 511], |&mask| {
            let mut below = Limits::copied(1 << 20).block_bytes(512, 512);
            below.0.dma_alignment = mask;
            limits_over(below, NONE).is_ok_and(|limits| limits.0.dma_alignment >= mask)
        }));
        Ok(())
    }

    #[test]
    fn stacked_limits_have_the_cache_of_the_disk_below() -> Result {
        let table = [
            NONE,
            Features::WRITE_CACHE,
            Features::WRITE_CACHE | Features::FUA,
        ];
        let looked_at = Features::WRITE_CACHE | Features::FUA;
        assert!(every(table.map(|features| features.0), |&features| {
            let below = Limits::copied(1 << 20).block_bytes(512, 512);
            limits_over(below.features(Features(features)), NONE)
                .is_ok_and(|limits| limits.0.features & looked_at.0 == features)
        }));
        Ok(())
    }

    #[test]
    fn not_to_wait_is_offered_if_the_disk_below_can_do_it() -> Result {
        let (nowait, io_stat) = (Features::NOWAIT, Features::IO_STAT);
        // What is wanted, what the disk below has, and what there is.
        let table = [
            (nowait | io_stat, nowait, nowait | io_stat),
            (nowait | io_stat, NONE, io_stat),
            (io_stat, nowait, io_stat),
        ];
        let table = table.map(|(Features(wanted), Features(has), Features(is))| (wanted, has, is));
        let looked_at = (nowait | io_stat).0;
        assert!(every(table, |&(wanted, has, is)| {
            let below = Limits::copied(1 << 20).block_bytes(512, 512);
            limits_over(below.features(Features(has)), Features(wanted))
                .is_ok_and(|limits| limits.0.features & looked_at == is)
        }));
        Ok(())
    }

    #[test]
    fn bytes_are_counted_in_whole_sectors() {
        let table = [
            (0, 0),
            (511, 0),
            (512, 1),
            (4096, 8),
            (u32::MAX, (1 << 23) - 1),
        ];
        assert!(every(table, |&(bytes, sectors)| {
            let Limits(limits) = Limits::copied(bytes)
                .discard(bytes, 4096)
                .write_zeroes(bytes);
            let found = [
                limits.max_hw_sectors,
                limits.max_hw_discard_sectors,
                limits.max_write_zeroes_sectors,
            ];
            found == [sectors; 3] && limits.discard_granularity == 4096
        }));
    }

    #[test]
    fn plain_limits_have_neither_discard_nor_write_zeroes() {
        let Limits(limits) = Limits::copied(1 << 20)
            .discard(1 << 20, 4096)
            .write_zeroes(1 << 20)
            .plain();
        let left = [
            limits.max_hw_discard_sectors,
            limits.max_write_zeroes_sectors,
            limits.max_hw_wzeroes_unmap_sectors,
            limits.max_secure_erase_sectors,
        ];
        assert_eq!(left, [0; 4]);
    }
}
