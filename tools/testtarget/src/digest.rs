// SPDX-License-Identifier: GPL-2.0-only

//! Digests on this side: what is answered when they are proposed, and where they stand.

use imgstream_proto::iscsi::bhs::BHS_BYTES;
use imgstream_proto::iscsi::digest::{encode, Digests, DIGEST_BYTES};

use crate::connection::Connection;
use crate::Target;

/// What the target makes of a proposal of digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Willing {
    /// It knows none.
    #[default]
    Never,
    /// It takes the first value that is proposed.
    Offer,
    /// It insists on CRC32C, rejects a proposal without it, and then speaks digests all the same.
    Require,
}

impl Willing {
    /// What a list of values is answered with (RFC 7143 section 6.2.1).
    fn answer(self, list: &str) -> &'static str {
        let supported = match self {
            Self::Never => &["None"][..],
            Self::Offer => &["CRC32C", "None"],
            Self::Require => &["CRC32C"],
        };
        let mut wanted = list.split(',');
        let chosen = wanted.find_map(|value| supported.iter().find(|known| **known == value));
        chosen.copied().unwrap_or("Reject")
    }
}

/// `pdu`, a header and what follows it, with its digests.
pub(crate) fn sealed(pdu: &[u8], digests: Digests) -> Vec<u8> {
    let (header, data) = pdu.split_at(BHS_BYTES);
    let mut bytes = header.to_vec();
    if digests.header {
        bytes.extend(encode(crc32c::crc32c(header)));
    }
    bytes.extend(data);
    if digests.data && !data.is_empty() {
        bytes.extend(encode(crc32c::crc32c(data)));
    }
    bytes
}

impl Connection {
    /// What this target answers to the proposal of a digest; it holds from the end of the login on.
    pub(crate) fn settle_digest(&mut self, key: &str, list: &str) -> String {
        let (willing, agreed) = match key {
            "HeaderDigest" => (self.settings.header_digest, &mut self.agreed.header),
            _ => (self.settings.data_digest, &mut self.agreed.data),
        };
        let answer = willing.answer(list);
        *agreed = answer == "CRC32C" || willing == Willing::Require;
        answer.into()
    }

    /// Bytes of digests in a PDU that is received with so many bytes of data and padding.
    pub(crate) fn digest_bytes(&self, data: usize) -> usize {
        let header = usize::from(self.digests.header);
        let data = usize::from(self.digests.data && data != 0);
        (header + data) * DIGEST_BYTES
    }

    /// Takes the digests out of a PDU, and notes those that are wrong.
    pub(crate) fn unseal(&self, target: &mut Target, sealed_pdu: Vec<u8>) -> Vec<u8> {
        let behind = |on: bool| if on { DIGEST_BYTES } else { 0 };
        let (header, rest) = sealed_pdu.split_at(BHS_BYTES);
        let rest = &rest[behind(self.digests.header)..];
        let data = &rest[..rest.len() - behind(self.digests.data && !rest.is_empty())];
        let pdu = [header, data].concat();
        self.expect(
            target,
            sealed(&pdu, self.digests) == sealed_pdu,
            "a digest is wrong",
        );
        pdu
    }
}
