// SPDX-License-Identifier: GPL-2.0-only
//! What `imgstreamctl` does, as a library: one module a subject, one file a
//! command. `main.rs` only parses the command line and turns errors into exit
//! codes.

#![deny(unsafe_code)]

pub mod cmd;
pub mod device;
pub mod error;
pub mod exit;
pub mod medium;
pub mod progress;
pub mod refusal;
pub mod sys;

pub use error::{Error, Result};
pub use exit::Exit;
pub use refusal::Refusal;
