// SPDX-License-Identifier: GPL-2.0-only
//! Waiting for the end of a commit.

use std::time::Duration;

use imgstream_proto::disk::State;

use crate::device::Status;
use crate::error::{Error, Result};

/// How often the progress of a commit is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Waits until the device says `committed`. `tell` is told how far it is, and what has to be said, once. Fails when the
/// commit cannot go on by itself.
pub fn wait_committed(tell: &mut dyn FnMut(&Status, Option<&str>)) -> Result<()> {
    let mut said = None;
    loop {
        let status = Status::read()?;
        let Look::Running(note) = look(&status)? else {
            tell(&status, None);
            return Ok(());
        };
        tell(&status, note.as_deref().filter(|_| note != said));
        said = note;
        std::thread::sleep(EVERY);
    }
}

/// How a commit is getting on.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Everything is home.
    Committed,
    /// It goes on by itself, or will; with what has to be said about it.
    Running(Option<String>),
}

/// What a look at the device means to somebody who waits for the end of a commit.
fn look(status: &Status) -> Result<Look> {
    if status.state == State::Committed.name() {
        return Ok(Look::Committed);
    }
    if let Some(reason) = status.commit_stopped() {
        return Err(Error::Other(format!(
            "the commit has stopped: {reason}; it is tried again by `imgstreamctl resume` and at the next start"
        )));
    }
    status.refuse_wrong_image()?;
    Ok(Look::Running(status.waits_for()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(change: impl FnOnce(&mut Status)) -> Status {
        let mut status = Status::example();
        status.state = State::Committing.name().into();
        status.commit = "running".into();
        status.connection = "ready".into();
        change(&mut status);
        status
    }

    fn note(change: impl FnOnce(&mut Status)) -> Option<String> {
        match look(&status(change)).unwrap() {
            Look::Running(note) => note,
            Look::Committed => panic!("not committed"),
        }
    }

    #[test]
    fn the_end_is_seen() {
        let end = status(|s| s.state = State::Committed.name().into());
        assert_eq!(look(&end).unwrap(), Look::Committed);
        assert_eq!(note(|_| {}), None);
    }

    #[test]
    fn a_commit_that_stopped_is_not_waited_for() {
        let reason = "block 7 cannot be read where it is, at byte 4096 of the disk";
        let stopped = status(|s| s.commit = format!("stopped: {reason}"));
        let error = look(&stopped).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::Failure);
        assert!(error.to_string().contains(reason), "{error}");
    }

    #[test]
    fn another_image_is_not_waited_for() {
        let wrong = "disconnected: wrong image behind the portal: its trailer is another one";
        let error = look(&status(|s| s.connection = wrong.into())).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::WrongImage);
        // Nobody needs it any more.
        let home = status(|s| {
            s.connection = wrong.into();
            s.independent = true;
        });
        assert_eq!(look(&home).unwrap(), Look::Running(None));
    }

    #[test]
    fn what_is_waited_for_is_said() {
        let gone = note(|s| s.connection = "disconnected: no answer".into()).unwrap();
        assert!(gone.contains("192.0.2.1:3260"), "{gone}");
        assert!(gone.contains("no answer"), "{gone}");
        let paused = note(|s| s.commit = "paused".into()).unwrap();
        assert!(paused.contains("imgstreamctl resume"), "{paused}");
    }
}
