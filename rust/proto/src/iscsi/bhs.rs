// SPDX-License-Identifier: GPL-2.0-only

//! Basic header segments, RFC 7143 section 11: 48 bytes, big-endian, one type for each PDU that this initiator sends
//! or may be sent.
//!
//! Every type is plain bytes: any 48 bytes are a value of each of them. Whether the fields make sense is judged by
//! whoever reads them.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a basic header segment.
pub const BHS_BYTES: usize = 48;
/// The tag that means "none" (RFC 7143 sections 11.2.1.8 and 11.18).
pub const NO_TAG: u32 = 0xffff_ffff;
/// What a receiver accepts in one data segment until it declares something else, and always during login (13.12).
pub const DEFAULT_MAX_RECV_BYTES: u32 = 8192;

/// Operation codes, RFC 7143 section 11.2.1.2.
pub mod opcode {
    /// The six bits of byte 0 that hold the operation code.
    pub const MASK: u8 = 0x3f;
    /// The I bit of byte 0: this request is for immediate delivery.
    pub const IMMEDIATE: u8 = 0x40;
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const SCSI_COMMAND: u8 = 0x01;
    /// Login Request.
    pub const LOGIN_REQUEST: u8 = 0x03;
    /// Text Request.
    pub const TEXT_REQUEST: u8 = 0x04;
    /// Logout Request.
    pub const LOGOUT_REQUEST: u8 = 0x06;
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const SCSI_RESPONSE: u8 = 0x21;
    /// SCSI Task Management Function Response.
    pub const TASK_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC_MESSAGE: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// Bits of byte 1.
pub mod flag {
    /// F: the last PDU of a sequence; on most PDUs simply set.
    pub const FINAL: u8 = 0x80;
    /// R of a SCSI Command: data is expected to come in (11.3.1).
    pub const READ: u8 = 0x40;
    /// ATTR of a SCSI Command: simple task (11.3.1).
    pub const SIMPLE: u8 = 0x01;
    /// A of a Data-In: an acknowledgement is asked for (11.7.2).
    pub const ACKNOWLEDGE: u8 = 0x40;
    /// S of a Data-In: it carries the status (11.7.3).
    pub const STATUS: u8 = 0x01;
    /// O of Data-In and SCSI Response: residual overflow (11.4.1).
    pub const OVERFLOW: u8 = 0x04;
    /// U of Data-In and SCSI Response: residual underflow (11.4.1).
    pub const UNDERFLOW: u8 = 0x02;
    /// T of a login PDU: go to the next stage (11.12.1).
    pub const TRANSIT: u8 = 0x80;
    /// C of a login or text PDU: the text goes on in the next one (11.12.2, 11.10.2).
    pub const CONTINUE: u8 = 0x40;
}

/// The 24-bit length of a data segment, without its padding.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct DataSegmentLength([u8; 3]);

impl DataSegmentLength {
    /// The greatest length that fits.
    pub const MAX: u32 = 0x00ff_ffff;

    /// `bytes` as a field, or `None` if it does not fit.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes > Self::MAX {
            return None;
        }
        let [_, a, b, c] = bytes.to_be_bytes();
        Some(Self([a, b, c]))
    }

    /// The length in bytes.
    pub const fn bytes(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_be_bytes([0, a, b, c])
    }

    /// How many bytes of padding follow a segment of this length (11.2.4: segments end at a multiple of four).
    pub const fn padding(self) -> u32 {
        self.bytes().wrapping_neg() & 3
    }
}

macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name {
            /// Operation code and, in requests, the I bit.
            pub opcode: u8,
            $($(#[$field_doc])* pub $field: $type,)*
        }
        const _: () = assert!(core::mem::size_of::<$name>() == BHS_BYTES);

        impl $name {
            /// The header that `bytes` hold.
            pub fn decode(bytes: &[u8; BHS_BYTES]) -> Self {
                // The lengths are equal (asserted above), so the default is never taken.
                Self::read_from_bytes(bytes).unwrap_or_default()
            }

            /// The header as bytes.
            pub fn encode(&self) -> [u8; BHS_BYTES] {
                let mut bytes = [0; BHS_BYTES];
                bytes.copy_from_slice(self.as_bytes());
                bytes
            }
        }
    };
}

// Below the macro that they use.
mod answer;
mod request;

pub use answer::{
    AsyncMessage, DataIn, LoginResponse, LogoutResponse, NopIn, Reject, ScsiResponse, TextResponse,
};
pub use request::{LoginRequest, LogoutRequest, NopOut, ScsiCommand, TextRequest};

header! {
    /// What every header has at the same place (11.2.1); enough to frame a PDU.
    AnyHeader {
        /// Depends on the operation code.
        flags: u8,
        /// Depends on the operation code.
        specific: [u8; 2],
        /// Length of the additional header segments in words of four bytes.
        ahs_words: u8,
        /// Length of the data segment.
        data_len: DataSegmentLength,
        /// LUN or something else.
        lun: [u8; 8],
        /// Initiator task tag.
        itt: U32,
        /// Target transfer tag or something else.
        ttt: U32,
        /// In PDUs of the target: StatSN.
        stat_sn: U32,
        /// In PDUs of the target: ExpCmdSN.
        exp_cmd_sn: U32,
        /// In PDUs of the target: MaxCmdSN.
        max_cmd_sn: U32,
        /// Depends on the operation code.
        rest: [u8; 12],
    }
}

/// A logical unit number in its eight-byte form (SAM: peripheral device addressing up to 255, flat space above).
///
/// `None` if the number does not fit the flat space.
pub const fn lun_field(lun: u64) -> Option<[u8; 8]> {
    if lun > 0x3fff {
        return None;
    }
    let [high, low] = (lun as u16).to_be_bytes();
    let method = if lun > 255 { 0x40 } else { 0 };
    Some([high | method, low, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests;
