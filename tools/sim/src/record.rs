// SPDX-License-Identifier: GPL-2.0-only

//! The model's store: the engine's machines for rounds, checkpoints, superblocks and attach, on the model's disk.

use std::rc::Rc;

use imgstream_engine::checkpoint::{self, Checkpoint};
use imgstream_engine::health::Health;
use imgstream_engine::journal::replay;
use imgstream_engine::load::{attach as attached, Loader};
use imgstream_engine::pair::{self, choose, Choice, Update};
use imgstream_engine::round::{self, Round};
use imgstream_engine::state::transition;
use imgstream_engine::trust::Trust;
use imgstream_proto::disk::superblock::SUPERBLOCK_LEN;
use imgstream_proto::disk::{BootList, Copy2, Error, State, Superblock, SEGMENT_LEN};

use crate::exec::{pause, until};
use crate::rules::Broken;
use crate::world::{crc, Control, World};

/// Small, so that rounds need several transactions and checkpoints several batches.
const BUFFER_BYTES: usize = 8 << 10;

/// Exclusive use of the journal until dropped.
pub struct Exclusive(Rc<World>);

impl Exclusive {
    /// Waits for it.
    pub async fn get(world: &Rc<World>) -> Self {
        until(|| (!world.journal_busy.replace(true)).then_some(())).await;
        Self(world.clone())
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.0.journal_busy.set(false);
    }
}

fn take_control(world: &World) -> Control {
    world
        .control
        .borrow_mut()
        .take()
        .expect("attached, and the journal is ours")
}

/// One flush round. Rule 10: a failure degrades the device.
pub async fn flush_round(world: &Rc<World>, counter: Option<u64>) -> Result<(), ()> {
    let _exclusive = Exclusive::get(world).await;
    let ignore = world.without(Broken::JournalErrorIgnored);
    if !world.health.get().may_flush() && !ignore {
        return Err(());
    }
    let mut control = take_control(world);
    let mut covered = 0;
    let result = run_round(world, &mut control, counter, &mut covered).await;
    *world.control.borrow_mut() = Some(control);
    if result.is_err() {
        world.health.degrade(Health::Degraded);
        return result;
    }
    world
        .waiters
        .covered
        .set(world.waiters.covered.get().max(covered));
    Ok(())
}

async fn run_round(
    world: &Rc<World>,
    control: &mut Control,
    counter: Option<u64>,
    covered: &mut u64,
) -> Result<(), ()> {
    let mut buffer = vec![0xee; BUFFER_BYTES];
    let mut round = Round::new(counter, &control.writer, BUFFER_BYTES as u64);
    loop {
        pause().await;
        match round.next(&control.writer) {
            round::Step::TakeWaiters => *covered = world.waiters.given.get(),
            round::Step::Checkpoint => {
                checkpoint(world, control, Superblock::clone).await?;
                continue;
            }
            round::Step::Snapshot => {
                if world.without(Broken::FlushBeforeSnapshot) {
                    world.flush_disk().await?;
                }
                let (map, pages) = (world.map(), world.pages());
                let uuid = &control.superblock.uuid;
                round
                    .snapshot(&map, &pages, &control.writer, uuid, &mut buffer, crc)
                    .map_err(|error| world.fail(format!("snapshot: {error}")))?;
            }
            round::Step::FlushData => {
                let skip = [Broken::NoFlushBeforeJournal, Broken::FlushBeforeSnapshot];
                if !skip.contains(&world.broken) {
                    world.flush_disk().await?;
                }
            }
            round::Step::WriteJournal {
                copy,
                position_bytes,
                len_bytes,
            } => {
                let start = copy.of(&control.superblock.places.journal).start_bytes;
                let bytes = &buffer[..len_bytes as usize];
                let written = world.write_bytes(start + position_bytes, bytes).await;
                if !world.without(Broken::JournalErrorIgnored) {
                    written?;
                }
            }
            round::Step::FlushJournal => world.flush_disk().await?,
            round::Step::Done => return Ok(()),
        }
        round.advance(&world.map(), &mut control.writer);
    }
}

/// A checkpoint whose superblock `change` may change as well.
async fn checkpoint(
    world: &Rc<World>,
    control: &mut Control,
    change: impl Fn(&Superblock) -> Superblock,
) -> Result<(), ()> {
    let mut buffer = vec![0xee; BUFFER_BYTES];
    let mut checkpoint = Checkpoint::new(&control.writer);
    loop {
        pause().await;
        match checkpoint.next() {
            checkpoint::Step::Snapshot => {
                let (map, pages) = (world.map(), world.pages());
                let uuid = &control.superblock.uuid;
                checkpoint
                    .snapshot(&map, &pages, &control.writer, uuid, &mut buffer, crc)
                    .map_err(|error| world.fail(format!("checkpoint: {error}")))?;
            }
            checkpoint::Step::FlushData | checkpoint::Step::FlushMap => world.flush_disk().await?,
            checkpoint::Step::WriteMap {
                copy,
                to_bytes,
                from,
                len,
            } => {
                let start = copy.of(&control.superblock.places.map).start_bytes;
                let bytes = &buffer[from..from + len];
                world.write_bytes(start + to_bytes, bytes).await?;
            }
            checkpoint::Step::Superblock(at) => {
                let mut next = change(&control.superblock);
                next.checkpoint = at;
                write_superblock(world, control, next).await?;
            }
            checkpoint::Step::Done => return Ok(()),
        }
        checkpoint.advance(&world.pages(), &mut control.writer);
    }
}

/// Replaces the pair; the change counts from then on.
async fn write_superblock(
    world: &Rc<World>,
    control: &mut Control,
    mut next: Superblock,
) -> Result<(), ()> {
    next.generation = control.superblock.generation + 1;
    next.copy_counter_blocks = if world.without(Broken::OldCounterInSuperblock) {
        world.locate(|locator| locator.counter())
    } else {
        control.writer.counter()
    };
    let mut update = Update::new(control.stale);
    loop {
        match update.next() {
            pair::Step::Write(copy) => write_copy(world, &next, copy).await?,
            pair::Step::Flush => world.flush_disk().await?,
            pair::Step::Done => break,
        }
        update.advance();
    }
    control.superblock = next;
    control.stale = None;
    Ok(())
}

async fn write_copy(world: &Rc<World>, superblock: &Superblock, copy: Copy2) -> Result<(), ()> {
    let locations = pair::locations(superblock).expect("a disk with a control area");
    let mut bytes = [0; SUPERBLOCK_LEN];
    let at = *copy.of(&locations);
    superblock
        .encode(at, &mut bytes, crc)
        .map_err(|error| world.fail(format!("superblock: {error}")))?;
    world.write_bytes(at, &bytes).await
}

/// Writes a state; rule 10 again.
pub async fn set_state(world: &Rc<World>, to: State) -> Result<(), ()> {
    let _exclusive = Exclusive::get(world).await;
    if !world.health.get().may_flush() {
        return Err(());
    }
    let mut control = take_control(world);
    let mut next = control.superblock.clone();
    if let Err(illegal) = transition(next.state, to) {
        world.fail(illegal.to_string());
    }
    next.state = to;
    let result = write_superblock(world, &mut control, next).await;
    *world.control.borrow_mut() = Some(control);
    if result.is_err() {
        world.health.degrade(Health::Degraded);
    }
    result
}

/// A checkpoint if one is due (or at random).
pub async fn checkpoint_if_due(world: &Rc<World>) {
    let _exclusive = Exclusive::get(world).await;
    if !world.health.get().may_flush() {
        return;
    }
    let mut control = take_control(world);
    if control.writer.half_full() || world.rng.chance(world.config.checkpoint) {
        let result = checkpoint(world, &mut control, Superblock::clone).await;
        if result.is_err() {
            world.health.degrade(Health::Degraded);
        }
    }
    *world.control.borrow_mut() = Some(control);
}

/// The mark of a clean detach. Everything has been recorded, nobody uses the device.
pub async fn detach(world: &Rc<World>) -> Result<(), ()> {
    flush_round(world, None).await?;
    let mut control = take_control(world);
    let mut next = control.superblock.clone();
    next.clean = true;
    let result = write_superblock(world, &mut control, next).await;
    *world.control.borrow_mut() = Some(control);
    result
}

fn read_superblock(world: &World, at: u64) -> Result<Superblock, Error> {
    Superblock::decode(at, &world.bytes(at, SUPERBLOCK_LEN as u64), crc)
}

/// Attaches the disk. `Err` is a violation: after any cut the disk must be attachable.
pub async fn attach(world: &Rc<World>) -> Result<(), String> {
    let geometry = world.geometry;
    let last = geometry
        .last_superblock_bytes()
        .ok_or("no last superblock")?;
    let a = read_superblock(world, geometry.control_start_bytes);
    let b = read_superblock(world, last);
    let Choice::Found { copy, stale } = choose(&a, &b) else {
        return Err(format!("superblocks: {:?}", choose(&a, &b)));
    };
    let found = if copy == Copy2::A { a } else { b }.map_err(|error| error.to_string())?;
    if found.state == State::Committed {
        world.committed.set(true);
        return Ok(());
    }
    load_boot(world, &found)?;
    let mut control = load_map(world, &found, stale)?;
    let counter = control.writer.counter();
    world.locate(|locator| locator.raise_counter(counter));
    world
        .trust
        .set(if world.without(Broken::SuspicionForgotten) {
            if found.clean {
                Trust::Proven
            } else {
                Trust::Suspect
            }
        } else {
            Trust::at_attach(&found)
        });
    let change = |now: &Superblock| {
        let mut next = now.clone();
        attached(&mut next, counter, now.checkpoint);
        next
    };
    let done = checkpoint(world, &mut control, change).await;
    *world.control.borrow_mut() = Some(control);
    done.map_err(|()| "the attach could not write".to_string())
}

fn load_boot(world: &World, found: &Superblock) -> Result<(), String> {
    for place in found.places.boot_list {
        let bytes = world.bytes(place.start_bytes, place.len_bytes);
        if let Ok(list) = BootList::decode(&found.uuid, place.start_bytes, &bytes, crc) {
            *world.boot.borrow_mut() = list.entries().map(Into::into).collect();
            return Ok(());
        }
    }
    Err("no boot list".to_string())
}

fn load_map(world: &World, found: &Superblock, stale: Option<Copy2>) -> Result<Control, String> {
    let map = world.map();
    let mut sequences = vec![0; map.segments() as usize];
    let counter = found.copy_counter_blocks;
    let mut loader = Loader::new(&found.uuid, map, &mut sequences, world.pages(), counter);
    let [a, b] = found
        .places
        .map
        .map(|place| world.bytes(place.start_bytes, place.len_bytes));
    let segments = a.chunks_exact(SEGMENT_LEN).zip(b.chunks_exact(SEGMENT_LEN));
    for (index, (a, b)) in (0..map.segments()).zip(segments) {
        loader.segment(index, Some(a), Some(b), crc);
    }
    let [a, b] = found
        .places
        .journal
        .map(|place| world.bytes(place.start_bytes, place.len_bytes));
    let replayed = replay(&found.uuid, found.checkpoint, &a, &b, crc, |record| {
        loader.record(record)
    })
    .map_err(|damage| format!("{damage:?}"))?;
    let loaded = loader.finish().map_err(|damage| format!("{damage:?}"))?;
    Ok(Control {
        superblock: found.clone(),
        stale,
        writer: loaded.writer(world.config.journal_bytes, &replayed),
    })
}
