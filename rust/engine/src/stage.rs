// SPDX-License-Identifier: GPL-2.0-only

//! The steps of the stage environment that write blocks: relocate, store, roll back.
//!
//! Each is a machine that names one step after another; who drives it does the step and says so. Every step may be done
//! again: after a cut the machine is made anew from the superblock's state and cursor, and repeats what may be missing.
//! The cursor counts boot blocks in the order of the boot list; it is only moved over blocks that were flushed.

use imgstream_proto::disk::{BootState, State, BLOCK_BYTES};

use crate::block::Run;
use crate::locate::BootRun;

/// The most blocks of a step: 4 MiB.
pub const STEP_BLOCKS: u64 = 1024;
/// Blocks between two durable cursors: 64 MiB.
pub const CURSOR_BLOCKS: u64 = 16 * 1024;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Copy bytes of the disk to another place of it.
    Copy {
        /// From here.
        from_bytes: u64,
        /// To here; both do not overlap.
        to_bytes: u64,
        /// How many.
        len_bytes: u64,
    },
    /// Read both places again, past any cache, and compare: equal, or the step has failed.
    Compare {
        /// One place.
        from_bytes: u64,
        /// The other.
        to_bytes: u64,
        /// How many bytes.
        len_bytes: u64,
    },
    /// Write the image's boot blocks to their home locations (address = location).
    Store(Run),
    /// Flush the disk.
    Flush,
    /// Replace the superblock pair by one with this cursor.
    Cursor(u64),
    /// Write both boot list copies with all entries in this state: A, flush, B, flush.
    BootList(BootState),
    /// Replace the superblock pair by one in this state with cursor 0.
    State(State),
    /// Overwrite both superblock copies with zeroes, and flush.
    Wipe,
    /// Nothing is left.
    Done,
}

/// Which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Relocate,
    Store,
    RollBack,
}

/// Where a machine is. `at` counts boot blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Blocks before `at` are written; there is one at `at`.
    Blocks {
        at: u64,
    },
    /// Blocks before `at` are written, but not flushed.
    Flush {
        at: u64,
    },
    /// Blocks before `at` are durable, and there are more.
    Note {
        at: u64,
    },
    /// Relocate: blocks before `at` compared equal; there is one at `at`.
    Compare {
        at: u64,
    },
    /// All but block 0 are durable.
    Sector,
    SectorFlush,
    BootList,
    State,
    Wipe,
    Done,
}

/// One of the three pieces of work, under way.
///
/// **Relocate** (state `relocating`): the source's blocks of the boot region are copied to R, flushed, read back and
/// compared; then the state becomes `storing`. Nothing of the source is touched, so any step may be repeated; and
/// `storing` is only entered when every block is safe, since from then on the originals are overwritten.
///
/// **Store** (state `storing`): the target's boot blocks are written home, ascending, *but for block 0*; flush; block 0;
/// flush; boot list to `Live`; state `streaming`. Firmware reads block 0 first: as long as it is the source's, a
/// machine that is cut before the first boot block was written still boots the source; once it is the target's, all it
/// leads to is there. Between the first and the last boot block neither boots by itself (a gap that is documented);
/// the blocks to store come with the stage environment, so that its next boot repeats them.
///
/// **Roll back** (state `rolling-back`): the relocated blocks of every entry go back home, again all but block 0, flush,
/// block 0, flush; state `rolled-back`; then the superblocks are wiped. Relocated blocks are only read: any step may be
/// repeated. The state goes after block 0: the other way round a cut in between would leave a disk whose block 0 still
/// leads to the target, and nothing that says what to do about it.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    work: Work,
    boot: &'a [BootRun],
    phase: Phase,
}

impl<'a> Stage<'a> {
    /// Relocates, from the superblock's cursor on.
    pub fn relocate(boot: &'a [BootRun], cursor: u64) -> Self {
        Self::new(Work::Relocate, boot, cursor)
    }

    /// Stores, from the superblock's cursor on.
    pub fn store(boot: &'a [BootRun], cursor: u64) -> Self {
        Self::new(Work::Store, boot, cursor)
    }

    /// Rolls back, from the superblock's cursor on.
    pub fn roll_back(boot: &'a [BootRun], cursor: u64) -> Self {
        Self::new(Work::RollBack, boot, cursor)
    }

    /// The machine for what a superblock says; `None` if there is nothing to do in this state.
    pub fn resume(state: State, boot: &'a [BootRun], cursor: u64) -> Option<Self> {
        match state {
            State::Relocating => Some(Self::relocate(boot, cursor)),
            State::Storing => Some(Self::store(boot, cursor)),
            State::RollingBack => Some(Self::roll_back(boot, cursor)),
            State::RolledBack => Some(Self {
                work: Work::RollBack,
                boot,
                phase: Phase::Wipe,
            }),
            _ => None,
        }
    }

    fn new(work: Work, boot: &'a [BootRun], cursor: u64) -> Self {
        let mut stage = Self {
            work,
            boot,
            phase: Phase::Done,
        };
        // Block 0, if it is a boot block, is the first of the list, and waits for all others.
        let first = u64::from(work != Work::Relocate && stage.has_sector());
        stage.phase = stage.blocks_from(cursor.max(first));
        stage
    }

    fn blocks_from(&self, at: u64) -> Phase {
        match self.piece(at) {
            Some(_) => Phase::Blocks { at },
            None => Phase::Flush { at },
        }
    }

    /// Boot blocks in all.
    pub fn total_blocks(&self) -> u64 {
        self.boot
            .iter()
            .fold(0, |sum: u64, boot| sum.saturating_add(boot.run.blocks))
    }

    /// Boot blocks done, for a progress display.
    pub fn done_blocks(&self) -> u64 {
        match self.phase {
            Phase::Blocks { at } | Phase::Flush { at } | Phase::Note { at } => at,
            _ => self.total_blocks(),
        }
    }

    /// The piece that begins with boot block number `at`.
    fn piece(&self, at: u64) -> Option<Piece> {
        let mut before = 0u64;
        for boot in self.boot {
            let inside = at.saturating_sub(before);
            if inside < boot.run.blocks {
                return Some(piece_of(boot, inside));
            }
            before = before.saturating_add(boot.run.blocks);
        }
        None
    }

    fn has_sector(&self) -> bool {
        self.boot.first().is_some_and(|boot| boot.run.contains(0))
    }

    fn write(&self, piece: &Piece) -> Step {
        let len_bytes = piece.run.bytes();
        let home = piece.run.start_bytes();
        match self.work {
            Work::Relocate => Step::Copy {
                from_bytes: home,
                to_bytes: piece.relocated_bytes,
                len_bytes,
            },
            Work::Store => Step::Store(piece.run),
            Work::RollBack => Step::Copy {
                from_bytes: piece.relocated_bytes,
                to_bytes: home,
                len_bytes,
            },
        }
    }

    /// What to do now.
    pub fn next(&self) -> Step {
        match self.phase {
            Phase::Blocks { at } => self.at_piece(at, Self::write),
            Phase::Compare { at } => self.at_piece(at, |_, piece| Step::Compare {
                from_bytes: piece.run.start_bytes(),
                to_bytes: piece.relocated_bytes,
                len_bytes: piece.run.bytes(),
            }),
            Phase::Sector => self.at_piece(0, Self::write),
            Phase::Flush { .. } | Phase::SectorFlush => Step::Flush,
            Phase::Note { at } => Step::Cursor(at),
            Phase::BootList => Step::BootList(BootState::Live),
            Phase::State => Step::State(match self.work {
                Work::Relocate => State::Storing,
                Work::Store => State::Streaming,
                Work::RollBack => State::RolledBack,
            }),
            Phase::Wipe => Step::Wipe,
            Phase::Done => Step::Done,
        }
    }

    /// The phases that ask for a piece are entered only if there is one.
    fn at_piece(&self, at: u64, step: impl FnOnce(&Self, &Piece) -> Step) -> Step {
        self.piece(at)
            .map_or(Step::Done, |piece| step(self, &piece))
    }

    /// The step that [`Stage::next`] named has succeeded. If it failed, give up: the superblock says where to resume.
    pub fn advance(&mut self) {
        self.phase = match self.phase {
            Phase::Blocks { at } => self.after_piece(at),
            Phase::Flush { at } if self.piece(at).is_some() => Phase::Note { at },
            Phase::Flush { .. } => self.after_blocks(),
            Phase::Note { at } => Phase::Blocks { at },
            Phase::Compare { at } => {
                let next = self.behind(at);
                match self.piece(next) {
                    Some(_) => Phase::Compare { at: next },
                    None => Phase::State,
                }
            }
            Phase::Sector => Phase::SectorFlush,
            Phase::SectorFlush => self.after_sector(),
            Phase::BootList => Phase::State,
            Phase::State if self.work == Work::RollBack => Phase::Wipe,
            Phase::State | Phase::Wipe | Phase::Done => Phase::Done,
        };
    }

    /// The number of the boot block behind the piece at `at`.
    fn behind(&self, at: u64) -> u64 {
        self.piece(at)
            .map_or(at, |piece| at.saturating_add(piece.run.blocks))
    }

    fn after_piece(&self, at: u64) -> Phase {
        let next = self.behind(at);
        if at / CURSOR_BLOCKS == next / CURSOR_BLOCKS {
            self.blocks_from(next)
        } else {
            Phase::Flush { at: next }
        }
    }

    fn after_blocks(&self) -> Phase {
        match self.work {
            Work::Relocate if self.piece(0).is_some() => Phase::Compare { at: 0 },
            Work::Relocate => Phase::State,
            _ if self.has_sector() => Phase::Sector,
            _ => self.after_sector(),
        }
    }

    fn after_sector(&self) -> Phase {
        match self.work {
            Work::Store => Phase::BootList,
            _ => Phase::State,
        }
    }
}

/// Boot blocks that follow each other at home and where they were relocated to.
#[derive(Clone, Copy, Debug)]
struct Piece {
    run: Run,
    relocated_bytes: u64,
}

fn piece_of(boot: &BootRun, inside: u64) -> Piece {
    let start = boot.run.start.saturating_add(inside);
    let rest = boot.run.blocks.saturating_sub(inside);
    // Block 0 alone, so that it can be written by itself.
    let most = if start == 0 { 1 } else { STEP_BLOCKS };
    Piece {
        run: Run::new(start, rest.min(most)),
        relocated_bytes: boot
            .relocated_bytes
            .saturating_add(inside.saturating_mul(BLOCK_BYTES)),
    }
}
