// SPDX-License-Identifier: GPL-2.0-only
//! The plan of a migration: every number and every refusal before the first
//! write. `plan` prints it, `migrate` carries it out.

mod forecast;
mod refusals;
mod source;
mod survey;

use std::collections::BTreeSet;

use imgstream_engine::plan::{self as engine, Demand};
use imgstream_proto::disk::superblock::Places;
use imgstream_proto::disk::{Geometry, BLOCK_BYTES};

pub use forecast::Forecast;
pub use refusals::Refusals;
pub use source::{Inspection, Source, Which};
pub use survey::{Ready, Survey};

use crate::publish::Published;
use crate::refusal::Refusal;
use crate::switch::overlay;

/// Room that the shrunk file system keeps beyond what `resize2fs -P` believes
/// in: the estimate may be a little short, and log files grow until the shrink.
const MARGIN_BYTES: u64 = 16 << 20;

/// The imgstreamctl that stays for what is left to do after a roll back, and what
/// the file system itself takes for all that is brought.
const KEPT_BYTES: u64 = 8 << 20;

/// What `migrate` writes into the source's file system before it is shrunk: the
/// stage's archive above all. A `/boot` of its own takes that, and is not told
/// apart.
pub fn brought_bytes(image: &Published) -> u64 {
    overlay::estimate_bytes(image.manifest.boot_region.bytes()).saturating_add(KEPT_BYTES)
}

/// A migration that is possible.
///
/// # Invariants
///
/// `geometry` and `places` were proved by the engine's planner: the parts do
/// not overlap, the boot region of `image` lies below S, the file system can be
/// made `filesystem_bytes` large.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The source.
    pub source: Source,
    /// The image.
    pub image: Published,
    /// D, S, R, U, C, T.
    pub geometry: Geometry,
    /// Places in the control area.
    pub places: Places,
    /// What the root file system is shrunk to: it ends at or below S.
    pub filesystem_bytes: u64,
    /// By how much that is smaller than now; 0: no shrink is needed.
    pub shrink_bytes: u64,
    /// How much more the source could hold and still be moved.
    pub spare_bytes: u64,
    /// What it costs.
    pub forecast: Forecast,
}

impl Plan {
    /// Bytes of boot blocks: so much of the source is relocated.
    pub fn boot_bytes(&self) -> u64 {
        self.image.manifest.boot_region.bytes()
    }
}

/// Computes the plan for moving `source` to `image`, or says why not.
pub fn compute(source: &Source, image: &Published) -> Result<Plan, Refusal> {
    let fitted = engine::plan(&demand(source, image)).map_err(Refusal::DoesNotFit)?;
    // INVARIANT: the engine proved it for exactly these numbers.
    let geometry = fitted.geometry;
    let filesystem_bytes = geometry.source_bytes - source.root.start_bytes;
    Ok(Plan {
        geometry,
        places: fitted.places,
        filesystem_bytes,
        shrink_bytes: fitted.shrink_bytes,
        spare_bytes: fitted.spare_bytes,
        forecast: Forecast::of(source, image, filesystem_bytes),
        source: source.clone(),
        image: image.clone(),
    })
}

fn demand(source: &Source, image: &Published) -> Demand {
    let region = &image.manifest.boot_region;
    let start = source.root.start_bytes;
    let min = source
        .minimum_bytes
        .saturating_add(brought_bytes(image))
        .saturating_add(MARGIN_BYTES);
    Demand {
        disk_bytes: source.disk_bytes,
        disk_logical_bytes: source.logical_block_bytes,
        image_bytes: image.manifest.image_bytes,
        image_logical_bytes: image.manifest.logical_block_bytes,
        boot_blocks: region.blocks(),
        boot_end_block: region.end_bytes() / BLOCK_BYTES,
        boot_entries: u32::try_from(region.runs().len()).unwrap_or(u32::MAX),
        source_bytes: start.saturating_add(source.facts.size_bytes()),
        // A file system that is full to the margin is not made larger.
        source_min_bytes: start.saturating_add(min.min(source.facts.size_bytes())),
        source_granule_bytes: source.facts.block_bytes,
        source_base_bytes: start,
    }
}

/// The image has to bring the drivers of the interface that leads to it.
pub fn refuse_drivers<'a>(
    image: &'a Published,
    drivers: &'a BTreeSet<String>,
) -> impl Iterator<Item = Refusal> + 'a {
    let first = image.manifest.initramfs.first();
    let has = move |wanted: &String| first.is_some_and(|i| i.nic_drivers.contains(wanted));
    drivers
        .iter()
        .filter(move |wanted| !has(wanted))
        .map(move |wanted| Refusal::NicDriverMissing {
            initrd: first.map_or_else(|| "(it has none)".into(), |i| i.path.clone()),
            wanted: wanted.clone(),
        })
}
