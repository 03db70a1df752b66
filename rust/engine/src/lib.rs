// SPDX-License-Identifier: GPL-2.0-only

//! Decisions of imgstream without any I/O: shared by the kernel module, the tools and the simulator.

#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod bits;
pub mod block;
pub mod checkpoint;
pub mod claim;
pub mod fetch;
pub mod fill;
pub mod health;
pub mod journal;
pub mod load;
pub mod locate;
pub mod map;
pub mod pair;
pub mod parallel;
pub mod plan;
pub mod portals;
pub mod round;
pub mod session;
pub mod settle;
pub mod stage;
pub mod state;
pub mod sweep;
pub mod trouble;
pub mod trust;

#[cfg(test)]
mod tests;
