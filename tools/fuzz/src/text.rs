// SPDX-License-Identifier: GPL-2.0-only

//! Text of login PDUs: pairs, numbers, large binary values, and writing them again.

use imgstream_proto::iscsi::binary;
use imgstream_proto::iscsi::text::{
    parse_number, Pairs, Writer, MAX_KEY_BYTES, MAX_LARGE_VALUE_BYTES, MAX_VALUE_BYTES,
};

pub(crate) fn body(data: &[u8]) {
    let mut buffer = vec![0; data.len()];
    let mut writer = Writer::new(&mut buffer);
    let mut whole = true;
    for pair in Pairs::new(data) {
        let Ok((key, value)) = pair else {
            whole = false;
            break;
        };
        check_pair(key, value);
        writer.pair(key, value);
    }
    assert!(!writer.overflowed(), "pairs grew when written again");
    let len = writer.len();
    assert_eq!(buffer.get(..len), data.get(..len), "written differently");
    assert!(!whole || len == data.len(), "something was left out");
}

fn check_pair(key: &str, value: &str) {
    let longest = match key {
        "CHAP_C" | "CHAP_R" => MAX_LARGE_VALUE_BYTES,
        _ => MAX_VALUE_BYTES,
    };
    assert!((1..=MAX_KEY_BYTES).contains(&key.len()) && value.len() <= longest);
    assert!(!key.contains(['=', '\0']) && !value.contains('\0'));
    assert_eq!(parse_number(value), number(value), "{value:?}");
    check_bytes(value);
}

/// Bytes as RFC 7143 section 6.1 has them, read in another way: one bit after the other.
fn bytes(value: &str) -> Option<Vec<u8>> {
    let digits = value.get(2..).filter(|digits| !digits.is_empty())?;
    let (base64, bits) = match value.get(..2)? {
        "0x" | "0X" => (false, 4),
        "0b" | "0B" => (true, 6),
        _ => return None,
    };
    if base64 && digits.len() % 4 != 0 {
        return None;
    }
    let padding = digits.len() - digits.trim_end_matches('=').len();
    let digits = &digits[..digits.len() - if base64 { padding.min(2) } else { 0 }];
    let value = |digit: char| match digit {
        _ if !base64 => digit.to_digit(16),
        'A'..='Z' => Some(digit as u32 - 'A' as u32),
        'a'..='z' => Some(digit as u32 - 'a' as u32 + 26),
        '0'..='9' => Some(digit as u32 - '0' as u32 + 52),
        '+' => Some(62),
        '/' => Some(63),
        _ => None,
    };
    // An odd hexadecimal digit is the first of a byte whose other one is 0 and was left out.
    let mut all: Vec<bool> = vec![false; if base64 { 0 } else { digits.len() % 2 * 4 }];
    for digit in digits.chars() {
        let value = value(digit)?;
        all.extend((0..bits).rev().map(|bit| (value >> bit) & 1 != 0));
    }
    let whole = all.chunks_exact(8);
    let unused = whole.remainder().contains(&true);
    let byte = |bits: &[bool]| {
        bits.iter()
            .fold(0, |byte, bit| (byte << 1) | u8::from(*bit))
    };
    (!unused).then(|| whole.map(byte).collect())
}

fn check_bytes(value: &str) {
    let mut found = [0; 64];
    let len = binary::parse(value, &mut found);
    match bytes(value) {
        Some(expected) if expected.len() <= found.len() => {
            assert_eq!(len, Ok(expected.len()), "{value:?}");
            assert_eq!(found[..expected.len()], expected, "{value:?}");
            let again = binary::Hex(&expected).to_string();
            assert_eq!(bytes(&again), Some(expected));
        }
        _ => assert!(len.is_err(), "{value:?}"),
    }
}

/// A number as RFC 7143 section 6.1 has it, read in another way.
fn number(value: &str) -> Option<u32> {
    let hex = value.len() > 2 && value.as_bytes()[..2].eq_ignore_ascii_case(b"0x");
    let (digits, radix) = if hex { (&value[2..], 16) } else { (value, 10) };
    let add = |sum: u64, digit: char| {
        let sum = sum * u64::from(radix) + u64::from(digit.to_digit(radix)?);
        u32::try_from(sum).ok().map(u64::from)
    };
    let sum = digits.chars().try_fold(0, add)?;
    (!digits.is_empty()).then_some(sum as u32)
}
