// SPDX-License-Identifier: GPL-2.0-only
//! Where a published image is: behind a portal, or in a file.

use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::publish::ReadAt;

/// The arguments that say where a published image is.
#[derive(Clone, Debug, clap::Args)]
pub struct Address {
    /// Address and port of the iSCSI portal, for example 10.0.2.2:3260.
    #[arg(long, requires = "target", required_unless_present = "image")]
    pub portal: Option<String>,
    /// Name of the iSCSI target.
    #[arg(long, value_name = "IQN")]
    pub target: Option<String>,
    /// Number of the LUN.
    #[arg(long, default_value_t = 1)]
    pub lun: u64,
    /// A published image in a file instead of behind a portal.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["portal", "target"])]
    pub image: Option<PathBuf>,
}

impl Address {
    /// Opens the image for reading.
    pub fn open(&self) -> Result<Box<dyn ReadAt>> {
        match (&self.image, &self.portal, &self.target) {
            (Some(file), _, _) => Ok(Box::new(Disk::open(file)?)),
            _ => Err(Error::NotBuilt("--portal")),
        }
    }
}
