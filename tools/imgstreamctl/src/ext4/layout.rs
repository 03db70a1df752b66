// SPDX-License-Identifier: GPL-2.0-only
//! Where the structures of an ext4 file system are and which blocks are free,
//! as `dumpe2fs` prints its groups.

use std::ops::Range;

use crate::program;

/// Places inside a file system, in its own blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Primary superblock.
    pub superblock: u64,
    /// The group descriptors a reader uses: those beside the primary
    /// superblock, or (feature meta_bg) one in each meta group.
    pub descriptors: Vec<Range<u64>>,
    /// Free blocks, ascending.
    pub free: Vec<Range<u64>>,
}

impl Layout {
    /// Parses what `dumpe2fs` prints.
    pub fn parse(said: &str) -> Result<Layout, program::Error> {
        let mut layout = Layout::default();
        let mut groups = 0;
        for line in said.lines() {
            groups += u64::from(line.starts_with("Group ") && line.contains("(Blocks "));
            layout
                .line(line.trim(), groups)
                .ok_or_else(|| program::Error::Answer {
                    program: "dumpe2fs",
                    asked: "block groups".into(),
                    said: line.to_string(),
                })?;
        }
        Ok(layout)
    }

    /// Takes up one line; `None` when it is not understood.
    fn line(&mut self, line: &str, groups: u64) -> Option<()> {
        if let Some(rest) = line.strip_prefix("Primary superblock at ") {
            let (superblock, rest) = rest.split_once(',').unwrap_or((rest, ""));
            self.superblock = superblock.parse().ok()?;
            self.descriptors.extend(descriptors(rest));
        } else if line.starts_with("Group descriptor") {
            // Only meta_bg has descriptors on a line of their own.
            self.descriptors.extend(descriptors(line));
        } else if let Some(rest) = line.strip_prefix("Backup superblock at ") {
            // A meta group's descriptor may share the line of a backup; that of
            // the old layout ("Group descriptors") is a backup too.
            if rest.contains("Group descriptor at ") {
                self.descriptors.extend(descriptors(rest));
            }
        } else if let (Some(rest), true) = (line.strip_prefix("Free blocks:"), groups > 0) {
            for piece in rest.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                self.free.push(range(piece)?);
            }
        }
        Some(())
    }
}

fn descriptors(text: &str) -> Option<Range<u64>> {
    let (_, places) = text.split_once(" at ")?;
    range(places.trim())
}

/// `7` or `7-9`, both ends included.
fn range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_groups() {
        let layout = Layout::parse(
            "Free blocks:              30572\n\
             Group 0: (Blocks 1-8192) csum 0xada8 [ITABLE_ZEROED]\n  \
             Primary superblock at 1, Group descriptors at 2-3\n  \
             Free blocks: 5776-8191, 8192\n\
             Group 1: (Blocks 8193-16384) csum 0x736f\n  \
             Backup superblock at 8193, Group descriptors at 8194-8195\n  \
             Free blocks: \n",
        )
        .unwrap();
        assert_eq!(layout.superblock, 1);
        assert_eq!(layout.descriptors, vec![Range { start: 2, end: 4 }]);
        assert_eq!(layout.free, [5776..8192, 8192..8193]);
    }

    #[test]
    fn meta_groups_keep_every_descriptor() {
        let layout = Layout::parse(
            "Group 0: (Blocks 0-32767)\n  Primary superblock at 0, Group descriptor at 1\n\
             Group 64: (Blocks 2097152-2129919)\n  Group descriptor at 2097152\n\
             Group 81: (Blocks 2654208-2686975)\n  \
             Backup superblock at 2654208, Group descriptor at 2654209\n",
        )
        .unwrap();
        let starts: Vec<u64> = layout.descriptors.iter().map(|r| r.start).collect();
        assert_eq!(starts, [1, 2097152, 2654209]);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Layout::parse("Group 0: (Blocks 0-1)\n  Free blocks: 9-x\n").is_err());
        assert!(Layout::parse("Group 0: (Blocks 0-1)\n  Free blocks: 9-7\n").is_err());
    }
}
