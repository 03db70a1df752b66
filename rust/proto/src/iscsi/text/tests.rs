// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use proptest::prelude::*;
use std::prelude::v1::*;
use std::vec;

fn all(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    Pairs::new(text).collect()
}

#[test]
fn pairs_are_read_in_order() {
    let text = b"TargetPortalGroupTag=1\0AuthMethod=None\0TargetAlias=\0";
    let pairs = vec![
        ("TargetPortalGroupTag", "1"),
        ("AuthMethod", "None"),
        ("TargetAlias", ""),
    ];
    assert_eq!(all(text), Ok(pairs));
    assert_eq!(all(b""), Ok(vec![]));
    assert_eq!(all(b"a=b=c\0"), Ok(vec![("a", "b=c")]));
}

#[test]
fn malformed_text_is_an_error() {
    assert_eq!(all(b"a=b"), Err(TextError::NotTerminated));
    assert_eq!(all(b"a=b\0garbage"), Err(TextError::NotTerminated));
    assert_eq!(all(b"ab\0"), Err(TextError::NoValue));
    assert_eq!(all(b"\0"), Err(TextError::NoValue));
    assert_eq!(all(b"=b\0"), Err(TextError::BadKey));
    assert_eq!(all(b"a b=c\0"), Err(TextError::BadKey));
    assert_eq!(all(b"a=b\nc\0"), Err(TextError::BadValue));
    assert_eq!(all(b"a=\xff\0"), Err(TextError::BadValue));
    let long = |key: usize, value: usize| {
        [vec![b'k'; key], vec![b'='], vec![b'v'; value], vec![0]].concat()
    };
    assert!(all(&long(63, 255)).is_ok());
    assert_eq!(all(&long(64, 255)), Err(TextError::BadKey));
    assert_eq!(all(&long(63, 256)), Err(TextError::BadValue));
}

#[test]
fn only_large_binary_values_may_be_long() {
    let text = |key: &str, value: usize| [key.as_bytes(), b"=", &vec![b'v'; value], &[0]].concat();
    for key in ["CHAP_C", "CHAP_R"] {
        assert!(all(&text(key, 8192)).is_ok());
        assert_eq!(all(&text(key, 8193)), Err(TextError::BadValue));
    }
    assert_eq!(all(&text("CHAP_N", 256)), Err(TextError::BadValue));
}

#[test]
fn numbers_have_no_sign_and_no_rest() {
    assert_eq!(parse_number("262144"), Some(262_144));
    assert_eq!(parse_number("0x1fF"), Some(0x1ff));
    for bad in [
        "",
        "0x",
        "+1",
        "-1",
        " 1",
        "1 ",
        "1k",
        "4294967296",
        "ff",
        "0b1",
    ] {
        assert_eq!(parse_number(bad), None, "{bad:?}");
    }
}

#[test]
fn a_pair_that_does_not_fit_leaves_no_trace() {
    let mut buffer = [0xaa; 10];
    let mut writer = Writer::new(&mut buffer);
    writer.pair("a", 1);
    writer.pair("long", "value");
    writer.pair("b", 23);
    assert_eq!((writer.len(), writer.overflowed()), (9, true));
    assert_eq!(&buffer[..9], b"a=1\0b=23\0");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(text: Vec<u8>) {
        let _ = all(&text);
    }

    #[test]
    fn what_is_written_is_read_back(pairs in prop::collection::vec(("[A-Za-z][A-Za-z0-9#.+@_-]{0,30}", "[ -~]{0,100}"), 0..10)) {
        let mut buffer = [0; 4096];
        let mut writer = Writer::new(&mut buffer);
        for (key, value) in &pairs {
            writer.pair(key, value);
        }
        prop_assert!(!writer.overflowed());
        let len = writer.len();
        let read: Vec<_> = all(&buffer[..len]).unwrap().into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(read, pairs);
    }
}
