// SPDX-License-Identifier: GPL-2.0-only

//! `imgstream`: a block device that is another computer's disk image before that image has arrived.
//!
//! This file lists the rooms of the module and starts it; nothing else is here.

use kernel::prelude::*;

#[cfg(IMGSTREAM_BENCH)]
mod bench;
mod bindings;
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

struct ImgstreamModule {
    #[cfg(IMGSTREAM_BENCH)]
    _bench: bench::Bench,
}

impl kernel::Module for ImgstreamModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("loaded\n");
        Ok(Self {
            #[cfg(IMGSTREAM_BENCH)]
            _bench: bench::Bench::new(kapi::param::disk().ok_or(EINVAL)?)?,
        })
    }
}

impl Drop for ImgstreamModule {
    fn drop(&mut self) {
        pr_info!("unloaded\n");
    }
}
