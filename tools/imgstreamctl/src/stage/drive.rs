// SPDX-License-Identifier: GPL-2.0-only
//! Does what `imgstream_engine::stage` says: relocate, store, roll back. The
//! order of the steps, and why it is safe, is argued there.

use imgstream_engine::block::Run;
use imgstream_engine::locate::BootRun;
use imgstream_engine::stage::{Stage, Step};
use imgstream_engine::state;
use imgstream_proto::disk::boot_list::{BootEntry, BootState};
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::{State, BLOCK_BYTES, BLOCK_LEN};

use super::{control_area, identity, Report};
use crate::error::{Error, Result};
use crate::medium::Medium;
use crate::ondisk::Found;
use crate::switch::payload::Payload;

/// One piece of work on one disk.
pub struct Drive<'a> {
    /// The disk.
    pub disk: &'a mut dyn Medium,
    /// Its superblock.
    pub found: &'a mut Found,
    /// The boot list.
    pub list: &'a [BootEntry],
    /// The target's boot blocks; only storing needs them.
    pub payload: Option<&'a Payload>,
    /// Who is told.
    pub report: &'a mut Report,
}

impl Drive<'_> {
    /// Works on until the state that the disk is in has no more steps: from
    /// `relocating` or `storing` to `streaming`, from `rolling-back` to the
    /// `rolled-back`. The superblocks are left then: until they are wiped, the
    /// next stage sees that there is nothing to do but to leave.
    pub fn run(&mut self) -> Result<()> {
        let boot: Vec<BootRun> = self.list.iter().map(|entry| (*entry).into()).collect();
        // After the end the source may have run, and have grown over the control area.
        let ours = !state::ended(self.found.superblock.state);
        self.found.agree(self.disk, ours)?;
        loop {
            let Superblock { state, cursor, .. } = self.found.superblock;
            let stage = Stage::resume(state, &boot, cursor);
            let Some(stage) = stage else { return Ok(()) };
            self.report.line(words(state));
            if self.finish(stage)? == state {
                return Ok(());
            }
        }
    }

    /// Runs one machine to its end; says the state then.
    fn finish(&mut self, mut stage: Stage<'_>) -> Result<State> {
        let total = stage.total_blocks() * BLOCK_BYTES;
        loop {
            let what = self.found.superblock.state.name();
            let done = stage.done_blocks() * BLOCK_BYTES;
            self.report.progress(what, done, total);
            match stage.next() {
                Step::Wipe | Step::Done => return Ok(self.found.superblock.state),
                step => self.step(step)?,
            }
            stage.advance();
        }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Copy {
                from_bytes,
                to_bytes,
                len_bytes,
            } => copy(self.disk, from_bytes, to_bytes, len_bytes),
            Step::Compare {
                from_bytes,
                to_bytes,
                len_bytes,
            } => compare(self.disk, from_bytes, to_bytes, len_bytes),
            Step::Store(run) => {
                let bytes = self.target_blocks(run)?;
                Ok(self.disk.write(run.start_bytes(), &bytes)?)
            }
            Step::Flush => Ok(self.disk.flush()?),
            Step::Cursor(cursor) => {
                let state = self.found.superblock.state;
                self.found.set_state(self.disk, state, cursor)
            }
            Step::BootList(state) => {
                self.verify_stored()?;
                control_area::set_boot_state(self.disk, &self.found.superblock, self.list, state)
            }
            Step::State(state) => self.enter(state),
            Step::Wipe | Step::Done => Ok(()),
        }
    }

    fn enter(&mut self, to: State) -> Result<()> {
        if to == State::RolledBack {
            self.verify_restored()?;
            self.compare_hash()?;
        }
        if to == State::Storing {
            // Before the first boot block: see `refuse_stored`.
            let saved = BootState::Saved;
            control_area::set_boot_state(self.disk, &self.found.superblock, self.list, saved)?;
        }
        let from = &self.found.superblock;
        state::transition(from.state, to).map_err(|e| Error::Other(e.to_string()))?;
        let next = Superblock {
            state: to,
            cursor: 0,
            // Nobody has written to any slot yet: the first attach may believe them.
            clean: to == State::Streaming,
            ..from.clone()
        };
        self.found.replace(self.disk, next)
    }

    fn target_blocks(&self, run: Run) -> Result<Vec<u8>> {
        let missing = || Error::Other("the target's boot blocks are not at hand".into());
        let payload = self.payload.ok_or_else(missing)?;
        let index = index_of(self.list, run.start).ok_or_else(missing)?;
        let mut bytes = vec![0; run.bytes() as usize];
        payload.blocks(index, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the target's boot blocks back.
    fn verify_stored(&mut self) -> Result<()> {
        for run in runs(self.list) {
            let bytes = self.target_blocks(run)?;
            verify(self.disk, run.start_bytes(), &bytes)?;
        }
        Ok(())
    }

    /// Reads the source's blocks back.
    fn verify_restored(&mut self) -> Result<()> {
        for entry in self.list {
            let len = u64::from(entry.blocks) * BLOCK_BYTES;
            let home = entry.image_block * BLOCK_BYTES;
            compare(self.disk, entry.relocated_bytes, home, len)?;
        }
        Ok(())
    }

    /// The source must be what it was right after the shrink. If it is not,
    /// there is nothing better to do than to say so and to start it.
    fn compare_hash(&mut self) -> Result<()> {
        let superblock = &self.found.superblock;
        if superblock.source_hash == [0; 32] {
            return Ok(());
        }
        let len = superblock.geometry.source_bytes;
        let equal = identity::hash(self.disk, len, self.report)? == superblock.source_hash;
        self.report.line(if equal {
            "the source is identical to what it was right after the shrink"
        } else {
            "WARNING: the source differs from what it was right after the shrink"
        });
        Ok(())
    }
}

/// What a person reads when a piece of work begins.
fn words(state: State) -> &'static str {
    match state {
        State::Relocating => "saving the source's blocks that the target's boot blocks replace",
        State::Storing => "storing the target's boot blocks",
        State::RollingBack => "putting the source's blocks back",
        State::RolledBack => "the source is back",
        _ => "resuming",
    }
}

/// Position of an image block among all boot blocks.
fn index_of(list: &[BootEntry], block: u64) -> Option<u64> {
    let mut before = 0;
    for entry in list {
        let end = entry.image_block + u64::from(entry.blocks);
        if (entry.image_block..end).contains(&block) {
            return Some(before + block - entry.image_block);
        }
        before += u64::from(entry.blocks);
    }
    None
}

/// The boot blocks in pieces of at most 1 MiB.
fn runs(list: &[BootEntry]) -> impl Iterator<Item = Run> + '_ {
    crate::switch::payload::pieces(list)
        .map(|piece| Run::new(piece.image_block, piece.blocks.into()))
}

fn pieces(len_bytes: u64) -> impl Iterator<Item = (u64, usize)> {
    const MOST: u64 = 256 * BLOCK_LEN as u64;
    (0..len_bytes.div_ceil(MOST)).map(move |i| (i * MOST, MOST.min(len_bytes - i * MOST) as usize))
}

fn copy(disk: &mut dyn Medium, from: u64, to: u64, len_bytes: u64) -> Result<()> {
    for (at, len) in pieces(len_bytes) {
        let mut bytes = vec![0; len];
        disk.read(from + at, &mut bytes)?;
        disk.write(to + at, &bytes)?;
    }
    Ok(())
}

fn compare(disk: &mut dyn Medium, from: u64, to: u64, len_bytes: u64) -> Result<()> {
    for (at, len) in pieces(len_bytes) {
        let mut bytes = vec![0; len];
        disk.read(from + at, &mut bytes)?;
        verify(disk, to + at, &bytes)?;
    }
    Ok(())
}

/// Reads what was written at `at_bytes` again and compares it.
pub fn verify(disk: &mut dyn Medium, at_bytes: u64, expected: &[u8]) -> Result<()> {
    let mut found = vec![0; expected.len()];
    disk.read(at_bytes, &mut found)?;
    if found == expected {
        return Ok(());
    }
    let equal = found.iter().zip(expected).take_while(|(a, b)| a == b);
    Err(Error::Other(format!(
        "the disk gave back other bytes than were written, from byte {} on",
        at_bytes + equal.count() as u64
    )))
}
