// SPDX-License-Identifier: GPL-2.0-only

//! A byte string of bounded length, kept in place.

use zerocopy::little_endian::U16;

use super::error::{Error, Field};

/// At most `N` bytes.
///
/// # Invariants
///
/// `len <= N`, and all bytes from `len` on are zero (so that equal strings have equal bytes).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bounded<const N: usize> {
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> Bounded<N> {
    /// The empty string.
    // INVARIANT: length 0, all bytes zero.
    pub const EMPTY: Self = Self {
        len: 0,
        bytes: [0; N],
    };

    /// The string of these bytes; `None` if there are more than `N`.
    pub fn new(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; N];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        // INVARIANT: `get_mut` succeeded, so the length is at most N; the rest is zero from the start.
        Some(Self {
            len: from.len(),
            bytes,
        })
    }

    /// The first `len` bytes of `bytes`; `None` if there are fewer.
    pub(crate) fn cut(bytes: &[u8; N], len: usize) -> Option<Self> {
        Self::new(bytes.get(..len)?)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The bytes as text, if they are UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn padded(&self) -> [u8; N] {
        self.bytes
    }
}

impl<const N: usize> Default for Bounded<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> core::fmt::Debug for Bounded<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.as_str() {
            Some(text) => core::fmt::Debug::fmt(text, f),
            None => core::fmt::Debug::fmt(self.as_bytes(), f),
        }
    }
}

/// A string's length; by its invariant it fits 16 bits in every structure.
pub(crate) fn len16(len: usize) -> U16 {
    U16::new(u16::try_from(len).unwrap_or(0))
}

/// The string of `len` bytes that [`Bounded::padded`] wrote.
pub(crate) fn string<const N: usize>(bytes: &[u8; N], len: U16) -> Result<Bounded<N>, Error> {
    Bounded::cut(bytes, len.get().into()).ok_or(Error::value(Field::Length, len.get().into()))
}
