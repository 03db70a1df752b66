// SPDX-License-Identifier: GPL-2.0-only

//! What is known of every block, in memory: allocated at attach, because the I/O path must not need memory for it.

use core::sync::atomic::AtomicU64;
use imgstream_engine::{
    claim::Claims,
    health::HealthCell,
    locate::{
        BootRun,
        Locator, //
    },
    map::{
        Counts,
        Map, //
    },
};
use imgstream_proto::disk::Geometry;
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::Arc, //
};

/// Words of the map and what else is asked without a lock.
///
/// # Invariants
///
/// The vectors have the lengths that the views of the engine demand for this geometry, so that making a view succeeds.
pub(crate) struct Tables {
    geometry: Geometry,
    words: KVVec<AtomicU64>,
    changed: KVVec<AtomicU64>,
    claims: KVVec<AtomicU64>,
    boot: KVVec<BootRun>,
    counts: Counts,
    counter: AtomicU64,
    /// What the device can still promise.
    pub(crate) health: HealthCell,
}

impl Tables {
    /// All blocks absent, for an image of this geometry, with this durable copy counter.
    pub(crate) fn new(geometry: Geometry, boot: KVVec<BootRun>, counter: u64) -> Result<Arc<Self>> {
        let blocks = geometry.image_blocks();
        let tables = Self {
            geometry,
            words: zeroed(Map::words_for(blocks))?,
            changed: zeroed(Map::changed_words_for(blocks))?,
            claims: zeroed(Claims::words_for(blocks))?,
            boot,
            counts: Counts::new(),
            counter: AtomicU64::new(counter),
            health: HealthCell::new(),
        };
        // INVARIANT: Checked here once, as lengths do not change.
        if tables.view().is_none() || Claims::new(blocks, &tables.claims).is_none() {
            return Err(EINVAL);
        }
        Ok(Arc::new(tables, GFP_KERNEL)?)
    }

    fn view(&self) -> Option<Map<'_>> {
        Map::new(self.blocks(), &self.words, &self.changed, &self.counts)
    }

    /// Places and sizes.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Blocks of the image.
    pub(crate) fn blocks(&self) -> u64 {
        self.geometry.image_blocks()
    }

    /// The map.
    pub(crate) fn map(&self) -> Map<'_> {
        // By the type invariant the view is there. Without blocks, every I/O would fail.
        self.view().unwrap_or_else(|| Map::empty(&self.counts))
    }

    /// The claims.
    pub(crate) fn claims(&self) -> Claims<'_> {
        // As for the map: with no claims nothing can be claimed.
        Claims::new(self.blocks(), &self.claims).unwrap_or_else(Claims::empty)
    }

    /// The locator.
    pub(crate) fn locator(&self) -> Locator<'_> {
        Locator::new(self.map(), &self.boot, &self.counter, &self.geometry)
    }

    /// The boot list.
    pub(crate) fn boot(&self) -> &[BootRun] {
        &self.boot
    }
}

pub(super) fn zeroed(words: u64) -> Result<KVVec<AtomicU64>> {
    let len = usize::try_from(words)?;
    let mut vec = KVVec::with_capacity(len, GFP_KERNEL)?;
    for _ in 0..len {
        vec.push(AtomicU64::new(0), GFP_KERNEL)?;
    }
    Ok(vec)
}

#[kunit_tests(imgstream_tables)]
mod tests {
    use super::*;
    use crate::kapi::testing::every;
    use imgstream_engine::{
        block::{
            BlockState,
            Run, //
        },
        locate::Place,
        map::Change, //
    };
    use imgstream_proto::disk::BLOCK_BYTES;

    /// Round the borders of words and segments.
    const SIZES: [u64; 9] = [1, 2, 31, 32, 33, 64, 65, 8192, 100_000];

    fn tables(blocks: u64) -> Result<Arc<Tables>> {
        let geometry = Geometry {
            useful_start_bytes: 1 << 30,
            image_bytes: blocks * BLOCK_BYTES,
            ..Geometry::default()
        };
        Tables::new(geometry, KVVec::new(), 0)
    }

    #[test]
    fn all_blocks_are_absent_and_free_up_to_the_last() {
        assert!(every(SIZES, |&blocks| {
            let Ok(tables) = tables(blocks) else {
                return false;
            };
            let (map, claims) = (tables.map(), tables.claims());
            [0, blocks / 2, blocks - 1]
                .into_iter()
                .all(|block| map.state(block) == BlockState::Absent && !claims.claimed(block))
                && tables.blocks() == blocks
                && map.changed().next_set(0).is_none()
        }));
    }

    #[test]
    fn the_last_block_can_be_written_and_the_next_is_not_there() {
        assert!(every(SIZES, |&blocks| {
            let Ok(tables) = tables(blocks) else {
                return false;
            };
            let last = blocks - 1;
            let claims = tables.claims();
            let claimed = claims.try_claim(last) && !claims.try_claim(last);
            tables.map().apply(Run::new(last, 1), Change::Written);
            claimed
                && !claims.try_claim(blocks)
                && tables.map().state(last) == BlockState::Dirty
                && tables.locator().locate(blocks, 1).is_none()
        }));
    }

    #[test]
    fn a_claim_is_one_blocks_and_ends_with_its_release() -> Result {
        let tables = tables(130)?;
        for block in [0, 63, 64, 129] {
            let claims = tables.claims();
            assert!(claims.try_claim(block));
            let claimed = (0..130).filter(|&other| claims.claimed(other));
            assert!(claimed.eq([block]) && claims.release(block) && !claims.release(block));
        }
        Ok(())
    }

    #[test]
    fn blocks_are_where_map_and_counter_say() -> Result {
        let tables = tables(100)?;
        tables.map().apply(Run::new(50, 1), Change::Written);
        tables.locator().raise_counter(10);
        let place = |block| tables.locator().locate(block, 1).map(|piece| piece.place);
        assert!(place(9) == Some(Place::Home) && place(10) == Some(Place::Absent));
        assert!(place(50) == Some(Place::Slot) && place(99) == Some(Place::Absent));
        Ok(())
    }

    #[test]
    fn an_image_without_blocks_has_none() -> Result {
        let tables = tables(0)?;
        assert!(tables.locator().locate(0, 1).is_none() && !tables.claims().try_claim(0));
        Ok(())
    }

    #[test]
    fn what_no_memory_holds_is_refused() {
        assert!(zeroed(u64::MAX).is_err());
        assert!(zeroed(1 << 60).is_err());
    }
}
