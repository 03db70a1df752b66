// SPDX-License-Identifier: GPL-2.0-only

//! Which keys a target has sent in a login: each may come once (RFC 7143 section 6.3).

use super::reason::Violation;

/// Keys of one login that are taken from a target. The RFC has some forty, of which a target sends twenty.
const MAX_KEYS: usize = 64;

/// Names of keys, as hashes of 64 bits: who makes two names meet loses a connection by it.
#[derive(Debug)]
pub(super) struct Seen {
    hashes: [u64; MAX_KEYS],
    count: usize,
}

impl Seen {
    pub(super) const fn new() -> Self {
        Self {
            hashes: [0; MAX_KEYS],
            count: 0,
        }
    }

    /// Takes note of a key.
    pub(super) fn add(&mut self, name: &str) -> Result<(), Violation> {
        let hash = fnv1a(name.as_bytes());
        if self.hashes.iter().take(self.count).any(|h| *h == hash) {
            return Err(Violation::RepeatedKey);
        }
        *self
            .hashes
            .get_mut(self.count)
            .ok_or(Violation::TooManyKeys)? = hash;
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

/// FNV-1a.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
