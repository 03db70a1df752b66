// SPDX-License-Identifier: GPL-2.0-only
//! Running other programs: e2fsprogs does what concerns ext4.

use std::io;
use std::process::{Command, Output, Stdio};

use crate::exit::Exit;

/// Root's programs, which a user's or a service's PATH may lack.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("the program {0} is missing (it belongs to the package {1})")]
    Missing(&'static str, &'static str),
    /// It could not be started or read.
    #[error("running {0}: {1}")]
    Run(&'static str, #[source] io::Error),
    /// It ran and said no.
    #[error("{program} failed: {said}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// Its answer is not understood.
    #[error("{program} answered something unexpected to \"{asked}\": {said}")]
    Answer {
        /// Its name.
        program: &'static str,
        /// What it was asked.
        asked: String,
        /// What it said.
        said: String,
    },
}

impl Error {
    /// The exit code of every one of them.
    pub fn exit(&self) -> Exit {
        Exit::ToolMissing
    }
}

/// A program of e2fsprogs with its language and PATH set.
pub fn e2fs(program: &'static str, arguments: &[&str]) -> Result<Output, Error> {
    run(program, "e2fsprogs", arguments)
}

/// Runs `program` of `package` and collects what it says.
pub fn run(
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
) -> Result<Output, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:{SBIN}"))
        .env("LC_ALL", "C")
        // debugfs pages its output when it believes it is on a terminal.
        .env("DEBUGFS_PAGER", "__none__")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Missing(program, package),
            _ => Error::Run(program, e),
        })
}

/// Standard output of a run that has to end with success.
pub fn text(program: &'static str, output: Output) -> Result<String, Error> {
    if !output.status.success() {
        return Err(failed(program, &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error for a run that said no.
pub fn failed(program: &'static str, output: &Output) -> Error {
    let said = [&output.stderr, &output.stdout]
        .iter()
        .map(|bytes| String::from_utf8_lossy(bytes).trim().to_string())
        .find(|said| !said.is_empty())
        .unwrap_or_else(|| output.status.to_string());
    Error::Failed { program, said }
}
