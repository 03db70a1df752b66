// SPDX-License-Identifier: GPL-2.0-only

//! Header and data digests: CRC-32C behind the header and behind the data of a PDU (RFC 7143 sections 11.2.3 and 13.1).

use core::fmt;

/// Bytes of a digest on the wire.
pub const DIGEST_BYTES: usize = 4;

/// What is said where data has no digest.
pub const UNPROTECTED: &str =
    "data travels unprotected; a byte that changes on the way may not be noticed";

/// The digest of bytes whose CRC-32C is `crc`, as it is sent (13.1): the remainder's first coefficient is bit 7 of the
/// first byte, which for the reflected CRC is its little-endian form.
pub const fn encode(crc: u32) -> [u8; DIGEST_BYTES] {
    crc.to_le_bytes()
}

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $proposal:literal;)*) => {
        /// Which digests a session asks for. The number is that of the on-disk format.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Policy {
            $($(#[$doc])* $name = $number,)*
        }

        impl Policy {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word that people write.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// What is proposed for HeaderDigest and DataDigest, in order of preference (6.2.1).
            pub const fn proposal(self) -> &'static str {
                match self {
                    $(Self::$name => $proposal,)*
                }
            }
        }
    };
}

policies! {
    /// Digests if the target knows them.
    #[default]
    Prefer = 0, "prefer", "CRC32C,None";
    /// Digests, or no connection.
    Require = 1, "require", "CRC32C";
    /// No digests, or no connection.
    Off = 2, "off", "None";
}

impl Policy {
    /// The policy with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| *p as u32 == number)
    }

    /// The policy with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.word() == word)
    }
}

/// What a connection protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Every header.
    pub header: bool,
    /// Every data segment.
    pub data: bool,
}

impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.header, self.data) {
            (true, true) => "header+data",
            (true, false) => "header",
            (false, true) => "data",
            (false, false) => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_and_words_go_both_ways() {
        for &policy in Policy::ALL {
            assert_eq!(Policy::from_number(policy as u32), Some(policy));
            assert_eq!(Policy::parse(policy.word()), Some(policy));
        }
        assert_eq!(Policy::from_number(3), None);
        assert_eq!(Policy::parse("Prefer"), None);
        assert_eq!(Policy::default(), Policy::Prefer);
    }

    /// The example of RFC 7143, appendix A.4: 32 bytes of zeroes, of ones, and rising.
    #[test]
    fn digests_are_sent_as_the_rfc_shows_them() {
        let rising: std::vec::Vec<u8> = (0..32).collect();
        let on_the_wire = |bytes: &[u8]| encode(crc32c::crc32c(bytes));
        assert_eq!(on_the_wire(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(on_the_wire(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(on_the_wire(&rising), [0x4e, 0x79, 0xdd, 0x46]);
    }

    #[test]
    fn what_is_protected_has_a_word() {
        let word = |header, data| Digests { header, data }.to_string();
        assert_eq!(word(true, true), "header+data");
        assert_eq!(word(true, false), "header");
        assert_eq!(word(false, true), "data");
        assert_eq!(word(false, false), "none");
    }
}
