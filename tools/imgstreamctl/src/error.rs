// SPDX-License-Identifier: GPL-2.0-only
//! The error every command returns: it knows its exit code.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Exit;
use crate::initramfs;
use crate::program;
use crate::refusal::Refusal;

/// What a command returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A decision not to go on; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Input or output failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The verb: "opening", "reading", ...
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program that imgstreamctl calls failed.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    /// The source's file system must not be mounted.
    #[error("resize2fs was cut and what it left cannot be repaired: {0}")]
    HalfShrunk(Box<Error>),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
    /// Several of these; the first decides how the command ends.
    #[error("{}", sentences(.0))]
    Several(Vec<Error>),
    /// The image's initramfs could not be read.
    #[error(transparent)]
    Initramfs(#[from] initramfs::Error),
}

impl Error {
    /// The exit code for this error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Refused(refusal) => refusal.exit(),
            Error::Program(error) => error.exit(),
            Error::Initramfs(_) => Exit::BootSetup,
            Error::Several(all) => all.first().map_or(Exit::Failure, Error::exit),
            Error::Io { .. } | Error::Disk(_) | Error::HalfShrunk(_) | Error::Other(_) => {
                Exit::Failure
            }
        }
    }

    /// Each of several, or the one that it is.
    pub fn each(&self) -> &[Error] {
        match self {
            Error::Several(all) => all,
            one => std::slice::from_ref(one),
        }
    }

    /// Names the file and what was being done to it; for `map_err`.
    pub fn io<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| Error::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    }
}

fn sentences(all: &[Error]) -> String {
    let all: Vec<String> = all.iter().map(Error::to_string).collect();
    all.join("; ")
}
