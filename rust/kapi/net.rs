// SPDX-License-Identifier: GPL-2.0-only

//! TCP sockets of the kernel; the kernel crate has none.

mod address;
mod socket;

pub(crate) use address::Address;
pub(crate) use socket::{
    Received,
    Socket,
    State,
    Wake, //
};
