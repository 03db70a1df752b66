// SPDX-License-Identifier: GPL-2.0-only
//! The switch from the source to the target and back: what is put into the
//! source, what the stage environment does, and how all of it is taken out.

pub mod arm;
pub mod cpio;
pub mod custom_cfg;
pub mod overlay;
pub mod payload;
pub mod running;
pub mod source;
