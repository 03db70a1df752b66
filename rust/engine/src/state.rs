// SPDX-License-Identifier: GPL-2.0-only

//! Which state of a migration may follow which: one function, asked by everybody who writes a superblock.

use imgstream_proto::disk::State;

/// A step that must not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The state there is.
    pub from: State,
    /// The state that was asked for.
    pub to: State,
}

impl core::fmt::Display for Illegal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} cannot become {}", self.from, self.to)
    }
}

impl core::error::Error for Illegal {}

/// Whether `to` may follow `from`. A state may follow itself: that is a step resumed.
///
/// * Nothing but `relocating` may be given up (`cancelled`) once the control area stands, for from `storing` on the
///   source's boot blocks may be overwritten; and `relocating` may not be rolled back, for the relocated blocks that
///   roll back would copy are not complete yet.
/// * Nothing leads back from `committing`: it overwrites the source.
pub fn transition(from: State, to: State) -> Result<(), Illegal> {
    let legal = match from {
        _ if from == to => true,
        State::Staged => matches!(to, State::Armed | State::Cancelled),
        State::Armed => matches!(to, State::Shrinking | State::Cancelled),
        State::Shrinking => matches!(to, State::Relocating | State::Cancelled),
        State::Relocating => matches!(to, State::Storing | State::Cancelled),
        State::Storing => matches!(to, State::Trial | State::Streaming | State::RollingBack),
        State::Trial => matches!(to, State::Streaming | State::RollingBack),
        State::Streaming => matches!(to, State::Committing | State::RollingBack),
        State::Committing => to == State::Committed,
        State::RollingBack => to == State::RolledBack,
        State::Committed | State::RolledBack | State::Cancelled => false,
    };
    if legal {
        Ok(())
    } else {
        Err(Illegal { from, to })
    }
}

/// Whether the device may be attached to run the target in this state.
pub const fn attachable(state: State) -> bool {
    matches!(state, State::Trial | State::Streaming | State::Committing)
}

/// Whether the migration is over, and its control area may be overwritten by a new one.
pub const fn ended(state: State) -> bool {
    matches!(
        state,
        State::Committed | State::RolledBack | State::Cancelled
    )
}
