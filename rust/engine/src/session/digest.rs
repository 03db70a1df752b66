// SPDX-License-Identifier: GPL-2.0-only

//! Digests of the full feature phase (RFC 7143 sections 11.2.3, 11.2.4 and 13.1): which are in effect, and what follows
//! from a wrong one.
//!
//! A wrong header digest means that nothing is known of the stream any more; a wrong data digest could be answered by
//! asking for that data again, but not at ErrorRecoveryLevel 0 (7.8). Both lead to the one reaction.

use core::ops::DerefMut;

use imgstream_proto::iscsi::bhs::{opcode, AnyHeader, BHS_BYTES};
use imgstream_proto::iscsi::digest::{encode, Digests, DIGEST_BYTES};

use super::reason::{Reason, Violation};
use super::{Session, Stage};

impl<B: DerefMut<Target = [u8]>> Session<B> {
    /// What the connection protects, from its first PDU after the login on (13.1). Nothing where there is none.
    pub fn digests(&self) -> Digests {
        match self.stage {
            Stage::Down | Stage::Login => Digests::default(),
            Stage::Identify | Stage::Ready | Stage::Discover | Stage::Logout => {
                self.login.agreed().digests
            }
        }
    }

    /// What was received into the buffer of a read has the CRC-32C `crc`, continued from the one in [`super::Want::Data`].
    /// To be called before [`Self::got`]; who forgets it is told that the digest is wrong.
    pub fn checked(&mut self, crc: u32) {
        self.receive.set_crc(crc);
    }

    /// The digest that goes behind a header of ours.
    pub(super) fn header_digest(&self, header: &[u8; BHS_BYTES]) -> Option<[u8; DIGEST_BYTES]> {
        let on = self.digests().header;
        on.then(|| encode((self.config.crc32c)(0, header)))
    }

    /// The digest that goes behind data of ours.
    pub(super) fn data_digest(&self, data: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
        let on = self.digests().data;
        on.then(|| encode((self.config.crc32c)(0, data)))
    }

    /// Whether the header that was received is what its digest says.
    pub(super) fn header_is_right(&self, digest: [u8; DIGEST_BYTES]) -> bool {
        self.header_digest(self.receive.header())
            .is_none_or(|right| right == digest)
    }

    /// The data of the PDU at hand is not what its digest says. If it is a read's, its header tells whose: that read is
    /// not asked for over and over again.
    pub(super) fn data_is_wrong(&mut self) {
        let reason = Reason::Protocol(Violation::DataDigest);
        let header = AnyHeader::decode(self.receive.header());
        if header.opcode & opcode::MASK == opcode::DATA_IN {
            self.end_owner_of(header.itt.get(), reason);
        } else {
            self.end(reason);
        }
    }
}
