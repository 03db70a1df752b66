// SPDX-License-Identifier: GPL-2.0-only

//! What keeps a call from getting on, in words for a person who waits.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use imgstream_engine::session::Reason;

/// A portal of which nothing can be had at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub portal: SocketAddr,
    /// What it does, or does not do.
    pub why: String,
    /// How long it is tried yet.
    pub left: Duration,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Halves of seconds count: nearly all of it is left at the first failure.
        let left = (self.left + Duration::from_millis(500)).as_secs();
        let (portal, why) = (self.portal, &self.why);
        write!(f, "the portal {portal} {why}; trying for {left} s more")
    }
}

/// Why a connection, or an attempt to make one, ended.
#[derive(Debug)]
pub(crate) enum Cause {
    /// There never was one.
    Connect(io::Error),
    /// The system lost it.
    Link(io::Error),
    /// The session gave it up.
    Session(Reason),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => match error.kind() {
                ErrorKind::ConnectionRefused => f.write_str("refuses connections"),
                ErrorKind::TimedOut => f.write_str("does not answer"),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    write!(f, "cannot be reached: {error}")
                }
                _ => write!(f, "cannot be connected to: {error}"),
            },
            Self::Link(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    f.write_str("closes the connection")
                }
                _ => write!(f, "lost the connection: {error}"),
            },
            Self::Session(reason) => write!(f, "answers, but {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_a_sentence_about_the_portal() {
        let connect = |kind: ErrorKind| Cause::Connect(kind.into()).to_string();
        assert_eq!(connect(ErrorKind::ConnectionRefused), "refuses connections");
        assert_eq!(connect(ErrorKind::TimedOut), "does not answer");
        assert!(connect(ErrorKind::HostUnreachable).starts_with("cannot be reached: "));
        assert!(connect(ErrorKind::Other).starts_with("cannot be connected to: "));
        let link = |kind: ErrorKind| Cause::Link(kind.into()).to_string();
        assert_eq!(link(ErrorKind::UnexpectedEof), "closes the connection");
        assert!(link(ErrorKind::Other).starts_with("lost the connection: "));
        assert_eq!(
            Cause::Session(Reason::Silent).to_string(),
            "answers, but the target is silent"
        );
    }

    #[test]
    fn what_is_waited_for_and_how_long() {
        let trouble = Trouble {
            portal: "192.0.2.1:3260".parse().unwrap(),
            why: "refuses connections".into(),
            left: Duration::from_millis(4_990),
        };
        assert_eq!(
            trouble.to_string(),
            "the portal 192.0.2.1:3260 refuses connections; trying for 5 s more"
        );
    }
}
