// SPDX-License-Identifier: GPL-2.0-only

//! Why something could not be read.

use std::net::SocketAddr;

use imgstream_engine::session::{ConfigError, ReadError, Reason};

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No portal was named.
    #[error("no portal is named")]
    NoPortal,
    /// A name cannot be an iSCSI name.
    #[error("{0:?} is no iSCSI name")]
    Name(String),
    /// The session cannot be made.
    #[error("LUN numbers above 16383 are not supported")]
    Config(ConfigError),
    /// Only a person can help.
    #[error("portal {portal}: {reason}")]
    Refused {
        /// Where.
        portal: SocketAddr,
        /// Why.
        reason: Reason,
    },
    /// Somebody else may be there.
    #[error("what listens at {portal} does not answer as an iSCSI portal: {reason}")]
    NotIscsi {
        /// Where.
        portal: SocketAddr,
        /// What is wrong.
        reason: Reason,
    },
    /// There is no connection.
    #[error("the portal {portal} {why}")]
    Unreachable {
        /// Where.
        portal: SocketAddr,
        /// What it does, or does not do.
        why: String,
    },
    /// Nothing got on for too long.
    #[error("the portal {portal} {why}; tried for {seconds} s")]
    Patience {
        /// The portal that was tried last.
        portal: SocketAddr,
        /// How long.
        seconds: u64,
        /// What was wrong last.
        why: String,
    },
    /// The target cannot read this.
    #[error("reading at byte {offset}: {error}")]
    Read {
        /// Where the read that failed starts.
        offset: u64,
        /// Why.
        error: ReadError,
    },
    /// A read that does not lie within the unit, or not on its blocks.
    #[error("cannot read {len} bytes at byte {offset} of a unit of {capacity} bytes")]
    Range {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// Size of the unit.
        capacity: u64,
    },
}
