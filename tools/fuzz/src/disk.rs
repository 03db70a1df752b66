// SPDX-License-Identifier: GPL-2.0-only

//! What stands on a disk. The checksum is out of the way: every structure is right as long as its field is 0. What was
//! accepted is written again, and must be accepted as the same.

use imgstream_engine::journal::replay;
use imgstream_proto::disk::boot_list::{BootList, ENTRY_LEN, HEAD_LEN};
use imgstream_proto::disk::journal::{Builder, Transaction, RECORD_LEN};
use imgstream_proto::disk::settings::SETTINGS_LEN;
use imgstream_proto::disk::superblock::{Checkpoint, SUPERBLOCK_LEN};
use imgstream_proto::disk::trailer::TRAILER_LEN;
use imgstream_proto::disk::{Segment, Settings, Superblock, Trailer, BLOCK_LEN, SEGMENT_LEN};

/// The migration.
pub(crate) const UUID: [u8; 16] = *b"imgstream  fuzz.";
/// Where structures stand.
pub(crate) const PLACE: u64 = 64 << 20;
/// Size of the unit that ends with a trailer.
pub(crate) const LUN_BYTES: u64 = 64 << 20;

/// No checksum.
pub(crate) const fn crc(_: &[u8]) -> u32 {
    0
}

pub(crate) fn body(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 8 {
        0 => superblock(&padded(bytes)),
        1 => settings(&padded(bytes)),
        2 => trailer(&padded(bytes)),
        3 => boot_list(bytes),
        4 => segment(bytes),
        5 => transaction(bytes),
        6 => journal(bytes, 1),
        _ => journal(bytes, u64::MAX),
    }
}

/// One block: cut, or filled up with zeroes.
fn padded(bytes: &[u8]) -> [u8; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    let len = bytes.len().min(BLOCK_LEN);
    block[..len].copy_from_slice(&bytes[..len]);
    block
}

fn superblock(block: &[u8; SUPERBLOCK_LEN]) {
    let Ok(found) = Superblock::decode(PLACE, block, crc) else {
        return;
    };
    let mut again = [0; SUPERBLOCK_LEN];
    found.encode(PLACE, &mut again, crc).unwrap();
    assert_eq!(Superblock::decode(PLACE, &again, crc), Ok(found.clone()));
    assert!(Superblock::begins(PLACE, block, &found.uuid));
}

fn settings(block: &[u8; SETTINGS_LEN]) {
    let Ok(found) = Settings::decode(&UUID, PLACE, block, crc) else {
        return;
    };
    let mut again = [0; SETTINGS_LEN];
    found.encode(&UUID, PLACE, &mut again, crc).unwrap();
    assert_eq!(Settings::decode(&UUID, PLACE, &again, crc), Ok(found));
}

fn trailer(block: &[u8; TRAILER_LEN]) {
    let Ok(found) = Trailer::decode(LUN_BYTES, block, crc) else {
        return;
    };
    let mut again = [0; TRAILER_LEN];
    found.encode(&mut again, crc).unwrap();
    assert_eq!(Trailer::decode(LUN_BYTES, &again, crc), Ok(found));
}

fn boot_list(bytes: &[u8]) {
    let Ok(found) = BootList::decode(&UUID, PLACE, bytes, crc) else {
        return;
    };
    let entries: Vec<_> = found.entries().collect();
    assert_eq!(entries.len(), found.len(), "an entry was left out");
    assert_eq!(found.used_len(), HEAD_LEN + found.len() * ENTRY_LEN);
    let ascending = |pair: &[_; 2]| -> bool {
        let [a, b]: &[imgstream_proto::disk::BootEntry; 2] = pair;
        a.end_block().is_some_and(|end| end <= b.image_block)
    };
    assert!(entries.windows(2).all(|p| ascending(&[p[0], p[1]])));
    let mut again = vec![0; found.used_len()];
    BootList::encode(found.header(), &entries, &mut again, crc).unwrap();
    let again = BootList::decode(&UUID, PLACE, &again, crc).unwrap();
    assert_eq!(again.entries().collect::<Vec<_>>(), entries);
}

fn segment(bytes: &[u8]) {
    let Ok(found) = Segment::decode(&UUID, bytes, crc) else {
        return;
    };
    let mut again = [0; SEGMENT_LEN];
    found.encode(&UUID, &mut again, crc).unwrap();
    assert_eq!(Segment::decode(&UUID, &again, crc), Ok(found));
    assert!(Segment::decode_at(&UUID, found.index, bytes, crc).is_ok());
}

fn transaction(bytes: &[u8]) {
    let Ok(found) = Transaction::decode(&UUID, PLACE, bytes, crc) else {
        return;
    };
    let mut buffer = vec![0; found.len_bytes() as usize];
    let mut builder = Builder::new(&UUID, &mut buffer, crc);
    for record in found.records() {
        builder.push(&record).unwrap();
    }
    let again = builder.seal(found.sequence(), PLACE).unwrap();
    let again = Transaction::decode(&UUID, PLACE, again, crc).unwrap();
    assert_eq!(
        (again.sequence(), again.len_bytes()),
        (found.sequence(), found.len_bytes())
    );
    assert!(again.records().eq(found.records()));
}

/// Replay reads each place at most once, whatever stands there.
fn journal(bytes: &[u8], sequence: u64) {
    let mut copy = bytes.to_vec();
    copy.resize(bytes.len().next_multiple_of(BLOCK_LEN), 0);
    let from = Checkpoint {
        sequence,
        position_bytes: 0,
    };
    let mut records = 0;
    let replayed = replay(&UUID, from, &copy, &copy, crc, |_| {
        records += 1;
        assert!(records <= copy.len() / RECORD_LEN, "replay goes in circles");
    });
    if let Ok(replayed) = replayed {
        assert!(replayed.head.position_bytes <= copy.len() as u64);
        assert!(replayed.transactions <= (copy.len() / BLOCK_LEN) as u64);
    }
}
