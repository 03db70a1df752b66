// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl watch`.

use std::time::Duration;

use crate::args;
use crate::device::status::{bytes, Status};
use crate::error::Result;

/// Prints the state again and again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds between two lines.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = args::seconds, allow_negative_numbers = true)]
    every: u64,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Stop as soon as nothing is absent.
    #[arg(long)]
    until_independent: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let mut before: Option<Status> = None;
    loop {
        let status = Status::read()?;
        if args.json {
            println!("{}", serde_json::json!(status));
        } else {
            println!("{}", line(&status, before.as_ref(), args.every));
        }
        if args.until_independent && status.independent {
            return Ok(());
        }
        before = Some(status);
        std::thread::sleep(Duration::from_secs(args.every));
    }
}

/// One line: what is here, what is home, how fast, what the repository does.
fn line(now: &Status, before: Option<&Status>, seconds: u64) -> String {
    let rate = |value: fn(&Status) -> u64| {
        let old = before.map_or_else(|| value(now), value);
        bytes(value(now).saturating_sub(old) / seconds)
    };
    format!(
        "{}: here {} of {} ({}/s), home {} ({}/s), {} in flight, {} {}{}",
        now.state,
        bytes(now.here_bytes()),
        bytes(now.image_bytes),
        rate(Status::here_bytes),
        bytes(now.copied_bytes),
        rate(|s| s.copied_bytes),
        now.inflight,
        now.portal,
        now.connection,
        now.fill_stuck()
            .map_or_else(String::new, |what| format!("; {what}"))
    )
}
