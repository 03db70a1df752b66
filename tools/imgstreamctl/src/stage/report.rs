// SPDX-License-Identifier: GPL-2.0-only
//! Progress on the console: one line a step, and one a few seconds while it
//! lasts, in bytes.

use std::time::{Duration, Instant};

use crate::device::status::bytes;

/// How often a long step says how far it is.
const EVERY: Duration = Duration::from_secs(2);

/// Who is told what happens.
pub struct Report {
    begin: Instant,
    last: Instant,
    say: Box<dyn FnMut(&str)>,
}

impl Report {
    /// Lines go to standard output, which is the console in the stage.
    pub fn console() -> Self {
        Self::to(|line| println!("imgstream: {line}"))
    }

    /// Lines go to `say`.
    pub fn to(say: impl FnMut(&str) + 'static) -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            last: now,
            say: Box::new(say),
        }
    }

    /// Says a line.
    pub fn line(&mut self, text: &str) {
        self.last = Instant::now();
        let at = self.begin.elapsed().as_secs_f64();
        (self.say)(&format!("[{at:6.1} s] {text}"));
    }

    /// Says how far a step is, if it has been silent for a while.
    pub fn progress(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        if self.last.elapsed() >= EVERY {
            let text = format!("{what}: {} of {}", bytes(done_bytes), bytes(total_bytes));
            self.line(&text);
        }
    }
}
