// SPDX-License-Identifier: GPL-2.0-only
//! Asks before something that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::Result;
use crate::refusal::Refusal;

/// Goes on only after `yes`; without a terminal nobody can say that, so
/// `--yes` is needed there.
pub fn confirm(assumed: bool, question: &str) -> Result<()> {
    if assumed {
        return Ok(());
    }
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Refusal::NotConfirmed.into());
    }
    print!("{question} Type yes to go on: ");
    let mut answer = String::new();
    let asked = io::stdout()
        .flush()
        .and_then(|()| input.lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Refusal::NotConfirmed.into()),
    }
}
