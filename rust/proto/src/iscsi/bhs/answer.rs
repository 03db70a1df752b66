// SPDX-License-Identifier: GPL-2.0-only

//! Headers of what a target sends.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DataSegmentLength, BHS_BYTES};

header! {
    /// SCSI Response (11.4).
    ScsiResponse {
        /// Residual bits.
        flags: u8,
        /// iSCSI service response: 0 means that `status` is valid.
        response: u8,
        /// SCSI status.
        status: u8,
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of sense and response data.
        data_len: DataSegmentLength,
        /// Zero.
        reserved: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Not used at ErrorRecoveryLevel 0.
        snack_tag: U32,
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// How many Data-In PDUs the target sent for this command.
        exp_data_sn: U32,
        /// Only for bidirectional commands.
        bidirectional_residual: U32,
        /// Bytes not transferred.
        residual: U32,
    }
}

header! {
    /// SCSI Data-In (11.7).
    DataIn {
        /// F, A, O, U, S.
        flags: u8,
        /// Zero.
        reserved: u8,
        /// SCSI status, if S is set.
        status: u8,
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of the data.
        data_len: DataSegmentLength,
        /// Logical unit number, only with A.
        lun: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Target transfer tag, only with A.
        ttt: U32,
        /// Status sequence number, if S is set.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// Number of this PDU within its command, from 0.
        data_sn: U32,
        /// Where the data belongs in the transfer.
        buffer_offset: U32,
        /// Bytes not transferred, if S is set.
        residual: U32,
    }
}

header! {
    /// NOP-In (11.19).
    NopIn {
        /// F.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of ping data.
        data_len: DataSegmentLength,
        /// To be copied into the answer.
        lun: [u8; 8],
        /// Tag of the NOP-Out that is answered, or none.
        itt: U32,
        /// To be copied into the answer; none if no answer is wanted.
        ttt: U32,
        /// Status sequence number; the next one if `itt` is none.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// Zero.
        reserved2: [u8; 12],
    }
}

header! {
    /// Login Response (11.13).
    LoginResponse {
        /// T, C, CSG, NSG.
        flags: u8,
        /// Highest version that the target speaks.
        version_max: u8,
        /// The version in use.
        version_active: u8,
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of the text.
        data_len: DataSegmentLength,
        /// As in the request.
        isid: [u8; 6],
        /// Target's part of the session's name.
        tsih: U16,
        /// As in the request.
        itt: U32,
        /// Zero.
        reserved: [u8; 4],
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// 0 success, 1 redirection, 2 initiator's error, 3 target's error.
        status_class: u8,
        /// More about it.
        status_detail: u8,
        /// Zero.
        reserved2: [u8; 10],
    }
}

header! {
    /// Logout Response (11.15).
    LogoutResponse {
        /// F.
        flags: u8,
        /// 0: closed.
        response: u8,
        /// Zero.
        reserved: u8,
        /// Length of additional headers.
        ahs_words: u8,
        /// Zero.
        data_len: DataSegmentLength,
        /// Zero.
        reserved2: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Zero.
        reserved3: [u8; 4],
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// Zero.
        reserved4: [u8; 4],
        /// Seconds to wait before the next connection.
        time2wait: U16,
        /// Seconds that the target keeps tasks.
        time2retain: U16,
        /// Zero.
        reserved5: [u8; 4],
    }
}

header! {
    /// Asynchronous Message (11.9).
    AsyncMessage {
        /// F.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of sense data or of what a vendor sends.
        data_len: DataSegmentLength,
        /// Logical unit number.
        lun: [u8; 8],
        /// None.
        itt: U32,
        /// Zero.
        reserved2: [u8; 4],
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// What happened.
        event: u8,
        /// Vendor's code.
        vendor: u8,
        /// Depends on the event.
        parameter1: U16,
        /// Depends on the event: seconds to wait.
        parameter2: U16,
        /// Depends on the event: seconds until something.
        parameter3: U16,
        /// Zero.
        reserved3: [u8; 4],
    }
}

header! {
    /// Reject (11.17); its data segment starts with the header of the PDU that is rejected.
    Reject {
        /// F.
        flags: u8,
        /// Why.
        reason: u8,
        /// Zero.
        reserved: u8,
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of what is quoted.
        data_len: DataSegmentLength,
        /// Zero.
        reserved2: [u8; 8],
        /// None.
        itt: U32,
        /// Zero.
        reserved3: [u8; 4],
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// Only for rejected SNACKs.
        data_sn: U32,
        /// Zero.
        reserved4: [u8; 8],
    }
}

header! {
    /// Text Response (11.11).
    TextResponse {
        /// F and C.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
        /// Length of additional headers.
        ahs_words: u8,
        /// Length of the text.
        data_len: DataSegmentLength,
        /// To be copied into the request that asks for the rest, like the tag (11.11.4).
        lun: [u8; 8],
        /// As in the request.
        itt: U32,
        /// To be copied into the request that asks for the rest; none if there is none.
        ttt: U32,
        /// Status sequence number.
        stat_sn: U32,
        /// Next command sequence number that the target expects.
        exp_cmd_sn: U32,
        /// Last command sequence number that the target takes.
        max_cmd_sn: U32,
        /// Zero.
        reserved2: [u8; 12],
    }
}
