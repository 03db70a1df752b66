// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl boot --ask`: the console while a boot waits for the repository: wait on, look round, or roll back.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use imgstream_proto::abi::status::Connection;
use imgstream_proto::disk::State;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::device::{Control, Status};
use crate::error::{Error, Result};
use crate::power::{self, Cmdline};
use crate::stage::Report;
use crate::switch::payload::After;

/// So long the repository may be away before somebody is asked.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// Where an initramfs mounts root. From then on the console is the system's.
const ROOT: &str = " /root ";

/// A process of its own, for the boot waits in the kernel.
pub(super) fn spawn() -> Result<Child> {
    let own = std::path::Path::new("/proc/self/exe");
    Command::new(own)
        .args(["boot", "--ask"])
        .spawn()
        .map_err(Error::io("starting", own))
}

/// Until root is mounted, nothing is attached any more, or the repository is not needed any more.
pub(super) fn run() -> Result<()> {
    let mut report = Report::console();
    let mut input = Input::default();
    let mut away = Away::default();
    let mut asked = Asked::Nothing;
    while let Some(status) = waiting() {
        let gone = away.for_too_long(&status, Instant::now());
        let line = input.line(asked != Asked::Nothing);
        let (next, act) = step(asked, gone, line.as_deref(), may_roll_back(&status));
        if asked == Asked::Nothing && next != asked {
            input.forget();
        }
        asked = next;
        perform(act, &status, &mut report)?;
    }
    Ok(())
}

fn waiting() -> Option<Status> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    if mounts.contains(ROOT) {
        return None;
    }
    Status::read().ok().filter(|status| !status.independent)
}

fn may_roll_back(status: &Status) -> bool {
    [State::Streaming, State::Trial]
        .iter()
        .any(|state| state.name() == status.state)
}

/// Since when there has been no session with the repository although it is needed.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
}

impl Away {
    fn for_too_long(&mut self, status: &Status, now: Instant) -> bool {
        let there = Connection::parse(&status.connection) == Some(Connection::Ready);
        if there {
            self.since = None;
            return false;
        }
        now.duration_since(*self.since.get_or_insert(now)) >= PATIENCE
    }
}

/// What has been asked and not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    What,
    Sure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    AskWhat,
    AskSure,
    SayBack,
    Shell,
    RollBack,
}

/// What a second brings in which the repository is `gone` for too long or not, and a line was typed or not.
fn step(asked: Asked, gone: bool, line: Option<&str>, may_roll_back: bool) -> (Asked, Act) {
    match (asked, gone, line.map(str::trim)) {
        (Asked::Nothing, false, _) => (Asked::Nothing, Act::Nothing),
        (_, false, _) => (Asked::Nothing, Act::SayBack),
        (Asked::Nothing, true, _) => (Asked::What, Act::AskWhat),
        (_, true, None) => (asked, Act::Nothing),
        (Asked::What, true, Some("s")) => (Asked::Nothing, Act::Shell),
        (Asked::What, true, Some("r")) if may_roll_back => (Asked::Sure, Act::AskSure),
        (Asked::Sure, true, Some("yes")) => (Asked::Nothing, Act::RollBack),
        (Asked::What | Asked::Sure, true, Some(_)) => (Asked::What, Act::AskWhat),
    }
}

fn perform(act: Act, status: &Status, report: &mut Report) -> Result<()> {
    match act {
        Act::Nothing => {}
        Act::SayBack => report.line("the repository answers: this system goes on"),
        Act::AskWhat => {
            report.line(&format!(
                "the repository at {} does not answer ({}); this system goes on by itself when it does",
                status.portal, status.connection
            ));
            report.line(choice(may_roll_back(status)));
        }
        Act::AskSure => report.line(
            "everything written since the migration is lost, and the source starts. Type yes to go on:",
        ),
        Act::Shell => shell(report),
        Act::RollBack => roll_back(report)?,
    }
    Ok(())
}

fn choice(may_roll_back: bool) -> &'static str {
    match may_roll_back {
        true => "type s for a shell, r to roll back to the source, or just wait:",
        false => "type s for a shell, or just wait:",
    }
}

fn shell(report: &mut Report) {
    report.line("a shell; `exit` leaves it, the boot goes on beside it");
    let ended = Command::new("/bin/sh").arg("-i").status();
    if let Err(error) = ended {
        report.line(&format!("there is no shell: {error}"));
    }
}

/// The state is durable when the ioctl returns. Nothing else is written out: a mount that waits for the repository
/// would be waited for.
fn roll_back(report: &mut Report) -> Result<()> {
    if let Err(error) = Control::open().and_then(|control| control.rollback()) {
        report.line(&format!("no roll back: {error}"));
        return Ok(());
    }
    report.line("the computer starts again, and puts the source back");
    power::leave_at_once(Cmdline::read().after.unwrap_or(After::Reboot))
}

/// Lines from the console, or nothing for a second.
#[derive(Default)]
struct Input {
    ended: bool,
    line: Vec<u8>,
}

impl Input {
    /// Nothing is read while nobody is asked: it may be meant for somebody else.
    fn line(&mut self, asked: bool) -> Option<String> {
        if asked && !self.ended {
            return self.read();
        }
        std::thread::sleep(Duration::from_secs(1));
        None
    }

    /// What was typed before the question is no answer to it.
    fn forget(&mut self) {
        while self.byte(&NOW).is_some() {}
        self.line.clear();
    }

    fn read(&mut self) -> Option<String> {
        while let Some(byte) = self.byte(&TICK) {
            if let Some(line) = self.take(byte) {
                return Some(line);
            }
        }
        None
    }

    /// One at a time: what is behind the line may be for the shell.
    fn byte(&mut self, wait: &Timespec) -> Option<u8> {
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        if self.ended || poll(&mut fds, Some(wait)) != Ok(1) {
            return None;
        }
        let mut byte = [0];
        self.ended = rustix::io::read(&stdin, &mut byte) != Ok(1);
        (!self.ended).then_some(byte[0])
    }

    /// The line that this byte ends.
    fn take(&mut self, byte: u8) -> Option<String> {
        if byte != b'\n' {
            self.line.push(byte);
            return None;
        }
        let line = std::mem::take(&mut self.line);
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_while_the_repository_answers() {
        assert_eq!(
            step(Asked::Nothing, false, None, true),
            (Asked::Nothing, Act::Nothing)
        );
        assert_eq!(
            step(Asked::Nothing, true, None, true),
            (Asked::What, Act::AskWhat)
        );
        for asked in [Asked::What, Asked::Sure] {
            for line in [None, Some("r\n"), Some("yes\n"), Some("s\n")] {
                assert_eq!(
                    step(asked, false, line, true),
                    (Asked::Nothing, Act::SayBack)
                );
            }
        }
    }

    #[test]
    fn only_r_and_then_yes_rolls_back() {
        assert_eq!(
            step(Asked::What, true, Some("r\n"), true),
            (Asked::Sure, Act::AskSure)
        );
        assert_eq!(
            step(Asked::Sure, true, Some("yes\n"), true),
            (Asked::Nothing, Act::RollBack)
        );
        for (asked, line, may) in [
            (Asked::What, "yes\n", true),
            (Asked::What, "r\n", false),
            (Asked::What, "\n", true),
            (Asked::Sure, "r\n", true),
            (Asked::Sure, "y\n", true),
        ] {
            assert_eq!(
                step(asked, true, Some(line), may),
                (Asked::What, Act::AskWhat)
            );
        }
    }

    #[test]
    fn a_line_is_what_ends_with_a_newline() {
        let mut input = Input::default();
        let lines: Vec<String> = b"r\nyes\n\ns"
            .iter()
            .filter_map(|&byte| input.take(byte))
            .collect();
        assert_eq!(lines, ["r", "yes", ""]);
    }
}
