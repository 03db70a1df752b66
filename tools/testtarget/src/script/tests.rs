// SPDX-License-Identifier: GPL-2.0-only

use super::*;

fn plan(text: &str) -> Plan {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Plan>().map(|_| ()).unwrap_err()
}

#[test]
fn places_and_numbers_are_read() {
    let short = plan("0:3:short=512");
    assert_eq!(
        (short.connection, short.nth, short.times),
        (Some(0), Some(3), 1)
    );
    assert_eq!(short.fault, Fault::Read(ReadFault::Short(512)));
    let sense = plan("*:sense=3,0x11,0");
    assert_eq!(
        (sense.connection, sense.nth, sense.times),
        (None, None, u32::MAX)
    );
    assert_eq!(sense.fault, Fault::Read(ReadFault::Sense(3, 17, 0)));
    let stall = plan("1:login/2:stall=47");
    assert_eq!(
        (stall.connection, stall.nth, stall.times),
        (Some(1), Some(2), 1)
    );
    assert_eq!(stall.fault, Fault::Wire(Phase::Login, Damage::Stall(47)));
    let data = Phase::Opcode(opcode::DATA_IN);
    assert_eq!(
        plan("data-in/*:data-length=0xffffff").fault,
        Fault::Wire(data, Damage::Put(5, vec![255; 3]))
    );
    assert_eq!(
        plan("any/0:drip=0").fault,
        Fault::Wire(Phase::Any, Damage::Drip(0, 1, 1000))
    );
    let message = Announcement {
        event: 0,
        parameters: [1, 65_535, 3],
        sense: Some((6, 0x3f, 0x0e)),
    };
    assert_eq!(
        plan("0:async=0,1,65535,3,6,0x3f,14").fault,
        Fault::Async(message)
    );
}

#[test]
fn every_fault_on_the_list_can_be_ordered() {
    // As many numbers as its usage asks for, all of them small.
    let order = |place: &str, row: &(&str, &str, &str)| {
        let (name, usage, _) = row;
        let least = usage.split('[').next().unwrap_or("").replace("...", "");
        let numbers: Vec<&str> = least
            .split(',')
            .filter(|n| !n.is_empty())
            .map(|_| "1")
            .collect();
        let text = match numbers.is_empty() {
            true => format!("{place}:{name}"),
            false => format!("{place}:{name}={}", numbers.join(",")),
        };
        let _ = plan(&text);
        assert!(help().contains(&format!("\n  {name}")), "{name}");
    };
    for row in FAULTS {
        order("0", row);
    }
    for (phase, _) in PHASES {
        for row in DAMAGE {
            order(&format!("{phase}/0"), row);
        }
    }
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    for (text, sentence) in [
        (
            "short=1",
            "\"\" is no place: [CONNECTION:][PHASE/]NTH is asked for",
        ),
        (
            "x:stall",
            "\"x\" is no place: [CONNECTION:][PHASE/]NTH is asked for",
        ),
        (
            "0:0:0:stall",
            "\"0:0:0\" is no place: [CONNECTION:][PHASE/]NTH is asked for",
        ),
        (
            "nowhere/0:stall=1",
            "\"nowhere/0\" is no place: [CONNECTION:][PHASE/]NTH is asked for",
        ),
        (
            "0:nonsense",
            "there is no fault \"nonsense\" there; --help lists them",
        ),
        (
            "full/0:short=1",
            "there is no fault \"short\" there; --help lists them",
        ),
        ("1:short", "\"\" is not what short asks for: short=N"),
        (
            "1:status=256",
            "\"256\" is not what status asks for: status=STATUS",
        ),
        (
            "1:sense=1,2",
            "\"1,2\" is not what sense asks for: sense=KEY,CODE,QUALIFIER",
        ),
        ("1:stall=1", "stall has no numbers"),
        (
            "full/1:stall",
            "\"\" is not what stall asks for: stall=BYTE",
        ),
        (
            "full/1:put=3",
            "\"3\" is not what put asks for: put=BYTE,VALUE...",
        ),
    ] {
        assert_eq!(error(text), sentence);
    }
}
