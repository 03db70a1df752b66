// SPDX-License-Identifier: GPL-2.0-only
//! What GRUB reads of a disk before a kernel runs.

pub mod cfg;
mod closure;
pub mod core;

pub use cfg::Entry;
pub use closure::{closure, Closure};
