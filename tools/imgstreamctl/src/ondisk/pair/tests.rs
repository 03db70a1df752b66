// SPDX-License-Identifier: GPL-2.0-only
//! Superblocks that go, on a disk whose control area may be somebody else's by
//! then.

use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN};

use super::*;
use crate::ondisk::find;
use crate::stage::tests::superblock;
use crate::volatile::{cut_everywhere, Volatile};

const SECTOR: usize = SECTOR_BYTES as usize;

/// Bytes of a file system.
fn foreign() -> Vec<u8> {
    vec![b'f'; BLOCK_LEN]
}

fn places() -> [u64; 2] {
    pair::locations(&superblock(State::Committed)).unwrap()
}

fn number(copy: Copy2) -> u64 {
    *copy.of(&places()) / BLOCK_BYTES
}

fn migrated(state: State) -> Volatile {
    let superblock = superblock(state);
    let mut disk = Volatile::new(superblock.geometry.disk_bytes);
    create(&mut disk, &superblock).unwrap();
    disk
}

/// `committed` by `newer` alone; the other copy is of before.
fn one_says_committed(newer: Copy2) -> Volatile {
    let mut disk = migrated(State::Committing);
    let old = disk.block(number(newer.other()));
    let mut found = find(&mut disk, "disk").unwrap().unwrap();
    found.set_state(&mut disk, State::Committed, 0).unwrap();
    disk.durable.insert(number(newer.other()), old.into());
    disk
}

/// Of a block its first sector is ours, the rest a file system's with blocks of 512 bytes.
fn half(disk: &mut Volatile, copy: Copy2) {
    let mut block = disk.block(number(copy));
    block[SECTOR..].fill(b'f');
    disk.durable.insert(number(copy), block.into());
}

#[test]
fn what_stands_in_a_superblocks_place_stays() {
    for copy in Copy2::BOTH {
        let mut disk = migrated(State::Committed);
        disk.durable.insert(number(copy), foreign().into());
        let mut found = find(&mut disk, "disk").unwrap().unwrap();
        assert_eq!(found.stale, Some(copy));
        found.agree(&mut disk, false).unwrap();
        wipe_pair(&mut disk, &found).unwrap();
        assert_eq!(disk.block(number(copy)), foreign());
        assert_eq!(disk.block(number(copy.other())), vec![0; BLOCK_LEN]);
    }
}

#[test]
fn a_superblock_of_another_migration_or_place_stays() {
    let [a, b] = places();
    let other = Superblock {
        uuid: [8; 16],
        ..superblock(State::Streaming)
    };
    for block in [
        encode(&other, a).unwrap(),
        encode(&superblock(State::Committed), b).unwrap(),
    ] {
        let mut disk = migrated(State::Committed);
        let found = find(&mut disk, "disk").unwrap().unwrap();
        disk.durable.insert(number(Copy2::A), block[..].into());
        wipe_pair(&mut disk, &found).unwrap();
        assert_eq!(disk.block(number(Copy2::A)), *block);
        assert_eq!(disk.block(number(Copy2::B)), vec![0; BLOCK_LEN]);
    }
}

/// Ends a migration, or goes on with that.
fn end(disk: &mut Volatile) -> Result<()> {
    let Some(mut found) = find(disk, "disk")? else {
        return Ok(());
    };
    found.agree(disk, false)?;
    wipe_pair(disk, &found)
}

#[test]
fn of_a_damaged_superblock_only_the_first_sector_is_known_to_be_ours() {
    for copy in Copy2::BOTH {
        let mut start = migrated(State::Committed);
        half(&mut start, copy);
        cut_everywhere(&start, |disk, cut, fate| {
            let when = format!("{copy:?}, cut {cut}, {fate:?}");
            let whole = end(disk).is_ok();
            disk.restart(fate);
            // It must not be left alone: nobody could say what it was.
            assert!(end(disk).is_ok(), "{when}");
            assert_eq!(find(disk, "disk").unwrap(), None, "{when}");
            let block = disk.block(number(copy));
            assert!(block[SECTOR..].iter().all(|byte| *byte == b'f'), "{when}");
            whole
        });
    }
}

#[test]
fn an_older_copy_is_replaced_before_anything_acts_on_the_newer_one() {
    for newer in Copy2::BOTH {
        for ours in [false, true] {
            let mut disk = one_says_committed(newer);
            let mut found = find(&mut disk, "disk").unwrap().unwrap();
            assert_eq!(found.superblock.state, State::Committed);
            assert_eq!(found.stale, Some(newer.other()));
            found.agree(&mut disk, ours).unwrap();
            assert!(found.stale.is_none() && disk.cached.is_empty());
            assert_eq!(find(&mut disk, "disk").unwrap(), Some(found));
            // Whichever copy is lost.
            for lost in Copy2::BOTH {
                let mut disk = disk.clone();
                disk.durable.insert(number(lost), foreign().into());
                let left = find(&mut disk, "disk").unwrap().unwrap();
                assert_eq!(left.superblock.state, State::Committed);
            }
        }
    }
}

#[test]
fn an_older_copy_never_counts_again_because_the_newer_one_is_wiped() {
    for newer in Copy2::BOTH {
        let start = one_says_committed(newer);
        cut_everywhere(&start, |disk, cut, fate| {
            let whole = wipe(disk, 0).is_ok();
            disk.restart(fate);
            let found = find(disk, "disk").unwrap();
            let state = found.map(|found| found.superblock.state);
            let when = format!("{newer:?} is newer, cut {cut}, {fate:?}");
            assert!(matches!(state, None | Some(State::Committed)), "{when}");
            wipe(disk, 0).unwrap();
            assert_eq!(find(disk, "disk").unwrap(), None, "{when}");
            whole
        });
    }
}

#[test]
fn what_has_no_pair_is_wiped_as_well() {
    for damaged in 1..=2 {
        let mut disk = migrated(State::RolledBack);
        for copy in Copy2::BOTH.into_iter().take(damaged) {
            half(&mut disk, copy);
        }
        wipe(&mut disk, 0).unwrap();
        assert_eq!(find(&mut disk, "disk").unwrap(), None);
    }
}

#[test]
fn nothing_is_wiped_in_front_of_the_place_that_is_named() {
    let mut disk = migrated(State::RolledBack);
    let before = disk.block(number(Copy2::A));
    wipe(&mut disk, places()[0] + BLOCK_BYTES).unwrap();
    assert_eq!(disk.block(number(Copy2::A)), before);
    assert_eq!(disk.block(number(Copy2::B)), vec![0; BLOCK_LEN]);
}

#[test]
fn a_damaged_copy_is_replaced_only_in_a_control_area_that_is_ours() {
    for copy in Copy2::BOTH {
        for ours in [false, true] {
            let mut disk = migrated(State::Committed);
            half(&mut disk, copy);
            let before = disk.durable.clone();
            let mut found = find(&mut disk, "disk").unwrap().unwrap();
            found.agree(&mut disk, ours).unwrap();
            assert_eq!(found.stale, (!ours).then_some(copy));
            assert_eq!(disk.durable == before, !ours);
        }
    }
}

/// Whether the disk has the secret anywhere.
fn knows(disk: &Volatile) -> bool {
    let all = disk.durable.values().chain(disk.cached.values());
    all.into_iter()
        .any(|block| block.windows(SECRET.len()).any(|bytes| bytes == SECRET))
}

const SECRET: &[u8] = b"what nobody may find";

#[test]
fn no_secret_is_left_wherever_the_wipe_is_cut() {
    let mut superblock = superblock(State::Committed);
    superblock.origin.chap = Chap::new((b"me", SECRET), Some((b"it", b"another secret"))).unwrap();
    let mut start = Volatile::new(superblock.geometry.disk_bytes);
    create(&mut start, &superblock).unwrap();
    assert!(knows(&start));
    let steps = cut_everywhere(&start, |disk, cut, fate| {
        let when = format!("cut {cut}, {fate:?}");
        let whole = end(disk).is_ok();
        disk.restart(fate);
        end(disk).unwrap();
        assert_eq!(find(disk, "disk").unwrap(), None, "{when}");
        assert!(!knows(disk), "{when}");
        whole
    });
    assert!(steps > 7, "only {steps} steps were cut");
}
