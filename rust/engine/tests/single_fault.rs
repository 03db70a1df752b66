// SPDX-License-Identifier: GPL-2.0-only

//! One fault, whichever and wherever, then a target that is well: every read ends with the image's bytes, in bounded time.

mod common;

use common::{config, identity, image, target, Rig};
use imgstream_engine::session::Config;
use imgstream_testtarget::{
    Announcement, Damage, Fault, ForgedTag, LoginFault, Phase, Plan, ReadFault, Willing,
};
use proptest::prelude::*;

const IMAGE_BYTES: usize = 64 << 10;
/// The longest wait for a target that is stuck (`starved`, with what leads to it), and the longest pause after it.
const LIMIT_MS: u64 = 600_000;

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Any),
        Just(Phase::Login),
        Just(Phase::Full),
        prop::sample::select(vec![0x20u8, 0x21, 0x23, 0x25]).prop_map(Phase::Opcode),
    ]
}

/// What lies in the header is protected by its digest only afterwards, so that it is lies, not damage; data is not lied about.
fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0usize..700;
    prop_oneof![
        at().prop_map(Damage::Close),
        at().prop_map(Damage::Reset),
        at().prop_map(Damage::HalfClose),
        at().prop_map(Damage::Stall),
        (at(), 1usize..300, 1u64..100_000).prop_map(|(a, b, c)| Damage::Drip(a, b, c)),
        (0usize..45, prop::collection::vec(any::<u8>(), 1..5)).prop_map(|(a, b)| Damage::Put(a, b)),
        (
            prop::sample::select(vec![16usize, 20, 24, 28, 32, 36, 40, 44]),
            prop_oneof![Just(1), Just(u32::MAX), Just(0x8000_0000), any::<u32>()]
        )
            .prop_map(|(a, b)| Damage::Add(a, b)),
        at().prop_map(Damage::Flip),
        prop::collection::vec(any::<u8>(), 1..9).prop_map(Damage::Append),
        Just(Damage::Twice),
        Just(Damage::Lost),
    ]
}

fn read_fault() -> impl Strategy<Value = ReadFault> {
    let tags = [
        ForgedTag::Live,
        ForgedTag::Late,
        ForgedTag::Unknown,
        ForgedTag::Reserved,
    ];
    let tag = prop::sample::select(tags.to_vec());
    let plain = prop::sample::select(vec![
        ReadFault::Stall,
        ReadFault::Nothing,
        ReadFault::Missing,
        ReadFault::Hole,
        ReadFault::Duplicate,
        ReadFault::Beyond,
        ReadFault::Wrap,
        ReadFault::WrongTag,
        ReadFault::LateTag,
        ReadFault::DataSn,
        ReadFault::Acknowledge,
        ReadFault::StatusWithoutFinal,
        ReadFault::Residual,
        ReadFault::BadSense,
        ReadFault::StatSn,
        ReadFault::ExpDataSn,
        ReadFault::Oversize,
        ReadFault::AdditionalHeaders,
        ReadFault::R2t,
        ReadFault::Reject,
        ReadFault::ForgedReject,
        ReadFault::ForgedPong,
    ]);
    prop_oneof![
        3 => plain,
        1 => (0usize..3000).prop_map(ReadFault::Reset),
        1 => (1u32..2048).prop_map(ReadFault::Short),
        1 => any::<u8>().prop_filter("GOOD", |s| *s != 0).prop_map(ReadFault::Status),
        1 => any::<u8>().prop_filter("GOOD", |s| *s != 0).prop_map(ReadFault::Response),
        1 => any::<u8>().prop_filter("GOOD", |s| *s != 0).prop_map(ReadFault::DataStatus),
        // RECOVERED ERROR without data is GOOD without data.
        2 => (0u8..16, any::<u8>(), any::<u8>()).prop_map(|(k, a, q)| ReadFault::Sense(k, a, q)),
        1 => (any::<u16>(), 0u16..5000).prop_map(|(l, b)| ReadFault::SenseLength(l, b)),
        1 => (1u32..50).prop_map(ReadFault::Empty),
        1 => any::<u8>().prop_map(ReadFault::Opcode),
        2 => (0u8..0x40, tag).prop_map(|(code, tag)| ReadFault::Forged(code, tag)),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let login = prop_oneof![
        (1u8..5, any::<u8>()).prop_map(|(class, detail)| LoginFault::Status(class, detail)),
        Just(LoginFault::Stage),
        Just(LoginFault::NextStage),
        Just(LoginFault::ContinueAndTransit),
        Just(LoginFault::NoHandle),
        Just(LoginFault::Version),
        Just(LoginFault::Tag),
        Just(LoginFault::Silence),
        Just(LoginFault::StatSn),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(LoginFault::Text),
        any::<u8>().prop_map(LoginFault::Opcode),
    ];
    let parameters = prop::array::uniform3(any::<u16>());
    let sense = prop::option::of((0u8..16, any::<u8>(), any::<u8>()));
    let message = (any::<u8>(), parameters, sense);
    prop_oneof![
        4 => (phase(), damage()).prop_map(|(phase, damage)| Fault::Wire(phase, damage)),
        3 => read_fault().prop_map(Fault::Read),
        1 => login.prop_map(Fault::Login),
        1 => message.prop_map(|(event, parameters, sense)| {
            Fault::Async(Announcement { event, parameters, sense })
        }),
        1 => (1u32..40).prop_map(Fault::Ping),
        1 => (1u32..40).prop_map(Fault::News),
        1 => Just(Fault::CloseWindow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]

    #[test]
    fn every_wait_has_an_end_when_the_target_is_well_again(
        fault in fault(),
        nth in prop_oneof![0u32..3, 0u32..20],
        segment in prop::sample::select(vec![512u32, 700, 262_144]),
        window in prop::sample::select(vec![1u32, 2, 64]),
        separate in any::<bool>(),
        expected in any::<bool>(),
    ) {
        let data = image(IMAGE_BYTES);
        let config = Config { identity: expected.then(|| identity(&data)), ..config() };
        let plan = Plan::once(nth, fault);
        let name = format!("{plan:?}");
        let mut rig = Rig::new(config, target(IMAGE_BYTES).plan(plan));
        rig.target.settings.segment_bytes = segment;
        rig.target.settings.window = window;
        // Without them nobody sees that a byte of the data is another one.
        rig.target.settings.header_digest = Willing::Offer;
        rig.target.settings.data_digest = Willing::Offer;
        rig.target.settings.separate_status = separate;
        for i in 0..8 {
            rig.read(i, u64::from(i) * 8192, 2048);
        }
        let start = rig.now;
        rig.run(|rig| rig.done.len() == rig.buffers.len() || rig.now - start > LIMIT_MS);
        prop_assert!(rig.all_good(), "{name}: {:?} after {} s", rig.reasons, (rig.now - start) / 1000);
        // Where its numbers were damaged, the target's own idea of what comes next was not.
        rig.target.violations.retain(|rule| !rule.starts_with("connection 0:"));
        rig.check(&data);
        // One fault costs one connection, or none.
        prop_assert!(rig.reasons.len() <= 1, "{name}: {:?}", rig.reasons);
    }
}
