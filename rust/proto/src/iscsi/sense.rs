// SPDX-License-Identifier: GPL-2.0-only

//! SCSI status and sense data.

/// SCSI status codes (SAM).
pub mod status {
    /// GOOD.
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION: sense data tells more.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// BUSY.
    pub const BUSY: u8 = 0x08;
    /// RESERVATION CONFLICT.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// TASK SET FULL.
    pub const TASK_SET_FULL: u8 = 0x28;
    /// ACA ACTIVE.
    pub const ACA_ACTIVE: u8 = 0x30;
    /// TASK ABORTED.
    pub const TASK_ABORTED: u8 = 0x40;
}

/// Sense keys (SPC).
pub mod key {
    /// NO SENSE.
    pub const NO_SENSE: u8 = 0x0;
    /// RECOVERED ERROR: the data is good.
    pub const RECOVERED: u8 = 0x1;
    /// NOT READY.
    pub const NOT_READY: u8 = 0x2;
    /// MEDIUM ERROR.
    pub const MEDIUM: u8 = 0x3;
    /// HARDWARE ERROR.
    pub const HARDWARE: u8 = 0x4;
    /// ILLEGAL REQUEST.
    pub const ILLEGAL_REQUEST: u8 = 0x5;
    /// UNIT ATTENTION.
    pub const UNIT_ATTENTION: u8 = 0x6;
    /// ABORTED COMMAND.
    pub const ABORTED: u8 = 0xb;
}

/// Key, additional code and qualifier: what matters of sense data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
    /// The condition belongs to an earlier command, not to the one that was answered.
    pub deferred: bool,
}

impl Sense {
    /// Reads sense data in fixed (0x70, 0x71) or descriptor (0x72, 0x73) format.
    ///
    /// A truncated fixed format still has its key; code and qualifier then count as zero, as SPC says of bytes that
    /// were not returned. `None` for anything that is no sense data.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let code = data.first()? & 0x7f;
        let at = |i: usize| data.get(i).copied().unwrap_or(0);
        match code {
            0x70 | 0x71 => Some(Self {
                key: data.get(2)? & 0x0f,
                asc: at(12),
                ascq: at(13),
                deferred: code == 0x71,
            }),
            0x72 | 0x73 => Some(Self {
                key: data.get(1)? & 0x0f,
                asc: at(2),
                ascq: at(3),
                deferred: code == 0x73,
            }),
            _ => None,
        }
    }

    /// The sense data within the data segment of a SCSI Response (RFC 7143 section 11.4.7): two bytes of length, then
    /// that many bytes. A length that reaches beyond the segment is no sense data.
    pub fn from_segment(segment: &[u8]) -> Option<Self> {
        let (len, rest) = segment.split_first_chunk::<2>()?;
        Self::parse(rest.get(..usize::from(u16::from_be_bytes(*len)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::Sense;
    use proptest::prelude::*;
    use std::prelude::v1::*;
    use std::vec;

    fn fixed(code: u8, key: u8, asc: u8, ascq: u8) -> [u8; 18] {
        let mut data = [0; 18];
        (data[0], data[2], data[7], data[12], data[13]) = (code, key, 10, asc, ascq);
        data
    }

    #[test]
    fn both_formats_and_deferred_errors_are_read() {
        let sense = |key, asc, ascq, deferred| {
            Some(Sense {
                key,
                asc,
                ascq,
                deferred,
            })
        };
        assert_eq!(
            Sense::parse(&fixed(0xf0, 3, 0x11, 4)),
            sense(3, 0x11, 4, false)
        );
        assert_eq!(
            Sense::parse(&fixed(0x71, 6, 0x29, 0)),
            sense(6, 0x29, 0, true)
        );
        assert_eq!(
            Sense::parse(&[0x72, 5, 0x25, 1, 0, 0, 0, 0]),
            sense(5, 0x25, 1, false)
        );
        assert_eq!(
            Sense::parse(&[0x73, 5, 0x25, 1, 0, 0, 0, 0]),
            sense(5, 0x25, 1, true)
        );
        assert_eq!(Sense::parse(&[0x70, 0, 2]), sense(2, 0, 0, false));
        assert_eq!(Sense::parse(&[0x70, 0]), None);
        assert_eq!(Sense::parse(&[0x00; 18]), None);
    }

    #[test]
    fn a_segment_bounds_its_sense_data() {
        let mut segment = vec![0, 18];
        segment.extend_from_slice(&fixed(0x70, 6, 0x29, 0));
        assert_eq!(Sense::from_segment(&segment).map(|s| s.key), Some(6));
        segment[1] = 19;
        assert_eq!(Sense::from_segment(&segment), None);
        assert_eq!(Sense::from_segment(&[]), None);
        assert_eq!(Sense::from_segment(&[0]), None);
        assert_eq!(Sense::from_segment(&[0, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(data: Vec<u8>) {
            let _ = Sense::parse(&data);
            let _ = Sense::from_segment(&data);
        }
    }
}
