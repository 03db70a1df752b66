// SPDX-License-Identifier: GPL-2.0-only

//! Inputs to begin with: what is right, made anew each time, so that they stay right when formats change.

use std::net::{IpAddr, Ipv4Addr};

use imgstream_proto::disk::journal::{Builder, Record};
use imgstream_proto::disk::settings::{Method, Network, Tunables};
use imgstream_proto::disk::{
    BootEntry, BootList, BootState, Bounded, Extent, Geometry, Header, Segment, Settings, State,
    Superblock, Trailer, BLOCK_BYTES,
};
use imgstream_proto::iscsi::bhs::{flag, AnyHeader, BHS_BYTES};
use imgstream_testtarget::Target;

use crate::disk::{crc, LUN_BYTES, PLACE, UUID};
use crate::peer::{config, Peer, IMAGE};
use crate::stream;
use crate::witness::whole;

/// Steps after which a recording that should have ended is stuck.
const MAX_STEPS: usize = 100;

/// What a target sends after a session was prepared for `mode` of the stream target.
fn recording(mode: u8, adapt: impl Fn(&mut Target)) -> Vec<u8> {
    let mut peer = Peer::new(config(mode & 4 != 0));
    let mut target = Target::new(IMAGE.clone());
    adapt(&mut target);
    let mut connection = target.accept();
    let mut request = stream::prepare(&mut peer, mode, &mut target, &mut connection);
    let mut all = Vec::new();
    for _ in 0..MAX_STEPS {
        connection.feed(&mut target, &request);
        let bytes = connection.take_out(usize::MAX);
        peer.receive(&bytes, false);
        all.extend(bytes);
        peer.events();
        request = peer.transmit_all();
    }
    all
}

pub(crate) fn streams() -> Vec<Vec<u8>> {
    let modes = (0..4).flat_map(|stage| [0x00, 0x04, 0x30].map(|more| stage | more));
    let input = |mode: u8| {
        let mut input = vec![mode, 1];
        input.extend(recording(mode, |_| {}));
        input.truncate(4096);
        input
    };
    modes.map(input).collect()
}

pub(crate) fn logins() -> Vec<Vec<u8>> {
    let plain = recording(0, |_| {});
    let pieces = recording(0, |t| t.settings.text_piece = Some(100));
    let proposals = recording(0, |t| {
        let keys = [
            "TaskReporting=RFC3720",
            "iSCSIProtocolLevel=2",
            "IFMarker=Yes",
            "X-a=b",
        ];
        let pairs = keys.map(|pair| pair.split_once('=').unwrap());
        t.settings.proposals = pairs.map(|(k, v)| (k.into(), v.into())).to_vec();
    });
    let recorded = [plain, pieces, proposals];
    recorded.iter().map(|r| login(r)).chain(chap()).collect()
}

/// CHAP as the login target computes it, one-way and mutual.
fn chap() -> [Vec<u8>; 2] {
    let login = |how: u8, challenge: &[u8], response: &[u8]| {
        let method = b"TargetPortalGroupTag=1\0AuthMethod=CHAP\0";
        let end = b"HeaderDigest=CRC32C\0DataDigest=CRC32C\0MaxBurstLength=65536\0";
        let answers: [(u8, &[u8]); 4] =
            [(0, method), (0, challenge), (0x81, response), (0x87, end)];
        let mut input = vec![how, 7, 255];
        for (flags, text) in answers {
            input.extend([flags, 0, text.len() as u8, 0]);
            input.extend_from_slice(text);
        }
        input
    };
    let response = format!("CHAP_N=the-target\0CHAP_R=0x{}\0", "07".repeat(32));
    [
        login(4, b"CHAP_A=5\0CHAP_I=7\0CHAP_C=0x123\0", b""),
        login(
            13,
            b"CHAP_A=7\0CHAP_I=255\0CHAP_C=0bAAAB\0",
            response.as_bytes(),
        ),
    ]
}

/// The answers to a login as the login target takes them.
fn login(mut recording: &[u8]) -> Vec<u8> {
    let mut input = vec![2, 7, 255];
    while let Some(len) = whole(recording) {
        let header = AnyHeader::decode(recording.first_chunk().unwrap());
        let text = &recording[BHS_BYTES..BHS_BYTES + header.data_len.bytes() as usize];
        input.extend([header.flags, 0, text.len() as u8, (text.len() >> 8) as u8]);
        input.extend_from_slice(text);
        recording = &recording[len..];
        if header.flags & (flag::TRANSIT | 3) == flag::TRANSIT | 3 {
            break;
        }
    }
    input
}

pub(crate) fn texts() -> Vec<Vec<u8>> {
    [
        &b"MaxBurstLength=262144\0InitialR2T=Yes\0X-n=0x1F\0"[..],
        b"TargetAddress=[2001:db8::1]:3260,1\0Empty=\0",
        b"no value\0",
        b"Not=terminated",
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}

pub(crate) fn answers() -> Vec<Vec<u8>> {
    let mut fixed = vec![0, 18, 0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0];
    fixed.resize(20, 0);
    let mut page = vec![0, 0x83, 0, 28, 1, 3, 0, 8, 0x60, 0, 0, 0, 1, 2, 3, 4];
    page.extend([
        1, 2, 0, 4, 1, 2, 3, 4, 2, 0x10, 0, 4, b'n', b'a', b'm', b'e',
    ]);
    let mut limits = vec![0, 0xb0, 0, 60];
    limits.resize(64, 1);
    let mut capacity = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0];
    capacity.resize(32, 0);
    let descriptor = vec![0, 8, 0x72, 5, 0x25, 0, 0, 0, 0, 0];
    vec![fixed, descriptor, page, limits, capacity]
}

/// One script for each fault of the target, each disturbance of the wire, and each of the rest.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    const READS: [u8; 12] = [0, 1, 0, 3, 0, 2, 16, 39, 0, 3, 64, 0];
    let script = |settings: u8, middle: &[u8]| [&[settings][..], &READS, middle, &[3, 40]].concat();
    // On each connection the first three reads are the identity check's.
    let fault =
        |place: u8| (0..56).map(move |kind| script((kind << 1) | 1, &[10, place, kind, 0x51, 1]));
    let faults = fault(0x12).chain(fault(0x43));
    let disturb = |kind: u8| {
        // Logged in, and with PDUs on their way.
        let on_the_way = [3, 12, 0, 9, 5, 3, 0, 8, 5, 7, 5, 255, 5, 255, 12, kind];
        script((kind << 4) | 5, &[&on_the_way[..], &[1, 7, 16]].concat())
    };
    let rest = [
        script(1, &[3, 30, 15, 0]),
        script(1, &[15, 1, 7, 14, 15, 1]),
        script(0, &[5, 9, 6, 100, 0, 9, 8, 7, 15]),
        script(1, &[15, 3, 5, 3, 20, 7, 17]),
    ];
    faults.chain((0..8).map(disturb)).chain(rest).collect()
}

fn geometry() -> Geometry {
    Geometry {
        disk_bytes: 8 << 30,
        source_bytes: 3 << 30,
        relocated_start_bytes: 3 << 30,
        useful_start_bytes: (3 << 30) + (64 << 20),
        control_start_bytes: (8 << 30) - (128 << 20),
        image_bytes: (2 << 30) + 4096,
        logical_block_bytes: 512,
    }
}

/// Each structure, behind the byte that says which it is.
pub(crate) fn disks() -> Vec<Vec<u8>> {
    let mut inputs = vec![superblock(), settings(), trailer(), boot_list()];
    let mut segment = vec![0; 512];
    Segment::absent(3, 9)
        .encode(&UUID, &mut segment, crc)
        .unwrap();
    inputs.push(segment);
    inputs.push(transaction(1, PLACE, 9));
    inputs.push([transaction(1, 0, 1), transaction(2, 4096, 9)].concat());
    inputs.push(transaction(u64::MAX, 0, 1));
    let kinds = (0u8..).zip(inputs);
    kinds
        .map(|(kind, bytes)| [vec![kind], bytes].concat())
        .collect()
}

fn superblock() -> Vec<u8> {
    let mut block = [0; 4096];
    let mut superblock = Superblock::new(UUID, State::Streaming, geometry());
    superblock.origin.target_name = Bounded::new(b"iqn.2026-11.test:image").unwrap();
    superblock.places.map = [1, 2].map(|n| Extent::new(PLACE + n * BLOCK_BYTES, BLOCK_BYTES));
    superblock.encode(PLACE, &mut block, crc).unwrap();
    block.to_vec()
}

fn settings() -> Vec<u8> {
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let network = Network {
        mac: [2, 0, 0, 0, 0, 1],
        method: Method::Static {
            address,
            prefix_len: 24,
            gateway: Some(address),
        },
        dns: [Some(address), None],
        mtu: 1500,
        vlan: 0,
        hostname: Bounded::new(b"host").unwrap(),
    };
    let settings = Settings {
        generation: 1,
        network: Some(network),
        tunables: Tunables::default(),
    };
    let mut block = [0; 4096];
    settings.encode(&UUID, PLACE, &mut block, crc).unwrap();
    block.to_vec()
}

fn trailer() -> Vec<u8> {
    let trailer = Trailer {
        image_uuid: UUID,
        image_bytes: LUN_BYTES / 2,
        lun_bytes: LUN_BYTES,
        manifest: Extent::new(LUN_BYTES / 2, 100),
        manifest_crc32c: 1,
        logical_block_bytes: 512,
    };
    let mut block = [0; 4096];
    trailer.encode(&mut block, crc).unwrap();
    block.to_vec()
}

fn boot_list() -> Vec<u8> {
    let entry = |n: u64| BootEntry {
        image_block: n * 10,
        blocks: 3,
        state: if n == 0 {
            BootState::Live
        } else {
            BootState::Saved
        },
        relocated_bytes: PLACE + n * 8 * BLOCK_BYTES,
    };
    let mut list = vec![0; 4096];
    let header = Header::new(UUID, PLACE, 1);
    BootList::encode(&header, &[entry(0), entry(1), entry(7)], &mut list, crc).unwrap();
    list.truncate(72 + 3 * 24);
    list
}

fn transaction(sequence: u64, position: u64, counter: u64) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let mut builder = Builder::new(&UUID, &mut buffer, crc);
    if counter != 0 {
        let segment = Segment::absent(counter, sequence);
        builder.push(&Record::Segment(segment)).unwrap();
        builder.push(&Record::Counter(counter)).unwrap();
    }
    builder.seal(sequence, position).unwrap().to_vec()
}
