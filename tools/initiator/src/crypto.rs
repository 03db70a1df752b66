// SPDX-License-Identifier: GPL-2.0-only

//! The one-way functions of CHAP, and random bytes.

use std::io;

use imgstream_engine::session::Crypto;
use sha2::Digest;

/// All of them.
pub(crate) const CRYPTO: Crypto = Crypto {
    md5: Some(|message, digest| *digest = md5::Md5::digest(message).into()),
    sha1: Some(|message, digest| *digest = sha1::Sha1::digest(message).into()),
    sha256: Some(|message, digest| *digest = sha2::Sha256::digest(message).into()),
    sha3_256: Some(|message, digest| *digest = sha3::Sha3_256::digest(message).into()),
    // If there are none, the zeroes that are left are not taken for a fresh challenge a second time.
    random: |bytes| drop(random(bytes)),
};

/// Fills `bytes` from the kernel's random numbers, which may not be there in a very old kernel or under seccomp.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(some) => filled += some,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let begins = |digest: &[u8], with: &[u8]| assert_eq!(&digest[..4], with);
        let (mut short, mut middle, mut long) = ([0; 16], [0; 20], [0; 32]);
        CRYPTO.md5.unwrap()(b"abc", &mut short);
        begins(&short, &[0x90, 0x01, 0x50, 0x98]);
        CRYPTO.sha1.unwrap()(b"abc", &mut middle);
        begins(&middle, &[0xa9, 0x99, 0x3e, 0x36]);
        CRYPTO.sha256.unwrap()(b"abc", &mut long);
        begins(&long, &[0xba, 0x78, 0x16, 0xbf]);
        CRYPTO.sha3_256.unwrap()(b"abc", &mut long);
        begins(&long, &[0x3a, 0x98, 0x5d, 0xa7]);
    }

    #[test]
    fn random_bytes_differ() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        random(&mut a).unwrap();
        random(&mut b).unwrap();
        assert_ne!(a, b);
    }
}
