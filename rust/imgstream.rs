// SPDX-License-Identifier: GPL-2.0-only

//! `imgstream`: a block device that is another computer's disk image before that image has arrived.
//!
//! This file lists the rooms of the module and starts it; nothing else is here.

use kernel::prelude::*;

#[cfg(IMGSTREAM_BENCH)]
mod bench;
mod bindings;
mod control;
mod device;
mod kapi;
mod source;
mod store;

module! {
    type: ImgstreamModule,
    name: "imgstream",
    authors: ["imgstream contributors"],
    description: "Streams an operating system image onto a running computer's disk",
    license: "GPL",
}

#[cfg(not(IMGSTREAM_BENCH))]
use control::Entrance;

/// The bench instead: it takes the disk for itself.
#[cfg(IMGSTREAM_BENCH)]
use bench::Bench as Entrance;

struct ImgstreamModule {
    _entrance: Entrance,
}

impl kernel::Module for ImgstreamModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _entrance: Entrance::open(kapi::param::disk())?,
        })
    }
}
