// SPDX-License-Identifier: GPL-2.0-only

//! The model's guest: workers that read, write, flush and discard at random, and note what they may expect.

use std::cell::Cell;
use std::rc::Rc;

use imgstream_engine::block::Run;
use imgstream_engine::sweep::{Answer, Next, Sweep};

use crate::config::SECTORS;
use crate::disk::{Sector, ZERO};
use crate::exec::{pause, until};
use crate::io::{self, Within};
use crate::record::flush_round;
use crate::rules::Broken;
use crate::world::World;

/// Numbers for what is written; unique in a run.
pub type Stamps = Rc<Cell<u64>>;

/// One worker: random operations until the life is to end.
pub async fn worker(world: Rc<World>, stamps: Stamps) {
    while !world.stopping.get() {
        let chance = world.rng.below(100);
        let config = &world.config;
        if chance < config.flush {
            flush(&world).await;
        } else if chance < config.flush + config.discard {
            discard(&world).await;
        } else if chance < config.flush + config.discard + config.read {
            let part = some_part(&world);
            read(&world, part).await;
        } else {
            write(&world, &stamps).await;
        }
        pause().await;
    }
    world.workers.set(world.workers.get() - 1);
}

fn some_part(world: &World) -> Within {
    let block = world.rng.pick(&world.config.hot);
    if world.rng.chance(50) {
        return Within {
            block,
            from: 0,
            len: SECTORS,
        };
    }
    let from = world.rng.below(SECTORS);
    Within {
        block,
        from,
        len: 1 + world.rng.below(SECTORS - from),
    }
}

fn start_of(part: Within) -> u64 {
    part.block * SECTORS + part.from
}

/// Reads and compares.
pub async fn read(world: &Rc<World>, part: Within) {
    let start = start_of(part);
    let ticket = world
        .oracle
        .borrow_mut()
        .begin_read(start, part.len as usize);
    if let Ok(values) = io::read(world, part).await {
        world.oracle.borrow_mut().end_read(&ticket, &values);
    }
}

async fn write(world: &Rc<World>, stamps: &Stamps) {
    let part = some_part(world);
    let stamp = |_| {
        stamps.set(stamps.get() + 1);
        // Zeroes are data like any other.
        if stamps.get() % 11 == 0 {
            ZERO
        } else {
            Sector::Tag(stamps.get())
        }
    };
    let data: Vec<Sector> = (0..part.len).map(stamp).collect();
    let start = start_of(part);
    if !world.oracle.borrow_mut().begin_write(start, &data) {
        return;
    }
    let written = io::write(world, part, &data).await;
    // FUA: the write, then a round that covers it.
    let fua = world.rng.chance(10);
    let durable = fua && written.is_ok() && flushed(world).await.is_ok();
    let mut oracle = world.oracle.borrow_mut();
    oracle.end_write(start, data.len(), written.is_ok(), durable);
}

async fn discard(world: &Rc<World>) {
    let block = world.rng.pick(&world.config.hot);
    let data = vec![ZERO; SECTORS as usize];
    let start = block * SECTORS;
    if !world.oracle.borrow_mut().begin_write(start, &data) {
        return;
    }
    let done = io::discard(world, block).await;
    let mut oracle = world.oracle.borrow_mut();
    oracle.end_write(start, data.len(), done.is_ok(), false);
}

async fn flush(world: &Rc<World>) {
    let ticket = world.oracle.borrow().begin_flush();
    if flushed(world).await.is_ok() {
        world.oracle.borrow_mut().end_flush(&ticket);
    }
}

/// FLUSH as the device does it: rule 2. Ends when a round has covered this call.
async fn flushed(world: &Rc<World>) -> Result<(), ()> {
    if world.without(Broken::FlushWithoutRound) {
        return world.flush_disk().await;
    }
    let ignore = world.without(Broken::JournalErrorIgnored);
    let ticket = world.waiters.given.get() + 1;
    world.waiters.given.set(ticket);
    until(|| {
        if world.waiters.covered.get() >= ticket {
            Some(Ok(()))
        } else if !world.health.get().may_flush() && !ignore {
            Some(Err(()))
        } else {
            None
        }
    })
    .await
}

/// The driver's own task: rounds for those who wait, and now and then for nobody.
pub async fn rounds(world: Rc<World>) {
    while !world.stopping.get() || world.workers.get() > 0 {
        let waiting = world.waiters.given.get() > world.waiters.covered.get();
        if waiting || world.rng.chance(2) {
            let _ = flush_round(&world, None).await;
            crate::record::checkpoint_if_due(&world).await;
        }
        pause().await;
    }
}

/// The driver's background fill.
pub async fn filler(world: Rc<World>) {
    let mut sweep = Sweep::new(Run::new(0, world.config.image_blocks), 1);
    while !world.stopping.get() {
        let Next::Ask(run) = world.locate(|locator| sweep.next(locator, 0)) else {
            break;
        };
        sweep.ask(run);
        io::fill(&world, run.start).await;
        sweep.answer(Answer::Came, 0);
        for _ in 0..world.rng.below(20) {
            pause().await;
        }
    }
}
