// SPDX-License-Identifier: GPL-2.0-only
//! What the superblock of an ext4 file system says, as `dumpe2fs -h` prints it.

use crate::program;

/// Facts of a superblock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Facts {
    /// UUID as text.
    pub uuid: String,
    /// Size of a block.
    pub block_bytes: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Names of its features.
    pub features: Vec<String>,
    /// Whether it was unmounted (or checked) without errors.
    pub clean: bool,
    /// Whether its journal is to be replayed (also while it is mounted).
    pub needs_recovery: bool,
    /// Whether the kernel or e2fsck recorded errors.
    pub has_errors: bool,
}

impl Facts {
    /// Parses what `dumpe2fs -h` prints.
    pub fn parse(said: &str) -> Result<Facts, program::Error> {
        let text = |key: &str| {
            field(said, key).ok_or_else(|| program::Error::Answer {
                program: "dumpe2fs",
                asked: format!("-h ({key})"),
                said: said.to_string(),
            })
        };
        let number = |key: &str| {
            text(key).and_then(|value| {
                value.parse::<u64>().map_err(|_| program::Error::Answer {
                    program: "dumpe2fs",
                    asked: key.to_string(),
                    said: value.to_string(),
                })
            })
        };
        let state = text("Filesystem state:")?;
        let features: Vec<String> = text("Filesystem features:")?
            .split_whitespace()
            .map(str::to_string)
            .collect();
        Ok(Facts {
            uuid: text("Filesystem UUID:")?.to_string(),
            block_bytes: number("Block size:")?,
            blocks: number("Block count:")?,
            free_blocks: number("Free blocks:")?,
            clean: state == "clean",
            // The kernel counts what it met since the last check.
            has_errors: state.contains("errors")
                || field(said, "FS Error count:").is_some_and(|count| count != "0"),
            needs_recovery: features.iter().any(|f| f == "needs_recovery"),
            features,
        })
    }

    /// Whether it has the feature `name`.
    pub fn has(&self, name: &str) -> bool {
        self.features.iter().any(|feature| feature == name)
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes)
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.blocks
            .saturating_sub(self.free_blocks)
            .saturating_mul(self.block_bytes)
    }
}

/// The value behind `key` at the start of a line.
pub(super) fn field<'a>(said: &'a str, key: &str) -> Option<&'a str> {
    said.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Filesystem UUID:          afffc314-9425-42d0-8446-22b48209ec7e
Filesystem features:      has_journal needs_recovery extent
Filesystem state:         clean with errors
Block count:              40960
Free blocks:              30572
Block size:               1024
";

    #[test]
    fn parses_what_dumpe2fs_prints() {
        let facts = Facts::parse(SAID).unwrap();
        assert_eq!(facts.size_bytes(), 40960 * 1024);
        assert_eq!(facts.used_bytes(), 10388 * 1024);
        assert!(facts.needs_recovery && facts.has_errors && !facts.clean);
        assert!(facts.has("extent") && !facts.has("bigalloc"));
    }

    #[test]
    fn a_missing_line_is_an_error() {
        let cut = SAID.replace("Block size", "Block");
        assert!(Facts::parse(&cut).is_err());
    }
}
