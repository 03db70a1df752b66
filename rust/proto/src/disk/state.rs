// SPDX-License-Identifier: GPL-2.0-only

//! The states of a migration, as numbers. Which may follow which is `engine::state`'s.

use super::error::{Error, Field};

/// What a migration is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    /// Boot blocks are fetched, nothing of the disk has changed.
    Staged = 1,
    /// The next boot is the stage environment's.
    Armed = 2,
    /// The source's file system is being shrunk.
    Shrinking = 3,
    /// The source's blocks of the boot region are being copied away.
    Relocating = 4,
    /// The target's boot blocks are being written.
    Storing = 5,
    /// The target boots, and goes back by itself if it does not come up.
    Trial = 6,
    /// The target runs; blocks arrive as they are needed.
    Streaming = 7,
    /// Blocks are moved home; there is no way back.
    Committing = 8,
    /// A plain disk.
    Committed = 9,
    /// The source's blocks are being put back.
    RollingBack = 10,
    /// The source is back.
    RolledBack = 11,
    /// Given up before anything was overwritten.
    Cancelled = 12,
}

impl State {
    /// All of them.
    pub const ALL: [State; 12] = [
        State::Staged,
        State::Armed,
        State::Shrinking,
        State::Relocating,
        State::Storing,
        State::Trial,
        State::Streaming,
        State::Committing,
        State::Committed,
        State::RollingBack,
        State::RolledBack,
        State::Cancelled,
    ];

    /// The state as documented and shown: `rolling-back`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Staged => "staged",
            State::Armed => "armed",
            State::Shrinking => "shrinking",
            State::Relocating => "relocating",
            State::Storing => "storing",
            State::Trial => "trial",
            State::Streaming => "streaming",
            State::Committing => "committing",
            State::Committed => "committed",
            State::RollingBack => "rolling-back",
            State::RolledBack => "rolled-back",
            State::Cancelled => "cancelled",
        }
    }

    /// The number on disk.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

impl TryFrom<u32> for State {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self, Error> {
        State::ALL
            .into_iter()
            .find(|state| state.number() == number)
            .ok_or(Error::value(Field::State, number.into()))
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
