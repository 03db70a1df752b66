// SPDX-License-Identifier: GPL-2.0-only

//! iSCSI as RFC 7143 defines it, as far as a read-only initiator speaks it: header segments, login text, serial
//! numbers, and the few SCSI commands and data formats that go with them.
//!
//! Everything here is layout and grammar. What may follow what is decided by the session machine of the engine.

pub mod address;
pub mod bhs;
pub mod binary;
pub mod cdb;
pub mod digest;
pub mod inquiry;
pub mod sense;
pub mod sna;
pub mod text;
