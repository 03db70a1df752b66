// SPDX-License-Identifier: GPL-2.0-only

use super::*;
use zerocopy::FromBytes;
use zerocopy::IntoBytes;

#[test]
fn lengths_of_data_segments_round_trip() {
    for bytes in [
        0,
        1,
        2,
        3,
        4,
        255,
        256,
        65_535,
        65_536,
        DataSegmentLength::MAX,
    ] {
        assert_eq!(
            DataSegmentLength::new(bytes).map(DataSegmentLength::bytes),
            Some(bytes)
        );
    }
    assert_eq!(DataSegmentLength::new(DataSegmentLength::MAX + 1), None);
    let padding: [u32; 5] = [0, 1, 2, 3, 4]
        .map(|bytes| DataSegmentLength::new(bytes).map_or(9, DataSegmentLength::padding));
    assert_eq!(padding, [0, 3, 2, 1, 0]);
}

#[test]
fn luns_use_the_addressing_that_their_size_asks_for() {
    assert_eq!(lun_field(0), Some([0; 8]));
    assert_eq!(lun_field(1), Some([0, 1, 0, 0, 0, 0, 0, 0]));
    assert_eq!(lun_field(255), Some([0, 255, 0, 0, 0, 0, 0, 0]));
    assert_eq!(lun_field(256), Some([0x41, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(lun_field(0x3fff), Some([0x7f, 0xff, 0, 0, 0, 0, 0, 0]));
    assert_eq!(lun_field(0x4000), None);
}

/// Offsets as the figures of RFC 7143 section 11 give them.
#[test]
fn fields_stand_where_the_rfc_puts_them() {
    let mut bytes = [0u8; BHS_BYTES];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = i as u8;
    }
    let at = |i: u8| u32::from_be_bytes([i, i + 1, i + 2, i + 3]);
    let data_in = DataIn::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (data_in.flags, data_in.status, data_in.ahs_words),
        (1, 3, 4)
    );
    assert_eq!(data_in.data_len.bytes(), 0x0005_0607);
    assert_eq!(
        (data_in.itt.get(), data_in.ttt.get(), data_in.stat_sn.get()),
        (at(16), at(20), at(24))
    );
    assert_eq!(
        (data_in.exp_cmd_sn.get(), data_in.max_cmd_sn.get()),
        (at(28), at(32))
    );
    assert_eq!(
        (
            data_in.data_sn.get(),
            data_in.buffer_offset.get(),
            data_in.residual.get()
        ),
        (at(36), at(40), at(44))
    );
    let response = ScsiResponse::read_from_bytes(&bytes).unwrap();
    assert_eq!((response.response, response.status), (2, 3));
    assert_eq!(
        (response.exp_data_sn.get(), response.residual.get()),
        (at(36), at(44))
    );
    let login = LoginResponse::read_from_bytes(&bytes).unwrap();
    assert_eq!((login.tsih.get(), login.itt.get()), (0x0e0f, at(16)));
    assert_eq!((login.status_class, login.status_detail), (36, 37));
    let command = ScsiCommand::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (
            command.expected_bytes.get(),
            command.cmd_sn.get(),
            command.exp_stat_sn.get()
        ),
        (at(20), at(24), at(28))
    );
    assert_eq!(
        command.cdb,
        [32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47]
    );
    let event = AsyncMessage::read_from_bytes(&bytes).unwrap();
    assert_eq!((event.event, event.vendor), (36, 37));
    assert_eq!(event.parameter3.get(), 0x2a2b);
    let logout = LogoutResponse::read_from_bytes(&bytes).unwrap();
    assert_eq!(
        (logout.time2wait.get(), logout.time2retain.get()),
        (0x2829, 0x2a2b)
    );
    assert_eq!(logout.as_bytes(), bytes);
}
