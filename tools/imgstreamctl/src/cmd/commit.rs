// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl commit`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use imgstream_proto::disk::State;

use super::finish_commit;
use crate::confirm::confirm;
use crate::device::control::{Control, Rates};
use crate::device::Status;
use crate::error::Result;
use crate::finish;
use crate::refusal::Refusal;

/// How often `--wait` prints a line.
const EVERY: Duration = Duration::from_secs(2);

/// Moves every block home and ends the migration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// At full speed, whatever the system does meanwhile.
    #[arg(long)]
    now: bool,
    /// How fast.
    #[command(flatten)]
    rates: Rates,
    /// Wait until the migration is over.
    #[arg(long)]
    wait: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let rates = args.rates.refuse_contradiction()?;
    let control = Control::open()?;
    let status = Status::read()?;
    let home = status.state == State::Committed.name();
    if !home {
        begin(&args, rates, &control, &status)?;
    }
    let disk = Path::new("/dev").join(&status.disk);
    if args.wait {
        wait()?;
        return finish_commit::finish(&disk);
    }
    leave_to_service(home, &disk)
}

/// Whoever does not wait has the service wait, if there is something to wait for.
fn leave_to_service(home: bool, disk: &Path) -> Result<()> {
    if home && finish_commit::is_finished(disk)? {
        println!("{}", finish_commit::COMMITTED);
        return Ok(());
    }
    let _ = Command::new("systemctl")
        .args(["start", "--no-block", "imgstream-finish.service"])
        .status();
    println!(
        "{}",
        match home {
            true => "every block is home; imgstream-finish.service does the rest",
            false => "the commit runs; `imgstreamctl watch` shows how far it is",
        }
    );
    Ok(())
}

/// The point of no return, or other rates for a commit that runs.
fn begin(args: &Args, rates: Rates, control: &Control, status: &Status) -> Result<()> {
    let running = status.state == State::Committing.name();
    if !running && status.state != State::Streaming.name() {
        return Err(Refusal::WrongState {
            command: "commit",
            state: status.state.clone(),
        }
        .into());
    }
    status.refuse_wrong_image()?;
    confirm(
        args.yes || running,
        "After this there is no way back to the source: its files are overwritten.",
    )?;
    control.commit(args.now, rates)
}

/// Prints a line every two seconds with what was done since the last one.
fn wait() -> Result<()> {
    let mut last = (Instant::now(), Status::read()?.copied_bytes);
    finish::wait_committed(&mut |status, note| {
        if let Some(note) = note {
            println!("{note}");
        }
        let seconds = last.0.elapsed().as_secs_f64();
        if seconds >= EVERY.as_secs_f64() {
            let moved = status.copied_bytes.saturating_sub(last.1);
            let rate = (moved as f64 / seconds) as u64;
            println!("{}", finish::progress_line(status, rate));
            last = (Instant::now(), status.copied_bytes);
        }
    })
}
