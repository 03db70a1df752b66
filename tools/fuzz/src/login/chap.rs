// SPDX-License-Identifier: GPL-2.0-only

//! CHAP with functions that everybody can compute: a digest repeats the number of its algorithm, so that an input can
//! hold the right response. What must hold: nobody gets in without it.

use std::cell::Cell;

use imgstream_engine::session::{Account, Credentials, Crypto, Session};
use imgstream_proto::iscsi::binary;
use imgstream_proto::iscsi::text::Pairs;

/// Who the target has to be.
const TARGET: &str = "the-target";

thread_local! {
    /// Counts the bytes that nobody can predict.
    static RANDOM: Cell<u8> = const { Cell::new(0) };
}

fn random(to: &mut [u8]) {
    for byte in to {
        RANDOM.set(RANDOM.get().wrapping_add(1));
        *byte = RANDOM.get();
    }
}

/// `mutual`: the target has to prove who it is, too.
pub(super) fn authenticate(session: &mut Session<Vec<u8>>, mutual: bool) {
    RANDOM.set(0);
    let ours = Account {
        name: "me",
        secret: b"the initiator's own",
    };
    let target = Account {
        name: TARGET,
        secret: b"what only the target knows",
    };
    let credentials = Credentials::new(ours, mutual.then_some(target));
    let crypto = Crypto {
        md5: Some(|_, to| to.fill(5)),
        sha1: None,
        sha256: Some(|_, to| to.fill(7)),
        sha3_256: Some(|_, to| to.fill(8)),
        random,
    };
    session.authenticate(&credentials.unwrap(), crypto);
}

/// The value of `key`, wherever it came.
fn value<'a>(texts: &'a [Vec<u8>], key: &str) -> Option<&'a str> {
    let pairs = texts.iter().flat_map(|text| Pairs::new(text).flatten());
    pairs
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .last()
}

/// A login with these texts came through.
pub(super) fn check(texts: &[Vec<u8>], mutual: bool) {
    assert_eq!(value(texts, "AuthMethod"), Some("CHAP"), "not by CHAP");
    let digest: &[u8] = match value(texts, "CHAP_A") {
        Some("5") => &[5; 16],
        Some("7") => &[7; 32],
        Some("8") => &[8; 32],
        // A number may be written otherwise.
        _ => return,
    };
    assert!(value(texts, "CHAP_C").is_some(), "no challenge");
    let response = value(texts, "CHAP_R").map(|response| {
        let mut found = [0; 64];
        let len = binary::parse(response, &mut found).unwrap();
        found[..len].to_vec()
    });
    let expected = mutual.then_some((TARGET, digest));
    let found = value(texts, "CHAP_N").zip(response.as_deref());
    assert_eq!(found, expected, "the target has not proved who it is");
}
