// SPDX-License-Identifier: GPL-2.0-only
//! The running module: its control device and its files in sysfs.

pub mod control;
pub mod status;

pub use control::Control;
pub use status::Status;
