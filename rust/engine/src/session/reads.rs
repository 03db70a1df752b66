// SPDX-License-Identifier: GPL-2.0-only

//! The table of reads: which wait, which are at the target, which are done.

use super::config::MAX_READS;
use super::reason::ReadError;
use super::transfer::Transfer;
use super::{ReadId, Strikes};

/// How long a read that has ended a connection is for no other session, unless it was sent again before: between two of its
/// strikes there are then a pause, a login and a check of the image, as with one session alone, so that a target that is out of
/// order for a moment does not fail it. A session that is refused for good does not keep it.
const STRUCK_MS: u64 = 60_000;

/// Connections on which one read may run into protocol errors before it fails: a target that answers one block wrongly
/// every time must not keep all others waiting for ever.
const MAX_STRIKES: u8 = 5;

/// One read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) id: ReadId,
    pub(super) lba_bytes: u64,
    /// Bytes that were asked for.
    pub(super) len: u32,
    /// Bytes that earlier commands of this read have brought.
    pub(super) base: u32,
    /// The command that is at the target.
    pub(super) transfer: Transfer,
    /// Its tag.
    pub(super) tag: u32,
    /// When it was sent.
    pub(super) sent_at: u64,
    /// When it was sent or last got a byte.
    pub(super) since: u64,
    /// When a command was answered that was sent long after that.
    overtaken: Option<u64>,
    /// How often it was issued again on this connection.
    pub(super) retries: u8,
    strikes: Strikes,
    /// When it ended this session's last connection.
    struck_at: Option<u64>,
    result: Result<(), ReadError>,
}

impl Slot {
    const EMPTY: Self = Self {
        id: ReadId(0),
        lba_bytes: 0,
        len: 0,
        base: 0,
        transfer: Transfer::exact(0),
        tag: 0,
        sent_at: 0,
        since: 0,
        overtaken: None,
        retries: 0,
        strikes: Strikes::NONE,
        struck_at: None,
        result: Ok(()),
    };
}

/// All reads of a session.
///
/// # Invariants
///
/// Each index is in exactly one of `free`, `sent`, `done` and the queue.
#[derive(Debug)]
pub(super) struct Reads {
    slots: [Slot; MAX_READS],
    free: u64,
    sent: u64,
    done: u64,
    queue: Queue,
}

const _: () = assert!(MAX_READS == 64, "the sets are words of 64 bits");

fn bit(index: usize) -> u64 {
    u32::try_from(index)
        .ok()
        .and_then(|i| 1u64.checked_shl(i))
        .unwrap_or(0)
}

fn lowest(set: u64) -> Option<usize> {
    let index = usize::try_from(set.trailing_zeros()).ok()?;
    (index < MAX_READS).then_some(index)
}

impl Reads {
    pub(super) const fn new() -> Self {
        Self {
            slots: [Slot::EMPTY; MAX_READS],
            free: u64::MAX,
            sent: 0,
            done: 0,
            queue: Queue::new(),
        }
    }

    /// Adds a read. `None` if the table is full or the name is taken.
    pub(super) fn add(
        &mut self,
        id: ReadId,
        lba_bytes: u64,
        len: u32,
        strikes: Strikes,
    ) -> Option<()> {
        let taken = self
            .slots
            .iter()
            .enumerate()
            .any(|(i, s)| self.free & bit(i) == 0 && s.id == id);
        let index = lowest(self.free).filter(|_| !taken)?;
        *self.slots.get_mut(index)? = Slot {
            id,
            lba_bytes,
            len,
            strikes,
            ..Slot::EMPTY
        };
        self.free &= !bit(index);
        self.queue.push_back(index);
        Some(())
    }

    /// Forgets a read that waits in the queue: no command of it is at the target. How often it has ended a connection.
    pub(super) fn remove(&mut self, id: ReadId) -> Option<Strikes> {
        let mut found = None;
        for _ in 0..self.queue.len {
            let index = self.queue.pop_front()?;
            match self.slots.get(index).filter(|slot| slot.id == id) {
                Some(slot) => {
                    self.free |= bit(index);
                    found = Some(slot.strikes);
                }
                None => self.queue.push_back(index),
            }
        }
        found
    }

    /// Whether a read has just ended the connection, and was not sent since; see [`STRUCK_MS`].
    pub(super) fn has_struck(&self, id: ReadId, now: u64) -> bool {
        let mut slots = self.slots.iter().enumerate();
        let slot = slots.find(|(index, slot)| self.free & bit(*index) == 0 && slot.id == id);
        let struck_at = slot.and_then(|(_, slot)| slot.struck_at);
        struck_at.is_some_and(|at| now.saturating_sub(at) < STRUCK_MS)
    }

    /// Reads that were submitted and not yet handed back.
    pub(super) const fn outstanding(&self) -> usize {
        self.free.count_zeros() as usize
    }

    /// Commands at the target.
    pub(super) const fn sent(&self) -> usize {
        self.sent.count_ones() as usize
    }

    /// Whether reads wait to be sent.
    pub(super) const fn waiting(&self) -> bool {
        self.queue.len != 0
    }

    pub(super) fn slot(&self, index: usize) -> Option<&Slot> {
        self.slots.get(index)
    }

    pub(super) fn slot_mut(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)
    }

    /// The read that waits longest; the caller sends it, finishes it or puts it back.
    pub(super) fn take(&mut self) -> Option<usize> {
        self.queue.pop_front()
    }

    /// The read whose command has this tag, if it is at the target.
    pub(super) fn find(&self, index: usize, tag: u32) -> Option<&Slot> {
        let slot = self.slots.get(index)?;
        (self.sent & bit(index) != 0 && slot.tag == tag).then_some(slot)
    }

    /// Puts a read to the front of the queue; its next command is the one that starts at `base`.
    pub(super) fn put_back(&mut self, index: usize) {
        self.sent &= !bit(index);
        self.queue.push_front(index);
    }

    /// A read has ended.
    pub(super) fn finish(&mut self, index: usize, result: Result<(), ReadError>) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.result = result;
            self.sent &= !bit(index);
            self.done |= bit(index);
        }
    }

    /// Hands a finished read back.
    pub(super) fn pop_done(&mut self) -> Option<(ReadId, Result<(), ReadError>)> {
        let index = lowest(self.done)?;
        self.done &= !bit(index);
        self.free |= bit(index);
        let slot = self.slots.get(index)?;
        Some((slot.id, slot.result))
    }

    /// The connection ended because of the command of this read: after some times of it the read fails. Whether it did.
    pub(super) fn strike(&mut self, index: usize, now: u64) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        slot.struck_at = Some(now);
        slot.strikes.0 = slot.strikes.0.saturating_add(1);
        let fails = slot.strikes.0 >= MAX_STRIKES && self.sent & bit(index) != 0;
        if fails {
            self.finish(index, Err(ReadError::Protocol));
        }
        fails
    }

    /// The connection is gone: everything that is not done starts over, and nothing received is kept.
    pub(super) fn start_over(&mut self) {
        while let Some(index) = lowest(self.sent) {
            self.put_back(index);
        }
        for slot in &mut self.slots {
            slot.base = 0;
            slot.retries = 0;
            slot.transfer = Transfer::exact(0);
        }
    }

    /// The read at `index` is sent now.
    pub(super) fn begin(&mut self, index: usize, tag: u32, transfer: Transfer, now: u64) {
        self.sent |= bit(index);
        if let Some(slot) = self.slots.get_mut(index) {
            (slot.tag, slot.transfer) = (tag, transfer);
            (slot.sent_at, slot.since, slot.overtaken) = (now, now, None);
            slot.struck_at = None;
        }
    }

    /// A read got bytes, which are worth `ms` of time.
    pub(super) fn progress(&mut self, index: usize, ms: u64, now: u64) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.since = slot.since.saturating_add(ms).min(now);
            slot.overtaken = None;
        }
    }

    /// The command of a read was answered. Those that had been waiting for `patience` when it was sent seem to be lost:
    /// what the target had to send for them stood before it, however slow the link is.
    pub(super) fn overtake(&mut self, index: usize, patience: u64, now: u64) {
        let Some(sent_at) = self.slots.get(index).map(|slot| slot.sent_at) else {
            return;
        };
        for slot in &mut self.slots {
            if slot.since.saturating_add(patience) <= sent_at {
                slot.overtaken = slot.overtaken.or(Some(now));
            }
        }
    }

    /// When the first of the reads that seem to be lost was overtaken.
    pub(super) fn lost_since(&self) -> Option<u64> {
        let slots = self.slots.iter().enumerate();
        let sent = slots.filter(|(i, _)| self.sent & bit(*i) != 0);
        sent.filter_map(|(_, slot)| slot.overtaken).min()
    }
}

/// Indices in order. It has room for all, so it never overflows as long as each is in it once.
#[derive(Debug)]
struct Queue {
    entries: [u8; MAX_READS],
    head: usize,
    len: usize,
}

impl Queue {
    const fn new() -> Self {
        Self {
            entries: [0; MAX_READS],
            head: 0,
            len: 0,
        }
    }

    fn push_back(&mut self, index: usize) {
        let at = (self.head.wrapping_add(self.len)) % MAX_READS;
        self.put(at, index);
    }

    fn push_front(&mut self, index: usize) {
        self.head = self.head.wrapping_add(MAX_READS).wrapping_sub(1) % MAX_READS;
        self.put(self.head, index);
    }

    fn put(&mut self, at: usize, index: usize) {
        if let (Some(entry), Ok(index)) = (self.entries.get_mut(at), u8::try_from(index)) {
            *entry = index;
            self.len = self.len.saturating_add(1).min(MAX_READS);
        }
    }

    fn pop_front(&mut self) -> Option<usize> {
        self.len = self.len.checked_sub(1)?;
        let index = self.entries.get(self.head).copied();
        self.head = self.head.wrapping_add(1) % MAX_READS;
        index.map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_round_in_order() {
        let mut reads = Reads::new();
        for i in 0..64 {
            assert!(reads.add(ReadId(i), 0, 512, Strikes::NONE).is_some());
        }
        assert!(reads.add(ReadId(64), 0, 512, Strikes::NONE).is_none());
        assert_eq!(reads.outstanding(), 64);
        for i in 0..64 {
            assert_eq!(reads.take(), Some(i));
            reads.begin(i, 0, Transfer::exact(512), 0);
        }
        assert_eq!((reads.take(), reads.sent()), (None, 64));
        reads.finish(7, Ok(()));
        assert_eq!(reads.pop_done(), Some((ReadId(7), Ok(()))));
        assert_eq!((reads.pop_done(), reads.outstanding()), (None, 63));
        assert!(
            reads.add(ReadId(8), 0, 512, Strikes::NONE).is_none(),
            "the name is taken"
        );
        assert!(reads.add(ReadId(7), 0, 512, Strikes::NONE).is_some());
        reads.start_over();
        let mut seen = 0u64;
        while let Some(index) = reads.take() {
            seen |= bit(index);
        }
        assert_eq!((seen, reads.sent()), (u64::MAX, 0));
    }

    #[test]
    fn a_tag_is_found_only_while_its_command_is_at_the_target() {
        let mut reads = Reads::new();
        reads.add(ReadId(3), 0, 512, Strikes::NONE).unwrap();
        let index = reads.take().unwrap();
        assert!(reads.find(index, 77).is_none());
        reads.begin(index, 77, Transfer::exact(512), 0);
        assert!(reads.find(index, 77).is_some());
        assert!(reads.find(index, 78).is_none());
        reads.finish(index, Ok(()));
        assert!(reads.find(index, 77).is_none());
    }

    #[test]
    fn a_read_that_breaks_connection_after_connection_fails() {
        let mut reads = Reads::new();
        reads.add(ReadId(3), 0, 512, Strikes::NONE).unwrap();
        for _ in 1..MAX_STRIKES {
            let index = reads.take().unwrap();
            reads.begin(index, 0, Transfer::exact(512), 0);
            reads.strike(index, 0);
            reads.start_over();
            assert_eq!(reads.pop_done(), None);
        }
        let index = reads.take().unwrap();
        reads.begin(index, 0, Transfer::exact(512), 0);
        reads.strike(index, 0);
        assert_eq!(
            reads.pop_done(),
            Some((ReadId(3), Err(ReadError::Protocol)))
        );
    }

    #[test]
    fn a_read_that_is_not_at_the_target_can_be_taken_back() {
        let mut reads = Reads::new();
        for i in 0..5 {
            reads.add(ReadId(i), 0, 512, Strikes::NONE).unwrap();
        }
        // 0 is at the target, 1 is done.
        for _ in 0..2 {
            let index = reads.take().unwrap();
            reads.begin(index, 0, Transfer::exact(512), 0);
        }
        reads.finish(1, Ok(()));
        for id in [0, 1, 64] {
            assert_eq!(reads.remove(ReadId(id)), None, "{id}");
        }
        assert_eq!(reads.remove(ReadId(3)), Some(Strikes::NONE));
        assert_eq!(reads.remove(ReadId(3)), None);
        assert_eq!((reads.outstanding(), reads.sent()), (4, 1));
        // The others keep their order, and its name is free.
        reads.add(ReadId(3), 0, 512, Strikes::NONE).unwrap();
        assert_eq!(
            [reads.take(), reads.take(), reads.take()],
            [Some(2), Some(4), Some(3)]
        );
        assert_eq!(reads.take(), None);
        // Without a connection nothing is at the target.
        reads.put_back(2);
        reads.strike(0, 0);
        reads.start_over();
        assert_eq!(reads.remove(ReadId(0)), Some(Strikes(1)));
        assert_eq!(reads.remove(ReadId(2)), Some(Strikes::NONE));
        assert_eq!(reads.pop_done(), Some((ReadId(1), Ok(()))));
    }

    #[test]
    fn a_read_brings_its_strikes_along() {
        let mut strikes = Strikes::NONE;
        for _ in 1..MAX_STRIKES {
            let mut reads = Reads::new();
            reads.add(ReadId(3), 0, 512, strikes).unwrap();
            let index = reads.take().unwrap();
            reads.begin(index, 0, Transfer::exact(512), 0);
            assert!(!reads.strike(index, 0));
            reads.start_over();
            strikes = reads.remove(ReadId(3)).unwrap();
        }
        let mut reads = Reads::new();
        reads.add(ReadId(3), 0, 512, strikes).unwrap();
        let index = reads.take().unwrap();
        reads.begin(index, 0, Transfer::exact(512), 0);
        assert!(reads.strike(index, 0));
        assert_eq!(
            reads.pop_done(),
            Some((ReadId(3), Err(ReadError::Protocol)))
        );
    }
}
