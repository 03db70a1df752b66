// SPDX-License-Identifier: GPL-2.0-only
//! A set of image blocks, kept as sorted runs.

use serde::{Deserialize, Serialize};

use crate::disk::BLOCK_BYTES;

/// A run of 4 KiB blocks of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First block.
    pub block: u64,
    /// How many.
    pub blocks: u64,
}

impl Run {
    /// The block after the last one.
    pub fn end(&self) -> u64 {
        self.block.saturating_add(self.blocks)
    }
}

/// A set of blocks.
///
/// # Invariants
///
/// Runs ascend, are not empty, and neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Region {
    runs: Vec<Run>,
}

impl Region {
    /// The region of `runs` in any order, or `None` when one of them is empty
    /// or reaches beyond every disk.
    pub fn from_runs(runs: impl IntoIterator<Item = Run>) -> Option<Region> {
        let mut builder = Builder::default();
        for run in runs {
            let end = run.block.checked_add(run.blocks)?;
            let start_bytes = run.block.checked_mul(BLOCK_BYTES)?;
            if run.blocks == 0 {
                return None;
            }
            builder.add(start_bytes, end.checked_mul(BLOCK_BYTES)? - start_bytes);
        }
        Some(builder.build())
    }

    /// The runs, ascending.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.runs.iter().map(|run| run.blocks).sum()
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.blocks().saturating_mul(BLOCK_BYTES)
    }

    /// The byte after its last block.
    pub fn end_bytes(&self) -> u64 {
        self.runs
            .last()
            .map_or(0, |run| run.end().saturating_mul(BLOCK_BYTES))
    }

    /// Whether `block` belongs to it.
    pub fn contains(&self, block: u64) -> bool {
        let after = self.runs.partition_point(|run| run.block <= block);
        after
            .checked_sub(1)
            .and_then(|i| self.runs.get(i))
            .is_some_and(|run| block < run.end())
    }
}

/// Collects byte ranges and makes a [`Region`] of them.
#[derive(Debug, Default)]
pub struct Builder {
    /// Block ranges, unsorted.
    ranges: Vec<(u64, u64)>,
}

impl Builder {
    /// Adds every block that `[start_bytes, start_bytes + len_bytes)` touches.
    pub fn add(&mut self, start_bytes: u64, len_bytes: u64) {
        if len_bytes > 0 {
            let end_bytes = start_bytes.saturating_add(len_bytes);
            self.ranges
                .push((start_bytes / BLOCK_BYTES, end_bytes.div_ceil(BLOCK_BYTES)));
        }
    }

    /// The sorted and merged set.
    pub fn build(mut self) -> Region {
        self.ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in self.ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        // INVARIANT: sorted, and a run that touched its predecessor was merged.
        Region {
            runs: merged
                .into_iter()
                .map(|(start, end)| Run {
                    block: start,
                    blocks: end - start,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(ranges: &[(u64, u64)]) -> Region {
        let mut builder = Builder::default();
        for (start, len) in ranges {
            builder.add(*start, *len);
        }
        builder.build()
    }

    #[test]
    fn touching_and_overlapping_ranges_merge() {
        let region = region(&[(8192, 1), (0, 512), (4095, 2), (40960, 4096), (45056, 1)]);
        let runs: Vec<(u64, u64)> = region.runs().iter().map(|r| (r.block, r.blocks)).collect();
        assert_eq!(runs, [(0, 3), (10, 2)]);
        assert_eq!(region.blocks(), 5);
        assert_eq!(region.end_bytes(), 12 * 4096);
    }

    #[test]
    fn contains_knows_the_edges() {
        let region = region(&[(4096, 8192), (40960, 4096)]);
        let inside: Vec<u64> = (0..12).filter(|b| region.contains(*b)).collect();
        assert_eq!(inside, [1, 2, 10]);
    }

    #[test]
    fn absurd_runs_are_no_region() {
        let run = |block, blocks| Run { block, blocks };
        assert!(Region::from_runs([run(u64::MAX, 2)]).is_none());
        assert!(Region::from_runs([run(u64::MAX / 4096, 1)]).is_none());
        assert!(Region::from_runs([run(1, 0)]).is_none());
        let sorted = Region::from_runs([run(3, 1), run(1, 2)]).unwrap();
        assert_eq!(sorted.runs(), [run(1, 3)]);
    }
}
