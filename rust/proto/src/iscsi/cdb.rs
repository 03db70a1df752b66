// SPDX-License-Identifier: GPL-2.0-only

//! The SCSI commands that this initiator can send at all.
//!
//! This type is the allow-list: there is no other way to a command descriptor block, and nothing in it writes,
//! unmaps, reserves or formats.

/// Transfer length of READ CAPACITY(16) that covers all of its fixed part (SBC).
pub const READ_CAPACITY_BYTES: u32 = 32;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TEST UNIT READY.
    TestUnitReady,
    /// INQUIRY, standard data.
    Inquiry {
        /// Room for the answer.
        bytes: u16,
    },
    /// INQUIRY, a page of vital product data.
    InquiryVpd {
        /// Page code.
        page: u8,
        /// Room for the answer.
        bytes: u16,
    },
    /// READ CAPACITY(16).
    ReadCapacity16,
    /// READ(16).
    Read16 {
        /// First logical block.
        lba: u64,
        /// Number of logical blocks.
        blocks: u32,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// Room for the answer.
        bytes: u32,
    },
}

impl Command {
    /// Operation code of READ(16).
    pub const READ_16: u8 = 0x88;

    /// The command descriptor block, padded to the 16 bytes that a SCSI Command PDU has room for.
    pub const fn encode(self) -> [u8; 16] {
        let mut cdb = [0; 16];
        match self {
            Self::TestUnitReady => {}
            Self::Inquiry { bytes } => {
                cdb[0] = 0x12;
                [cdb[3], cdb[4]] = bytes.to_be_bytes();
            }
            Self::InquiryVpd { page, bytes } => {
                cdb[0] = 0x12;
                cdb[1] = 1;
                cdb[2] = page;
                [cdb[3], cdb[4]] = bytes.to_be_bytes();
            }
            Self::ReadCapacity16 => {
                cdb[0] = 0x9e;
                cdb[1] = 0x10;
                [cdb[10], cdb[11], cdb[12], cdb[13]] = READ_CAPACITY_BYTES.to_be_bytes();
            }
            Self::Read16 { lba, blocks } => {
                cdb[0] = Self::READ_16;
                [
                    cdb[2], cdb[3], cdb[4], cdb[5], cdb[6], cdb[7], cdb[8], cdb[9],
                ] = lba.to_be_bytes();
                [cdb[10], cdb[11], cdb[12], cdb[13]] = blocks.to_be_bytes();
            }
            Self::ReportLuns { bytes } => {
                cdb[0] = 0xa0;
                [cdb[6], cdb[7], cdb[8], cdb[9]] = bytes.to_be_bytes();
            }
        }
        cdb
    }
}

#[cfg(test)]
mod tests {
    use super::Command;

    #[test]
    fn blocks_are_laid_out_as_spc_and_sbc_say() {
        assert_eq!(Command::TestUnitReady.encode(), [0; 16]);
        assert_eq!(
            Command::Inquiry { bytes: 96 }.encode(),
            [0x12, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let vpd = Command::InquiryVpd {
            page: 0x83,
            bytes: 0x1234,
        }
        .encode();
        assert_eq!(
            vpd,
            [0x12, 1, 0x83, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let capacity = Command::ReadCapacity16.encode();
        assert_eq!(
            capacity,
            [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]
        );
        let read = Command::Read16 {
            lba: 0x0102_0304_0506_0708,
            blocks: 0x0a0b_0c0d,
        }
        .encode();
        assert_eq!(
            read,
            [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0]
        );
        let luns = Command::ReportLuns { bytes: 4096 }.encode();
        assert_eq!(luns, [0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
}
