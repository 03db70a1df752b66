// SPDX-License-Identifier: GPL-2.0-only

//! What an input makes the scripted target do.

use std::sync::Arc;

use imgstream_testtarget::{
    Announcement, Fault, ForgedTag, LoginFault, Plan, ReadFault, Settings, Target,
};

use crate::input::Input;
use crate::peer::{IMAGE, IMAGE_BYTES};

/// How the target behaves from the next connection on: nothing that is forbidden.
pub(crate) fn settle(settings: &mut Settings, how: u8) {
    let has = |bit: u8| how & bit != 0;
    settings.separate_status = has(2);
    settings.segment_bytes = if has(4) { 512 } else { 262_144 };
    settings.max_burst_bytes = if has(8) { 4096 } else { 262_144 };
    settings.window = if has(16) { 1 } else { 64 };
    settings.first_stat_sn = if has(32) { u32::MAX - 8 } else { 1 };
    settings.text_piece = has(64).then_some(100);
    settings.attentions = vec![if has(128) { (0x2a, 9) } else { (0x29, 0) }];
}

/// Who answers from the next connection on: the right unit, or one that must not be read from.
pub(crate) fn replace(target: &mut Target, how: u8) {
    let right = Settings::default();
    target.store = IMAGE.clone();
    target.settings.lun = right.lun;
    target.settings.designator = right.designator;
    target.settings.capacity_bytes = None;
    match how % 6 {
        1 => target.settings.lun = 2,
        2 => target.settings.designator = None,
        3 => target.settings.designator = Some([0x60, 0, 0, 0, 0, 0, 0, 1]),
        4 => target.settings.capacity_bytes = Some(IMAGE_BYTES as u64 / 2),
        5 => target.store = Arc::new(vec![0xee; IMAGE_BYTES]),
        _ => {}
    }
}

/// A fault, and where it is played.
pub(crate) fn plan(input: &mut Input<'_>) -> Plan {
    let (place, kind, a, b) = (input.byte(), input.byte(), input.byte(), input.byte());
    Plan {
        connection: None,
        nth: (place & 0xf0 != 0xf0).then_some(u32::from(place >> 4)),
        times: u32::from(place & 0x0f) + 1,
        fault: fault(kind, a, b),
    }
}

fn fault(kind: u8, a: u8, b: u8) -> Fault {
    match kind % 56 {
        0 => Fault::Ping(u32::from(a % 32)),
        1 => Fault::CloseWindow,
        2 => Fault::Async(Announcement {
            event: a % 8,
            parameters: [0, b.into(), b.into()],
            sense: (a & 8 != 0).then_some((6, 0x2a, b)),
        }),
        3 => Fault::Mute,
        48 => Fault::News(u32::from(a)),
        49 => Fault::Login(LoginFault::Transit),
        50 => Fault::Login(LoginFault::Hold),
        kind @ 4..=15 => Fault::Login(login_fault(kind, a, b)),
        kind => Fault::Read(read_fault(kind, a, b)),
    }
}

fn login_fault(kind: u8, a: u8, b: u8) -> LoginFault {
    match kind {
        4 => LoginFault::Status(a, b),
        5 => LoginFault::Stage,
        6 => LoginFault::NextStage,
        7 => LoginFault::ContinueAndTransit,
        8 => LoginFault::Endless,
        9 => LoginFault::NoHandle,
        10 => LoginFault::Version,
        11 => LoginFault::Tag,
        12 => LoginFault::Text(vec![a, b]),
        13 => LoginFault::Opcode(a),
        14 => LoginFault::Silence,
        _ => LoginFault::StatSn,
    }
}

/// Those that tell no lie about which bytes are where: a late tag can give one read's bytes to another.
fn read_fault(kind: u8, a: u8, b: u8) -> ReadFault {
    let bytes = u32::from(a) * 17;
    match kind {
        16 => ReadFault::Reset(bytes as usize),
        17 => ReadFault::Stall,
        18 => ReadFault::Short(bytes),
        19 => ReadFault::Nothing,
        20 => ReadFault::Missing,
        21 => ReadFault::Hole,
        22 => ReadFault::Duplicate,
        23 => ReadFault::Overlap,
        24 => ReadFault::Beyond,
        25 => ReadFault::Wrap,
        26 => ReadFault::WrongTag,
        27 => ReadFault::DataSn,
        28 => ReadFault::Acknowledge,
        29 => ReadFault::StatusWithoutFinal,
        30 => ReadFault::Residual,
        31 if a == 0 => ReadFault::DataStatus(b),
        31 => ReadFault::Response(a),
        32 => ReadFault::BadSense,
        33 => ReadFault::StatSn,
        34 => ReadFault::ExpDataSn,
        35 => ReadFault::Oversize,
        36 => ReadFault::AdditionalHeaders,
        37 => ReadFault::R2t,
        38 => ReadFault::Opcode(a),
        39 => ReadFault::Reject,
        40 => ReadFault::ForgedReject,
        41 => ReadFault::ForgedPong,
        42 | 43 => ReadFault::Status(a),
        51 => ReadFault::SenseLength(a.into(), b.into()),
        52 => ReadFault::Empty(u32::from(a % 32)),
        53 => ReadFault::Forged(a, ForgedTag::Live),
        54 => ReadFault::Forged(a, ForgedTag::Unknown),
        55 => ReadFault::Forged(a, ForgedTag::Reserved),
        _ => ReadFault::Sense((kind & 3) | (a & 0x0c), (a >> 4) | 0x20, b),
    }
}
