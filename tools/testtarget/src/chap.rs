// SPDX-License-Identifier: GPL-2.0-only

//! The target's side of CHAP (RFC 7143 section 12.1.3).

use imgstream_proto::iscsi::binary::{self, Hex};
use imgstream_proto::iscsi::text::parse_number;

use crate::connection::Connection;
use crate::Target;

/// A name and its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// CHAP_N.
    pub name: String,
    /// What is hashed.
    pub secret: String,
}

impl Account {
    /// An account.
    pub fn new(name: &str, secret: &str) -> Self {
        Self {
            name: name.into(),
            secret: secret.into(),
        }
    }
}

/// How the target authenticates.
#[derive(Clone, Debug)]
pub struct Chap {
    /// Who may come in.
    pub initiator: Account,
    /// Who the target is, if it is asked.
    pub target: Option<Account>,
    /// Algorithms that it has, the one it likes best first.
    pub algorithms: Vec<u32>,
    /// 7 is SHA-1 to it, as to tgt, and a response of another length is malformed.
    pub seven_is_sha1: bool,
    /// Bytes of its challenges.
    pub challenge_bytes: usize,
    /// Binary values go out in base64.
    pub base64: bool,
    /// The challenge is the one that the initiator sent last, on whichever connection.
    pub reflects_challenge: bool,
    /// The response is the one that the initiator gave.
    pub reflects_response: bool,
}

impl Chap {
    /// CHAP as it should be.
    pub fn new(initiator: Account, target: Option<Account>) -> Self {
        Self {
            initiator,
            target,
            algorithms: vec![8, 7, 6, 5],
            seven_is_sha1: false,
            challenge_bytes: 24,
            base64: false,
            reflects_challenge: false,
            reflects_response: false,
        }
    }

    fn meant_by(&self, algorithm: u32) -> u32 {
        match (self.seven_is_sha1, algorithm) {
            (true, 7) => 6,
            _ => algorithm,
        }
    }

    fn binary(&self, bytes: &[u8]) -> String {
        match self.base64 {
            true => format!("0b{}", base64(bytes)),
            false => Hex(bytes).to_string(),
        }
    }
}

/// What the target saw of CHAP.
#[derive(Clone, Debug, Default)]
pub struct ChapLog {
    /// CHAP_A as it was proposed.
    pub offers: Vec<String>,
    /// Challenges that it sent.
    pub sent: Vec<Vec<u8>>,
    /// Challenges of initiators.
    pub received: Vec<Vec<u8>>,
    /// Responses of initiators.
    pub responses: Vec<Vec<u8>>,
    /// Initiators that did not prove who they are.
    pub refused: u32,
}

/// CHAP on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    algorithm: u32,
    identifier: u8,
    challenge: Vec<u8>,
    /// The response cannot be read.
    pub(crate) malformed: bool,
    /// The initiator has proved who it is.
    pub(crate) proved: bool,
}

/// The digest of `message`; nothing for an algorithm that does not exist.
pub fn hash(algorithm: u32, message: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    match algorithm {
        5 => md5::Md5::digest(message).to_vec(),
        6 => sha1::Sha1::digest(message).to_vec(),
        7 => sha2::Sha256::digest(message).to_vec(),
        8 => sha3::Sha3_256::digest(message).to_vec(),
        _ => Vec::new(),
    }
}

fn response(algorithm: u32, identifier: u8, secret: &str, challenge: &[u8]) -> Vec<u8> {
    hash(
        algorithm,
        &[&[identifier], secret.as_bytes(), challenge].concat(),
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let word = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

fn value<'a>(pairs: &[(&'a str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

fn bytes(pairs: &[(&str, &str)], key: &str) -> Option<Vec<u8>> {
    let mut out = vec![0; 1024];
    let len = binary::parse(value(pairs, key)?, &mut out).ok()?;
    out.truncate(len);
    Some(out)
}

impl Connection {
    /// Answers the CHAP keys of a request. `None`: the initiator is refused.
    pub(crate) fn answer_chap(
        &mut self,
        target: &mut Target,
        chap: &Chap,
        exchange: &mut Exchange,
        pairs: &[(&str, &str)],
        transit: bool,
    ) -> Option<Vec<(String, String)>> {
        if let Some(offer) = value(pairs, "CHAP_A") {
            self.expect(target, !transit, "T before the response");
            return Some(challenge(target, chap, exchange, offer));
        }
        let Some(name) = value(pairs, "CHAP_N") else {
            self.expect(target, exchange.proved || !transit, "T before the response");
            return Some(Vec::new());
        };
        self.expect(
            target,
            transit,
            "the response does not ask for the next stage",
        );
        let given = bytes(pairs, "CHAP_R").unwrap_or_default();
        let expected = response(
            chap.meant_by(exchange.algorithm),
            exchange.identifier,
            &chap.initiator.secret,
            &exchange.challenge,
        );
        target.chap.responses.push(given.clone());
        exchange.malformed = chap.seven_is_sha1 && given.len() != expected.len();
        exchange.proved = name == chap.initiator.name && given == expected;
        if !exchange.proved {
            target.chap.refused += 1;
            return None;
        }
        Some(self.prove(target, chap, exchange, pairs, &given))
    }

    /// The target's own proof, if it is asked for one.
    fn prove(
        &mut self,
        target: &mut Target,
        chap: &Chap,
        exchange: &Exchange,
        pairs: &[(&str, &str)],
        given: &[u8],
    ) -> Vec<(String, String)> {
        let identifier = value(pairs, "CHAP_I").and_then(parse_number);
        let (Some(identifier), Some(asked)) = (identifier, bytes(pairs, "CHAP_C")) else {
            self.expect(target, value(pairs, "CHAP_C").is_none(), "half a challenge");
            return Vec::new();
        };
        let fresh = asked != exchange.challenge && !target.chap.received.contains(&asked);
        self.expect(
            target,
            fresh && asked.len() >= 16,
            "a challenge that was used before",
        );
        self.expect(target, identifier < 256, "an identifier that is no octet");
        target.chap.received.push(asked.clone());
        let Some(account) = &chap.target else {
            return Vec::new();
        };
        let proof = match chap.reflects_response {
            true => given.to_vec(),
            false => response(
                chap.meant_by(exchange.algorithm),
                identifier as u8,
                &account.secret,
                &asked,
            ),
        };
        vec![
            ("CHAP_N".into(), account.name.clone()),
            ("CHAP_R".into(), chap.binary(&proof)),
        ]
    }
}

fn challenge(
    target: &mut Target,
    chap: &Chap,
    exchange: &mut Exchange,
    offer: &str,
) -> Vec<(String, String)> {
    target.chap.offers.push(offer.into());
    let offered: Vec<u32> = offer.split(',').filter_map(parse_number).collect();
    let chosen = offered
        .iter()
        .copied()
        .find(|algorithm| chap.algorithms.contains(algorithm));
    // A target that has none of them chooses wrongly; a good one would refuse.
    exchange.algorithm = chosen.unwrap_or(0);
    // Not random, but different each time: tests are to be the same each time.
    let seed = [
        target.connections.to_be_bytes(),
        (target.chap.sent.len() as u32).to_be_bytes(),
    ]
    .concat();
    let [identifier, ..] = hash(7, &seed)[..] else {
        return Vec::new();
    };
    exchange.identifier = identifier;
    exchange.challenge = (0..chap.challenge_bytes.div_ceil(32))
        .flat_map(|i| hash(8, &[&seed[..], &[i as u8]].concat()))
        .take(chap.challenge_bytes)
        .collect();
    if let Some(theirs) = target
        .chap
        .received
        .last()
        .filter(|_| chap.reflects_challenge)
    {
        exchange.challenge.clone_from(theirs);
    }
    target.chap.sent.push(exchange.challenge.clone());
    vec![
        ("CHAP_A".into(), exchange.algorithm.to_string()),
        ("CHAP_I".into(), exchange.identifier.to_string()),
        ("CHAP_C".into(), chap.binary(&exchange.challenge)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let hex = |algorithm| Hex(&hash(algorithm, b"abc")).to_string();
        assert_eq!(hex(5), "0x900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(6), "0xa9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex(7),
            "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(8),
            "0x3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
        );
    }

    #[test]
    fn base64_is_read_by_the_initiators_parser() {
        for len in 1..70 {
            let data: Vec<u8> = (0..len).map(|i| (i * 37 + 11) as u8).collect();
            let mut out = [0; 70];
            assert_eq!(
                binary::parse(&format!("0b{}", base64(&data)), &mut out),
                Ok(len)
            );
            assert_eq!(out[..len], data);
        }
    }
}
