// SPDX-License-Identifier: GPL-2.0-only
//! The part of the stage's initramfs that imgstream adds.
//!
//! The rest is the initramfs that the source's own generator made for the
//! running kernel and that the source started with a moment ago: it has every
//! driver the disk needs. The loader loads both files one after the other and
//! the kernel unpacks both, so nothing has to be built anew, which on a slow
//! computer takes longer than the whole switch.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::cpio::Writer;
use super::source;
use crate::error::{Error, Result};
use crate::program;

/// The boot script, run by `boot=imgstream-stage`.
const SCRIPT: &str = include_str!("../../../../initramfs/stage/imgstream-stage");
/// Programs of e2fsprogs that the stage calls.
const PROGRAMS: [&str; 3] = ["e2fsck", "resize2fs", "dumpe2fs"];
const SBIN: [&str; 3] = ["/sbin", "/usr/sbin", "/usr/local/sbin"];

/// Writes the archive to `path` and makes it durable.
pub fn write(path: &Path, payload: &Path) -> Result<()> {
    let io = |e| Error::io("writing", path)(e);
    let file = source::create_secret(path)?;
    let mut cpio = Writer::new(BufWriter::with_capacity(1 << 20, file));
    cpio.file("scripts/imgstream-stage", 0o644, SCRIPT.as_bytes())
        .map_err(io)?;
    let own = std::env::current_exe().map_err(Error::io("finding", Path::new("imgstreamctl")))?;
    add(&mut cpio, "imgstream/imgstreamctl", 0o755, &own)?;
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let program = find(name)?;
        libraries.extend(needed_by(&program)?);
        add(&mut cpio, &format!("imgstream/bin/{name}"), 0o755, &program)?;
    }
    for library in &libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        add(&mut cpio, &format!("imgstream/lib/{name}"), 0o755, library)?;
    }
    add(&mut cpio, "imgstream/payload", 0o600, payload)?;
    let mut out = cpio.finish().map_err(io)?;
    out.flush().map_err(io)?;
    let (file, buffer) = out.into_parts();
    // The payload went through it, with the secrets of CHAP; this wipes all of it, not only what is in use.
    drop(buffer.map(Zeroizing::new));
    file.sync_all().map_err(io)
}

fn add(cpio: &mut Writer<BufWriter<File>>, name: &str, mode: u32, from: &Path) -> Result<()> {
    let io = |e| Error::io("reading", from)(e);
    let mut file = File::open(from).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let len = u32::try_from(len).map_err(|_| io(std::io::Error::other("it is too large")))?;
    cpio.file_from(name, mode, len, &mut file).map_err(io)
}

fn find(name: &'static str) -> Result<PathBuf> {
    SBIN.iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| program::Error::Missing(name, "e2fsprogs").into())
}

/// The libraries of a program and the loader of programs, as `ldd` names them.
fn needed_by(program: &Path) -> Result<Vec<PathBuf>> {
    let argument = program.to_string_lossy();
    let output = program::run("ldd", "libc-bin", &[&argument])?;
    Ok(libraries(&program::text("ldd", output)?))
}

fn libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .flat_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// What the archive will take, so that room for it can be looked for before it
/// is made.
pub fn estimate_bytes(payload_bytes: u64) -> u64 {
    /// This program, those of e2fsprogs and their libraries.
    const PROGRAMS_BYTES: u64 = 16 << 20;
    payload_bytes.saturating_add(PROGRAMS_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibext2fs.so.2 => /lib/x86_64-linux-gnu/libext2fs.so.2 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = libraries(text);
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libext2fs.so.2"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn the_script_restarts_the_computer() {
        assert!(SCRIPT.contains("mountroot()"));
        assert!(SCRIPT.contains("/imgstream/imgstreamctl stage"));
    }
}
