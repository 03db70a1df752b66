// SPDX-License-Identifier: GPL-2.0-only
//! What `imgstreamctl` does, as a library: one module a subject, one file a
//! command. `main.rs` only parses the command line and turns errors into exit
//! codes.

#![deny(unsafe_code)]
#![allow(non_ascii_idents, reason = "zerocopy's derive macros make such names")]

pub mod args;
mod at_hand;
pub mod blockdev;
pub mod bootregion;
pub mod chap;
pub mod cmd;
pub mod confirm;
pub mod device;
pub mod disk;
pub mod error;
pub mod exit;
pub mod ext4;
pub mod finish;
pub mod grub;
pub mod image;
pub mod in_use;
pub mod initramfs;
pub mod kernel;
pub mod medium;
pub mod network;
pub mod ondisk;
pub mod plan;
pub mod portal;
pub mod power;
pub mod program;
pub mod progress;
pub mod publish;
pub mod refusal;
pub mod region;
pub mod repository;
pub mod root;
pub mod signature;
pub mod stage;
pub mod switch;
pub mod sys;
pub mod table;
#[cfg(test)]
mod volatile;

pub use error::{Error, Result};
pub use exit::Exit;
pub use refusal::Refusal;
