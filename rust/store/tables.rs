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
