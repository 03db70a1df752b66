// SPDX-License-Identifier: GPL-2.0-only

//! Random work on a device by several threads, each on blocks of its own, against a model in memory: what the thread
//! wrote, or else what the image says. Direct I/O, so that the device sees every request as it is; or each operation by
//! another way, as programs have it that know nothing of each other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, Context, Result};
use imgstream_proto::disk::{BLOCK_BYTES, BLOCK_LEN};
use rustix::fs::{fallocate, FallocateFlags};

use crate::direct::{self, Access, Aligned};
use crate::stamp;

/// Blocks that one thread owns in a row.
const STRIPE: u64 = 8;
const SECTOR: usize = 512;

/// What to do.
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) threads: u64,
    pub(crate) operations: u64,
    /// The work is done in blocks [first, end).
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Each operation past the page cache, durably, or through it. Pages must not have blocks of two that do this.
    pub(crate) mixed: bool,
}

/// A small generator: the sequence is the test's, whatever libraries do (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// One thread's stripe of blocks and what it has to be.
struct Stripe {
    start_bytes: u64,
    expected: Vec<u8>,
}

struct Worker {
    /// The device, once for each way to it.
    ways: Vec<File>,
    random: Random,
    stripes: Vec<Stripe>,
    memory: Aligned,
}

impl Worker {
    fn run(&mut self, operations: u64) -> Result<()> {
        for _ in 0..operations {
            let index = self.random.below(self.stripes.len() as u64) as usize;
            match self.random.below(16) {
                0..=5 => self.read(index)?,
                6..=9 => self.write(index, SECTOR)?,
                10..=13 => self.write(index, BLOCK_LEN)?,
                14 => self.zero(index)?,
                _ => self.flush()?,
            }
        }
        for index in 0..self.stripes.len() {
            self.check(index, 0, STRIPE as usize * BLOCK_LEN)?;
        }
        Ok(())
    }

    /// One of the ways.
    fn way(&mut self) -> usize {
        match self.ways.len() as u64 {
            1 => 0,
            ways => self.random.below(ways) as usize,
        }
    }

    /// A random range of the stripe in multiples of `unit`.
    fn range(&mut self, unit: usize) -> (usize, usize) {
        let units = STRIPE * BLOCK_BYTES / unit as u64;
        let start = self.random.below(units);
        let len = 1 + self.random.below((units - start).min(24));
        (start as usize * unit, len as usize * unit)
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let (at, len) = self.range(SECTOR);
        self.check(index, at, len)
    }

    fn flush(&mut self) -> Result<()> {
        let way = self.way();
        self.ways[way].sync_data().context("flush")
    }

    fn check(&mut self, index: usize, at: usize, len: usize) -> Result<()> {
        let way = self.way();
        let stripe = &self.stripes[index];
        let start = stripe.start_bytes + at as u64;
        let found = self.memory.bytes(len);
        self.ways[way]
            .read_exact_at(found, start)
            .with_context(|| format!("reading {len} bytes at {start}"))?;
        let expected = &stripe.expected[at..at + len];
        if let Some(offset) = found.iter().zip(expected).position(|(a, b)| a != b) {
            let sector = offset / SECTOR * SECTOR;
            bail!(
                "byte {} (block {}): should be {:?}, is {:?}",
                start + offset as u64,
                (start + offset as u64) / BLOCK_BYTES,
                String::from_utf8_lossy(&expected[sector..sector + 24]),
                String::from_utf8_lossy(&found[sector..sector + 24]),
            );
        }
        Ok(())
    }

    fn write(&mut self, index: usize, unit: usize) -> Result<()> {
        let (at, len) = self.range(unit);
        let way = self.way();
        let mark = format!("w{:016x}\n", self.random.next());
        let bytes = self.memory.bytes(len);
        for (to, from) in bytes.iter_mut().zip(mark.bytes().cycle()) {
            *to = from;
        }
        let stripe = &mut self.stripes[index];
        self.ways[way].write_all_at(bytes, stripe.start_bytes + at as u64)?;
        stripe.expected[at..at + len].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, index: usize) -> Result<()> {
        let (at, len) = self.range(SECTOR);
        let way = self.way();
        let stripe = &mut self.stripes[index];
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        fallocate(
            &self.ways[way],
            flags,
            stripe.start_bytes + at as u64,
            len as u64,
        )
        .context("write zeroes")?;
        stripe.expected[at..at + len].fill(0);
        Ok(())
    }
}

fn stripes(options: &Options, thread: u64) -> Vec<Stripe> {
    (options.first / STRIPE..options.end / STRIPE)
        .filter(|stripe| stripe % options.threads == thread)
        .map(|stripe| {
            let start = stripe * STRIPE;
            Stripe {
                start_bytes: start * BLOCK_BYTES,
                expected: (start..start + STRIPE)
                    .flat_map(|block| stamp::block("image", block))
                    .collect(),
            }
        })
        .collect()
}

/// Does the work, then leaves what it expects in `expected` (a file as large as the image), for later checks.
pub(crate) fn exercise(device: &Path, options: &Options, expected: Option<&Path>) -> Result<()> {
    let mut workers = Vec::new();
    let ways: &[Access] = match options.mixed {
        true => &[Access::Write, Access::Durable, Access::Cached],
        false => &[Access::Write],
    };
    for thread in 0..options.threads {
        let ways = ways.iter().map(|access| direct::open(device, *access));
        workers.push(Worker {
            ways: ways.collect::<Result<_>>()?,
            random: Random(options.seed * 1000 + thread + 1),
            stripes: stripes(options, thread),
            memory: Aligned::new(STRIPE as usize * BLOCK_LEN),
        });
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.run(options.operations)))
            .collect();
        handles
            .into_iter()
            .try_for_each(|handle| handle.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    if let Some(path) = expected {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        for stripe in workers.iter().flat_map(|worker| &worker.stripes) {
            file.write_all_at(&stripe.expected, stripe.start_bytes)?;
        }
        file.sync_all()?;
    }
    println!(
        "{} operations by {} threads agree",
        options.operations, options.threads
    );
    Ok(())
}

/// Checks that [first, end) of `device` is what an exercise left in `expected`.
pub(crate) fn compare(device: &Path, expected: &Path, first: u64, end: u64) -> Result<()> {
    let device = direct::open(device, Access::Read)?;
    let expected = File::open(expected)?;
    let (mut memory, mut wanted) = (Aligned::new(BLOCK_LEN), [0; BLOCK_LEN]);
    for block in first..end {
        let found = memory.bytes(BLOCK_LEN);
        device.read_exact_at(found, block * BLOCK_BYTES)?;
        expected.read_exact_at(&mut wanted, block * BLOCK_BYTES)?;
        if *found != wanted {
            bail!("block {block} differs");
        }
    }
    println!("{} blocks agree", end - first);
    Ok(())
}
