// SPDX-License-Identifier: GPL-2.0-only

//! Formats that the kernel module and the tools share: the control area, iSCSI, the ioctl interface.

#![cfg_attr(not(MODULE), no_std)]
#![forbid(unsafe_code)]
#![allow(non_ascii_idents, reason = "zerocopy's derive macros make such names")]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod disk;
pub mod iscsi;
pub mod secret;
