// SPDX-License-Identifier: GPL-2.0-only
//! What an initramfs holds: is imgstream in it, and which NIC drivers.

mod cpio;
mod nic;

pub use nic::some as some_drivers;

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::MultiGzDecoder;

/// The most an initramfs is unpacked to: it has to fit into memory at boot.
const MAX_BYTES: u64 = 4 << 30;
/// The script that attaches the device before root is searched.
const SCRIPT: &str = "scripts/local-top/imgstream";

/// Why an initramfs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are neither an archive nor compressed in a known way.
    #[error("the initramfs {initrd} is packed in a way that is not known (bytes {start:02x?})")]
    Unknown {
        /// Its path.
        initrd: String,
        /// How the part that is not known starts.
        start: Vec<u8>,
    },
    /// It is cut off or damaged.
    #[error("the initramfs {initrd} is damaged: {what}")]
    Damaged {
        /// Its path.
        initrd: String,
        /// Where it went wrong.
        what: String,
    },
}

/// What matters of an initramfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initramfs {
    /// Every name in it.
    names: BTreeSet<String>,
    /// Modules that its kernels have built in.
    builtin: BTreeSet<String>,
}

impl Initramfs {
    /// Unpacks the archives in `bytes`, one behind the other.
    pub fn read(initrd: &str, bytes: &[u8]) -> Result<Initramfs, Error> {
        let mut found = Initramfs::default();
        found.take_up(bytes).map_err(|fault| match fault {
            Fault::Unknown(start) => Error::Unknown {
                initrd: initrd.to_string(),
                start,
            },
            Fault::Damaged(what) => Error::Damaged {
                initrd: initrd.to_string(),
                what,
            },
        })?;
        Ok(found)
    }

    /// Adds what another archive of the same menu entry holds.
    pub fn merge(&mut self, other: Initramfs) {
        self.names.extend(other.names);
        self.builtin.extend(other.builtin);
    }

    /// Versions of the kernels for which imgstream's module is in it.
    pub fn imgstream_kernels(&self) -> Vec<String> {
        let modules = self.modules().filter(|m| m.name == "imgstream");
        let versions: BTreeSet<String> = modules.map(|m| m.kernel.to_string()).collect();
        versions.into_iter().collect()
    }

    /// What of imgstream it lacks for `kernel` (any kernel when not known).
    pub fn lacks(&self, kernel: Option<&str>) -> Option<String> {
        let versions = self.imgstream_kernels();
        let wanted = kernel.map_or(!versions.is_empty(), |k| versions.iter().any(|v| v == k));
        if !wanted {
            let version = kernel
                .map(|k| format!(" for kernel {k}"))
                .unwrap_or_default();
            return Some(format!("imgstream.ko{version}"));
        }
        let has = |wanted: &dyn Fn(&str) -> bool| self.names.iter().any(|name| wanted(name));
        if !has(&|name| name.rsplit('/').next() == Some("imgstreamctl")) {
            return Some("imgstreamctl".into());
        }
        (!has(&|name| name == SCRIPT)).then(|| SCRIPT.to_string())
    }

    /// Names of the NIC drivers in it, sorted.
    pub fn nic_drivers(&self) -> Vec<String> {
        let modules = self.modules().filter(|m| nic::is_driver(m.path));
        let names: BTreeSet<String> = modules
            .map(|m| m.name)
            .chain(
                self.builtin
                    .iter()
                    .filter(|p| nic::is_driver(p))
                    .map(|p| module_name(p)),
            )
            .collect();
        names.into_iter().collect()
    }

    fn modules(&self) -> impl Iterator<Item = Module<'_>> {
        self.names.iter().filter_map(|name| Module::of(name))
    }

    fn take_up(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        loop {
            let padding = bytes.iter().take_while(|b| **b == 0).count();
            bytes = &bytes[padding..];
            if bytes.is_empty() {
                return Ok(());
            }
            if !cpio::is_archive(bytes) {
                return self.take_up(&unpack(bytes)?);
            }
            bytes = cpio::read(bytes, |member| self.member(member))
                .ok_or_else(|| Fault::Damaged("a cpio archive is cut off".into()))?;
        }
    }

    fn member(&mut self, member: cpio::Member<'_>) {
        if member.name.ends_with("/modules.builtin") {
            let list = String::from_utf8_lossy(member.data);
            self.builtin.extend(list.lines().map(str::to_string));
        }
        self.names.insert(member.name.to_string());
    }
}

enum Fault {
    Unknown(Vec<u8>),
    Damaged(String),
}

/// A kernel module in an initramfs.
struct Module<'a> {
    kernel: &'a str,
    path: &'a str,
    name: String,
}

impl<'a> Module<'a> {
    /// `[usr/]lib/modules/VERSION/PATH.ko[.xz]`.
    fn of(name: &'a str) -> Option<Module<'a>> {
        let (_, rest) = name.split_once("lib/modules/")?;
        let (kernel, path) = rest.split_once('/')?;
        let file = path.rsplit('/').next()?;
        file.contains(".ko").then(|| Module {
            kernel,
            path,
            name: module_name(path),
        })
    }
}

/// The name that the kernel shows for a module's file.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let damaged = |what: &dyn std::fmt::Display| Fault::Damaged(what.to_string());
    let mut out = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => {
            let mut reader = MultiGzDecoder::new(bytes).take(MAX_BYTES);
            reader.read_to_end(&mut out).map_err(|e| damaged(&e))?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let reader = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|e| damaged(&e))?;
            let mut reader = reader.take(MAX_BYTES);
            reader.read_to_end(&mut out).map_err(|e| damaged(&e))?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            lzma_rs::xz_decompress(&mut &bytes[..], &mut out)
                .map_err(|e| Fault::Damaged(format!("{e:?}")))?;
        }
        _ => return Err(Fault::Unknown(bytes.iter().take(6).copied().collect())),
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
