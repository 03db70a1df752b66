// SPDX-License-Identifier: GPL-2.0-only
//! Progress in bytes, with rate and time left.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str =
    "{prefix:12} {binary_bytes:>11} of {binary_total_bytes:>11} {binary_bytes_per_sec:>13} {eta:>5} left";

/// A line that counts bytes up to `total_bytes`. Silent when standard error is
/// not a terminal, so logs stay readable.
pub fn bytes(what: &'static str, total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(total_bytes).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
