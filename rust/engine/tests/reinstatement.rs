// SPDX-License-Identifier: GPL-2.0-only

//! Two computers with one initiator name and ISID at one target: each login ends the other's session.

mod common;

use common::{config, image, target};
use imgstream_engine::session::{Config, Event, ReadId, Reason, Session, Want, SCRATCH_BYTES};
use imgstream_testtarget::{Connection, Target};

const IMAGE_BYTES: usize = 64 << 10;

/// A computer: a session, its connection, and one read that it issues again and again.
struct Computer {
    session: Session<Vec<u8>>,
    connection: Option<Connection>,
    reconnect_at: u64,
    buffer: Vec<u8>,
    reads: u32,
    /// When its connections were lost, and why as it sees it.
    lost: Vec<(u64, Reason)>,
}

impl Computer {
    fn new(config: Config) -> Self {
        let mut session = Session::new(config, vec![0; SCRATCH_BYTES]).unwrap();
        session.submit(ReadId(0), 0, 4096).unwrap();
        Self {
            session,
            connection: None,
            reconnect_at: 0,
            buffer: vec![0; 4096],
            reads: 0,
            lost: Vec::new(),
        }
    }

    /// One step at `now`; whether anything moved.
    fn step(&mut self, target: &mut Target, now: u64) -> bool {
        let Some(connection) = &mut self.connection else {
            if now < self.reconnect_at {
                return false;
            }
            self.connection = Some(target.accept());
            self.session.connected(now);
            return true;
        };
        let out = self.session.out().to_vec();
        self.session.sent(out.len());
        connection.feed(target, &out);
        let answer = connection.take_out(usize::MAX);
        self.receive(&answer, now);
        self.session.tick(now);
        self.events();
        !out.is_empty() || !answer.is_empty()
    }

    fn receive(&mut self, mut bytes: &[u8], now: u64) {
        while !bytes.is_empty() {
            let area = match self.session.want() {
                Want::Nothing => return,
                Want::Control(area) => area,
                Want::Data { offset, len, .. } => {
                    &mut self.buffer[offset as usize..(offset + len) as usize]
                }
            };
            let len = area.len().min(bytes.len());
            area[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.session.got(len, now);
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.session.event() {
            match event {
                Event::Ready(_) | Event::Discovered => {}
                Event::ReadDone { result, .. } => {
                    assert_eq!(result, Ok(()));
                    assert_eq!(self.buffer, image(IMAGE_BYTES)[..4096]);
                    self.reads += 1;
                }
                Event::Disconnect(reason) => panic!("{reason}"),
            }
        }
    }

    /// The target has ended the connection.
    fn lose(&mut self, now: u64) {
        self.connection = None;
        self.session.disconnected(now);
        self.lost.push((now, self.session.last_reason().unwrap()));
        self.reconnect_at = now + self.session.backoff_ms();
    }

    fn holds(&self, number: u32) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|c| c.number() == number)
    }
}

/// Runs both until `end`; each has a read to do once a second.
fn run(computers: &mut [Computer; 2], target: &mut Target, now: &mut u64, end: u64) {
    while *now < end {
        let [a, b] = computers;
        let moved = a.step(target, *now) | b.step(target, *now);
        for number in target.take_displaced() {
            for computer in &mut *computers {
                if computer.holds(number) {
                    computer.lose(*now);
                }
            }
        }
        if !moved {
            *now += 50;
            if *now % 1000 == 0 {
                for computer in &mut *computers {
                    let _ = computer.session.submit(ReadId(0), 0, 4096);
                }
            }
        }
    }
}

fn lost_between(computer: &Computer, from: u64, to: u64) -> usize {
    computer
        .lost
        .iter()
        .filter(|(at, _)| (from..to).contains(at))
        .count()
}

#[test]
fn two_computers_with_one_name_notice_it_and_take_turns() {
    let mut target = target(IMAGE_BYTES);
    let seeds = [7, 8].map(|seed| Config { seed, ..config() });
    let mut computers = seeds.map(Computer::new);
    let mut now = 0;
    run(&mut computers, &mut target, &mut now, 3_600_000);
    for computer in &computers {
        let first = computer.lost.iter().map(|(_, reason)| *reason);
        let first: Vec<Reason> = first.take(6).collect();
        assert_eq!(first[..4], [Reason::Lost; 4], "the first four are nothing");
        assert_eq!(first[4..], [Reason::Contested; 2]);
        let text = first[5].to_string();
        assert!(text.contains("another computer"), "{text}");
        for minute in 5..60 {
            let from = minute * 60_000;
            let lost = lost_between(computer, from, from + 60_000);
            assert!(lost <= 2, "{lost} in minute {minute}");
        }
        // Each has about half of the time.
        assert!(computer.reads > 1200, "{} reads in an hour", computer.reads);
    }
    // One of them is given another name.
    let isid = [0x80, 1, 2, 3, 0, 1];
    computers[1] = Computer::new(Config { isid, ..config() });
    let end = now + 1_200_000;
    run(&mut computers, &mut target, &mut now, end);
    let lost = computers[0].lost.len();
    assert!(computers[1].lost.is_empty());
    // Long after, a lost connection is a lost connection again.
    computers[0].lose(now);
    assert_eq!(computers[0].lost[lost].1, Reason::Lost);
    assert!(computers[0].session.backoff_ms() <= 500);
    assert_eq!(target.violations, Vec::<String>::new());
}

#[test]
fn sessions_of_other_isids_do_not_disturb_each_other() {
    let mut target = target(IMAGE_BYTES);
    let mut computers = [0, 1].map(|n| {
        let isid = [0x80, 1, 2, 3, 0, n];
        Computer::new(Config { isid, ..config() })
    });
    let mut now = 0;
    run(&mut computers, &mut target, &mut now, 600_000);
    for computer in &computers {
        assert!(computer.lost.is_empty() && computer.reads > 590);
    }
}
