// SPDX-License-Identifier: GPL-2.0-only

//! Tests of bio-based disks: how they look, who may open them, and how they go.

use kernel::prelude::*;

#[kunit_tests(imgstream_blk_disk)]
mod suite {
    use super::super::*;
    use crate::kapi::{
        bio::Op,
        blk::BlkStatus,
        testing::{
            every,
            watched,
            MemoryDisk,
            Watch,
            Watched, //
        }, //
    };
    use core::sync::atomic::{
        AtomicU32,
        Ordering, //
    };

    /// A disk of zeroes.
    struct Zeroes {
        reads: AtomicU32,
        below: Option<Arc<Bdev>>,
        _watched: Watched,
    }

    impl BioDriver for Zeroes {
        fn submit(this: ArcBorrow<'_, Self>, bio: Bio) {
            if bio.op() != Op::Read {
                return bio.end(BlkStatus::OK);
            }
            this.reads.fetch_add(1, Ordering::SeqCst);
            bio.end_zeroed();
        }

        fn below(&self) -> Option<&Bdev> {
            self.below.as_deref()
        }
    }

    impl Zeroes {
        fn over(below: Option<Arc<Bdev>>) -> Result<(Arc<Self>, Watch)> {
            let (watched, watch) = watched()?;
            let zeroes = Self {
                reads: AtomicU32::new(0),
                below,
                _watched: watched,
            };
            Ok((Arc::new(zeroes, GFP_KERNEL)?, watch))
        }

        fn reads(&self) -> u32 {
            self.reads.load(Ordering::SeqCst)
        }
    }

    fn limits() -> Limits {
        Limits::copied(1 << 20).block_bytes(512, 4096)
    }

    fn config(visibility: Visibility) -> Config {
        Config {
            name: c"imgstream_zeroes",
            size_bytes: 1 << 20,
            limits: limits(),
            visibility,
            read_only: false,
        }
    }

    /// One that is added, and when its driver is gone.
    fn disk(config: Config) -> Result<(BioDisk<Zeroes>, Watch)> {
        let (zeroes, watch) = Zeroes::over(None)?;
        Ok((BioDisk::add(zeroes, config)?, watch))
    }

    fn open(disk: &BioDisk<Zeroes>) -> Result<Bdev> {
        Bdev::open_own(disk.part0()?)
    }

    /// Closes it now; see [`MemoryDisk::close`].
    fn close(bdev: Bdev) {
        drop(bdev);
        // SAFETY: In a kernel thread, whose files are closed later.
        unsafe { bindings::flush_delayed_fput() };
    }

    #[test]
    fn the_size_is_that_of_whole_sectors() {
        let table = [
            (0, 0),
            (511, 0),
            (512, 512),
            (1023, 512),
            ((1 << 40) + 513, (1 << 40) + 512),
        ];
        assert!(every(table, |&(bytes, expected)| size_of(bytes) == Ok(expected)));
    }

    fn size_of(size_bytes: u64) -> Result<u64> {
        let config = Config {
            size_bytes,
            ..config(Visibility::Whole)
        };
        let (disk, _) = disk(config)?;
        let bdev = open(&disk)?;
        let found = bdev.size_bytes();
        close(bdev);
        Ok(found)
    }

    /// No partitions ever, none yet, hidden, and read-only.
    type Look = [bool; 4];

    #[test]
    fn a_disk_looks_as_it_is_to_look() {
        let table = [
            (0, false, [false, true, false, false]),
            (1, false, [true, false, false, false]),
            (2, false, [false, false, true, false]),
            (0, true, [false, true, false, true]),
            (1, true, [true, false, false, true]),
        ];
        assert!(every(table, |&(which, read_only, expected)| {
            let visibility = match which {
                0 => Visibility::Partitioned,
                1 => Visibility::Whole,
                _ => Visibility::Hidden,
            };
            look(visibility, read_only) == Ok(expected)
        }));
    }

    fn look(visibility: Visibility, read_only: bool) -> Result<Look> {
        let config = Config {
            read_only,
            ..config(visibility)
        };
        let (disk, _) = disk(config)?;
        let raw = disk.added.as_ref().ok_or(ENODEV)?.disk.as_ptr();
        // SAFETY: The disk is there.
        let (flags, state) = unsafe { ((*raw).flags as u32, (*raw).state) };
        let is_set = |bit: u32| state & 1 << bit != 0;
        Ok([
            flags & bindings::GENHD_FL_NO_PART != 0,
            is_set(bindings::GD_SUPPRESS_PART_SCAN),
            flags & bindings::GENHD_FL_HIDDEN != 0,
            is_set(bindings::GD_READ_ONLY),
        ])
    }

    #[test]
    fn a_hidden_disk_is_not_opened() -> Result {
        let (disk, _) = disk(config(Visibility::Hidden))?;
        assert_eq!(open(&disk).err(), Some(ENXIO));
        Ok(())
    }

    #[test]
    fn who_has_it_open_keeps_it_from_being_closed() -> Result {
        let (disk, _) = disk(config(Visibility::Whole))?;
        let (first, second) = (open(&disk)?, open(&disk)?);
        assert!(!disk.close_if_unused());
        close(first);
        assert!(!disk.close_if_unused());
        close(second);
        assert!(disk.close_if_unused());
        assert_eq!(open(&disk).err(), Some(ENXIO));
        disk.reopen();
        close(open(&disk)?);
        assert!(disk.close_if_unused());
        Ok(())
    }

    #[test]
    fn who_has_it_open_when_it_goes_keeps_the_driver_and_gets_errors() -> Result {
        let (disk, gone) = disk(config(Visibility::Whole))?;
        let bdev = open(&disk)?;
        let mut sector = KVec::from_elem(0xeeu8, 512, GFP_KERNEL)?;
        bdev.read(0, &mut sector)?;
        assert!(sector.iter().all(|&byte| byte == 0));
        drop(disk);
        assert!(bdev.read(0, &mut sector).is_err() && !gone.is_gone());
        close(bdev);
        assert!(gone.is_gone());
        Ok(())
    }

    #[test]
    fn partitions_are_looked_for_when_that_is_asked_for() -> Result {
        let (zeroes, _) = Zeroes::over(None)?;
        let disk = BioDisk::add(zeroes.clone(), config(Visibility::Partitioned))?;
        let scan = disk.partition_scan().ok_or(ENODEV)?;
        close(open(&disk)?);
        assert_eq!(zeroes.reads(), 0);
        scan.run();
        let reads = zeroes.reads();
        assert!(reads != 0);
        drop(disk);
        scan.run();
        assert_eq!(zeroes.reads(), reads);
        Ok(())
    }

    #[test]
    fn a_geometry_is_that_of_the_disk_below_or_none() -> Result {
        // The one below has none, as a disk in memory has nothing below.
        let below = MemoryDisk::plain(c"imgstream_kunit")?;
        for below in [None, Some(below.bdev()?.clone())] {
            let (zeroes, _) = Zeroes::over(below)?;
            let disk = BioDisk::add(zeroes, config(Visibility::Whole))?;
            // Room for the structure.
            let mut geometry = [0u64; 4];
            let raw = disk.added.as_ref().ok_or(ENODEV)?.disk.as_ptr();
            let place = geometry.as_mut_ptr().cast();
            // SAFETY: The disk is there, and there is room for a geometry, of 16 bytes.
            let found = unsafe { BioDisk::<Zeroes>::getgeo(raw, place) };
            assert_eq!(found, ENOTTY.to_errno());
        }
        Ok(())
    }

    #[test]
    fn a_disk_that_cannot_be_made_leaves_no_driver() {
        let table = [(511, 4096), (513, 4096), (256, 512)];
        assert!(every(table, |&(logical, physical)| {
            let config = Config {
                limits: limits().block_bytes(logical, physical),
                ..config(Visibility::Whole)
            };
            let Ok((zeroes, gone)) = Zeroes::over(None) else {
                return false;
            };
            BioDisk::add(zeroes, config).is_err() && gone.is_gone()
        }));
    }
}
