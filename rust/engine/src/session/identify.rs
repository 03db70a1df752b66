// SPDX-License-Identifier: GPL-2.0-only

//! Who is there: asked after every login, before any read is served, and again while reads are served.
//!
//! TEST UNIT READY until no condition is pending, INQUIRY, page 0x83 (who), page 0xb0 (how much at once),
//! READ CAPACITY(16) (how large), and, if an image is expected, its trailer and canary blocks. Blocks of two images
//! that were mixed cannot be told apart later, so every difference ends the connection.

use core::ops::DerefMut;

use imgstream_proto::iscsi::cdb::{Command, READ_CAPACITY_BYTES};
use imgstream_proto::iscsi::inquiry::{is_disk, max_transfer_blocks, Capacity, Designator};
use imgstream_proto::iscsi::sense::key;

use super::config::{Canary, BLOCK_BYTES};
use super::reason::{Mismatch, ReadError, Reason, Violation};
use super::transfer::Transfer;
use super::verdict::Verdict;
use super::{Session, Stage, INPUT_BYTES, MAX_READ_BYTES};

const INQUIRY_BYTES: u16 = 96;
const DESIGNATOR_PAGE: u8 = 0x83;
const DESIGNATOR_PAGE_BYTES: u16 = 1024;
const LIMITS_PAGE: u8 = 0xb0;
const LIMITS_PAGE_BYTES: u16 = 64;
/// Conditions that may be reported before there must be an end of it.
const MAX_CONDITIONS: u8 = 10;
/// Times that a unit may be not ready, a pause apart.
const MAX_NOT_READY: u8 = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    UnitReady,
    Inquiry,
    Designator,
    Limits,
    Capacity,
    Trailer,
    Canary(usize),
    Done,
}

/// One identity check.
#[derive(Debug)]
pub(super) struct Identify {
    step: Step,
    /// The command that is at the target: its tag and its data.
    sent: Option<(u32, Transfer)>,
    not_before: u64,
    conditions: u8,
    not_ready: u8,
    designator: Designator,
    capacity: Option<Capacity>,
    max_transfer_blocks: Option<u32>,
}

impl Identify {
    pub(super) const fn new() -> Self {
        Self {
            step: Step::UnitReady,
            sent: None,
            not_before: 0,
            conditions: 0,
            not_ready: 0,
            designator: Designator::NONE,
            capacity: None,
            max_transfer_blocks: None,
        }
    }

    /// Looks again, at what can be exchanged unseen. What is known of the unit stays until the answers have come.
    pub(super) fn begin_again(&mut self) {
        *self = Self {
            step: Step::Designator,
            sent: None,
            not_before: 0,
            conditions: 0,
            not_ready: 0,
            ..*self
        };
    }

    /// Whether the next command may be sent.
    pub(super) fn due(&self, now: u64) -> bool {
        self.sent.is_none() && now >= self.not_before
    }

    pub(super) fn deadline(&self, now: u64) -> Option<u64> {
        (self.sent.is_none() && self.not_before > now).then_some(self.not_before)
    }

    pub(super) fn sent(&mut self, tag: u32, transfer: Transfer) {
        self.sent = Some((tag, transfer));
    }

    /// The data of the command with this tag, if it is at the target.
    pub(super) fn find(&mut self, tag: u32) -> Option<&mut Transfer> {
        self.sent
            .as_mut()
            .filter(|(sent, _)| *sent == tag)
            .map(|(_, transfer)| transfer)
    }

    pub(super) fn designator(&self) -> Designator {
        self.designator
    }

    /// The longest read that the unit takes.
    pub(super) fn max_transfer_bytes(&self) -> u32 {
        let block_bytes = self.capacity.map_or(512, |c| c.block_bytes);
        let blocks = self.max_transfer_blocks.unwrap_or(u32::MAX);
        blocks.saturating_mul(block_bytes).min(MAX_READ_BYTES)
    }
}

impl<B: DerefMut<Target = [u8]>> Session<B> {
    pub(super) fn begin_identify(&mut self) {
        self.stage = Stage::Identify;
        self.identify = Identify::new();
        self.clock.restart_step(self.now);
    }

    /// The command of the current step and the data that it brings.
    pub(super) fn next_identify_command(&self) -> Option<(Command, Transfer)> {
        Some(match self.identify.step {
            Step::UnitReady => (Command::TestUnitReady, Transfer::exact(0)),
            Step::Inquiry => (
                Command::Inquiry {
                    bytes: INQUIRY_BYTES,
                },
                Transfer::up_to(u32::from(INQUIRY_BYTES)),
            ),
            Step::Designator => vpd(DESIGNATOR_PAGE, DESIGNATOR_PAGE_BYTES),
            Step::Limits => vpd(LIMITS_PAGE, LIMITS_PAGE_BYTES),
            Step::Capacity => (
                Command::ReadCapacity16,
                Transfer::up_to(READ_CAPACITY_BYTES),
            ),
            Step::Trailer => self.read_block(
                self.identify
                    .capacity?
                    .bytes()
                    .checked_sub(u64::from(BLOCK_BYTES))?,
            )?,
            Step::Canary(index) => {
                let block = self.canary(index)?.block;
                self.read_block(block.checked_mul(u64::from(BLOCK_BYTES))?)?
            }
            Step::Done => return None,
        })
    }

    fn read_block(&self, start: u64) -> Option<(Command, Transfer)> {
        let block_bytes = self.identify.capacity?.block_bytes;
        let lba = start.checked_div(u64::from(block_bytes))?;
        let blocks = BLOCK_BYTES.checked_div(block_bytes)?;
        Some((
            Command::Read16 { lba, blocks },
            Transfer::exact(BLOCK_BYTES),
        ))
    }

    fn canary(&self, index: usize) -> Option<Canary> {
        *self.config.identity.as_ref()?.canaries.get(index)?
    }

    /// The command of the current step has ended.
    pub(super) fn identify_ended(&mut self, verdict: Verdict, flags: u8, residual: u32) {
        let Some((_, transfer)) = self.identify.sent.take() else {
            return;
        };
        self.clock.restart_step(self.now);
        self.recheck.answered();
        let checking = self.stage == Stage::Ready && self.recheck.running();
        if self.stage != Stage::Identify && !checking {
            return;
        }
        match verdict {
            Verdict::Good => match transfer.complete(flags, residual) {
                Ok(()) => self.learn(transfer.received()),
                Err(reason) => self.end(reason),
            },
            Verdict::Retry(reason) => self.again(reason),
            Verdict::Busy => self.wait(Reason::Overloaded),
            Verdict::NotReady(reason) => self.wait(reason),
            Verdict::Failed(error) => self.step_failed(error),
            // Beside reads a change means what it means to them: the next connection looks at once.
            Verdict::Drop(reason) if checking => self.end(reason),
            // What changed is being looked at anyway, from the start.
            Verdict::Drop(reason @ Reason::Changed(sense)) if sense.key == key::UNIT_ATTENTION => {
                self.identify.step = Step::UnitReady;
                self.again(reason);
            }
            // LOGICAL UNIT NOT SUPPORTED.
            Verdict::Drop(Reason::Changed(sense)) if sense.asc == 0x25 => {
                self.end(Reason::WrongImage(Mismatch::NoUnit));
            }
            Verdict::Drop(reason) => self.end(reason),
        }
    }

    fn again(&mut self, reason: Reason) {
        self.identify.conditions = self.identify.conditions.saturating_add(1);
        if self.identify.conditions > MAX_CONDITIONS {
            self.end(reason);
        }
    }

    fn wait(&mut self, reason: Reason) {
        self.identify.not_ready = self.identify.not_ready.saturating_add(1);
        self.identify.not_before = self.now.saturating_add(self.config.timing.not_ready);
        if self.identify.not_ready > MAX_NOT_READY {
            self.end(reason);
        }
    }

    fn step_failed(&mut self, error: ReadError) {
        match (self.identify.step, error) {
            // These pages are optional.
            (Step::Designator | Step::Limits, ReadError::Refused(_)) => self.learn(0),
            (Step::Capacity, ReadError::Refused(_)) => self.end(self.wrong_capacity(0)),
            (
                _,
                ReadError::Medium(sense) | ReadError::Hardware(sense) | ReadError::Refused(sense),
            ) => {
                self.again(Reason::Condition(sense));
            }
            (_, ReadError::Range | ReadError::Protocol) => {
                self.end(Reason::Protocol(Violation::Malformed))
            }
        }
    }

    fn wrong_capacity(&self, found: u64) -> Reason {
        let expected = self.config.identity.map_or(0, |i| i.capacity_bytes);
        Reason::WrongImage(Mismatch::Capacity { expected, found })
    }

    /// Takes over what the command of the current step brought, and goes to the next step.
    fn learn(&mut self, received: u32) {
        match self.judge_step(received) {
            Ok(step) => self.enter(step),
            Err(reason) => self.end(self.exchanged(reason)),
        }
    }

    fn judge_step(&mut self, received: u32) -> Result<Step, Reason> {
        let malformed = Reason::Protocol(Violation::Malformed);
        let len = usize::try_from(received).unwrap_or(0).min(INPUT_BYTES);
        let data = self.scratch.get(..len).unwrap_or(&[]);
        match self.identify.step {
            Step::UnitReady => Ok(Step::Inquiry),
            Step::Inquiry if is_disk(data).ok_or(malformed)? => Ok(Step::Designator),
            Step::Inquiry => Err(Reason::WrongImage(Mismatch::NoUnit)),
            Step::Designator => {
                self.identify.designator = Designator::from_page(data);
                Ok(Step::Limits)
            }
            Step::Limits => {
                self.identify.max_transfer_blocks = max_transfer_blocks(data);
                Ok(Step::Capacity)
            }
            Step::Capacity => {
                let capacity = Capacity::parse(data);
                self.judge_capacity(capacity)
            }
            Step::Trailer => {
                let found = (self.config.crc32c)(0, data);
                let expected = self.config.identity.and_then(|i| i.trailer_crc32c);
                let right = expected.is_none_or(|crc| crc == found);
                right
                    .then_some(Step::Canary(0))
                    .ok_or(Reason::WrongImage(Mismatch::Trailer))
            }
            Step::Canary(index) => {
                let found = (self.config.crc32c)(0, data);
                let canary = self.canary(index).ok_or(malformed)?;
                let wrong = Reason::WrongImage(Mismatch::Canary {
                    block: canary.block,
                });
                (canary.crc32c == found)
                    .then_some(Step::Canary(index.saturating_add(1)))
                    .ok_or(wrong)
            }
            Step::Done => Err(malformed),
        }
    }

    fn judge_capacity(&mut self, capacity: Option<Capacity>) -> Result<Step, Reason> {
        let capacity = capacity.filter(|c| c.bytes() >= u64::from(BLOCK_BYTES));
        let capacity = capacity.ok_or(self.wrong_capacity(0))?;
        self.identify.capacity = Some(capacity);
        let Some(identity) = self.config.identity else {
            return Ok(Step::Done);
        };
        if capacity.bytes() != identity.capacity_bytes {
            return Err(self.wrong_capacity(capacity.bytes()));
        }
        if self.identify.designator != identity.designator {
            return Err(Reason::WrongImage(Mismatch::Designator));
        }
        Ok(Step::Trailer)
    }

    /// Goes to `step`, or to the first one after it that has anything to check.
    fn enter(&mut self, step: Step) {
        let Some(identity) = self.config.identity else {
            return self.enter_step(step);
        };
        let mut step = step;
        if step == Step::Trailer && identity.trailer_crc32c.is_none() {
            step = Step::Canary(0);
        }
        while let Step::Canary(index) = step {
            match identity.canaries.get(index) {
                None => step = Step::Done,
                Some(None) => step = Step::Canary(index.saturating_add(1)),
                Some(Some(_)) => break,
            }
        }
        self.enter_step(step);
    }

    fn enter_step(&mut self, step: Step) {
        self.identify.step = step;
        if self.recheck.running() {
            // It goes on for as long as the connection does: what passes is not added up.
            (self.identify.conditions, self.identify.not_ready) = (0, 0);
        }
        if step != Step::Done {
            return;
        }
        match self.identify.capacity {
            Some(capacity) => self.become_ready(capacity),
            None => self.end(Reason::Protocol(Violation::Malformed)),
        }
    }
}

fn vpd(page: u8, bytes: u16) -> (Command, Transfer) {
    (
        Command::InquiryVpd { page, bytes },
        Transfer::up_to(u32::from(bytes)),
    )
}
