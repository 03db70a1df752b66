// SPDX-License-Identifier: GPL-2.0-only

//! Tests of the disk below, over a disk in memory.

use kernel::prelude::*;

#[kunit_tests(imgstream_bdev)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        bio::Op,
        blk::limits::Limits,
        testing::{
            every,
            MemoryDisk, //
        }, //
    };

    const SECTOR: usize = SECTOR_BYTES as usize;
    /// Of the disk in memory.
    const DISK_BYTES: u64 = 256 << 10;

    fn plain() -> Result<MemoryDisk> {
        MemoryDisk::plain(c"imgstream_kunit")
    }

    fn bytes(byte: u8, len: usize) -> Result<KVec<u8>> {
        Ok(KVec::from_elem(byte, len, GFP_KERNEL)?)
    }

    /// Which bytes of the disk are `byte`, if they are in one piece and the others are 0.
    fn found(disk: &MemoryDisk, byte: u8) -> Result<Option<(u64, usize)>> {
        let mut all = bytes(0xee, DISK_BYTES as usize)?;
        disk.data().copy_to_slice(0, &mut all)?;
        let Some(start) = all.iter().position(|&found| found == byte) else {
            return Ok(all.iter().all(|&found| found == 0).then_some((0, 0)));
        };
        let len = all.iter().filter(|&&found| found == byte).count();
        let right = |(at, &found): (usize, &u8)| {
            found
                == if (start..start + len).contains(&at) {
                    byte
                } else {
                    0
                }
        };
        Ok(all
            .iter()
            .enumerate()
            .all(right)
            .then_some((start as u64, len)))
    }

    #[test]
    fn what_is_no_disk_is_not_opened() {
        const ENOTBLK: i32 = bindings::ENOTBLK as i32;
        let table = [
            (c"/there-is-no-such-disk", ENOENT.to_errno()),
            (c"/", -ENOTBLK),
            (c"", EINVAL.to_errno()),
        ];
        assert!(every(table, |(path, expected)| {
            Bdev::open(path).err().map(Error::to_errno) == Some(*expected)
        }));
    }

    /// What somebody else gets who wants the disk for himself.
    fn claimed(number: bindings::dev_t) -> Result {
        static STRANGER: u8 = 0;
        let mode = bindings::BLK_OPEN_READ;
        let holder = core::ptr::addr_of!(STRANGER).cast_mut().cast();
        // SAFETY: The holder is a static address.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_dev(number, mode, holder, core::ptr::null())
        })?;
        // SAFETY: Just opened.
        unsafe { bindings::bdev_fput(file) };
        Ok(())
    }

    #[test]
    fn nobody_else_can_claim_it_until_it_is_dropped() -> Result {
        let mut disk = plain()?;
        // SAFETY: Open.
        let number = unsafe { (*disk.bdev()?.as_ptr()).bd_dev };
        assert_eq!(claimed(number), Err(EBUSY));
        disk.close();
        assert_eq!(claimed(number), Ok(()));
        Ok(())
    }

    #[test]
    fn it_says_what_the_disk_is() {
        // Bytes of a block, whether it discards, and whether it zeroes.
        let table = [
            (512, false, false),
            (4096, false, false),
            (512, true, false),
            (512, false, true),
            (4096, true, true),
        ];
        assert!(every(table, |&is| says(is) == Ok((is, DISK_BYTES))));
    }

    /// What is said of a disk, and how many bytes it has.
    fn says((logical, discard, zeroes): (u32, bool, bool)) -> Result<((u32, bool, bool), u64)> {
        let limits = Limits::copied(1 << 20)
            .block_bytes(logical, 4096)
            .discard(if discard { 1 << 20 } else { 0 }, 4096)
            .write_zeroes(if zeroes { 1 << 20 } else { 0 });
        let disk = MemoryDisk::new(c"imgstream_kunit", limits)?;
        let bdev = disk.bdev()?;
        let found = (
            bdev.logical_block_bytes(),
            bdev.can_discard(),
            bdev.can_write_zeroes(),
        );
        Ok((found, bdev.size_bytes()))
    }

    #[test]
    fn whole_sectors_are_written_where_they_belong_and_read_back() {
        let table = [
            (0, SECTOR),
            (512, SECTOR),
            (4096 - 512, 2 * SECTOR),
            (DISK_BYTES - 512, SECTOR),
            (0, 64 << 10),
            (DISK_BYTES - (64 << 10), 64 << 10),
        ];
        assert!(every(table, |&(at, len)| comes_back(at, len) == Ok(true)));
    }

    fn comes_back(at: u64, len: usize) -> Result<bool> {
        let disk = plain()?;
        disk.bdev()?.write(at, &bytes(0x5a, len)?)?;
        let mut back = bytes(0, len)?;
        disk.bdev()?.read(at, &mut back)?;
        Ok(found(&disk, 0x5a)? == Some((at, len)) && back.iter().all(|&byte| byte == 0x5a))
    }

    #[test]
    fn what_is_no_whole_sector_is_refused_and_not_asked_for() -> Result {
        let disk = plain()?;
        let bdev = disk.bdev()?;
        let mut buffer = bytes(0x5a, 3 * SECTOR)?;
        // Where on the disk, and from where to where in the buffer.
        let table = [
            (1, 0..SECTOR),
            (511, 0..SECTOR),
            (0, 0..1),
            (0, 0..SECTOR - 1),
            (0, 0..SECTOR + 1),
            (0, 1..SECTOR + 1),
            (0, 8..SECTOR + 8),
            (u64::MAX, 0..SECTOR),
        ];
        disk.watch()?;
        assert!(every(table, |(at, range)| {
            let part = buffer.get_mut(range.clone()).unwrap_or(&mut []);
            bdev.write(*at, part) == Err(EINVAL) && bdev.read(*at, part) == Err(EINVAL)
        }));
        assert!(disk.asked().is_empty());
        Ok(())
    }

    #[test]
    fn beyond_the_end_nothing_is_read_or_written() -> Result {
        let disk = plain()?;
        let bdev = disk.bdev()?;
        let mut buffer = bytes(0x5a, 2 * SECTOR)?;
        disk.watch()?;
        let table = [DISK_BYTES - 512, DISK_BYTES, DISK_BYTES + 512, 1 << 62];
        assert!(every(table, |&at| {
            bdev.write(at, &buffer) == Err(EIO) && bdev.read(at, &mut buffer) == Err(EIO)
        }));
        assert!(disk.asked().is_empty() && found(&disk, 0x5a)? == Some((0, 0)));
        Ok(())
    }

    #[test]
    fn errors_of_the_disk_are_those_of_the_caller() -> Result {
        let disk = plain()?;
        let bdev = disk.bdev()?;
        disk.break_sectors(3..4);
        let mut buffer = bytes(0x5a, 2 * SECTOR)?;
        let table = [
            (0, Ok(())),
            (512, Ok(())),
            (2 * 512, Err(EIO)),
            (3 * 512, Err(EIO)),
            (4 * 512, Ok(())),
        ];
        assert!(every(table, |&(at, expected)| {
            bdev.read(at, &mut buffer) == expected
                && bdev.write(at, &buffer) == expected
                && bdev.write_zeroes(at, 1024) == expected
        }));
        Ok(())
    }

    #[test]
    fn a_flush_reaches_a_disk_that_has_a_cache() -> Result {
        let disk = MemoryDisk::cached(c"imgstream_kunit")?;
        disk.watch()?;
        disk.bdev()?.write(4096, &bytes(1, SECTOR)?)?;
        disk.bdev()?.flush()?;
        assert!(*disk.asked() == [(Op::Write, 8), (Op::Flush, 0)]);
        disk.fail_after(0);
        assert_eq!(disk.bdev()?.flush(), Err(EIO));
        drop(disk);
        let disk = plain()?;
        disk.fail_after(0);
        assert_eq!(disk.bdev()?.flush(), Ok(()));
        Ok(())
    }

    #[test]
    fn zeroes_are_written_by_either_side() {
        let limits = || Limits::copied(1 << 20).block_bytes(512, 512);
        // Whether the disk can do it, where, and how much.
        let ranges = [
            (0, 512),
            (4096 - 512, 1024),
            (DISK_BYTES - 512, 512),
            (0, 128 << 10),
        ];
        assert!(every([false, true], |&able| {
            ranges.into_iter().all(|(at, len)| {
                let limits = match able {
                    true => limits().write_zeroes(1 << 20),
                    false => limits(),
                };
                zeroed(limits, at, len) == Ok((true, able))
            })
        }));
    }

    /// Whether exactly these bytes are zeroed, and whether the disk did it.
    fn zeroed(limits: Limits, at: u64, len: usize) -> Result<(bool, bool)> {
        let disk = MemoryDisk::new(c"imgstream_kunit", limits)?;
        let mut expected = bytes(0x5a, DISK_BYTES as usize)?;
        disk.data().copy_from_slice(0, &expected)?;
        disk.watch()?;
        disk.bdev()?.write_zeroes(at, len as u64)?;
        let by_disk = disk.asked().iter().all(|&(op, _)| op == Op::WriteZeroes);
        let range = at as usize..at as usize + len;
        expected.get_mut(range).ok_or(EINVAL)?.fill(0);
        let mut all = bytes(0xee, DISK_BYTES as usize)?;
        disk.data().copy_to_slice(0, &mut all)?;
        Ok((*all == *expected, by_disk))
    }
}
