// SPDX-License-Identifier: GPL-2.0-only
//! Superblocks on disks that are large, have grown or have bad places.

use imgstream_engine::plan::{plan, Demand};
use imgstream_proto::disk::State;

use super::*;
use crate::ondisk::pair::create;
use crate::volatile::Volatile;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Counts reads; some places cannot be read.
struct Counted {
    disk: Volatile,
    reads: usize,
    bad: Vec<u64>,
}

impl Counted {
    fn new(size_bytes: u64) -> Self {
        Self {
            disk: Volatile::new(size_bytes),
            reads: 0,
            bad: Vec::new(),
        }
    }

    /// With the superblocks of an image of `image_bytes`.
    fn migrated(size_bytes: u64, image_bytes: u64) -> (Self, Superblock) {
        let mut disk = Self::new(size_bytes);
        let fitted = plan(&Demand {
            disk_bytes: size_bytes,
            disk_logical_bytes: 512,
            image_bytes,
            image_logical_bytes: 512,
            boot_blocks: 1,
            boot_end_block: 1,
            boot_entries: 1,
            source_bytes: size_bytes,
            source_min_bytes: 2 * MIB,
            source_granule_bytes: 4096,
            source_base_bytes: MIB,
        });
        let fitted = fitted.unwrap();
        let mut superblock = Superblock::new([7; 16], State::Streaming, fitted.geometry);
        superblock.places = fitted.places;
        let found = create(&mut disk.disk, &superblock).unwrap();
        (disk, found.superblock)
    }

    fn table(&mut self, table: Table) {
        let mut head = vec![0; BLOCK_LEN];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        let entry = |head: &mut [u8], kind: u8, end_bytes: u64| {
            head[446 + 4] = kind;
            head[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
            let count = u32::try_from(end_bytes / 512 - 2048).unwrap_or(u32::MAX);
            head[446 + 12..446 + 16].copy_from_slice(&count.to_le_bytes());
        };
        match table {
            Table::None => head.fill(0),
            Table::Mbr(end_bytes) => entry(&mut head, 0x83, end_bytes),
            Table::Gpt(end_bytes) => {
                entry(&mut head, 0xee, end_bytes);
                head[512..520].copy_from_slice(b"EFI PART");
                head[544..552].copy_from_slice(&(end_bytes / 512 - 1).to_le_bytes());
            }
            Table::LostGpt(end_bytes) => entry(&mut head, 0xee, end_bytes),
        }
        self.disk.durable.insert(0, head.into());
    }

    fn found(&mut self) -> Option<Superblock> {
        self.reads = 0;
        find(self, "disk").unwrap().map(|found| found.superblock)
    }
}

/// A partition table, and where what it describes ends.
#[derive(Clone, Copy, Debug)]
enum Table {
    None,
    Mbr(u64),
    Gpt(u64),
    /// The protective MBR alone.
    LostGpt(u64),
}

impl Medium for Counted {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read(&mut self, at_bytes: u64, to: &mut [u8]) -> io::Result<()> {
        self.reads += 1;
        if self.bad.contains(&at_bytes) {
            return Err(io::Error::other("unreadable"));
        }
        self.disk.read(at_bytes, to)
    }

    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other("nothing is written here"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_large_disk_of_somebody_else_is_looked_at_in_few_places() {
    let most_of_an_mbr = u64::from(u32::MAX) * 512;
    for (size, table, reads) in [
        (16 * TIB, Table::None, 38),
        (16 * TIB, Table::Gpt(16 * TIB), 38),
        (TIB, Table::Mbr(TIB), 6),
        (2 * TIB, Table::Mbr(most_of_an_mbr), 8),
    ] {
        let mut disk = Counted::new(size);
        disk.table(table);
        assert_eq!(disk.found(), None);
        assert_eq!(disk.reads, reads, "{table:?}");
    }
}

#[test]
fn a_migration_is_found_after_its_disk_has_grown() {
    let (image, old) = (24 * MIB, 256 * MIB);
    for new in [old, old + 4096, old + 200 * MIB, TIB / 8] {
        // The source's tables, and the target's.
        for table in [
            Table::Gpt(old),
            Table::Mbr(old - MIB),
            Table::Mbr(old / 2),
            Table::Gpt(image),
            Table::Mbr(image - MIB),
            Table::LostGpt(image),
        ] {
            let (mut disk, superblock) = Counted::migrated(old, image);
            disk.disk.size_bytes = new;
            disk.table(table);
            assert_eq!(disk.found(), Some(superblock), "{new} bytes, {table:?}");
        }
    }
}

/// A disk that has grown from 256 MiB to `size_bytes`, with its table, and carries a migration in this state.
fn moved_table(size_bytes: u64, state: State) -> (Counted, Found) {
    let (mut disk, superblock) = Counted::migrated(256 * MIB, 24 * MIB);
    let mut found = find(&mut disk, "disk").unwrap().unwrap();
    let next = Superblock {
        state,
        ..superblock
    };
    found.replace(&mut disk.disk, next).unwrap();
    disk.disk.size_bytes = size_bytes;
    disk.table(Table::Gpt(size_bytes));
    (disk, found)
}

#[test]
fn what_a_commit_left_is_found_behind_a_table_that_was_moved() {
    for state in [State::Streaming, State::Committed] {
        let (mut disk, found) = moved_table(TIB / 8, state);
        assert_eq!(disk.found(), None);
        let expected = (state == State::Committed).then_some(found);
        let left = find_committed(&mut disk, "disk", Reach::Disk).unwrap();
        assert_eq!(left, expected);
    }
}

#[test]
fn before_its_end_has_begun_a_commit_is_looked_for_in_few_places() {
    let (mut disk, _) = moved_table(TIB / 8, State::Committed);
    disk.found();
    let few = std::mem::take(&mut disk.reads);
    assert_eq!(
        find_committed(&mut disk, "disk", Reach::Room).unwrap(),
        None
    );
    assert_eq!(disk.reads, few);
}

#[test]
fn what_is_no_plan_of_the_disk_is_nothing_that_a_commit_left() {
    for size in [TIB / 8, 256 * MIB] {
        let (mut disk, mut found) = moved_table(size, State::Committed);
        let mut next = found.superblock.clone();
        next.places.journal[1].start_bytes = 0;
        found.replace(&mut disk.disk, next).unwrap();
        let left = find_committed(&mut disk, "disk", Reach::Disk);
        // Where the table leaves room, that is somebody's damage; elsewhere it may be anything.
        match disk.found() {
            Some(_) => assert!(left.is_err()),
            None => assert_eq!(left.unwrap(), None),
        }
    }
}

#[test]
fn a_place_that_cannot_be_read_hides_no_commit() {
    let (mut disk, found) = moved_table(TIB / 8, State::Committed);
    let [a, b] = pair::locations(&found.superblock).unwrap();
    disk.bad = vec![TIB / 16];
    let left = find_committed(&mut disk, "disk", Reach::Disk).unwrap();
    assert_eq!(left, Some(found));
    disk.bad = vec![a, b];
    let error = find_committed(&mut disk, "disk", Reach::Disk).unwrap_err();
    assert!(error.to_string().contains("unreadable"), "{error}");
}

#[test]
fn the_first_copy_alone_is_found_however_large_the_control_area_is() {
    let size = 16 * TIB;
    for table in [Table::None, Table::Gpt(size), Table::Gpt(8 * TIB)] {
        let (mut disk, superblock) = Counted::migrated(size, 8 * TIB);
        let [_, b] = pair::locations(&superblock).unwrap();
        disk.disk.durable.insert(b / 4096, [0; BLOCK_LEN].into());
        disk.table(table);
        assert_eq!(disk.found(), Some(superblock), "{table:?}");
    }
}

#[test]
fn one_copy_that_cannot_be_read_is_like_one_that_is_damaged() {
    let (mut disk, superblock) = Counted::migrated(256 * MIB, 24 * MIB);
    let [a, b] = pair::locations(&superblock).unwrap();
    for (bad, copy) in [(a, Copy2::A), (b, Copy2::B)] {
        disk.bad = vec![bad];
        let found = find(&mut disk, "disk").unwrap().unwrap();
        assert_eq!(
            (found.superblock, found.stale),
            (superblock.clone(), Some(copy))
        );
    }
    // Of a disk that gives neither back nobody can say that it carries no migration.
    disk.bad = vec![a, b];
    assert!(find(&mut disk, "disk").is_err());
}
