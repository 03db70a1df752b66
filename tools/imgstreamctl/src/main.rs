// SPDX-License-Identifier: GPL-2.0-only
//! The command `imgstreamctl`.

use std::process::ExitCode;

use clap::Parser;
use imgstreamctl::cmd::Cli;
use imgstreamctl::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = cli.command.name();
    let Err(error) = cli.command.run() else {
        return ExitCode::from(Exit::Success.code());
    };
    for one in error.each() {
        eprintln!("imgstreamctl {name}: {one}");
    }
    ExitCode::from(error.exit().code())
}
