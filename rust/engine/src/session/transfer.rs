// SPDX-License-Identifier: GPL-2.0-only

//! The bytes of one command: which may come next, and whether all came (design rule 7).

use imgstream_proto::iscsi::bhs::{flag, DataIn, ScsiResponse};

use super::reason::{Reason, Violation};

/// What one command has received.
///
/// # Invariants
///
/// `received <= len`, and the bytes received are exactly `[0, received)`: each came once, in order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transfer {
    /// Bytes asked for (the command's expected data transfer length).
    len: u32,
    /// The command may end with fewer bytes, as INQUIRY does.
    short: bool,
    received: u32,
    data_sn: u32,
}

impl Transfer {
    /// A command that must bring exactly `len` bytes.
    pub(super) const fn exact(len: u32) -> Self {
        Self {
            len,
            short: false,
            received: 0,
            data_sn: 0,
        }
    }

    /// A command that brings up to `len` bytes.
    pub(super) const fn up_to(len: u32) -> Self {
        Self {
            len,
            short: true,
            received: 0,
            data_sn: 0,
        }
    }

    /// Bytes asked for.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Bytes received so far.
    pub(super) const fn received(&self) -> u32 {
        self.received
    }

    /// Whether the data that `header` announces may come now (RFC 7143 section 11.7).
    ///
    /// We negotiate DataPDUInOrder and DataSequenceInOrder, so data that does not start where the last ended is an
    /// error even where it would fit (13.18, 13.19).
    pub(super) fn check(&self, header: &DataIn) -> Result<(), Reason> {
        let violation = self.violation(header);
        violation.map_or(Ok(()), |v| Err(Reason::Protocol(v)))
    }

    fn violation(&self, header: &DataIn) -> Option<Violation> {
        let has = |bit: u8| header.flags & bit != 0;
        // S is only set together with F (11.7.3). A is ignored at ErrorRecoveryLevel 0 (11.7.2).
        if has(flag::STATUS) && !has(flag::FINAL) {
            return Some(Violation::DataFlags);
        }
        if header.data_sn.get() != self.data_sn {
            return Some(Violation::DataSn);
        }
        let bytes = header.data_len.bytes();
        let end = header.buffer_offset.get().checked_add(bytes);
        if end.is_none_or(|end| end > self.len) {
            return Some(Violation::DataRange);
        }
        (header.buffer_offset.get() != self.received).then_some(Violation::DataOffset)
    }

    /// Takes note of the data of a PDU that [`Self::check`] let pass.
    pub(super) fn absorb(&mut self, header: &DataIn) {
        // INVARIANT: `check` proved that these bytes start at `received` and end within `len`.
        self.received = self
            .received
            .saturating_add(header.data_len.bytes())
            .min(self.len);
        self.data_sn = self.data_sn.wrapping_add(1);
    }

    /// Whether ExpDataSN of a SCSI Response agrees with what came (11.4.8).
    ///
    /// Zero is let pass: targets leave the field empty, and the bytes are counted anyway.
    pub(super) fn check_response(&self, header: &ScsiResponse) -> Result<(), Reason> {
        let announced = header.exp_data_sn.get();
        if announced != 0 && announced != self.data_sn {
            return Err(Reason::Protocol(Violation::ExpDataSn));
        }
        Ok(())
    }

    /// Whether a command that ended well brought what it had to.
    ///
    /// The count of received bytes decides; the residual (11.4.5) may not contradict it.
    pub(super) fn complete(&self, flags: u8, residual: u32) -> Result<(), Reason> {
        let missing = self.len.saturating_sub(self.received);
        if missing != 0 && !self.short {
            let short = Violation::ShortRead {
                expected: self.len,
                received: self.received,
            };
            return Err(Reason::Protocol(short));
        }
        let under = flags & flag::UNDERFLOW != 0;
        let over = flags & flag::OVERFLOW != 0;
        let told = if under { residual } else { 0 };
        // An overflow says that the command had more data than was asked for: possible for INQUIRY, not for a read.
        let contradiction = under && (over || told != missing);
        if contradiction || (over && !self.short) {
            return Err(Reason::Protocol(Violation::Residual));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgstream_proto::iscsi::bhs::DataSegmentLength;

    fn data(sn: u32, offset: u32, bytes: u32, flags: u8) -> DataIn {
        DataIn {
            flags,
            data_sn: sn.into(),
            buffer_offset: offset.into(),
            data_len: DataSegmentLength::new(bytes).unwrap(),
            ..DataIn::default()
        }
    }

    fn reason(violation: Violation) -> Result<(), Reason> {
        Err(Reason::Protocol(violation))
    }

    #[test]
    fn data_must_continue_where_it_ended() {
        let mut transfer = Transfer::exact(1024);
        let first = data(0, 0, 512, 0);
        assert_eq!(transfer.check(&first), Ok(()));
        transfer.absorb(&first);
        assert_eq!(
            transfer.check(&data(0, 512, 512, 0)),
            reason(Violation::DataSn)
        );
        assert_eq!(
            transfer.check(&data(1, 0, 512, 0)),
            reason(Violation::DataOffset)
        );
        assert_eq!(
            transfer.check(&data(1, 600, 4, 0)),
            reason(Violation::DataOffset)
        );
        assert_eq!(
            transfer.check(&data(1, 512, 513, 0)),
            reason(Violation::DataRange)
        );
        assert_eq!(
            transfer.check(&data(1, u32::MAX, 2, 0)),
            reason(Violation::DataRange)
        );
        assert_eq!(
            transfer.check(&data(1, 512, 512, flag::STATUS)),
            reason(Violation::DataFlags)
        );
        assert_eq!(
            transfer.check(&data(1, 512, 512, flag::ACKNOWLEDGE)),
            Ok(())
        );
        assert_eq!(transfer.check(&data(1, 512, 0, 0)), Ok(()));
        assert_eq!(
            transfer.check(&data(1, 512, 512, flag::FINAL | flag::STATUS)),
            Ok(())
        );
    }

    #[test]
    fn good_without_every_byte_is_an_error() {
        let mut transfer = Transfer::exact(1024);
        transfer.absorb(&data(0, 0, 1020, 0));
        let short = reason(Violation::ShortRead {
            expected: 1024,
            received: 1020,
        });
        assert_eq!(transfer.complete(0, 0), short);
        assert_eq!(transfer.complete(flag::UNDERFLOW, 4), short);
        transfer.absorb(&data(1, 1020, 4, 0));
        assert_eq!(transfer.complete(0, 0), Ok(()));
        assert_eq!(
            transfer.complete(flag::UNDERFLOW, 4),
            reason(Violation::Residual)
        );
        assert_eq!(
            transfer.complete(flag::OVERFLOW, 4),
            reason(Violation::Residual)
        );
    }

    #[test]
    fn short_answers_are_allowed_where_they_are_usual() {
        let mut transfer = Transfer::up_to(255);
        transfer.absorb(&data(0, 0, 66, 0));
        assert_eq!(transfer.complete(flag::UNDERFLOW, 189), Ok(()));
        assert_eq!(transfer.complete(0, 0), Ok(()));
        assert_eq!(transfer.complete(flag::OVERFLOW, 100), Ok(()));
        assert_eq!(
            transfer.complete(flag::UNDERFLOW, 188),
            reason(Violation::Residual)
        );
    }

    #[test]
    fn the_count_of_data_pdus_may_be_left_out_but_not_be_wrong() {
        let mut transfer = Transfer::exact(8);
        transfer.absorb(&data(0, 0, 8, 0));
        let response = |n: u32| ScsiResponse {
            exp_data_sn: n.into(),
            ..ScsiResponse::default()
        };
        assert_eq!(transfer.check_response(&response(1)), Ok(()));
        assert_eq!(transfer.check_response(&response(0)), Ok(()));
        assert_eq!(
            transfer.check_response(&response(2)),
            reason(Violation::ExpDataSn)
        );
    }
}
