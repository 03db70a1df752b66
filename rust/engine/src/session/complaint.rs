// SPDX-License-Identifier: GPL-2.0-only

//! When to say that there is no connection: soon, then once a minute.

/// How often it is said.
const EVERY_MS: u64 = 60_000;
/// When to ask again while there is nothing to say yet, because the first attempt is under way.
const SOON_MS: u64 = 1_000;

/// A line about a connection that is down, again and again. Ask only while it is.
#[derive(Clone, Copy, Debug)]
pub struct Complaint {
    due_ms: u64,
}

impl Complaint {
    /// The connection is down from now on: due at once.
    pub const fn new(now_ms: u64) -> Self {
        Self { due_ms: now_ms }
    }

    /// When to ask again.
    pub const fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Whether the line is to be said now; `reason` says whether one is known. If so, the next is due in a minute.
    pub fn take(&mut self, now_ms: u64, reason: bool) -> bool {
        if now_ms < self.due_ms {
            return false;
        }
        let pause_ms = if reason { EVERY_MS } else { SOON_MS };
        self.due_ms = now_ms.saturating_add(pause_ms);
        reason
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_line_comes_at_once_and_then_every_minute() {
        let mut complaint = Complaint::new(5_000);
        // Asked far too often, and with a reason from the third second on.
        let said: Vec<u64> = (5_000..200_000)
            .step_by(100)
            .filter(|now| complaint.take(*now, *now >= 8_000))
            .collect();
        assert_eq!(said, [8_000, 68_000, 128_000, 188_000]);
        assert_eq!(complaint.due_ms(), 248_000);
    }
}
