// SPDX-License-Identifier: GPL-2.0-only
//! What the attached device says in sysfs.

use std::io;
use std::path::Path;

use imgstream_proto::abi::status::{
    Attribute, Connection, COMMIT_STOPPED, DIRECTORY, NONE, UNKNOWN, WRONG_IMAGE,
};
use imgstream_proto::iscsi::digest::UNPROTECTED;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::refusal::Refusal;

/// A reading of all files of `/sys/block/imgstream0/imgstream/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named and described in abi::status::Attribute")]
pub struct Status {
    pub state: String,
    pub mode: String,
    pub uuid: String,
    pub disk: String,
    pub image_bytes: u64,
    pub copied_bytes: u64,
    pub blocks_total: u64,
    pub blocks_absent: u64,
    pub blocks_clean: u64,
    pub blocks_dirty: u64,
    pub blocks_zero: u64,
    pub blocks_home: u64,
    pub fetched_bytes: u64,
    pub stored_bytes: u64,
    pub independent: bool,
    pub portal: String,
    pub redirected_by: String,
    pub connection: String,
    pub connection_since_s: u64,
    pub digests: String,
    pub reconnects: u64,
    pub sessions: String,
    pub fill: String,
    pub fill_stuck: String,
    pub commit: String,
    pub errors_read: u64,
    pub errors_write: u64,
    pub errors_journal: u64,
    pub inflight: u64,
    pub fetches_inflight: u64,
    pub last_error: String,
    pub source_view: bool,
    pub partitions: String,
}

impl Status {
    /// Reads it; refuses when nothing is attached.
    pub fn read() -> Result<Self> {
        Self::read_from(Path::new(DIRECTORY))
    }

    fn read_from(directory: &Path) -> Result<Self> {
        if !directory.is_dir() {
            return Err(Refusal::NotAttached.into());
        }
        let file = Files { directory };
        Ok(Self {
            state: file.text(Attribute::State)?,
            mode: file.text(Attribute::Mode)?,
            uuid: file.text(Attribute::Uuid)?,
            disk: file.text(Attribute::Disk)?,
            image_bytes: file.number(Attribute::ImageBytes)?,
            copied_bytes: file.number(Attribute::Copied)?,
            blocks_total: file.number(Attribute::BlocksTotal)?,
            blocks_absent: file.number(Attribute::BlocksAbsent)?,
            blocks_clean: file.number(Attribute::BlocksClean)?,
            blocks_dirty: file.number(Attribute::BlocksDirty)?,
            blocks_zero: file.number(Attribute::BlocksZero)?,
            blocks_home: file.number(Attribute::BlocksHome)?,
            fetched_bytes: file.number(Attribute::FetchedBytes)?,
            stored_bytes: file.number(Attribute::StoredBytes)?,
            independent: file.text(Attribute::Independent)? == "yes",
            portal: file.text(Attribute::Portal)?,
            redirected_by: file.text(Attribute::RedirectedBy)?,
            connection: file.text(Attribute::Connection)?,
            connection_since_s: file.number(Attribute::ConnectionSince)?,
            digests: file.text(Attribute::Digests)?,
            reconnects: file.number(Attribute::Reconnects)?,
            sessions: file.text(Attribute::Sessions)?,
            fill: file.text(Attribute::Fill)?,
            fill_stuck: file.text(Attribute::FillStuck)?,
            commit: file.text(Attribute::Commit)?,
            errors_read: file.number(Attribute::ErrorsRead)?,
            errors_write: file.number(Attribute::ErrorsWrite)?,
            errors_journal: file.number(Attribute::ErrorsJournal)?,
            inflight: file.number(Attribute::Inflight)?,
            fetches_inflight: file.number(Attribute::FetchesInflight)?,
            last_error: file.text(Attribute::LastError)?,
            source_view: file.text(Attribute::SourceView)? == "yes",
            partitions: file.text(Attribute::Partitions)?,
        })
    }

    /// Bytes of the image that need not be fetched any more.
    pub fn here_bytes(&self) -> u64 {
        (self.blocks_total - self.blocks_absent.min(self.blocks_total)) * 4096
    }

    /// Why the commit cannot go on by itself, if so.
    pub fn commit_stopped(&self) -> Option<&str> {
        self.commit.strip_prefix(COMMIT_STOPPED)?.strip_prefix(": ")
    }

    /// What the fill cannot have, if there is something.
    pub fn fill_stuck(&self) -> Option<&str> {
        Some(self.fill_stuck.as_str()).filter(|what| *what != NONE)
    }

    /// Refuses to wait for blocks that the image behind the portal cannot give.
    pub fn refuse_wrong_image(&self) -> Result<(), Refusal> {
        let reason = self.connection.split_once(": ").map(|(_, reason)| reason);
        match reason.and_then(|reason| reason.strip_prefix(WRONG_IMAGE)) {
            Some(what) if !self.independent => Err(Refusal::WrongImage {
                place: self.portal.clone(),
                // Behind "behind the portal" and, if it was exchanged, since when.
                what: what.split_once(": ").map_or(what, |(_, what)| what).into(),
            }),
            _ => Ok(()),
        }
    }

    /// What keeps the device from getting on, but may pass by itself or by a command.
    pub fn waits_for(&self) -> Option<String> {
        if self.commit == "paused" {
            return Some("the commit is paused; `imgstreamctl resume` goes on with it".into());
        }
        let gone = Connection::parse(&self.connection) == Some(Connection::Disconnected);
        (gone && !self.independent).then(|| {
            format!(
                "waiting for the repository at {}: {}",
                self.portal, self.connection
            )
        })
    }

    /// Who sent the driver to its portal, in brackets.
    fn redirected(&self) -> String {
        match self.redirected_by.as_str() {
            NONE => String::new(),
            by => format!(" (where {by} sent us)"),
        }
    }

    /// What `fill` says: on or off, the least and the most KiB/s; 0: no bound.
    fn fill_in_words(&self) -> String {
        let mut words = self.fill.split(' ');
        let mut next = || words.next().unwrap_or_default();
        match (next(), next(), next()) {
            ("on", "0", "0") => "on".into(),
            ("on", "0", most) => format!("on, at most {most} KiB/s"),
            ("on", least, "0") => format!("on, at least {least} KiB/s"),
            ("on", least, most) => format!("on, at least {least} and at most {most} KiB/s"),
            (switch, ..) => switch.into(),
        }
    }

    /// What of the repository's bytes is protected on their way, if any came.
    fn digests_in_words(&self) -> Option<String> {
        match self.digests.as_str() {
            UNKNOWN => None,
            digests @ ("none" | "header") if !self.independent => {
                Some(format!("{digests}: {UNPROTECTED}"))
            }
            digests => Some(digests.into()),
        }
    }

    /// A screenful for a person.
    pub fn human(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text.push_str(&format!("{name:12} {value}\n"));
        line(
            "state",
            format!("{} ({} mode, disk {})", self.state, self.mode, self.disk),
        );
        line(
            "here",
            format!(
                "{} of {}{}",
                bytes(self.here_bytes()),
                bytes(self.image_bytes),
                if self.independent {
                    ", independent of the repository"
                } else {
                    ""
                }
            ),
        );
        line("written", bytes(self.blocks_dirty * 4096));
        line("home", bytes(self.copied_bytes));
        line(
            "repository",
            format!(
                "{}{} {} for {} s, {} reconnects, {} fetched",
                self.portal,
                self.redirected(),
                self.connection,
                self.connection_since_s,
                self.reconnects,
                bytes(self.fetched_bytes)
            ),
        );
        if !matches!(self.sessions.as_str(), "0 of 0" | "0 of 1" | "1 of 1") {
            line("sessions", self.sessions.clone());
        }
        if let Some(what) = self.digests_in_words() {
            line("digests", what);
        }
        line("fill", self.fill_in_words());
        if let Some(what) = self.fill_stuck() {
            line("missing", what.into());
        }
        line("commit", self.commit.clone());
        line(
            "errors",
            format!(
                "{} reads, {} writes, {} journal; last: {}",
                self.errors_read, self.errors_write, self.errors_journal, self.last_error
            ),
        );
        text
    }
}

/// A number of bytes for a person: `1.2 GiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

struct Files<'a> {
    directory: &'a Path,
}

impl Files<'_> {
    fn text(&self, attribute: Attribute) -> Result<String> {
        let path = self.directory.join(attribute.file());
        let text = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
        Ok(text.trim_end().to_string())
    }

    fn number(&self, attribute: Attribute) -> Result<u64> {
        let text = self.text(attribute)?;
        text.parse().map_err(|_| Error::Io {
            doing: "reading",
            path: self.directory.join(attribute.file()),
            source: io::Error::other(format!("\"{text}\" is not a number")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(directory: &Path) {
        for attribute in Attribute::ALL {
            let value = match attribute {
                Attribute::State => "streaming",
                Attribute::BlocksTotal => "100",
                Attribute::BlocksAbsent => "25",
                Attribute::Independent | Attribute::SourceView => "no",
                Attribute::Portal => "192.0.2.1:3260",
                Attribute::RedirectedBy => NONE,
                Attribute::Connection => "disconnected: no answer",
                Attribute::FillStuck => "none",
                Attribute::Digests => "unknown",
                Attribute::Sessions => "0 of 1",
                _ => "7",
            };
            std::fs::write(directory.join(attribute.file()), format!("{value}\n")).unwrap();
        }
    }

    impl Status {
        /// One for other tests.
        pub fn example() -> Self {
            let dir = tempfile::tempdir().unwrap();
            example(dir.path());
            Self::read_from(dir.path()).unwrap()
        }
    }

    #[test]
    fn every_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        example(dir.path());
        let status = Status::read_from(dir.path()).unwrap();
        assert_eq!(status.state, "streaming");
        assert_eq!(status.here_bytes(), 75 * 4096);
        assert!(!status.independent);
        assert!(status.human().contains("disconnected: no answer for 7 s"));
        // One field for each file.
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Attribute::ALL.len());
    }

    #[test]
    fn a_redirect_is_said() {
        let mut status = Status::example();
        assert!(!status.human().contains("sent us"));
        status.redirected_by = "192.0.2.9:3260".into();
        let expected = "192.0.2.1:3260 (where 192.0.2.9:3260 sent us) disconnected";
        assert!(status.human().contains(expected), "{}", status.human());
    }

    #[test]
    fn parallel_sessions_are_counted_where_there_are_any() {
        let mut status = Status::example();
        for alone in ["0 of 1", "1 of 1", "0 of 0"] {
            status.sessions = alone.into();
            assert!(!status.human().contains("sessions"), "{alone}");
        }
        for several in ["3 of 3", "0 of 2", "1 of 2: login took too long"] {
            status.sessions = several.into();
            let expected = format!("sessions     {several}\n");
            assert!(status.human().contains(&expected), "{}", status.human());
        }
    }

    #[test]
    fn what_the_fill_cannot_have_is_said() {
        let mut status = Status::example();
        assert!(!status.human().contains("missing"));
        let trouble = imgstream_engine::trouble::Trouble::Missing { block: 7 };
        status.fill_stuck = trouble.to_string();
        let expected = format!("missing      {trouble}\n");
        assert!(status.human().contains(&expected), "{}", status.human());
    }

    #[test]
    fn data_that_travels_unprotected_is_warned_of() {
        let said = |digests: &str, independent| {
            let mut status = Status::example();
            status.digests = digests.into();
            status.independent = independent;
            let human = status.human();
            let line = human.lines().find_map(|line| line.strip_prefix("digests "));
            line.map(|line| line.trim().to_string())
        };
        assert_eq!(said("unknown", false), None);
        for whole in ["header+data", "data"] {
            assert_eq!(said(whole, false).unwrap(), whole);
        }
        for part in ["none", "header"] {
            let line = said(part, false).unwrap();
            assert!(line.starts_with(&format!("{part}: data travels unprotected")));
            // Nothing comes any more.
            assert_eq!(said(part, true).unwrap(), part);
        }
    }

    #[test]
    fn another_image_is_refused_where_blocks_are_missing() {
        use imgstream_engine::session::{Mismatch, Reason};
        let dir = tempfile::tempdir().unwrap();
        example(dir.path());
        let mut status = Status::read_from(dir.path()).unwrap();
        assert!(status.refuse_wrong_image().is_ok(), "no answer is no image");
        let mismatch = Mismatch::Trailer;
        let exchanged = Reason::Exchanged {
            mismatch,
            since_ms: 4000,
        };
        for reason in [Reason::WrongImage(mismatch), exchanged] {
            status.connection = format!("disconnected: {reason}");
            let error = status.refuse_wrong_image().unwrap_err();
            assert_eq!(error.exit(), crate::Exit::WrongImage);
            assert_eq!(
                error.to_string(),
                "another image is behind 192.0.2.1:3260 than the one this migration began with: \
                 its trailer is another one"
            );
        }
        status.independent = true;
        assert!(status.refuse_wrong_image().is_ok(), "nobody asks for it");
    }

    #[test]
    fn the_rates_of_the_fill_are_in_words() {
        let said = |fill: &str| {
            let mut status = Status::example();
            status.fill = fill.into();
            let json = serde_json::to_value(&status).unwrap();
            assert_eq!(json["fill"], fill, "programs see what sysfs says");
            let human = status.human();
            let line = human.lines().find_map(|line| line.strip_prefix("fill "));
            line.unwrap().trim().to_string()
        };
        assert_eq!(said("on 0 0"), "on");
        assert_eq!(said("off 0 0"), "off");
        assert_eq!(said("off 64 512"), "off");
        assert_eq!(said("on 0 4096"), "on, at most 4096 KiB/s");
        assert_eq!(said("on 64 0"), "on, at least 64 KiB/s");
        assert_eq!(said("on 64 512"), "on, at least 64 and at most 512 KiB/s");
    }

    #[test]
    fn nothing_attached_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = Status::read_from(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.exit(), crate::Exit::NotAttached);
    }

    #[test]
    fn a_number_that_is_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        example(dir.path());
        std::fs::write(dir.path().join("copied"), "many\n").unwrap();
        assert!(Status::read_from(dir.path()).is_err());
    }
}
