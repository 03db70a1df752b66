// SPDX-License-Identifier: GPL-2.0-only

//! Text of login PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143 sections 6.1 and 6.2).

use core::fmt;

/// Longest key name (6.1).
pub const MAX_KEY_BYTES: usize = 63;
/// Longest value (6.1), unless a key says otherwise.
pub const MAX_VALUE_BYTES: usize = 255;
/// Longest large binary value: what a login PDU holds at most. How many bytes it may stand for is judged where it is read.
pub const MAX_LARGE_VALUE_BYTES: usize = 8192;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// The last pair is not ended by a zero byte.
    NotTerminated,
    /// A pair has no `=`.
    NoValue,
    /// A key name is empty, too long, or has bytes that key names cannot have.
    BadKey,
    /// A value is too long, or not printable text.
    BadValue,
}

/// Goes through the pairs of a text; ends after the first error.
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// The pairs of `text`.
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, &'a str), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(end) = self.rest.iter().position(|&b| b == 0) else {
            self.rest = &[];
            return Some(Err(TextError::NotTerminated));
        };
        let (pair, tail) = self.rest.split_at_checked(end)?;
        self.rest = tail.get(1..).unwrap_or(&[]);
        let parsed = parse_pair(pair);
        if parsed.is_err() {
            self.rest = &[];
        }
        Some(parsed)
    }
}

fn parse_pair(pair: &[u8]) -> Result<(&str, &str), TextError> {
    let equals = pair
        .iter()
        .position(|&b| b == b'=')
        .ok_or(TextError::NoValue)?;
    let (key, value) = pair.split_at_checked(equals).ok_or(TextError::NoValue)?;
    let value = value.get(1..).ok_or(TextError::NoValue)?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.iter().all(|&b| is_key_byte(b)) {
        return Err(TextError::BadKey);
    }
    // TargetAlias may hold UTF-8 (13.6), so other bytes than ASCII are no error; control characters are.
    if value.len() > max_value_bytes(key) || value.iter().any(|b| b.is_ascii_control()) {
        return Err(TextError::BadValue);
    }
    let key = core::str::from_utf8(key).map_err(|_| TextError::BadKey)?;
    let value = core::str::from_utf8(value).map_err(|_| TextError::BadValue)?;
    Ok((key, value))
}

/// 12.1.3: challenge and response of CHAP are large binary values.
fn max_value_bytes(key: &[u8]) -> usize {
    match key {
        b"CHAP_C" | b"CHAP_R" => MAX_LARGE_VALUE_BYTES,
        _ => MAX_VALUE_BYTES,
    }
}

/// Standard-label (6.1): letters, digits, `.`, `-`, `+`, `@`, `_`; `#` occurs in the names of extension keys.
fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-+@_#".contains(&byte)
}

/// A numerical value (6.1): decimal, or hexadecimal after `0x`. Nothing but digits, and it fits 32 bits.
pub fn parse_number(value: &str) -> Option<u32> {
    let (digits, radix) = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    // from_str_radix would take a sign.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// Builds a text in a buffer. Pairs that do not fit are left out whole, and `overflowed` says so.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// An empty text in `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            buffer,
            len: 0,
            overflowed: false,
        }
    }

    /// Adds a pair.
    pub fn pair(&mut self, key: &str, value: impl fmt::Display) {
        let start = self.len;
        if fmt::write(self, format_args!("{key}={value}\0")).is_err() {
            self.len = start;
            self.overflowed = true;
        }
    }

    /// Length of the text so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no text yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a pair did not fit.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        self.buffer
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
