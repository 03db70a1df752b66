// SPDX-License-Identifier: GPL-2.0-only

//! Names and secrets for CHAP as a superblock keeps them. Shown to nobody, and overwritten when they are dropped.

use core::fmt;

use crate::disk::error::{Error, Field};
use crate::secret::wipe;

/// Length of the area.
pub const CHAP_LEN: usize = 512;
/// Names and secrets together are no longer; before them stand their four lengths.
pub const CHAP_TEXT_LEN: usize = CHAP_LEN - STRINGS;
/// Ours, the target's: a name and a secret of each.
const STRINGS: usize = 4;

/// A name and its secret.
pub type ChapPair<'a> = (&'a [u8], &'a [u8]);

/// Who proves to be who in a login at the target, and by which secret.
///
/// # Invariants
///
/// The first four bytes are the lengths of our name, our secret, the target's name and its secret, which follow one after
/// the other; they fit, and what is left is zero. Of a pair both are empty or none; without our pair there is no other.
#[derive(PartialEq, Eq)]
pub struct Chap([u8; CHAP_LEN]);

impl Clone for Chap {
    fn clone(&self) -> Self {
        Self(self.0)
    }

    /// In place: nothing is left on the stack.
    fn clone_from(&mut self, from: &Self) {
        self.0.copy_from_slice(&from.0);
    }
}

impl Chap {
    /// No authentication.
    // INVARIANT: no strings.
    pub const NONE: Self = Self([0; CHAP_LEN]);

    /// Our name and secret, and the target's if it has to prove who it is; `None` if one is empty or longer than 255
    /// bytes, or all are longer than [`CHAP_TEXT_LEN`].
    pub fn new(ours: ChapPair<'_>, target: Option<ChapPair<'_>>) -> Option<Self> {
        let strings = [
            Some(ours.0),
            Some(ours.1),
            target.map(|t| t.0),
            target.map(|t| t.1),
        ];
        if strings.iter().flatten().any(|string| string.is_empty()) {
            return None;
        }
        let mut chap = Self::NONE;
        let (lengths, text) = chap.0.split_at_mut_checked(STRINGS)?;
        let mut at: usize = 0;
        for (length, string) in lengths.iter_mut().zip(strings) {
            let string = string.unwrap_or(&[]);
            let end = at.checked_add(string.len())?;
            text.get_mut(at..end)?.copy_from_slice(string);
            *length = u8::try_from(string.len()).ok()?;
            at = end;
        }
        // INVARIANT: each string was copied behind the one before and its length noted.
        Some(chap)
    }

    /// The area that was found.
    pub(super) fn check(found: &[u8; CHAP_LEN]) -> Result<Self, Error> {
        let pairs = [pair(found, 0), pair(found, 2)];
        let [ours, target] =
            pairs.map(|pair| pair.map(|(name, secret)| (name.is_empty(), secret.is_empty())));
        match (ours, target) {
            // INVARIANT: checked here.
            (Some((false, false)), Some((false, false) | (true, true)))
            | (Some((true, true)), Some((true, true)))
                if rest_is_zero(found) =>
            {
                Ok(Self(*found))
            }
            // What stands there is not shown: it may be a secret.
            _ => Err(Error::value(Field::Chap, 0)),
        }
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; CHAP_LEN] {
        &self.0
    }

    /// Our name and secret.
    pub fn ours(&self) -> Option<ChapPair<'_>> {
        pair(&self.0, 0).filter(|(name, _)| !name.is_empty())
    }

    /// The target's, if it has to prove who it is.
    pub fn target(&self) -> Option<ChapPair<'_>> {
        pair(&self.0, 2).filter(|(name, _)| !name.is_empty())
    }
}

fn pair(bytes: &[u8; CHAP_LEN], first: usize) -> Option<ChapPair<'_>> {
    Some((string(bytes, first)?, string(bytes, first.checked_add(1)?)?))
}

fn string(bytes: &[u8; CHAP_LEN], index: usize) -> Option<&[u8]> {
    let (lengths, text) = bytes.split_at_checked(STRINGS)?;
    let (before, rest) = lengths.split_at_checked(index)?;
    let start: usize = before.iter().map(|len| usize::from(*len)).sum();
    let end = start.checked_add(usize::from(*rest.first()?))?;
    text.get(start..end)
}

fn rest_is_zero(bytes: &[u8; CHAP_LEN]) -> bool {
    let (lengths, text) = bytes.split_at_checked(STRINGS).unwrap_or((&[], &[]));
    let used: usize = lengths.iter().map(|len| usize::from(*len)).sum();
    text.get(used..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

impl Drop for Chap {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl Default for Chap {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.ours(), self.target()) {
            (None, _) => "no authentication",
            (_, None) => "CHAP",
            (_, Some(_)) => "mutual CHAP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    const OURS: ChapPair<'static> = (b"me", b"our own secret");
    const THEIRS: ChapPair<'static> = (b"the-target", b"what it knows");

    #[test]
    fn what_is_kept_is_found() {
        for target in [None, Some(THEIRS)] {
            let chap = Chap::new(OURS, target).unwrap();
            let read = Chap::check(chap.as_bytes()).unwrap();
            assert_eq!((read.ours(), read.target()), (Some(OURS), target));
        }
        let none = Chap::check(&[0; CHAP_LEN]).unwrap();
        assert_eq!((none.ours(), none.target()), (None, None));
        assert_eq!(none, Chap::NONE);
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let long = [b'x'; 256];
        assert!(Chap::new((b"me", &long), None).is_none());
        assert!(Chap::new((b"", b"secret"), None).is_none());
        assert!(Chap::new(OURS, Some((b"it", b""))).is_none());
        let (name, secret) = (&long[..253], &long[..255]);
        assert!(Chap::new((name, secret), None).is_some());
        assert!(Chap::new((secret, secret), None).is_none());
        assert!(Chap::new((name, secret), Some(THEIRS)).is_none());
    }

    #[test]
    fn a_damaged_area_is_seen() {
        let whole = *Chap::new(OURS, Some(THEIRS)).unwrap().as_bytes();
        // A pair without its half, text behind the end; below lengths beyond the end, and ours missing.
        for (place, byte) in [(0, 0), (1, 0), (3, 0), (511, 1)] {
            let mut bytes = whole;
            bytes[place] = byte;
            let why = Chap::check(&bytes).unwrap_err().to_string();
            let said = "names and secrets for CHAP make no sense";
            assert_eq!(why, said, "{place} {byte}");
        }
        let mut bytes = whole;
        bytes[..2].fill(255);
        assert!(Chap::check(&bytes).is_err());
        let mut bytes = *Chap::new(OURS, None).unwrap().as_bytes();
        bytes.swap(0, 2);
        bytes.swap(1, 3);
        assert!(Chap::check(&bytes).is_err());
    }

    #[test]
    fn copies_are_equal_and_none_goes_without_being_overwritten() {
        let chap = Chap::new(OURS, Some(THEIRS)).unwrap();
        let mut copy = Chap::NONE;
        copy.clone_from(&chap);
        assert!(copy == chap && chap.clone() == chap);
        // `what_is_wiped_is_gone` is the rest.
        assert!(core::mem::needs_drop::<Chap>());
    }

    #[test]
    fn secrets_are_never_shown() {
        let chap = Chap::new(OURS, Some(THEIRS)).unwrap();
        assert_eq!(format!("{chap:?}"), "mutual CHAP");
        let shown: Vec<_> = [Chap::NONE, Chap::new(OURS, None).unwrap()]
            .map(|c| format!("{c:?}"))
            .into();
        assert_eq!(shown, ["no authentication", "CHAP"]);
    }
}
