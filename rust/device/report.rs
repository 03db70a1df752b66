// SPDX-License-Identifier: GPL-2.0-only

//! The device at one moment, as numbers: what sysfs shows.

use crate::{
    device::background::{
        CommitMode,
        Rates, //
    },
    source::Line, //
};
use imgstream_proto::disk::{
    header::Uuid,
    State, //
};

/// See the module. What concerns the connection alone is in `source::Status`.
pub(crate) struct Report {
    /// State of the migration.
    pub(crate) state: State,
    /// Its UUID.
    pub(crate) uuid: Uuid,
    /// Name of the disk, e.g. `vda`.
    pub(crate) disk: Line,
    /// T.
    pub(crate) image_bytes: u64,
    /// The durable copy counter, in bytes.
    pub(crate) copied_bytes: u64,
    /// Blocks by state, and those that are at their final place.
    pub(crate) blocks: Blocks,
    /// Fetched bytes that were stored.
    pub(crate) stored_bytes: u64,
    /// Whether the repository is needed no more.
    pub(crate) independent: bool,
    /// Whether the fill is on.
    pub(crate) fill: bool,
    /// Its rates.
    pub(crate) fill_rates: Rates,
    /// What the commit does.
    pub(crate) commit: CommitMode,
    /// Failed reads.
    pub(crate) errors_read: u64,
    /// Failed writes.
    pub(crate) errors_write: u64,
    /// Whether a journal write failed: rule 10.
    pub(crate) errors_journal: u64,
    /// Requests and fetches being worked on.
    pub(crate) inflight: u64,
    /// The last error in a sentence; empty if there was none.
    pub(crate) last_error: Line,
    /// Whether the view of the source is open.
    pub(crate) source_view: bool,
}

/// Numbers of blocks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Blocks {
    /// Of the image.
    pub(crate) total: u64,
    /// To be fetched yet.
    pub(crate) absent: u64,
    /// Here, equal to the image.
    pub(crate) clean: u64,
    /// Written here.
    pub(crate) dirty: u64,
    /// Zero, not stored.
    pub(crate) zero: u64,
    /// At their final place.
    pub(crate) home: u64,
}
