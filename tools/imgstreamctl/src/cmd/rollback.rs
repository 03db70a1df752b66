// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl rollback`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgstream_proto::disk::State;

use super::stage;
use crate::confirm::confirm;
use crate::device::status::bytes;
use crate::device::{Control, Status};
use crate::disk::not_opened;
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::ondisk;
use crate::program;
use crate::refusal::Refusal;
use crate::stage::leave::OnDisk;
use crate::stage::Report;

/// At most so many lost files are named.
const NAMED: usize = 20;

/// Puts the source back, which restarts this computer three times.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A disk that is not attached, for example from a rescue system.
    disk: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Do not restart the computer: its next start puts the source back.
    #[arg(long, conflicts_with = "disk")]
    no_reboot: bool,
    /// Put the source back at once, not at the disk's next start.
    #[arg(long, requires = "disk")]
    now: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    match &args.disk {
        Some(disk) => detached(disk, &args),
        None => attached(&args),
    }
}

fn attached(args: &Args) -> Result<()> {
    let control = Control::open()?;
    let status = Status::read()?;
    if status.state != State::Streaming.name() && status.state != State::Trial.name() {
        return Err(Refusal::WrongState {
            command: "rollback",
            state: status.state,
        }
        .into());
    }
    println!(
        "Everything written since the migration is lost: {} in blocks, among them these files:",
        bytes(status.blocks_dirty * 4096)
    );
    for file in changed_files(status.independent, &status.connection) {
        println!("  {file}");
    }
    confirm(args.yes, question(args.no_reboot))?;
    control.rollback()?;
    if args.no_reboot {
        println!("the next start puts the source back");
        return Ok(());
    }
    println!("restarting, three times: the source's blocks come back, then its boot menu, then it starts");
    let output = program::run("systemctl", "systemd", &["reboot"])?;
    program::text("systemctl", output)?;
    Ok(())
}

fn question(no_reboot: bool) -> &'static str {
    match no_reboot {
        true => "The next start puts the source back.",
        false => "This computer restarts now, three times, and comes back as the source.",
    }
}

/// Files of the root file system that changed after the first boot of the
/// target, newest first: /etc/machine-id, logs and all that a user did.
///
/// Looking for them reads directories; without the repository that would wait
/// for blocks that are not here, and keep the roll back from being asked for.
fn changed_files(independent: bool, connection: &str) -> Vec<String> {
    if !independent && !connection.starts_with("ready") {
        return vec!["(not listed: the repository cannot be asked for what is not here)".into()];
    }
    // The kernel mounted root for the first time when it made this directory.
    let mark = "/run/imgstream/attached";
    let places = ["/etc", "/home", "/root", "/srv", "/opt", "/usr", "/var"];
    let output = Command::new("find")
        .args(places)
        .args(["-xdev", "-type", "f", "-newer", mark, "-printf", "%T@ %p\n"])
        .output();
    let text = output.map_or(String::new(), |o| {
        String::from_utf8_lossy(&o.stdout).into_owned()
    });
    newest(&text)
}

fn newest(find: &str) -> Vec<String> {
    let mut files: Vec<(f64, &str)> = find
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(time, path)| Some((time.parse().ok()?, path)))
        .collect();
    files.sort_by(|a, b| b.0.total_cmp(&a.0));
    let more = files.len().saturating_sub(NAMED);
    let mut names: Vec<String> = files.iter().take(NAMED).map(|f| f.1.to_string()).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names
}

/// Writes the state by itself: nobody else uses the disk.
fn detached(named: &Path, args: &Args) -> Result<()> {
    // Links go: what is on a disk is looked up by its own name.
    let disk = &fs::canonicalize(named).map_err(|error| not_opened(named, error))?;
    let place = disk.display().to_string();
    if Status::read().is_ok_and(|status| Path::new("/dev").join(status.disk) == *disk) {
        return Err(Error::Refused(Refusal::DiskInUse {
            place,
            by: "it is attached; call rollback without a disk".into(),
        }));
    }
    let mut medium = DiskMedium::open_alone(disk)?;
    let Some(mut found) = ondisk::find(&mut medium, &place)? else {
        return Err(Refusal::NoSuperblock { place }.into());
    };
    let now = found.superblock.state;
    if imgstream_engine::state::transition(now, State::RollingBack).is_err() {
        return Err(Refusal::WrongState {
            command: "rollback",
            state: now.to_string(),
        }
        .into());
    }
    confirm(
        args.yes,
        "Everything written since the migration is lost. The source is put back.",
    )?;
    found.set_state(&mut medium, State::RollingBack, 0)?;
    if args.now {
        let mut report = Report::console();
        drop(medium);
        stage::go_on(disk, &mut found, None, &mut OnDisk(disk), &mut report)?;
        println!("{place} is the source's again");
    } else {
        println!("the next boot of {place} puts the source back");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_repository_no_file_is_looked_for() {
        let listed = |independent, connection| {
            let files = changed_files(independent, connection);
            !files.iter().any(|file| file.starts_with("(not listed"))
        };
        assert!(!listed(false, "disconnected: no answer"));
        assert!(!listed(false, "login"));
        assert!(listed(false, "ready"));
        assert!(listed(true, "disconnected: no answer"));
    }

    #[test]
    fn the_newest_files_are_named_first() {
        assert_eq!(
            newest("1.5 /a\n3.0 /with space\nbad\n2.0 /c\n"),
            ["/with space", "/c", "/a"]
        );
        let many: String = (0..25)
            .map(|i| format!("{i}.0 /f{i}\n"))
            .collect::<Vec<String>>()
            .concat();
        let names = newest(&many);
        assert_eq!(names.len(), 21);
        assert_eq!(names[0], "/f24");
        assert_eq!(names[20], "and 5 more");
    }
}
