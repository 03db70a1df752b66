// SPDX-License-Identifier: GPL-2.0-only

//! Arbitrary bytes for everything that reads what a target or a disk says, and what must hold whatever they are.
//!
//! Each target is a plain function of bytes, which panics where a promise is broken. libFuzzer looks for such bytes
//! (`scripts/fuzz`); the inputs of `corpus` and `regressions`, and seeds, are replayed by `cargo test`.

#![forbid(unsafe_code)]

mod disk;
mod input;
mod login;
mod peer;
mod scsi;
mod seeds;
mod session;
mod stream;
mod text;
mod witness;

/// A function that takes any bytes.
pub struct Target {
    /// Its name: that of its directories in `corpus` and `regressions`, too.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub body: fn(&[u8]),
    /// Longest input that is of use.
    pub max_len: usize,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(
    name: &'static str,
    body: fn(&[u8]),
    max_len: usize,
    seeds: fn() -> Vec<Vec<u8>>,
) -> Target {
    Target {
        name,
        body,
        max_len,
        seeds,
    }
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    target("disk", disk::body, 3 * 4096 + 1, seeds::disks),
    target("login", login::body, 2048, seeds::logins),
    target("scsi", scsi::body, 512, seeds::answers),
    target("session", session::body, 512, seeds::scripts),
    target("stream", stream::body, 4096, seeds::streams),
    target("text", text::body, 1024, seeds::texts),
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    const ALL: &[Target] = &TARGETS;
    ALL.iter().find(|target| target.name == name)
}
