// SPDX-License-Identifier: GPL-2.0-only

//! Headers of what this initiator sends.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DataSegmentLength, BHS_BYTES};

header! {
    /// SCSI Command (11.3).
    ScsiCommand {
        /// F, R, W and ATTR.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// No additional headers are used.
        ahs_words: u8,
        /// No immediate data is sent.
        data_len: DataSegmentLength,
        /// Logical unit number.
        lun: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Expected data transfer length in bytes.
        expected_bytes: U32,
        /// Command sequence number.
        cmd_sn: U32,
        /// Next status sequence number expected.
        exp_stat_sn: U32,
        /// Command descriptor block.
        cdb: [u8; 16],
    }
}

header! {
    /// NOP-Out (11.18).
    NopOut {
        /// F.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// No additional headers are used.
        ahs_words: u8,
        /// Length of ping data.
        data_len: DataSegmentLength,
        /// Copied from the NOP-In that is answered.
        lun: [u8; 8],
        /// Initiator task tag, or none for an answer.
        itt: U32,
        /// Copied from the NOP-In that is answered, or none.
        ttt: U32,
        /// Command sequence number.
        cmd_sn: U32,
        /// Next status sequence number expected.
        exp_stat_sn: U32,
        /// Zero.
        reserved2: [u8; 16],
    }
}

header! {
    /// Login Request (11.12).
    LoginRequest {
        /// T, C, CSG, NSG.
        flags: u8,
        /// Highest version of the protocol that is spoken: 0.
        version_max: u8,
        /// Lowest: 0.
        version_min: u8,
        /// No additional headers are used.
        ahs_words: u8,
        /// Length of the text.
        data_len: DataSegmentLength,
        /// Initiator's part of the session's name.
        isid: [u8; 6],
        /// Target's part of the session's name, 0 for a new session.
        tsih: U16,
        /// The same for the whole login.
        itt: U32,
        /// Connection within the session.
        cid: U16,
        /// Zero.
        reserved: [u8; 2],
        /// Command sequence number of the first command after the login.
        cmd_sn: U32,
        /// Next status sequence number expected.
        exp_stat_sn: U32,
        /// Zero.
        reserved2: [u8; 16],
    }
}

header! {
    /// Logout Request (11.14).
    LogoutRequest {
        /// F and the reason code.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// No additional headers are used.
        ahs_words: u8,
        /// Zero.
        data_len: DataSegmentLength,
        /// Zero.
        reserved2: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Connection within the session.
        cid: U16,
        /// Zero.
        reserved3: [u8; 2],
        /// Command sequence number.
        cmd_sn: U32,
        /// Next status sequence number expected.
        exp_stat_sn: U32,
        /// Zero.
        reserved4: [u8; 16],
    }
}

header! {
    /// Text Request (11.10).
    TextRequest {
        /// F and C.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// No additional headers are used.
        ahs_words: u8,
        /// Length of the text.
        data_len: DataSegmentLength,
        /// Copied from the response that is continued, or zero.
        lun: [u8; 8],
        /// The same for all requests of one exchange.
        itt: U32,
        /// Copied from the response that is continued, or none.
        ttt: U32,
        /// Command sequence number.
        cmd_sn: U32,
        /// Next status sequence number expected.
        exp_stat_sn: U32,
        /// Zero.
        reserved2: [u8; 16],
    }
}
