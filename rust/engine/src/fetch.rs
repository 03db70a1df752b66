// SPDX-License-Identifier: GPL-2.0-only

//! Fetches under way: one for a block, however many readers.
//!
//! The table is small and bounded; its owner holds a lock around it, never while waiting for the network.

use crate::block::Run;

/// Who wants the blocks; the higher, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The fill, the commit.
    Background,
    /// A guess at what is read next.
    Prefetch,
    /// A reader waits.
    Demand,
}

/// Names a fetch under way. It stays unequal to every later one of the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchId {
    index: usize,
    number: u64,
}

impl FetchId {
    /// The place in the table, below its `N`: for arrays beside it.
    pub const fn index(&self) -> usize {
        self.index
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    run: Run,
    priority: Priority,
}

/// What to do for the first blocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// That many are being fetched by this fetch: wait for it.
    Join {
        /// The fetch.
        id: FetchId,
        /// Blocks of the run, from its start, that it brings.
        blocks: u64,
    },
    /// That many are not being fetched: start one.
    Start {
        /// Blocks, from the run's start.
        blocks: u64,
    },
}

/// The fetches under way, at most `N`.
///
/// # Invariants
///
/// No two entries overlap.
#[derive(Clone, Copy, Debug)]
pub struct FetchTable<const N: usize> {
    entries: [Option<Entry>; N],
    started: u64,
}

impl<const N: usize> Default for FetchTable<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> FetchTable<N> {
    /// An empty table.
    pub const fn new() -> Self {
        Self {
            entries: [None; N],
            started: 0,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (FetchId, &Entry)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let entry = entry.as_ref()?;
                let number = entry.number;
                Some((FetchId { index, number }, entry))
            })
    }

    fn entry_mut(&mut self, id: FetchId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index)?
            .as_mut()
            .filter(|entry| entry.number == id.number)
    }

    /// Fetches under way.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to do for the first blocks of `run`; `None` if it is empty.
    pub fn plan(&self, run: Run) -> Option<Plan> {
        if run.is_empty() {
            return None;
        }
        let mut free = run.blocks;
        for (id, entry) in self.iter() {
            if entry.run.contains(run.start) {
                let blocks = run.intersection(&entry.run).blocks;
                return Some(Plan::Join { id, blocks });
            }
            if entry.run.start > run.start {
                free = free.min(entry.run.start.saturating_sub(run.start));
            }
        }
        Some(Plan::Start { blocks: free })
    }

    /// Notes a fetch of `run`; `None` if the table is full, or one of the blocks is being fetched.
    pub fn start(&mut self, run: Run, priority: Priority) -> Option<FetchId> {
        if run.is_empty() || self.iter().any(|(_, entry)| entry.run.overlaps(&run)) {
            return None;
        }
        let index = self.entries.iter().position(Option::is_none)?;
        let number = self.started;
        // INVARIANT: no entry overlaps it, as seen above.
        *self.entries.get_mut(index)? = Some(Entry {
            number,
            run,
            priority,
        });
        self.started = self.started.wrapping_add(1);
        Some(FetchId { index, number })
    }

    /// Another reader waits for this fetch; whether that makes it more urgent than it was.
    pub fn join(&mut self, id: FetchId, priority: Priority) -> bool {
        self.entry_mut(id).is_some_and(|entry| {
            let raised = priority > entry.priority;
            entry.priority = entry.priority.max(priority);
            raised
        })
    }

    /// The blocks of a fetch under way.
    pub fn run(&self, id: FetchId) -> Option<Run> {
        self.iter()
            .find(|(found, _)| *found == id)
            .map(|(_, entry)| entry.run)
    }

    /// Takes a fetch out of the table: it has arrived, or was given up.
    pub fn finish(&mut self, id: FetchId) -> Option<Run> {
        let run = self.entry_mut(id)?.run;
        *self.entries.get_mut(id.index)? = None;
        Some(run)
    }
}
