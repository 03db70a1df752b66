// SPDX-License-Identifier: GPL-2.0-only

//! The plan of the disk, and the order of the stage environment's steps.

use std::vec;
use std::vec::Vec;

use imgstream_proto::disk::{BootState, Extent, State, BLOCK_BYTES, SLOT_BYTES};
use proptest::prelude::*;

use crate::block::Run;
use crate::locate::BootRun;
use crate::plan::{check, fits, plan, reach_bytes, Demand, Misplaced, Refusal};
use crate::stage::{Stage, Step, CURSOR_BLOCKS};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn demand() -> Demand {
    Demand {
        disk_bytes: 8 * GIB,
        disk_logical_bytes: 512,
        image_bytes: 3 * GIB,
        image_logical_bytes: 512,
        boot_blocks: 20_000,
        boot_end_block: 400_000,
        boot_entries: 40,
        source_bytes: 8 * GIB,
        source_min_bytes: 3 * GIB,
        source_granule_bytes: 4096,
        source_base_bytes: MIB,
    }
}

#[test]
fn no_control_area_begins_farther_from_the_end_than_is_looked_for() {
    for boot_entries in [1, imgstream_proto::disk::boot_list::ENTRIES_MAX] {
        for gib in [4, 5, 100, 1000, 16 * 1024] {
            let disk_bytes = gib * GIB + 12_345;
            let image_bytes = (disk_bytes / 10 * 9) & !4095;
            let found = plan(&Demand {
                disk_bytes,
                image_bytes,
                boot_entries,
                source_bytes: disk_bytes,
                source_min_bytes: 2 * GIB,
                boot_end_block: 10,
                boot_blocks: 10,
                ..demand()
            });
            let Ok(found) = found else { continue };
            let start = found.geometry.control_start_bytes;
            assert!(disk_bytes - start <= reach_bytes(disk_bytes), "{gib} GiB");
            assert!(reach_bytes(disk_bytes) < disk_bytes / 4 + 256 * MIB);
        }
    }
}

#[test]
fn a_plan_keeps_as_much_of_the_source_as_fits() {
    let found = plan(&demand()).unwrap();
    let geometry = found.geometry;
    check(&geometry, &found.places).unwrap();
    // Nothing is wasted: one granule more of the source would not fit.
    let waste = geometry.control_start_bytes - geometry.useful_start_bytes - 3 * GIB - SLOT_BYTES;
    assert!(waste < 2 * SLOT_BYTES, "{waste}");
    assert!(geometry.source_bytes > 4 * GIB && geometry.source_bytes < 5 * GIB);
    assert_eq!(found.shrink_bytes, 8 * GIB - geometry.source_bytes);
    assert_eq!(found.spare_bytes, geometry.source_bytes - 3 * GIB);
}

#[test]
fn a_small_source_need_not_shrink() {
    let found = plan(&Demand {
        source_bytes: 4 * GIB,
        ..demand()
    })
    .unwrap();
    assert_eq!(found.geometry.source_bytes, 4 * GIB);
    assert_eq!(found.shrink_bytes, 0);
}

#[test]
fn every_refusal_carries_its_numbers() {
    let refuse = |change: &dyn Fn(&mut Demand)| {
        let mut demand = demand();
        change(&mut demand);
        plan(&demand).unwrap_err()
    };
    let (disk_bytes, image_bytes) = (4096, 512);
    let logical = Refusal::LogicalBlock {
        disk_bytes,
        image_bytes,
    };
    assert_eq!(refuse(&|demand| demand.disk_logical_bytes = 4096), logical);
    assert_eq!(
        refuse(&|demand| demand.image_bytes = 4097),
        Refusal::Impossible { found: 4097 }
    );
    assert!(matches!(
        refuse(&|demand| demand.disk_bytes = 64 * MIB),
        Refusal::DiskTooSmall { disk_bytes, needed_bytes } if disk_bytes == 64 * MIB && needed_bytes > disk_bytes
    ));
    assert!(matches!(
        refuse(&|demand| demand.image_bytes = 7 * GIB),
        Refusal::ImageTooLarge { image_bytes, room_bytes } if image_bytes == 7 * GIB && room_bytes > 5 * GIB && room_bytes < 7 * GIB
    ));
    let Refusal::SourceTooLarge {
        source_min_bytes,
        source_max_bytes,
        missing_bytes,
    } = refuse(&|demand| demand.source_min_bytes = 6 * GIB)
    else {
        panic!("refused for another reason");
    };
    assert_eq!(source_min_bytes - source_max_bytes, missing_bytes);
    // With that much freed it works.
    let mut freed = demand();
    freed.source_min_bytes = 6 * GIB - missing_bytes;
    plan(&freed).unwrap();
    let beyond = refuse(&|demand| demand.source_bytes = GIB + 4096);
    assert!(matches!(beyond, Refusal::SourceTooLarge { .. }));
    let beyond = refuse(&|demand| {
        demand.source_bytes = GIB;
        demand.source_min_bytes = GIB / 2;
    });
    let expected = Refusal::BootBeyondSource {
        boot_end_bytes: 400_000 * BLOCK_BYTES,
        source_max_bytes: GIB,
    };
    assert_eq!(beyond, expected);
    let max = 1 << 20;
    let found = max + 1;
    let many = refuse(&|demand| demand.boot_entries = found);
    assert_eq!(many, Refusal::TooManyBootEntries { found, max });
}

proptest! {
    /// Whatever is asked for: a plan is proven, or refused. A refusal for room says how much, and that is enough.
    #[test]
    fn plans_are_proven_or_refused(
        disk in 0u64..1 << 44,
        image in 0u64..1 << 44,
        boot in 0u64..1 << 22,
        boot_end in 0u64..1 << 24,
        min in 0u64..1 << 43,
        more in 0u64..1 << 43,
        base in 0u64..1 << 30,
    ) {
        let demand = Demand {
            disk_bytes: disk * 512,
            image_bytes: image * BLOCK_BYTES,
            boot_blocks: boot,
            boot_end_block: boot_end,
            source_bytes: min + more,
            source_min_bytes: min,
            source_base_bytes: base,
            ..demand()
        };
        match plan(&demand) {
            Ok(found) => {
                let geometry = found.geometry;
                prop_assert!(fits(&geometry));
                prop_assert!(check(&geometry, &found.places).is_ok());
                prop_assert!(geometry.source_bytes >= min && geometry.source_bytes <= min + more);
                prop_assert!(boot_end * BLOCK_BYTES <= geometry.source_bytes);
                let relocated = geometry.useful_start_bytes - geometry.relocated_start_bytes;
                prop_assert!(relocated >= boot * BLOCK_BYTES);
            }
            Err(Refusal::SourceTooLarge { source_max_bytes, .. }) => prop_assert!(source_max_bytes < min),
            Err(_) => {}
        }
    }

    /// Numbers from anywhere are checked without a panic.
    #[test]
    fn any_superblock_is_checked(numbers: [u64; 6], extents: [(u64, u64); 8]) {
        let mut found = plan(&demand()).unwrap();
        let [d, s, r, u, c, t] = numbers;
        found.geometry.disk_bytes = d;
        found.geometry.source_bytes = s;
        found.geometry.relocated_start_bytes = r;
        found.geometry.useful_start_bytes = u;
        found.geometry.control_start_bytes = c;
        found.geometry.image_bytes = t;
        let [a, b, ..] = extents.map(|(start, len)| Extent::new(start, len));
        found.places.map = [a, b];
        let _ = check(&found.geometry, &found.places);
    }
}

#[test]
fn misplaced_parts_are_found() {
    let good = plan(&demand()).unwrap();
    let [a, b] = good.places.journal;
    let mut places = good.places;
    places.journal = [a, Extent::new(a.start_bytes, b.len_bytes)];
    assert_eq!(check(&good.geometry, &places), Err(Misplaced::Place(a)));
    places = good.places;
    let outside = Extent::new(0, a.len_bytes);
    places.journal = [a, outside];
    assert_eq!(
        check(&good.geometry, &places),
        Err(Misplaced::Place(outside))
    );
    places = good.places;
    let short = Extent::new(places.map[1].start_bytes, BLOCK_BYTES);
    places.map[1] = short;
    assert_eq!(
        check(&good.geometry, &places),
        Err(Misplaced::TooShort(short))
    );
    let mut geometry = good.geometry;
    geometry.image_bytes += GIB;
    assert_eq!(check(&geometry, &good.places), Err(Misplaced::Geometry));
}

fn boot(runs: &[(u64, u64)]) -> Vec<BootRun> {
    let mut relocated_bytes = GIB;
    let mut boot = Vec::new();
    for (start, blocks) in runs {
        boot.push(BootRun {
            run: Run::new(*start, *blocks),
            live: false,
            relocated_bytes,
        });
        relocated_bytes += blocks * BLOCK_BYTES;
    }
    boot
}

fn steps(mut stage: Stage<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    while stage.next() != Step::Done {
        steps.push(stage.next());
        stage.advance();
        assert!(steps.len() < 10_000);
    }
    steps
}

#[test]
fn store_writes_block_0_last() {
    let boot = boot(&[(0, 3), (10, 2)]);
    let expected = vec![
        Step::Store(Run::new(1, 2)),
        Step::Store(Run::new(10, 2)),
        Step::Flush,
        Step::Store(Run::new(0, 1)),
        Step::Flush,
        Step::BootList(BootState::Live),
        Step::State(State::Streaming),
    ];
    assert_eq!(steps(Stage::store(&boot, 0)), expected);
    assert_eq!(
        steps(Stage::store(&boot, 3))[0],
        Step::Store(Run::new(10, 2))
    );
    assert_eq!(steps(Stage::store(&boot, 5))[0], Step::Flush);
}

#[test]
fn relocate_compares_everything_before_the_state_changes() {
    let boot = boot(&[(0, 3), (10, 2)]);
    let found = steps(Stage::relocate(&boot, 4));
    let copied = found
        .iter()
        .filter(|step| matches!(step, Step::Copy { .. }))
        .count();
    assert_eq!(copied, 1);
    let compared: u64 = found
        .iter()
        .filter_map(|step| match step {
            Step::Compare { len_bytes, .. } => Some(*len_bytes),
            _ => None,
        })
        .sum();
    assert_eq!(compared, 5 * BLOCK_BYTES);
    assert_eq!(found.last(), Some(&Step::State(State::Storing)));
}

#[test]
fn roll_back_ends_with_block_0_the_state_and_the_wipe() {
    let boot = boot(&[(0, 1), (10, 2)]);
    let back = |block: u64, place: u64, blocks: u64| Step::Copy {
        from_bytes: GIB + place * BLOCK_BYTES,
        to_bytes: block * BLOCK_BYTES,
        len_bytes: blocks * BLOCK_BYTES,
    };
    let expected = vec![
        back(10, 1, 2),
        Step::Flush,
        back(0, 0, 1),
        Step::Flush,
        Step::State(State::RolledBack),
        Step::Wipe,
    ];
    assert_eq!(steps(Stage::roll_back(&boot, 0)), expected);
    let wipe = Stage::resume(State::RolledBack, &boot, 0).unwrap();
    assert_eq!(steps(wipe), [Step::Wipe]);
    assert!(Stage::resume(State::Streaming, &boot, 0).is_none());
}

#[test]
fn cursors_are_noted_behind_flushes_and_cover_everything() {
    let boot = boot(&[(0, 2 * CURSOR_BLOCKS + 100), (100_000, 5)]);
    let found = steps(Stage::store(&boot, 0));
    let mut stored = 1;
    let mut flushed = 0;
    let mut cursors = 0;
    for step in &found {
        match step {
            Step::Store(run) if run.start != 0 => stored += run.blocks,
            Step::Flush => flushed = stored,
            Step::Cursor(at) => {
                assert_eq!(*at, flushed);
                cursors += 1;
            }
            _ => {}
        }
    }
    assert_eq!((stored, cursors), (2 * CURSOR_BLOCKS + 105, 2));
}

#[test]
fn an_empty_boot_list_is_no_trouble() {
    assert_eq!(
        steps(Stage::relocate(&[], 0)),
        [Step::Flush, Step::State(State::Storing)]
    );
    assert_eq!(steps(Stage::roll_back(&[], 0)).len(), 3);
}
