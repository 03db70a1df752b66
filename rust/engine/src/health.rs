// SPDX-License-Identifier: GPL-2.0-only

//! How much of its promises the device can still keep: rule 10. It only gets worse; a new attach starts afresh.

use core::sync::atomic::{AtomicU32, Ordering};

/// What still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Health {
    /// Everything.
    Sound = 0,
    /// A write to journal, map or superblock, or a flush of the disk, failed: states cannot be recorded any more. No
    /// fills, no commit, flushes fail, writes that would change a state fail; reads go on.
    Degraded = 1,
    /// The device is gone: everything fails.
    Failed = 2,
}

impl Health {
    /// Whether background and demand fills may store blocks. Absent blocks are still read, from the image.
    pub const fn may_fill(self) -> bool {
        matches!(self, Health::Sound)
    }

    /// Whether a flush may succeed.
    pub const fn may_flush(self) -> bool {
        matches!(self, Health::Sound)
    }

    /// Whether blocks may change their state: writes to clean, absent and zero blocks, discards, commit.
    pub const fn may_change_state(self) -> bool {
        matches!(self, Health::Sound)
    }

    /// Whether reads, and writes to dirty blocks and to home, go on.
    pub const fn may_read(self) -> bool {
        !matches!(self, Health::Failed)
    }
}

/// The health of a device; lock-free.
#[derive(Debug, Default)]
pub struct HealthCell(AtomicU32);

impl HealthCell {
    /// A sound device.
    pub const fn new() -> Self {
        Self(AtomicU32::new(Health::Sound as u32))
    }

    /// The health now.
    pub fn get(&self) -> Health {
        match self.0.load(Ordering::Acquire) {
            0 => Health::Sound,
            1 => Health::Degraded,
            _ => Health::Failed,
        }
    }

    /// Makes it as bad as `to`, never better; whether that changed anything (then it is worth a message).
    pub fn degrade(&self, to: Health) -> bool {
        let to = to as u32;
        self.0.fetch_max(to, Ordering::AcqRel) < to
    }
}
