// SPDX-License-Identifier: GPL-2.0-only

//! Large binary values of text keys (RFC 7143 section 6.1): bytes as hexadecimal digits after `0x`, or in base64 after
//! `0b`. CHAP_C and CHAP_R are the keys that have them (12.1.3).

use core::fmt;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryError {
    /// Neither form, no digits, or digits that are none.
    Malformed,
    /// More bytes than there is room for.
    TooLong,
}

/// Writes the bytes that `value` stands for to the start of `out`, and returns how many they are: at least one.
pub fn parse(value: &str, out: &mut [u8]) -> Result<usize, BinaryError> {
    let (prefix, digits) = value.as_bytes().split_at_checked(2).unwrap_or((&[], &[]));
    if digits.is_empty() {
        return Err(BinaryError::Malformed);
    }
    match prefix {
        b"0x" | b"0X" => parse_hex(digits, out),
        b"0b" | b"0B" => parse_base64(digits, out),
        _ => Err(BinaryError::Malformed),
    }
}

/// An odd count of digits is legal: the first of them is then a byte of its own.
fn parse_hex(digits: &[u8], out: &mut [u8]) -> Result<usize, BinaryError> {
    let (odd, pairs) = digits
        .split_at_checked(digits.len() % 2)
        .unwrap_or((&[], digits));
    let bytes = core::iter::once(odd)
        .filter(|odd| !odd.is_empty())
        .chain(pairs.chunks(2));
    let mut len: usize = 0;
    for byte in bytes {
        let mut value = 0;
        for digit in byte {
            value = (value << 4) | hex_digit(*digit).ok_or(BinaryError::Malformed)?;
        }
        put(out, &mut len, value)?;
    }
    Ok(len)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Groups of four, the last one filled up with `=`, and no bits set that stand for nothing.
fn parse_base64(digits: &[u8], out: &mut [u8]) -> Result<usize, BinaryError> {
    if digits.len() % 4 != 0 {
        return Err(BinaryError::Malformed);
    }
    let padding = digits
        .iter()
        .rev()
        .take(2)
        .take_while(|digit| **digit == b'=')
        .count();
    let digits = digits
        .get(..digits.len().saturating_sub(padding))
        .unwrap_or(&[]);
    let (mut len, mut bits, mut count): (usize, u32, u32) = (0, 0, 0);
    for digit in digits {
        // Of what is not needed any more the upper bits fall out.
        bits = (bits << 6) | base64_digit(*digit).ok_or(BinaryError::Malformed)?;
        count = count.saturating_add(6);
        if count >= 8 {
            count = count.saturating_sub(8);
            let [_, _, _, byte] = bits.checked_shr(count).unwrap_or(0).to_be_bytes();
            put(out, &mut len, byte)?;
        }
    }
    let unused = 1u32.checked_shl(count).unwrap_or(1).saturating_sub(1);
    if bits & unused != 0 {
        return Err(BinaryError::Malformed);
    }
    Ok(len)
}

fn base64_digit(digit: u8) -> Option<u32> {
    let place = BASE64.iter().position(|known| *known == digit)?;
    u32::try_from(place).ok()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn put(out: &mut [u8], len: &mut usize, byte: u8) -> Result<(), BinaryError> {
    *out.get_mut(*len).ok_or(BinaryError::TooLong)? = byte;
    *len = len.saturating_add(1);
    Ok(())
}

/// Bytes as they are sent: `0x` and two digits for each.
#[derive(Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests;
