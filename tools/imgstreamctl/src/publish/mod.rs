// SPDX-License-Identifier: GPL-2.0-only
//! The published form of an image: one LUN with image, manifest and trailer.

pub mod check;
mod copy;
pub mod manifest;
pub mod published;
pub mod snippet;
mod write;

pub use manifest::Manifest;
pub use published::{trailer_crc32c, Published, ReadAt};
pub use write::{publish, refuse_output, Request, Result as Written};
