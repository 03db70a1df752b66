// SPDX-License-Identifier: GPL-2.0-only

//! What SCSI commands bring: sense data, INQUIRY and its pages, capacity. Each against a reader that is written for
//! clearness alone.

use imgstream_proto::iscsi::inquiry::{
    is_disk, max_transfer_blocks, Capacity, Designator, DESIGNATOR_BYTES,
};
use imgstream_proto::iscsi::sense::Sense;

pub(crate) fn body(data: &[u8]) {
    check_sense(data);
    assert_eq!(is_disk(data), data.first().map(|kind| *kind == 0));
    check_designator(data);
    check_limits(data);
    check_capacity(data);
}

fn check_sense(data: &[u8]) {
    let bounded = data.len() >= 2 && {
        let len = usize::from(data[0]) * 256 + usize::from(data[1]);
        2 + len <= data.len()
    };
    let expected = bounded.then(|| {
        let len = usize::from(data[0]) * 256 + usize::from(data[1]);
        Sense::parse(&data[2..2 + len])
    });
    assert_eq!(Sense::from_segment(data), expected.flatten());
    if let Some(sense) = Sense::parse(data) {
        assert!((0x70..=0x73).contains(&(data[0] & 0x7f)) && sense.key <= 0x0f);
        assert_eq!(sense.deferred, data[0] & 1 != 0);
    }
}

/// The designators of a page that belong to the unit: kind and value.
fn designators(page: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    if page.len() < 4 || page[1] != 0x83 {
        return found;
    }
    let end = (4 + usize::from(page[2]) * 256 + usize::from(page[3])).min(page.len());
    let mut at = 4;
    while at + 4 <= end && at + 4 + usize::from(page[at + 3]) <= end {
        let value = &page[at + 4..at + 4 + usize::from(page[at + 3])];
        if page[at + 1] & 0x30 == 0 && (1..=DESIGNATOR_BYTES).contains(&value.len()) {
            found.push((page[at + 1] & 0x0f, value));
        }
        at += 4 + value.len();
    }
    found
}

/// NAA before EUI-64 before SCSI name before T10 vendor; of two of a kind the first.
fn check_designator(page: &[u8]) {
    let all = designators(page);
    let best = [3, 2, 8, 1]
        .into_iter()
        .find_map(|kind| all.iter().find(|(found, _)| *found == kind));
    let found = Designator::from_page(page);
    assert_eq!(
        best.copied().unwrap_or((0, &[])),
        (found.kind(), found.value())
    );
}

fn check_limits(page: &[u8]) {
    let blocks = max_transfer_blocks(page);
    let told = page.len() >= 12 && page[1] == 0xb0 && page[8..12] != [0; 4];
    assert_eq!(blocks.is_some(), told);
    assert_ne!(blocks, Some(0));
}

fn check_capacity(data: &[u8]) {
    let Some(capacity) = Capacity::parse(data) else {
        return;
    };
    let exact = u128::from(capacity.blocks) * u128::from(capacity.block_bytes);
    assert_eq!(u128::from(capacity.bytes()), exact);
    assert!(capacity.blocks != 0 && capacity.block_bytes.is_power_of_two());
    assert!((512..=4096).contains(&capacity.block_bytes));
}
