// SPDX-License-Identifier: GPL-2.0-only
//! The steps of the stage environment. Nothing is mounted; every step can be
//! done again after a power cut at any write, from what the superblock says.

pub mod attach;
pub mod control_area;
pub mod drive;
pub mod identity;
pub mod leave;
pub mod partitions;
pub mod report;
pub mod shrink;
pub mod stored;

#[cfg(test)]
pub(crate) mod tests;

pub use report::Report;
