// SPDX-License-Identifier: GPL-2.0-only
//! What only root may do.

use crate::refusal::Refusal;

/// Refuses everybody else, before anything is asked or waited for.
pub fn required() -> Result<(), Refusal> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Refusal::NotRoot),
    }
}
