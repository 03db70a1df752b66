// SPDX-License-Identifier: GPL-2.0-only
//! The control area of a disk, read and written by imgstreamctl.

pub mod find;
pub mod inspect;
pub mod pair;
pub mod search;

pub use find::{find, find_committed, Found, Reach};
pub use search::Search;
