// SPDX-License-Identifier: GPL-2.0-only

//! The journal: where the next transaction goes, and how the transactions are read back.
//!
//! Transactions are written one at a time: the next one is not begun before both copies of the one before are durable.
//! So after a cut at most the last is missing or torn, and a hole with anything valid behind it is damage.

use imgstream_proto::disk::journal::{Probe, Record, Transaction, TRANSACTION_ALIGN};
use imgstream_proto::disk::superblock::Checkpoint;
use imgstream_proto::disk::{Crc32c, Uuid};

/// Where transactions go.
///
/// # Invariants
///
/// `position <= len`, `used <= len`; the `used` bytes before `position`, going round, are the transactions (and what was
/// skipped at the end) since the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    len_bytes: u64,
    position_bytes: u64,
    used_bytes: u64,
    next_sequence: u64,
    /// The newest copy counter that is durable, in blocks.
    counter: u64,
}

/// A place for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub sequence: u64,
    /// Where it stands, in bytes from the start of the journal.
    pub position_bytes: u64,
    /// Its length.
    pub len_bytes: u64,
    /// Bytes left unused before it, at the journal's end.
    skipped_bytes: u64,
}

impl Writer {
    /// A writer for an empty journal of `len_bytes` (a multiple of 4 KiB) that begins at `from`. `counter` is the durable
    /// copy counter.
    pub fn new(len_bytes: u64, from: Checkpoint, counter: u64) -> Self {
        Self {
            len_bytes,
            position_bytes: from.position_bytes.min(len_bytes),
            used_bytes: 0,
            next_sequence: from.sequence,
            counter,
        }
    }

    /// Where replay would have to begin if all before was in the map.
    pub const fn head(&self) -> Checkpoint {
        Checkpoint {
            sequence: self.next_sequence,
            position_bytes: self.position_bytes,
        }
    }

    /// The number of the newest transaction; images of segments that a checkpoint writes carry it. Replay prefers a
    /// map's image to a record of the same number: the checkpoint is the later of the two.
    pub const fn last_sequence(&self) -> u64 {
        self.next_sequence.saturating_sub(1)
    }

    /// Whether a checkpoint is due.
    pub const fn half_full(&self) -> bool {
        self.used_bytes > self.len_bytes / 2
    }

    /// The longest transaction that is allowed: four of them fit, so that one always does after a checkpoint.
    pub const fn transaction_max(&self) -> u64 {
        self.len_bytes / 4 / TRANSACTION_ALIGN * TRANSACTION_ALIGN
    }

    /// The place of the next transaction; `None`: a checkpoint must make room first.
    pub fn place(&self, len_bytes: u64) -> Option<Slot> {
        let rest = self.len_bytes.saturating_sub(self.position_bytes);
        let (position_bytes, skipped_bytes) = if len_bytes <= rest {
            (self.position_bytes, 0)
        } else {
            (0, rest)
        };
        let used = self
            .used_bytes
            .checked_add(skipped_bytes)?
            .checked_add(len_bytes)?;
        (used <= self.len_bytes && len_bytes <= self.transaction_max()).then_some(Slot {
            sequence: self.next_sequence,
            position_bytes,
            len_bytes,
            skipped_bytes,
        })
    }

    /// The newest durable copy counter, in blocks: what every superblock must say. A checkpoint leaves behind the record
    /// that made it durable, maybe before anybody was told; the locator's counter may be older.
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// The transaction at `slot` is durable in both copies, and with it this copy counter.
    pub fn written(&mut self, slot: &Slot, counter: Option<u64>) {
        self.counter = self.counter.max(counter.unwrap_or(0));
        // INVARIANT: `place` saw that it fits.
        self.position_bytes = slot.position_bytes.saturating_add(slot.len_bytes);
        self.used_bytes = self
            .used_bytes
            .saturating_add(slot.skipped_bytes)
            .saturating_add(slot.len_bytes);
        self.next_sequence = self.next_sequence.saturating_add(1);
    }

    /// A superblock that lets replay begin at `from` is durable; `used_before` is what [`Writer::used_bytes`] said when
    /// `from` was the head.
    pub fn checkpointed(&mut self, used_before: u64) {
        self.used_bytes = self.used_bytes.saturating_sub(used_before);
    }

    /// Bytes that replay would go over.
    pub const fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}

/// The journal cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A transaction is missing although a later one is there.
    Hole {
        /// The number that is missing.
        missing: u64,
        /// The later one.
        found: u64,
        /// Where that stands, in bytes from the start of the journal.
        position_bytes: u64,
    },
}

/// What replay found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Where the next transaction goes, with the number it would have.
    pub head: Checkpoint,
    /// Transactions that were read.
    pub transactions: u64,
}

/// Reads the journal from `from` on, calling `apply` for every record in order. `a` and `b` are the two copies as read
/// from the disk, of the same length, unreadable parts zeroed; each transaction is taken from the copy where it is valid.
pub fn replay(
    uuid: &Uuid,
    from: Checkpoint,
    a: &[u8],
    b: &[u8],
    crc: Crc32c,
    mut apply: impl FnMut(&Record),
) -> Result<Replayed, Damage> {
    let copies = Copies { uuid, a, b, crc };
    let mut head = from;
    let mut transactions = 0u64;
    while let Some((position_bytes, transaction)) = copies.next(head) {
        for record in transaction.records() {
            apply(&record);
        }
        transactions = transactions.saturating_add(1);
        head.position_bytes = position_bytes.saturating_add(transaction.len_bytes());
        // Nothing follows the last number; looking for it again would find the same transaction for ever.
        let Some(sequence) = head.sequence.checked_add(1) else {
            break;
        };
        head.sequence = sequence;
    }
    match copies.newer_than(head.sequence) {
        Some((found, position_bytes)) => Err(Damage::Hole {
            missing: head.sequence,
            found,
            position_bytes,
        }),
        None => Ok(Replayed { head, transactions }),
    }
}

struct Copies<'a> {
    uuid: &'a Uuid,
    a: &'a [u8],
    b: &'a [u8],
    crc: Crc32c,
}

impl<'a> Copies<'a> {
    /// The transaction that follows: at the head, or at the start if the one before was the last that fitted.
    fn next(&self, head: Checkpoint) -> Option<(u64, Transaction<'a>)> {
        [head.position_bytes, 0].into_iter().find_map(|position| {
            self.valid_at(position)
                .find(|transaction| transaction.sequence() == head.sequence)
                .map(|transaction| (position, transaction))
        })
    }

    fn valid_at(&self, position_bytes: u64) -> impl Iterator<Item = Transaction<'a>> + '_ {
        [self.a, self.b].into_iter().filter_map(move |copy| {
            let bytes = copy.get(usize::try_from(position_bytes).ok()?..)?;
            Transaction::decode(self.uuid, position_bytes, bytes, self.crc).ok()
        })
    }

    /// A valid transaction with a higher number, anywhere.
    fn newer_than(&self, sequence: u64) -> Option<(u64, u64)> {
        let len = u64::try_from(self.a.len().max(self.b.len())).ok()?;
        (0..len / TRANSACTION_ALIGN)
            .map(|index| index.saturating_mul(TRANSACTION_ALIGN))
            .filter(|position| self.probably_newer(*position, sequence))
            .find_map(|position| {
                self.valid_at(position)
                    .find(|transaction| transaction.sequence() > sequence)
                    .map(|transaction| (transaction.sequence(), position))
            })
    }

    /// A look at the heads only, which spares the checksum of everything old.
    fn probably_newer(&self, position_bytes: u64, sequence: u64) -> bool {
        [self.a, self.b].into_iter().any(|copy| {
            usize::try_from(position_bytes)
                .ok()
                .and_then(|start| copy.get(start..))
                .and_then(|bytes| Probe::new(self.uuid, position_bytes, bytes).ok())
                .is_some_and(|probe| probe.sequence > sequence)
        })
    }
}
