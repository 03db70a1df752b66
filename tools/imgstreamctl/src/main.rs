// SPDX-License-Identifier: GPL-2.0-only
//! The command `imgstreamctl`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use imgstreamctl::cmd::Cli;
use imgstreamctl::{Error, Exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = cli.command.name();
    let Err(error) = cli.command.run().context(name) else {
        return ExitCode::from(Exit::Success.code());
    };
    eprintln!("imgstreamctl {error:#}");
    let exit = error
        .downcast_ref::<Error>()
        .map_or(Exit::Failure, Error::exit);
    ExitCode::from(exit.code())
}
