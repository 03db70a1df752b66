// SPDX-License-Identifier: GPL-2.0-only

//! A whole session against the scripted target, as a script orders: what the target does wrong, what becomes of its PDUs
//! on their way, how bytes are cut, how time passes, what readers want.
//!
//! What must hold: a read that succeeded has brought the image's bytes; nothing is written into a buffer but the next
//! bytes of a command that is at the target; the initiator keeps the rules; each wait ends, and when the faults are over
//! every read ends within [`RECOVERY_MS`] and new ones succeed. Memory is bounded because the session has no allocator.

mod fault;
mod wire;

use imgstream_engine::session::{Event, Stage, Timing, BLOCK_BYTES, MAX_READS};
use imgstream_testtarget::{Connection, Fault, Plan, Target};

use crate::input::Input;
use crate::peer::{config, Peer, IMAGE, IMAGE_BYTES};
use wire::Wire;

/// When the faults are over, every read has ended after this long: the longest wait is for a read that gets no byte
/// while others do, then come the longest pause and a login.
const RECOVERY_MS: u64 = 10 * 60_000;
/// Steps that a script may order in all, and steps after it.
const MAX_STEPS: u32 = 2_000;
const MAX_LAST_STEPS: u32 = 20_000;
/// Longest pause that a target can ask for (Time2Wait), or that a refusal has.
const LONGEST_PAUSE_MS: u64 = 60_000;
/// The longest time in which nothing has to be heard of reads that are at a target.
const NEWS_MS: u64 = Timing::DEFAULT.starved + Timing::DEFAULT.window;

pub(crate) fn body(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    while !input.is_empty() && world.steps < MAX_STEPS {
        world.obey(&mut input);
        world.check();
    }
    world.recover();
}

/// Session, target and what is between them.
struct World {
    peer: Peer,
    target: Target,
    connection: Option<Connection>,
    wire: Wire,
    /// The target may say which rules the initiator breaks: it was in the right itself when they logged in.
    fair: bool,
    unreachable: bool,
    reconnect_at: u64,
    /// The session was told which image to expect.
    known: bool,
    /// When the stage was entered, or something was heard of a read.
    news: u64,
    stage: Stage,
    steps: u32,
}

impl World {
    fn new(settings: u8) -> Self {
        let mut target = Target::new(IMAGE.clone());
        fault::settle(&mut target.settings, settings);
        let peer = Peer::new(config(settings & 1 != 0));
        Self {
            known: settings & 1 != 0,
            news: peer.now,
            stage: Stage::Down,
            peer,
            target,
            connection: None,
            wire: Wire::default(),
            fair: true,
            unreachable: false,
            reconnect_at: 0,
            steps: 0,
        }
    }

    /// Does what the script says next.
    fn obey(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=2 => self.submit(input.byte(), input.byte(), input.byte()),
            3 | 4 => self.run(u32::from(input.byte() % 64) + 1),
            5 => self.exchange(usize::from(input.byte()) + 1),
            6 => self.deliver(usize::from(input.word()) + 1),
            7 => self.pass(1 << (input.byte() % 20)),
            8 => self.wait(),
            9 => self.lose(),
            10 | 11 => self.plan(fault::plan(input)),
            12 | 13 => self.wire.disturb(input),
            14 => fault::settle(&mut self.target.settings, input.byte()),
            _ => match input.byte() % 4 {
                0 => self.peer.session.logout(self.peer.now),
                1 => self.unreachable = !self.unreachable,
                2 => self.target.plans.clear(),
                _ => self.replace(input.byte()),
            },
        }
        self.listen();
    }

    fn submit(&mut self, id: u8, block: u8, len: u8) {
        let id = u16::from(id) % (MAX_READS as u16 + 2);
        let len = (u32::from(len & 0x1f) + 1) << (9 + (len >> 5) % 3);
        // Now and then behind the end.
        self.peer
            .submit(id, u64::from(block) * 520 / 512 * 512, len);
    }

    fn plan(&mut self, plan: Plan) {
        self.fair &= !spoils_login(&plan);
        self.target.plans.push(plan);
    }

    /// Everything as fast as it goes; time only where nothing else moves.
    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        self.exchange(usize::MAX);
        let moved = !self.wire.is_empty();
        self.deliver(usize::MAX);
        self.listen();
        if !moved {
            self.wait();
            self.listen();
        }
        self.check();
    }

    /// The initiator sends up to `max` bytes, and the target answers.
    fn exchange(&mut self, max: usize) {
        if self.connection.is_none() && self.peer.now >= self.reconnect_at {
            self.connect();
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        let bytes = self.peer.transmit(max);
        connection.feed(&mut self.target, &bytes);
        self.wire
            .put(&connection.take_out(usize::MAX), connection.is_over());
        if self.wire.is_honest() && self.fair {
            assert_eq!(self.target.violations, [""; 0]);
        }
    }

    fn connect(&mut self) {
        if self.unreachable {
            self.peer.session.connect_failed(self.peer.now);
            return self.pause();
        }
        self.target.violations.clear();
        self.fair = !self.target.plans.iter().any(spoils_login);
        self.connection = Some(self.target.accept());
        self.wire = Wire::default();
        self.peer.connect();
    }

    /// Up to `max` bytes arrive; then the connection ends if the target has ended it.
    fn deliver(&mut self, max: usize) {
        let mut left = max;
        while left != 0 && !self.peer.is_down() {
            let (bytes, lie) = self.wire.take(left);
            if bytes.is_empty() {
                break;
            }
            left -= bytes.len();
            self.peer.receive(&bytes, lie);
        }
        let over = self.connection.as_ref().is_some_and(Connection::is_over);
        if over && self.wire.is_empty() && !self.peer.is_down() {
            self.lose();
        }
    }

    /// Nobody says goodbye.
    fn lose(&mut self) {
        if self.connection.is_some() {
            self.peer.disconnect();
            self.drop_connection();
        }
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.wire = Wire::default();
        self.pause();
    }

    fn pause(&mut self) {
        let pause = self.peer.session.backoff_ms();
        assert!(pause <= LONGEST_PAUSE_MS, "a pause of {pause} ms");
        self.reconnect_at = self.peer.now + pause;
    }

    /// Time passes; the session is asked whenever it wants to be.
    fn pass(&mut self, ms: u64) {
        let end = self.peer.now + ms;
        while self.peer.now < end {
            self.steps += 1;
            let deadline = self.peer.session.deadline().unwrap_or(end);
            let next = deadline.clamp(self.peer.now + 1, end);
            self.peer.pass(next - self.peer.now);
            self.listen();
        }
    }

    /// Lets time pass up to what is waited for.
    fn wait(&mut self) {
        self.steps += 1;
        if self.connection.is_some() {
            self.peer.wait();
        } else {
            self.peer.now = self.peer.now.max(self.reconnect_at);
        }
    }

    /// The target comes back as another one: as it should be, or with another image, which has to be noticed.
    fn replace(&mut self, how: u8) {
        self.lose();
        if self.known {
            fault::replace(&mut self.target, how);
        }
    }

    fn listen(&mut self) {
        for event in self.peer.events() {
            self.news = self.peer.now;
            if let Event::Disconnect(_) = event {
                self.peer.disconnect();
                self.drop_connection();
            }
        }
    }

    /// No wait is for ever: not in a stage that ends by itself, not with reads at a target.
    fn check(&mut self) {
        let stage = self.peer.session.stage();
        let idle = stage == Stage::Ready && self.peer.outstanding() == 0;
        if stage != self.stage || self.peer.heard() || idle {
            self.news = self.peer.now;
        }
        self.stage = stage;
        if stage != Stage::Down {
            let waited = self.peer.now - self.news;
            assert!(waited <= NEWS_MS, "nothing for {waited} ms");
            assert!(self.peer.session.deadline().is_some());
        }
    }

    /// The faults are over.
    fn recover(&mut self) {
        self.unreachable = false;
        self.target.plans.clear();
        fault::replace(&mut self.target, 0);
        self.finish();
        if !self.wire.is_honest() {
            // What a forged answer told of the unit holds as long as the connection does.
            self.lose();
        }
        // What there is now is right, from the first byte to the last.
        assert!(self.peer.submit(0, 0, IMAGE_BYTES as u32));
        assert!(self.peer.submit(1, IMAGE_BYTES as u64 - 4096, BLOCK_BYTES));
        self.finish();
        assert_eq!(self.peer.failed, 0, "a read failed without a fault");
    }

    fn finish(&mut self) {
        let start = self.peer.now;
        self.peer.failed = 0;
        for _ in 0..MAX_LAST_STEPS {
            if self.peer.outstanding() == 0 {
                return;
            }
            self.step();
            let took = self.peer.now - start;
            assert!(took <= RECOVERY_MS, "no end after {took} ms without faults");
        }
        panic!("no end after {MAX_LAST_STEPS} steps without faults");
    }
}

fn spoils_login(plan: &Plan) -> bool {
    matches!(plan.fault, Fault::Login(_))
}
