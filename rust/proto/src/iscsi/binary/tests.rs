// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use proptest::prelude::*;
use std::format;
use std::prelude::v1::*;
use std::vec;

fn bytes(value: &str) -> Result<Vec<u8>, BinaryError> {
    let mut out = [0xa5; 64];
    let len = parse(value, &mut out)?;
    assert!(out[len..].iter().all(|byte| *byte == 0xa5));
    Ok(out[..len].to_vec())
}

/// Base64 by the book, for comparison.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::from("0b");
    for group in bytes.chunks(3) {
        let word = (0..3).fold(0_u32, |word, i| {
            (word << 8) | u32::from(*group.get(i).unwrap_or(&0))
        });
        for i in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[test]
fn hexadecimal_digits_are_bytes() {
    assert_eq!(bytes("0x00fF10"), Ok(vec![0, 255, 16]));
    assert_eq!(bytes("0XAb"), Ok(vec![0xab]));
}

#[test]
fn an_odd_count_of_digits_begins_with_a_half() {
    assert_eq!(bytes("0x7"), Ok(vec![7]));
    assert_eq!(bytes("0x123"), Ok(vec![0x01, 0x23]));
}

#[test]
fn base64_is_as_rfc_4648_has_it() {
    // Section 10 of RFC 4648.
    for (text, plain) in [
        ("Zg==", "f"),
        ("Zm9v", "foo"),
        ("Zm9vYg==", "foob"),
        ("Zm9vYmE=", "fooba"),
        ("Zm9vYmFy", "foobar"),
    ] {
        assert_eq!(bytes(&format!("0b{text}")).as_deref(), Ok(plain.as_bytes()));
        assert_eq!(bytes(&format!("0B{text}")).as_deref(), Ok(plain.as_bytes()));
        assert_eq!(base64(plain.as_bytes()), format!("0b{text}"));
    }
    assert_eq!(bytes("0b+/+/"), Ok(vec![0xfb, 0xff, 0xbf]));
}

#[test]
fn everything_else_is_malformed() {
    for bad in [
        "",
        "0",
        "0x",
        "0b",
        "x12",
        "12",
        "0y12",
        "0xg0",
        "0x+1",
        "0x 1",
        "0x1 ",
        "0x-1",
        // Not a group of four, padding alone, in front or within, and bits that stand for nothing.
        "0bZg",
        "0bZg=",
        "0bZ===",
        "0b====",
        "0b=Zg=",
        "0bZg==Zg==",
        "0bZh==",
        "0bZm9=",
        "0bZm 9",
        "0bZm9-",
        "0b\u{e9}\u{e9}",
        "0\u{e9}",
    ] {
        assert_eq!(bytes(bad), Err(BinaryError::Malformed), "{bad:?}");
    }
}

#[test]
fn more_than_there_is_room_for_is_an_error() {
    let mut out = [0; 4];
    assert_eq!(parse("0x01020304", &mut out), Ok(4));
    assert_eq!(parse("0x102030405", &mut out), Err(BinaryError::TooLong));
    assert_eq!(parse("0bAQIDBA==", &mut out), Ok(4));
    assert_eq!(parse("0bAQIDBAU=", &mut out), Err(BinaryError::TooLong));
}

proptest! {
    #[test]
    fn what_is_written_is_read(data in prop::collection::vec(any::<u8>(), 1..1200), room in 1..1200_usize) {
        for text in [Hex(&data).to_string(), Hex(&data).to_string().to_uppercase(), base64(&data)] {
            let mut out = vec![0; room];
            match parse(&text, &mut out) {
                Ok(len) => prop_assert_eq!(&out[..len], &data[..]),
                Err(error) => {
                    prop_assert_eq!(error, BinaryError::TooLong);
                    prop_assert!(room < data.len());
                }
            }
        }
    }

    #[test]
    fn nothing_panics(text in "(0[xXbB])?[0-9a-zA-Z+/=\u{e9}]{0,40}", room in 0..40_usize) {
        let mut out = vec![0; room];
        if let Ok(len) = parse(&text, &mut out) {
            prop_assert!(len >= 1 && len <= room);
        }
    }
}
