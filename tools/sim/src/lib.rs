// SPDX-License-Identifier: GPL-2.0-only

//! Crash simulator: the engine on a disk that loses, reorders and tears unflushed sectors.
//!
//! A model of the device drives the same machines of `imgstream_engine` that the kernel module drives, with several
//! guests, a fill and a commit at the same time, in an order that a seed decides, and with power cuts anywhere. An
//! oracle knows what every sector may read as. Each rule of durability can be left out on purpose; then the oracle must
//! find something wrong, or else the test would not test.

#![forbid(unsafe_code)]

pub mod commit;
pub mod config;
pub mod disk;
pub mod exec;
pub mod guest;
pub mod io;
pub mod oracle;
pub mod record;
pub mod rng;
pub mod rules;
pub mod run;
pub mod stage;
pub mod world;
