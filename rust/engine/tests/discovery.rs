// SPDX-License-Identifier: GPL-2.0-only

//! Discovery sessions against the scripted target, over byte arrays.

mod common;

use common::{config, target, Rig};
use imgstream_engine::session::{
    Event, Found, Reason, Session, Violation, DISCOVERY_BYTES, MAX_LIST_BYTES,
};
use imgstream_proto::iscsi::text::Pairs;
use imgstream_testtarget::{Fault, Plan, TextFault, Willing};

type List = Vec<(String, Vec<String>)>;

fn rig(targets: &List, plans: impl IntoIterator<Item = Plan>) -> Rig {
    let mut rig = Rig::new(config(), target(64 << 10));
    rig.session = Session::discovery(config(), vec![0; DISCOVERY_BYTES]).unwrap();
    rig.target.settings.targets = targets.clone();
    rig.target.plans.extend(plans);
    rig
}

#[test]
fn keys_that_mean_nothing_in_a_discovery_are_answered_irrelevant() {
    let list = some();
    let mut rig = rig(&list, []);
    let proposals = [
        ("MaxBurstLength", "262144"),
        ("InitialR2T", "No"),
        ("MaxConnections", "4"),
    ];
    rig.target.settings.proposals = proposals.map(|(k, v)| (k.into(), v.into())).to_vec();
    run(&mut rig);
    assert!(rig.discovered == 1 && rig.reasons.is_empty());
    let (_, last) = rig.target.login_requests.last().unwrap();
    let answers: Vec<_> = Pairs::new(last).map(Result::unwrap).collect();
    assert_eq!(answers, proposals.map(|(key, _)| (key, "Irrelevant")));
}

/// What the session found, as it was written.
fn found(rig: &Rig) -> List {
    let mut list = List::new();
    for found in rig.session.targets() {
        match found.unwrap() {
            Found::Target(name) => list.push((name.into(), vec![])),
            Found::Portal(address) => {
                let group = address
                    .group
                    .map_or(String::new(), |group| format!(",{group}"));
                list.last_mut().unwrap().1.push(format!("{address}{group}"));
            }
        }
    }
    list
}

fn some() -> List {
    let addresses = [
        "192.0.2.1:3260,1",
        "[2001:db8::1]:860,2",
        "san.example.org:3260,3",
    ];
    vec![
        (
            "iqn.2026-11.example:one".into(),
            addresses.map(String::from).to_vec(),
        ),
        ("iqn.2026-11.example:two".into(), vec![]),
        (
            "eui.0123456789abcdef".into(),
            vec!["10.0.0.1:3260,65535".into()],
        ),
    ]
}

fn many(count: usize) -> List {
    let one = |n: usize| {
        (
            format!("iqn.2026-11.example:target-{n}"),
            vec![format!("192.0.2.1:{},1", n + 1)],
        )
    };
    (0..count).map(one).collect()
}

fn run(rig: &mut Rig) {
    rig.run(|rig| rig.discovered != 0 || !rig.reasons.is_empty());
}

fn is_found(list: &List, change: impl FnOnce(&mut Rig)) {
    let mut rig = rig(list, []);
    change(&mut rig);
    run(&mut rig);
    assert!(
        rig.discovered == 1 && rig.reasons.is_empty(),
        "{:?}",
        rig.reasons
    );
    assert_eq!(found(&rig), *list);
    rig.session.logout(rig.now);
    rig.run(|rig| !rig.reasons.is_empty());
    assert_eq!((rig.reasons[0], rig.target.logouts), (Reason::LoggedOut, 1));
    assert_eq!(rig.target.violations, Vec::<String>::new());
}

#[test]
fn f21_targets_are_asked_for_without_naming_one() {
    is_found(&some(), |_| {});
    is_found(&vec![], |_| {});
    let mut rig = rig(&some(), []);
    run(&mut rig);
    let texts = rig
        .target
        .login_requests
        .iter()
        .flat_map(|(_, text)| Pairs::new(text));
    let keys: Vec<_> = texts.map(Result::unwrap).collect();
    assert!(keys.contains(&("SessionType", "Discovery")));
    for key in ["TargetName", "MaxBurstLength", "InitialR2T"] {
        assert!(!keys.iter().any(|(name, _)| *name == key), "{key}");
    }
}

#[test]
fn f21_a_list_comes_in_any_pieces() {
    for piece in 40..300 {
        is_found(&some(), |rig| rig.target.settings.text_piece = Some(piece));
    }
    is_found(&many(4000), |_| {});
    is_found(&many(800), |rig| {
        rig.target.settings.text_piece = Some(1000)
    });
}

#[test]
fn f21_digests_protect_a_list_as_they_protect_data() {
    for piece in [None, Some(61)] {
        is_found(&some(), |rig| {
            rig.target.settings.header_digest = Willing::Offer;
            rig.target.settings.data_digest = Willing::Offer;
            rig.target.settings.text_piece = piece;
        });
    }
}

#[test]
fn f21_a_list_is_bounded() {
    let one = |(name, at): &(String, Vec<String>)| name.len() + at[0].len() + 27;
    let list_bytes: usize = many(20_000).iter().map(one).sum();
    assert!(list_bytes > MAX_LIST_BYTES);
    for piece in [200_000, 8192, 2000] {
        let mut rig = rig(&many(20_000), []);
        rig.target.settings.text_piece = Some(piece);
        run(&mut rig);
        assert!(
            matches!(
                rig.reasons[..],
                [Reason::Protocol(Violation::SegmentTooLong(_))]
            ),
            "{:?}",
            rig.reasons
        );
    }
    // 13.12: what was declared holds here, too.
    let long = [b"TargetName=", &b"x".repeat(262_144)[..]].concat();
    let mut rig_of_long = rig(&some(), [Plan::always(Fault::Text(TextFault::Text(long)))]);
    run(&mut rig_of_long);
    let too_long = Violation::SegmentTooLong(262_155);
    assert_eq!(rig_of_long.reasons, [Reason::Protocol(too_long)]);
    for text in [&b""[..], b"x"] {
        let endless = Plan::always(Fault::Text(TextFault::Endless(text.to_vec())));
        let mut rig = rig(&some(), [endless]);
        run(&mut rig);
        assert_eq!(rig.reasons, [Reason::Protocol(Violation::EndlessText)]);
    }
}

#[test]
fn f21_what_is_no_list_ends_the_connection() {
    let text = |text: &[u8]| {
        let mut rig = rig(
            &some(),
            [Plan::always(Fault::Text(TextFault::Text(text.to_vec())))],
        );
        run(&mut rig);
        rig.reasons.first().copied()
    };
    let wrong = Some(Reason::Protocol(Violation::Text));
    for bad in [
        &b"TargetName=iqn.a"[..],
        b"TargetAddress=192.0.2.1,1\0TargetName=iqn.a\0",
        b"TargetName=\0",
        b"TargetName=two words\0",
        b"TargetName=iqn.a\0TargetAddress=here and there\0",
        b"TargetName=iqn.a\0TargetAddress=192.0.2.1:0,1\0",
        b"TargetName=iqn.a\0Something=1\0",
        b"TargetAlias=a\0TargetName=iqn.a\0",
        b"TargetName=\x1b[2J\0",
        b"TargetName=iqn.a\0TargetAddress=a\nb,1\0",
        b"TargetName=iqn.a\0TargetAddress=192.0.2.1,65536\0",
        b"TargetName=iqn.\xff\0",
        b"\0",
        b"TargetName=iqn.a\0\0",
        b"nothing\0",
    ] {
        assert_eq!(text(bad), wrong, "{bad:?}");
    }
    assert_eq!(
        text(b"TargetName=iqn.a\0TargetAlias=a\0TargetAddress=h,1\0"),
        None
    );
    // A target without an address is at the portal that was asked; a name that is too long is none.
    assert_eq!(text(b"TargetName=iqn.a\0TargetName=iqn.b\0"), None);
    let longest = |bytes: usize| [b"TargetName=", &b"x".repeat(bytes)[..], b"\0"].concat();
    assert_eq!(text(&longest(223)), None);
    assert_eq!(text(&longest(224)), wrong);
}

#[test]
fn f21_tags_flags_and_numbers_of_text_are_checked() {
    let reason = |fault| {
        let mut rig = rig(&some(), [Plan::once(0, Fault::Text(fault))]);
        run(&mut rig);
        rig.reasons.first().copied()
    };
    for (flags, tag) in [(0xc0, u32::MAX), (0xc0, 7), (0, u32::MAX), (0x40, u32::MAX)] {
        let found = reason(TextFault::Flags(flags, tag));
        assert_eq!(
            found,
            Some(Reason::Protocol(Violation::TextFlags)),
            "{flags:#x} {tag:#x}"
        );
    }
    assert!(matches!(
        reason(TextFault::Tag),
        Some(Reason::Protocol(Violation::UnknownTag(_)))
    ));
    assert!(matches!(
        reason(TextFault::StatSn),
        Some(Reason::Protocol(Violation::StatSn { .. }))
    ));
    assert_eq!(reason(TextFault::Silence), Some(Reason::ListTimeout));
    let mut rig = rig(&some(), [Plan::once(0, Fault::Text(TextFault::Unasked))]);
    rig.target.settings.text_piece = Some(60);
    run(&mut rig);
    assert_eq!(rig.reasons, [Reason::Protocol(Violation::Early)]);
}

#[test]
fn f21_in_a_normal_session_text_is_an_error() {
    use imgstream_testtarget::ReadFault;
    let mut rig = Rig::new(
        config(),
        target(64 << 10).plan(Plan::once(0, Fault::Read(ReadFault::Opcode(0x24)))),
    );
    rig.read(0, 0, 4096);
    rig.run_reads();
    assert_eq!(rig.reasons, [Reason::Protocol(Violation::Unexpected(0x24))]);
    assert!(Session::discovery(config(), vec![0; DISCOVERY_BYTES - 1]).is_err());
    assert_eq!(rig.session.event(), None::<Event>);
}
