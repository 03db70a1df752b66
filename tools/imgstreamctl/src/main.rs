// SPDX-License-Identifier: GPL-2.0-only
//! The command `imgstreamctl`.

use std::panic;
use std::process::{self, ExitCode};

use clap::Parser;
use imgstreamctl::cmd::Cli;
use imgstreamctl::Exit;
use rustix::process::{set_dumpable_behavior, DumpableBehavior};

fn main() -> ExitCode {
    be_quiet_when_nobody_reads();
    // Secrets pass through here: no core file, no debugger of the same user. Where that cannot be had, things still work.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
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

/// Who reads may have had enough, as in `imgstreamctl watch | head`.
fn be_quiet_when_nobody_reads() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>();
        let gone = |said: &String| {
            said.starts_with("failed printing to std") && said.contains("Broken pipe")
        };
        if said.is_some_and(gone) {
            process::exit(Exit::Failure.code().into());
        }
        usual(info);
    }));
}
