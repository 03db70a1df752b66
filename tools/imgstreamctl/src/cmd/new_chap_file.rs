// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl new-chap-file`: random secrets for CHAP, in a file that only root may read.

use std::path::PathBuf;

use crate::chap;
use crate::error::Result;

/// Makes a file with new random secrets for CHAP.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file, which must not be there yet.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The name that this computer has at the target.
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// The name that the target has, if it is to prove who it is; it gets a secret of its own.
    #[arg(long, value_name = "NAME")]
    pub target_user: Option<String>,
}

/// Runs the command. The secrets go into the file and nowhere else.
pub fn run(args: Args) -> Result<()> {
    chap::create(&args.file, &args.user, args.target_user.as_deref())
}
