// SPDX-License-Identifier: GPL-2.0-only

//! Names and secrets for CHAP, and what the engine has to have computed for it.

use core::fmt;
use core::hint::black_box;

use super::config::Name;

/// A secret: shown to nobody, and gone when it is dropped.
#[derive(Clone)]
pub struct Secret {
    len: u8,
    bytes: [u8; Self::MAX_BYTES],
}

impl Secret {
    /// RFC 7143 section 9.2.1: 96 bits, as nothing but the secret protects the exchange from those who listen.
    pub const MIN_BYTES: usize = 12;
    /// Longest secret.
    pub const MAX_BYTES: usize = 255;

    /// `secret` if it is neither too short nor too long.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let len = u8::try_from(secret.len()).ok()?;
        if secret.len() < Self::MIN_BYTES {
            return None;
        }
        let mut bytes = [0; Self::MAX_BYTES];
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(Self { len, bytes })
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal(self.as_bytes(), other.as_bytes())
    }
}

/// Overwrites what nobody may find later; `black_box` keeps the compiler from leaving out what nobody reads.
pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// Whether two strings are equal, in a time that does not depend on where they differ.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && black_box(differences) == 0
}

/// Who proves to be who, by which secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// CHAP_N.
    pub name: Name,
    /// What only the two sides know.
    pub secret: Secret,
}

/// What CHAP is done with.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    ours: Account,
    target: Option<Account>,
}

impl Credentials {
    /// How we prove who we are, and, if it has to, how the target does. `None` if both have the same secret: a target
    /// could then answer our challenge with what we ourselves answer to it (RFC 7143 section 9.2.1).
    pub fn new(ours: Account, target: Option<Account>) -> Option<Self> {
        let same = target
            .as_ref()
            .is_some_and(|target| target.secret == ours.secret);
        (!same).then_some(Self { ours, target })
    }

    /// Ours.
    pub const fn ours(&self) -> &Account {
        &self.ours
    }

    /// The target's, if it has to prove who it is.
    pub const fn target(&self) -> Option<&Account> {
        self.target.as_ref()
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
    const ALGORITHMS: [u32; 4] = [8, 7, 6, 5];

    /// What can be offered, the strongest first.
    pub(super) fn algorithms(&self) -> impl Iterator<Item = u32> + '_ {
        let has = |algorithm: &u32| self.digest(*algorithm, &[]).is_some();
        Self::ALGORITHMS.into_iter().filter(has)
    }

    /// The digest of `message`, if there is that function.
    pub(super) fn digest(&self, algorithm: u32, message: &[u8]) -> Option<Digest> {
        match algorithm {
            5 => self.md5.map(|hash| Digest::of(hash, message)),
            6 => self.sha1.map(|hash| Digest::of(hash, message)),
            7 => self.sha256.map(|hash| Digest::of(hash, message)),
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

    #[test]
    fn secrets_have_96_bits_at_least() {
        assert!(Secret::new(&[1; 11]).is_none());
        assert!(Secret::new(&[1; 256]).is_none());
        for len in [12, 255] {
            let secret = vec![7; len];
            assert_eq!(Secret::new(&secret).unwrap().as_bytes(), secret);
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let account = Account {
            name: Name::new("user").unwrap(),
            secret: Secret::new(b"AAAAAAAAAAAA").unwrap(),
        };
        let shown = format!("{:?}", Credentials::new(account, None));
        assert!(
            shown.contains("user") && !shown.contains("AAAA") && !shown.contains("65"),
            "{shown}"
        );
    }

    #[test]
    fn the_directions_have_different_secrets() {
        let account = |name, secret| Account {
            name: Name::new(name).unwrap(),
            secret: Secret::new(secret).unwrap(),
        };
        let one = || account("me", b"twelve bytes");
        assert!(Credentials::new(one(), Some(account("it", b"twelve bytes"))).is_none());
        assert!(Credentials::new(one(), Some(account("me", b"twelve bytez"))).is_some());
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

    #[test]
    fn what_is_wiped_is_gone() {
        let mut bytes = [7; 300];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 300]);
    }
}
