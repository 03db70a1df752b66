// SPDX-License-Identifier: GPL-2.0-only
//! Values on the command line: what is wrong with one is said before anything
//! else is done.

use imgstream_engine::parallel::MAX_SESSIONS;
use imgstream_proto::iscsi::digest::Policy;

/// A rate in KiB/s.
pub fn rate(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX).ok_or_else(|| "KiB a second, as a whole number; 0: no bound".into())
}

/// A time between two lines.
pub fn seconds(text: &str) -> Result<u64, String> {
    whole(text, 1, 86_400).ok_or_else(|| "seconds, as a whole number from 1 to 86400".into())
}

/// The number of a LUN: what one level of addressing can say.
pub fn lun(text: &str) -> Result<u64, String> {
    whole(text, 0, 16_383).ok_or_else(|| "a whole number from 0 to 16383 is needed".into())
}

/// Which digests connections ask for.
pub fn digest(text: &str) -> Result<Policy, String> {
    Policy::parse(text).ok_or_else(|| "prefer, require or off is needed".into())
}

/// A number of parallel sessions.
pub fn sessions(text: &str) -> Result<u8, String> {
    whole(text, 1, MAX_SESSIONS.into())
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| format!("a whole number from 1 to {MAX_SESSIONS} is needed"))
}

/// The number of a partition.
pub fn partition(text: &str) -> Result<u32, String> {
    whole(text, 1, u32::MAX.into())
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| "the number of a partition is needed: 1 or more".into())
}

fn whole(text: &str, least: u64, most: u64) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_bounds() {
        assert_eq!(rate("0"), Ok(0));
        assert_eq!(rate("4096"), Ok(4096));
        assert!(rate("-5").is_err() && rate("1.5").is_err() && rate("4M").is_err());
        assert_eq!(seconds("1"), Ok(1));
        assert!(seconds("0").is_err() && seconds("86401").is_err());
        assert_eq!(lun("16383"), Ok(16_383));
        assert!(lun("16384").is_err() && lun("-1").is_err());
        assert_eq!(digest("require"), Ok(Policy::Require));
        assert!(digest("none").is_err());
        assert_eq!((sessions("1"), sessions("8")), (Ok(1), Ok(8)));
        assert!(sessions("0").is_err() && sessions("9").is_err() && sessions("two").is_err());
        assert_eq!(partition("9"), Ok(9));
        assert!(partition("0").is_err() && partition("4294967296").is_err());
    }
}
