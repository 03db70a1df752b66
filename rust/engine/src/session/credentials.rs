// SPDX-License-Identifier: GPL-2.0-only

//! Names and secrets for CHAP, and what the engine has to have computed for it.

use core::fmt;
use core::hint::black_box;

use imgstream_proto::disk::superblock::{Chap, ChapPair, CHAP_TEXT_LEN};

use super::config::Name;

/// Whether two strings are equal, in a time that does not depend on where they differ.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && black_box(differences) == 0
}

/// Who proves to be who, by which secret.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// CHAP_N.
    pub name: &'a str,
    /// What only the two sides know; shown to nobody.
    pub secret: &'a [u8],
}

impl fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<'a> Account<'a> {
    fn from_pair((name, secret): ChapPair<'a>) -> Result<Self, Unfit> {
        let name = core::str::from_utf8(name).map_err(|_| Unfit::Name)?;
        Ok(Self { name, secret })
    }

    const fn pair(self) -> ChapPair<'a> {
        (self.name.as_bytes(), self.secret)
    }

    fn check(self) -> Result<(), Unfit> {
        let len = self.secret.len();
        if !Name::fits(self.name) {
            return Err(Unfit::Name);
        }
        match (Credentials::MIN_SECRET_BYTES..=Credentials::MAX_SECRET_BYTES).contains(&len) {
            true => Ok(()),
            false => Err(Unfit::Secret(len)),
        }
    }
}

/// Why CHAP cannot be done with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A name is empty or too long, or has spaces.
    Name,
    /// A secret of so many bytes is too short or too long.
    Secret(usize),
    /// Both directions have one secret.
    SameSecret,
    /// Names and secrets together are too long for their place in a superblock.
    TooLong,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (Credentials::MIN_SECRET_BYTES, Credentials::MAX_SECRET_BYTES);
        match self {
            Self::Name => write!(
                f,
                "a user has 1 to {} characters without spaces",
                Name::MAX_BYTES
            ),
            Self::Secret(len) => {
                write!(
                    f,
                    "a secret has {least} to {most} bytes; this one has {len}"
                )
            }
            Self::SameSecret => f.write_str("the target has to have another secret"),
            Self::TooLong => write!(
                f,
                "names and secrets are too long: {CHAP_TEXT_LEN} bytes together"
            ),
        }
    }
}

/// What CHAP is done with: ours, and the target's if it has to prove who it is. Kept as a superblock has it, once, and
/// overwritten when dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Credentials(Chap);

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }

    fn clone_from(&mut self, from: &Self) {
        self.0.clone_from(&from.0);
    }
}

impl Credentials {
    /// Nobody's, which prove nothing.
    pub(super) const NONE: Self = Self(Chap::NONE);
    /// RFC 7143 section 9.2.1: 96 bits, as nothing but the secret protects the exchange from those who listen.
    pub const MIN_SECRET_BYTES: usize = 12;
    /// Longest secret.
    pub const MAX_SECRET_BYTES: usize = 255;

    /// How we prove who we are, and, if it has to, how the target does. Both may not have the same secret: a target
    /// could then answer our challenge with what we ourselves answer to it (RFC 7143 section 9.2.1).
    pub fn new(ours: Account<'_>, target: Option<Account<'_>>) -> Result<Self, Unfit> {
        check(ours, target)?;
        Chap::new(ours.pair(), target.map(Account::pair))
            .map(Self)
            .ok_or(Unfit::TooLong)
    }

    /// What a superblock keeps: nothing, if nobody has to prove anything.
    pub fn from_disk(chap: &Chap) -> Result<Option<Self>, Unfit> {
        let Some(ours) = chap.ours() else {
            return Ok(None);
        };
        let target = chap.target().map(Account::from_pair).transpose()?;
        check(Account::from_pair(ours)?, target)?;
        Ok(Some(Self(chap.clone())))
    }

    /// For a superblock.
    pub const fn to_disk(&self) -> &Chap {
        &self.0
    }

    /// Ours.
    pub fn ours(&self) -> Account<'_> {
        let nobody = Account {
            name: "",
            secret: &[],
        };
        self.account(self.0.ours()).unwrap_or(nobody)
    }

    /// The target's, if it has to prove who it is.
    pub fn target(&self) -> Option<Account<'_>> {
        self.account(self.0.target())
    }

    /// Names were checked to be text.
    fn account<'a>(&self, pair: Option<ChapPair<'a>>) -> Option<Account<'a>> {
        Account::from_pair(pair?).ok()
    }
}

fn check(ours: Account<'_>, target: Option<Account<'_>>) -> Result<(), Unfit> {
    ours.check()?;
    let Some(target) = target else {
        return Ok(());
    };
    target.check()?;
    match equal(ours.secret, target.secret) {
        true => Err(Unfit::SameSecret),
        false => Ok(()),
    }
}

/// A one-way function over a whole message.
pub type Hash<const BYTES: usize> = fn(&[u8], &mut [u8; BYTES]);

/// What a driver computes for CHAP. A function that it lacks is not offered to the target.
#[derive(Clone, Copy, Debug)]
pub struct Crypto {
    /// MD5; RFC 7143 section 12.1.3 wants it offered always.
    pub md5: Option<Hash<16>>,
    /// SHA-1.
    pub sha1: Option<Hash<20>>,
    /// SHA-256.
    pub sha256: Option<Hash<32>>,
    /// SHA3-256.
    pub sha3_256: Option<Hash<32>>,
    /// Bytes that nobody can predict, and that do not repeat.
    pub random: fn(&mut [u8]),
}

/// IANA's number of SHA-256.
pub(super) const SHA256: u32 = 7;
/// Longest digest.
pub(super) const MAX_DIGEST_BYTES: usize = 32;

/// A digest of `len` bytes.
pub(super) struct Digest {
    bytes: [u8; MAX_DIGEST_BYTES],
    len: usize,
}

impl Digest {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn of<const BYTES: usize>(hash: Hash<BYTES>, message: &[u8]) -> Self {
        let mut digest = [0; BYTES];
        hash(message, &mut digest);
        let mut bytes = [0; MAX_DIGEST_BYTES];
        bytes
            .iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        Self { bytes, len: BYTES }
    }
}

impl Crypto {
    /// The algorithms of IANA's list, the strongest first.
    const ALGORITHMS: [(u32, &'static str); 4] = [
        (8, "SHA3-256"),
        (SHA256, "SHA-256"),
        (6, "SHA-1"),
        (5, "MD5"),
    ];

    /// The functions of CHAP that are not there, by name.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> + '_ {
        let missing = |(number, name)| (!self.has(number)).then_some(name);
        Self::ALGORITHMS.into_iter().filter_map(missing)
    }

    /// What can be offered, the strongest first.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = u32> + '_ {
        let there = |(number, _)| self.has(number).then_some(number);
        Self::ALGORITHMS.into_iter().filter_map(there)
    }

    fn has(&self, algorithm: u32) -> bool {
        self.digest(algorithm, &[]).is_some()
    }

    /// The digest of `message`, if there is that function.
    pub(super) fn digest(&self, algorithm: u32, message: &[u8]) -> Option<Digest> {
        match algorithm {
            5 => self.md5.map(|hash| Digest::of(hash, message)),
            6 => self.sha1.map(|hash| Digest::of(hash, message)),
            SHA256 => self.sha256.map(|hash| Digest::of(hash, message)),
            8 => self.sha3_256.map(|hash| Digest::of(hash, message)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec;
    use std::vec::Vec;

    const OURS: Account<'static> = Account {
        name: "me",
        secret: b"twelve bytes",
    };
    const THEIRS: Account<'static> = Account {
        name: "it",
        secret: b"another secret of it",
    };

    fn with_secret(secret: &[u8]) -> Result<Credentials, Unfit> {
        Credentials::new(Account { secret, ..OURS }, None)
    }

    #[test]
    fn secrets_have_96_bits_at_least() {
        for len in [0, 11, 256] {
            assert_eq!(with_secret(&vec![7; len]), Err(Unfit::Secret(len)));
        }
        for len in [12, 255] {
            let secret = vec![7; len];
            assert_eq!(with_secret(&secret).unwrap().ours().secret, secret);
        }
        let short = Account {
            secret: b"eleven byte",
            ..THEIRS
        };
        assert_eq!(Credentials::new(OURS, Some(short)), Err(Unfit::Secret(11)));
    }

    #[test]
    fn names_are_words() {
        let long = "x".repeat(224);
        for name in ["", "m e", "m\u{e9}", &long] {
            let none = Credentials::new(Account { name, ..OURS }, None);
            assert_eq!(none, Err(Unfit::Name), "{name}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let both = Credentials::new(OURS, Some(THEIRS)).unwrap();
        let shown = format!("{both:?} {:?} {:?}", both.ours(), both.target());
        assert_eq!(shown, "Credentials(mutual CHAP) me Some(it)");
    }

    #[test]
    fn the_directions_have_different_secrets() {
        let same = Account {
            secret: OURS.secret,
            ..THEIRS
        };
        assert_eq!(Credentials::new(OURS, Some(same)), Err(Unfit::SameSecret));
        let other = Account {
            secret: b"twelve bytez",
            ..OURS
        };
        assert!(Credentials::new(OURS, Some(other)).is_ok());
    }

    #[test]
    fn a_superblock_keeps_them() {
        for target in [None, Some(THEIRS)] {
            let all = Credentials::new(OURS, target).unwrap();
            let kept = Credentials::from_disk(all.to_disk()).unwrap().unwrap();
            assert_eq!(kept, all);
            let ours = kept.ours();
            assert_eq!((ours.name, ours.secret), (OURS.name, OURS.secret));
            let found = kept.target().map(|one| (one.name, one.secret));
            assert_eq!(found, target.map(|one| (one.name, one.secret)));
        }
        assert_eq!(Credentials::from_disk(&Chap::NONE), Ok(None));
    }

    #[test]
    fn a_superblock_is_held_to_the_same_rules() {
        let disk = |ours, target| Credentials::from_disk(&Chap::new(ours, target).unwrap());
        let short: ChapPair<'_> = (b"me", b"eleven byte");
        let pair: ChapPair<'_> = (b"me", b"twelve bytes");
        assert_eq!(disk(short, None), Err(Unfit::Secret(11)));
        assert_eq!(disk(pair, Some(short)), Err(Unfit::Secret(11)));
        assert_eq!(disk(pair, Some(pair)), Err(Unfit::SameSecret));
        assert_eq!(disk((b"m\xff", pair.1), None), Err(Unfit::Name));
    }

    #[test]
    fn what_is_too_long_for_a_superblock_is_refused() {
        let (name, secret) = ("x".repeat(223), vec![7; 255]);
        let ours = Account {
            name: &name,
            secret: &secret,
        };
        assert!(Credentials::new(ours, Some(THEIRS)).is_ok());
        let theirs = Account {
            name: "its-own-name",
            ..THEIRS
        };
        assert_eq!(Credentials::new(ours, Some(theirs)), Err(Unfit::TooLong));
    }

    #[test]
    fn what_is_missing_is_named_and_not_offered() {
        let sha256: Hash<32> = |_, _| {};
        let some = Crypto {
            md5: None,
            sha1: None,
            sha256: Some(sha256),
            sha3_256: None,
            random: |_| {},
        };
        let missing: Vec<_> = some.missing().collect();
        assert_eq!(missing, ["SHA3-256", "SHA-1", "MD5"]);
        assert_eq!(some.algorithms().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn equality_looks_at_every_byte() {
        let a = [1, 2, 3];
        assert!(equal(&a, &a) && equal(&[], &[]));
        assert!(!equal(&a, &a[..2]) && !equal(&a[..2], &a) && !equal(&a, &[]));
        for place in 0..3 {
            let mut b = a;
            b[place] ^= 0x80;
            assert!(!equal(&a, &b));
        }
    }
}
