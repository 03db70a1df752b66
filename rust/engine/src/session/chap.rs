// SPDX-License-Identifier: GPL-2.0-only

//! CHAP, RFC 7143 section 12.1.3 over RFC 1994: we prove who we are, and, if its account is known, the target does.
//!
//! ```text
//! we                                   target
//! AuthMethod=CHAP                 ->
//!                                 <-   AuthMethod=CHAP
//! CHAP_A=8,7,6,5                  ->
//!                                 <-   CHAP_A=7 CHAP_I=i CHAP_C=c
//! CHAP_N=us CHAP_R=H(i,secret,c)  ->
//!   CHAP_I=j CHAP_C=d   (mutual)
//!                                 <-   the stage ends
//!                                        CHAP_N=it CHAP_R=H(j,secret,d)   (mutual)
//! ```
//!
//! Where CHAP is required there is no way around it: no other method is offered, the end of the stage is asked for with
//! our response only, and an answer that leaves anything out, or brings it out of turn, ends the connection.

use core::fmt;

use imgstream_proto::iscsi::binary::{self, Hex};
use imgstream_proto::iscsi::text::{parse_number, Pairs, Writer};
use imgstream_proto::secret::wipe;

use super::credentials::{equal, Account, Credentials, Crypto, Digest, MAX_DIGEST_BYTES, SHA256};
use super::reason::{ChapFault, Reason, Violation};

/// Bytes of our own challenges: as many as the shortest digest has.
const CHALLENGE_BYTES: usize = 16;
/// 12.1.3: no challenge is longer.
const MAX_CHALLENGE_BYTES: usize = 1024;
/// Longest message that is hashed: identifier, secret, challenge.
pub(super) const MESSAGE_BYTES: usize = 1 + Credentials::MAX_SECRET_BYTES + MAX_CHALLENGE_BYTES;
/// Own challenges that are remembered: one that comes back is a target that has us answer for it.
const REMEMBERED: usize = 16;

/// Class of a login's status: the initiator is to blame (11.13.5).
const INITIATOR_ERROR: u8 = 2;

/// What was sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Method,
    Algorithms,
    Response,
    Done,
}

/// CHAP on one connection, and what is kept from one to the next.
#[derive(Debug)]
pub(super) struct Chap {
    credentials: Credentials,
    crypto: Crypto,
    /// See `refused`.
    without_sha256: bool,
    step: Step,
    algorithm: u32,
    /// Our identifier on this connection.
    identifier: u8,
    /// Our challenges, the newest last.
    challenges: [Option<[u8; CHALLENGE_BYTES]>; REMEMBERED],
}

/// The keys of an answer that belong to CHAP, in this order.
const KEYS: [&str; 6] = [
    "AuthMethod",
    "CHAP_A",
    "CHAP_I",
    "CHAP_C",
    "CHAP_N",
    "CHAP_R",
];

/// Whether the login has to leave `name` to CHAP.
pub(super) fn is_key(name: &str) -> bool {
    KEYS.contains(&name)
}

struct Keys<'a>([Option<&'a str>; KEYS.len()]);

impl<'a> Keys<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Reason> {
        let mut keys = [None; KEYS.len()];
        for pair in Pairs::new(text) {
            let (name, value) = pair.map_err(|_| Reason::Protocol(Violation::Text))?;
            let known = KEYS.iter().position(|key| *key == name);
            let Some(place) = known.and_then(|index| keys.get_mut(index)) else {
                continue;
            };
            // 6.3: a key comes once.
            if place.replace(value).is_some() {
                return Err(Reason::Protocol(Violation::Text));
            }
        }
        Ok(Self(keys))
    }
}

impl Chap {
    /// Without secrets: on the way to its place it may leave copies of itself behind.
    pub(super) const fn new(crypto: Crypto) -> Self {
        Self {
            credentials: Credentials::NONE,
            crypto,
            without_sha256: false,
            step: Step::Method,
            algorithm: 0,
            identifier: 0,
            challenges: [None; REMEMBERED],
        }
    }

    /// Names and secrets go straight to their place.
    pub(super) fn use_as(&mut self, credentials: &Credentials) {
        self.credentials.clone_from(credentials);
    }

    /// A connection begins: AuthMethod=CHAP is proposed.
    pub(super) fn start(&mut self, text: &mut Writer<'_>) {
        self.step = Step::Method;
        text.pair("AuthMethod", "CHAP");
    }

    /// Whether we have answered the target's challenge, so that the stage may end.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.step, Step::Response | Step::Done)
    }

    /// The login was refused. tgt means SHA-1 by 7, IANA's number of SHA-256, and takes our response for malformed; then the
    /// next login goes without it. That lets nobody in between choose more than they can anyhow, as nothing protects CHAP_A.
    pub(super) fn refused(&mut self, class: u8, detail: u8) -> bool {
        if class != INITIATOR_ERROR {
            return false;
        }
        let misread = detail == 0 && self.step == Step::Response && self.algorithm == SHA256;
        self.without_sha256 = misread;
        misread
    }

    /// What may be used in the next login or in this one.
    fn crypto(&self) -> Crypto {
        let sha256 = self.crypto.sha256.filter(|_| !self.without_sha256);
        Crypto {
            sha256,
            ..self.crypto
        }
    }

    /// Takes an answer of the security stage, and writes what comes next. `scratch` needs `MESSAGE_BYTES`.
    pub(super) fn answer(
        &mut self,
        gathered: &[u8],
        scratch: &mut [u8],
        text: &mut Writer<'_>,
    ) -> Result<(), Reason> {
        let Keys(keys) = Keys::read(gathered)?;
        let result = match (self.step, keys) {
            (Step::Method, [method, None, None, None, None, None]) => {
                self.take_method(method, text)
            }
            (Step::Algorithms, [None, Some(a), Some(i), Some(c), None, None]) => {
                self.take_challenge(a, i, c, scratch, text)
            }
            (Step::Response, [None, None, None, None, name, response]) => {
                self.take_response(name, response, scratch)
            }
            (Step::Done, [None, None, None, None, None, None]) => Ok(()),
            _ => Err(ChapFault::OutOfOrder),
        };
        scratch.get_mut(..MESSAGE_BYTES).map(wipe);
        result.map_err(Reason::Chap)
    }

    /// 12.1: the method is chosen from what was proposed, and we propose only one.
    fn take_method(
        &mut self,
        method: Option<&str>,
        text: &mut Writer<'_>,
    ) -> Result<(), ChapFault> {
        match method {
            Some("CHAP") => {}
            None | Some("None") => return Err(ChapFault::Skipped),
            Some(_) => return Err(ChapFault::Method),
        }
        text.pair("CHAP_A", Offer(&self.crypto()));
        self.step = Step::Algorithms;
        Ok(())
    }

    /// The target's challenge is answered; ours goes with the answer.
    fn take_challenge(
        &mut self,
        algorithm: &str,
        identifier: &str,
        challenge: &str,
        scratch: &mut [u8],
        text: &mut Writer<'_>,
    ) -> Result<(), ChapFault> {
        let algorithm = parse_number(algorithm).ok_or(ChapFault::Algorithm)?;
        // RFC 1994 section 4.1: one octet.
        let identifier = parse_number(identifier).and_then(|number| u8::try_from(number).ok());
        let identifier = identifier.ok_or(ChapFault::Identifier)?;
        let mut message = Message::new(scratch, identifier, self.credentials.ours().secret)?;
        message.parse_challenge(challenge)?;
        // 9.2.1: a challenge of ours that comes back has us compute what the target ought to.
        if self.is_ours(message.challenge()) {
            return Err(ChapFault::Reflected);
        }
        let response = message.digest(&self.crypto(), algorithm)?;
        let fresh = self
            .credentials
            .target()
            .map(|_| fresh_challenge(&self.crypto));
        text.pair("CHAP_N", self.credentials.ours().name);
        text.pair("CHAP_R", Hex(response.as_bytes()));
        if let Some((own_identifier, own)) = fresh {
            // 9.2.1: neither theirs nor one that was used before.
            if equal(&own, message.challenge()) || self.is_ours(&own) {
                return Err(ChapFault::Random);
            }
            text.pair("CHAP_I", own_identifier);
            text.pair("CHAP_C", Hex(&own));
            self.identifier = own_identifier;
            self.remember(own);
        }
        self.algorithm = algorithm;
        self.step = Step::Response;
        Ok(())
    }

    /// The target's proof, where one is asked for, and nothing where none is.
    fn take_response(
        &mut self,
        name: Option<&str>,
        response: Option<&str>,
        scratch: &mut [u8],
    ) -> Result<(), ChapFault> {
        match (self.credentials.target(), name, response) {
            (None, None, None) => {}
            (None, ..) => return Err(ChapFault::OutOfOrder),
            (Some(account), Some(name), Some(response)) => {
                self.verify(account, name, response, scratch)?
            }
            (Some(_), ..) => return Err(ChapFault::NoResponse),
        }
        self.step = Step::Done;
        Ok(())
    }

    fn verify(
        &self,
        account: Account<'_>,
        name: &str,
        response: &str,
        scratch: &mut [u8],
    ) -> Result<(), ChapFault> {
        let mut found = [0; MAX_DIGEST_BYTES];
        let len = binary::parse(response, &mut found).map_err(|_| ChapFault::WrongResponse)?;
        let [.., newest] = &self.challenges;
        let challenge = newest.as_ref().ok_or(ChapFault::NoResponse)?;
        let mut message = Message::new(scratch, self.identifier, account.secret)?;
        message.set_challenge(challenge)?;
        let expected = message.digest(&self.crypto(), self.algorithm)?;
        if !equal(found.get(..len).unwrap_or(&[]), expected.as_bytes()) {
            return Err(ChapFault::WrongResponse);
        }
        if name != account.name {
            return Err(ChapFault::WrongName);
        }
        Ok(())
    }

    fn is_ours(&self, challenge: &[u8]) -> bool {
        self.challenges
            .iter()
            .flatten()
            .any(|own| equal(own, challenge))
    }

    fn remember(&mut self, challenge: [u8; CHALLENGE_BYTES]) {
        self.challenges.rotate_left(1);
        let [.., newest] = &mut self.challenges;
        *newest = Some(challenge);
    }
}

/// RFC 1994 section 2.3: unique and not to be predicted; the identifier changes with it.
fn fresh_challenge(crypto: &Crypto) -> (u8, [u8; CHALLENGE_BYTES]) {
    let (mut identifier, mut challenge) = ([0; 1], [0; CHALLENGE_BYTES]);
    (crypto.random)(&mut identifier);
    (crypto.random)(&mut challenge);
    let [identifier] = identifier;
    (identifier, challenge)
}

/// CHAP_A as we propose it.
struct Offer<'a>(&'a Crypto);

impl fmt::Display for Offer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, algorithm) in self.0.algorithms().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{algorithm}")?;
        }
        Ok(())
    }
}

/// What is hashed: identifier, secret, challenge (RFC 1994 section 4.1).
struct Message<'a> {
    bytes: &'a mut [u8],
    challenge_at: usize,
    len: usize,
}

impl<'a> Message<'a> {
    fn new(scratch: &'a mut [u8], identifier: u8, secret: &[u8]) -> Result<Self, ChapFault> {
        let bytes = scratch
            .get_mut(..MESSAGE_BYTES)
            .ok_or(ChapFault::Challenge)?;
        let start = core::iter::once(&identifier).chain(secret);
        bytes
            .iter_mut()
            .zip(start)
            .for_each(|(to, from)| *to = *from);
        let len = secret.len().saturating_add(1);
        Ok(Self {
            bytes,
            challenge_at: len,
            len,
        })
    }

    fn room(&mut self) -> &mut [u8] {
        let room = self.bytes.get_mut(self.challenge_at..).unwrap_or(&mut []);
        let len = room.len().min(MAX_CHALLENGE_BYTES);
        room.get_mut(..len).unwrap_or(&mut [])
    }

    fn parse_challenge(&mut self, value: &str) -> Result<(), ChapFault> {
        let len = binary::parse(value, self.room()).map_err(|_| ChapFault::Challenge)?;
        self.len = self.challenge_at.saturating_add(len);
        Ok(())
    }

    fn set_challenge(&mut self, challenge: &[u8]) -> Result<(), ChapFault> {
        let room = self.room().get_mut(..challenge.len());
        room.ok_or(ChapFault::Challenge)?.copy_from_slice(challenge);
        self.len = self.challenge_at.saturating_add(challenge.len());
        Ok(())
    }

    fn challenge(&self) -> &[u8] {
        self.bytes.get(self.challenge_at..self.len).unwrap_or(&[])
    }

    /// 12.1.3: only what was offered can have been chosen.
    fn digest(&self, crypto: &Crypto, algorithm: u32) -> Result<Digest, ChapFault> {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        crypto.digest(algorithm, bytes).ok_or(ChapFault::Algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"what nobody may find";

    /// Sees that the secret is in what is hashed.
    fn sha256(message: &[u8], digest: &mut [u8; 32]) {
        assert!(message[1..].starts_with(SECRET));
        digest.fill(7);
    }

    #[test]
    fn what_was_hashed_is_wiped() {
        let ours = Account {
            name: "me",
            secret: SECRET,
        };
        for (challenge, taken) in [("CHAP_C=0x1234\0", true), ("CHAP_C=0x123x\0", false)] {
            let mut chap = Chap::new(Crypto {
                md5: None,
                sha1: None,
                sha256: Some(sha256),
                sha3_256: None,
                random: |_| {},
            });
            chap.use_as(&Credentials::new(ours, None).unwrap());
            (chap.step, chap.algorithm) = (Step::Algorithms, SHA256);
            let (mut scratch, mut out) = ([0xff; MESSAGE_BYTES + 1], [0; 256]);
            let answer = ["CHAP_A=7\0CHAP_I=1\0", challenge].concat();
            let mut text = Writer::new(&mut out);
            let done = chap.answer(answer.as_bytes(), &mut scratch, &mut text);
            assert_eq!(done.is_ok(), taken);
            assert_eq!(scratch[..MESSAGE_BYTES], [0; MESSAGE_BYTES]);
        }
    }
}
