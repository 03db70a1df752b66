// SPDX-License-Identifier: GPL-2.0-only
//! The published form of an image: one LUN with image, manifest and trailer.

pub mod manifest;
pub mod published;

pub use manifest::Manifest;
pub use published::{Published, ReadAt};
