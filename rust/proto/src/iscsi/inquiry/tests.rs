// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use proptest::prelude::*;
use std::prelude::v1::*;
use std::vec;

/// One designation descriptor: code set 1 (binary).
fn descriptor(association: u8, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![1, (association << 4) | kind, 0, value.len() as u8];
    out.extend_from_slice(value);
    out
}

fn page(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let body = descriptors.concat();
    let mut out = vec![0, 0x83];
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

#[test]
fn the_strongest_designator_of_the_unit_itself_wins() {
    let t10 = descriptor(0, 1, b"IET 0001");
    let naa = descriptor(0, 3, &[0x60, 1, 2, 3, 4, 5, 6, 7]);
    let port = descriptor(1, 3, &[0x50, 9, 9, 9, 9, 9, 9, 9]);
    let found = Designator::from_page(&page(&[port.clone(), t10.clone(), naa]));
    assert_eq!(
        (found.kind(), found.value()),
        (3, &[0x60, 1, 2, 3, 4, 5, 6, 7][..])
    );
    let found = Designator::from_page(&page(&[port.clone(), t10]));
    assert_eq!((found.kind(), found.value()), (1, &b"IET 0001"[..]));
    assert_eq!(Designator::from_page(&page(&[port])), Designator::NONE);
}

#[test]
fn damage_ends_the_list_without_losing_what_came_before() {
    let mut bytes = page(&[descriptor(0, 1, b"abcd"), descriptor(0, 3, &[1; 8])]);
    let cut = bytes.len() - 3;
    bytes.truncate(cut);
    assert_eq!(Designator::from_page(&bytes).value(), b"abcd");
    assert_eq!(Designator::from_page(&[0, 0x80, 0, 0]), Designator::NONE);
    let long = descriptor(0, 8, &[7; DESIGNATOR_BYTES + 1]);
    assert_eq!(Designator::from_page(&page(&[long])), Designator::NONE);
}

#[test]
fn only_workable_sizes_are_accepted() {
    let answer = |last: u64, block: u32| {
        let mut data = [0u8; 32];
        data[..8].copy_from_slice(&last.to_be_bytes());
        data[8..12].copy_from_slice(&block.to_be_bytes());
        Capacity::parse(&data)
    };
    assert_eq!(answer(7, 512).map(|c| c.bytes()), Some(4096));
    assert_eq!(answer(7, 4096).map(|c| c.bytes()), Some(32_768));
    for block in [0, 1, 256, 520, 513, 8192, u32::MAX] {
        assert_eq!(answer(7, block), None, "block of {block} bytes");
    }
    assert_eq!(answer(u64::MAX, 512), None);
    assert_eq!(answer(u64::MAX - 1, 512), None);
    assert_eq!(Capacity::parse(&[0; 11]), None);
}

#[test]
fn limits_and_kinds_are_read() {
    let mut limits = [0u8; 64];
    limits[1] = 0xb0;
    assert_eq!(max_transfer_blocks(&limits), None);
    limits[8..12].copy_from_slice(&4096u32.to_be_bytes());
    assert_eq!(max_transfer_blocks(&limits), Some(4096));
    assert_eq!(max_transfer_blocks(&limits[..11]), None);
    assert_eq!(
        (is_disk(&[0]), is_disk(&[0x7f]), is_disk(&[5]), is_disk(&[])),
        (Some(true), Some(false), Some(false), None)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(data: Vec<u8>) {
        let _ = Designator::from_page(&data);
        let _ = Capacity::parse(&data);
        let _ = max_transfer_blocks(&data);
        let _ = is_disk(&data);
    }

    #[test]
    fn any_list_of_descriptors_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut data = vec![0, 0x83];
        data.extend_from_slice(&(body.len() as u16).to_be_bytes());
        data.extend_from_slice(&body);
        let found = Designator::from_page(&data);
        prop_assert!(found.value().len() <= DESIGNATOR_BYTES);
    }
}
