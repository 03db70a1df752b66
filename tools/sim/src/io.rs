// SPDX-License-Identifier: GPL-2.0-only

//! The model's head and stream queue: reads, writes, discards and fills, as the driver does them.

use std::cell::RefCell;
use std::rc::Rc;

use imgstream_engine::block::{Base, BlockState, Run};
use imgstream_engine::fetch::{plan, Plan};
use imgstream_engine::locate::{Piece, Place};
use imgstream_engine::map::Change;

use crate::config::SECTORS;
use crate::disk::{Sector, ZERO};
use crate::exec::{pause, until};
use crate::rules::Broken;
use crate::world::{home, World};

/// Sectors of one block: `[from, from + len)`.
#[derive(Clone, Copy)]
pub struct Within {
    /// The block.
    pub block: u64,
    /// The first sector in it.
    pub from: u64,
    /// Number of sectors.
    pub len: u64,
}

impl Within {
    fn whole(&self) -> bool {
        self.len == SECTORS
    }

    fn of(&self, all: &[Sector]) -> Vec<Sector> {
        all[self.from as usize..(self.from + self.len) as usize].to_vec()
    }

    fn merge(&self, mut all: Vec<Sector>, part: &[Sector]) -> Vec<Sector> {
        all[self.from as usize..(self.from + self.len) as usize].clone_from_slice(part);
        all
    }
}

fn locate(world: &World, block: u64) -> Piece {
    world
        .locate(|locator| locator.locate(block, 1))
        .expect("inside of the image")
}

/// Reads a part of a block.
pub async fn read(world: &Rc<World>, part: Within) -> Result<Vec<Sector>, ()> {
    let lookup = world.enter_read();
    let piece = locate(world, part.block);
    // Between look-up and disk anything may happen to others.
    pause().await;
    match piece.place {
        Place::Home | Place::Slot => {
            let start = piece.disk_bytes / 512 + part.from;
            world.read(start, part.len).await
        }
        Place::Zero => Ok(vec![ZERO; part.len as usize]),
        Place::Absent => {
            // No lock, no slot, no exclusion while the network is waited for.
            drop(lookup);
            let block = fetch(world, part.block).await;
            let answer = part.of(&block.borrow());
            // The reader goes on with its pages, and may write to them.
            let pages = block.clone();
            let world = world.clone();
            let scribble = async move {
                pause().await;
                if world.without(Broken::StoreFromReader) {
                    pages.borrow_mut().fill(Sector::Tag(0xdead));
                }
            };
            scribble.await;
            Ok(answer)
        }
    }
}

/// Fetches a block, once however many want it, and keeps it. The cell is the reader's pages.
async fn fetch(world: &Rc<World>, block: u64) -> Rc<RefCell<Vec<Sector>>> {
    loop {
        let plan = {
            let under_way = world.fetches.borrow();
            plan(
                under_way.iter().map(|at| (*at, Run::new(*at, 1))),
                Run::new(block, 1),
            )
        };
        if let Plan::Start { .. } = plan {
            return fetch_alone(world, block).await;
        }
        until(|| (!world.fetches.borrow().contains(&block)).then_some(())).await;
        let arrived = world.arrived.borrow().get(&block).cloned();
        if let Some(data) = arrived {
            return Rc::new(RefCell::new(data));
        }
    }
}

async fn fetch_alone(world: &Rc<World>, block: u64) -> Rc<RefCell<Vec<Sector>>> {
    world.fetches.borrow_mut().insert(block);
    let data = world.fetch(block).await;
    world.arrived.borrow_mut().insert(block, data.clone());
    let pages = Rc::new(RefCell::new(data.clone()));
    // Rule 6: what is stored are the driver's own pages; the reader has a copy.
    let own = if world.without(Broken::StoreFromReader) {
        pages.clone()
    } else {
        Rc::new(RefCell::new(data))
    };
    world.fetches.borrow_mut().remove(&block);
    let storing = store(world.clone(), block, own);
    world.spawned.borrow_mut().push(Box::pin(storing));
    pages
}

/// Stores a fetched block in its slot: rule 4.
async fn store(world: Rc<World>, block: u64, data: Rc<RefCell<Vec<Sector>>>) {
    pause().await;
    if !world.health.get().may_fill() && !world.without(Broken::JournalErrorIgnored) {
        return;
    }
    let held = world.excluded.get().is_some_and(|run| run.contains(block));
    if held {
        return;
    }
    let _lookup = world.enter(block).await;
    let careful = !world.without(Broken::FillIgnoresClaims);
    let run = Run::new(block, 1);
    if careful
        && world
            .claims()
            .try_claim_absent(&world.map(), run)
            .is_empty()
    {
        return;
    }
    let piece = locate(&world, block);
    if piece.place != Place::Home {
        pause().await;
        let sectors = data.borrow().clone();
        if world.write(world.slot(block), &sectors).await.is_ok() {
            world.map().apply(Run::new(block, 1), Change::Filled);
        }
    }
    if careful {
        world.claims().release(block);
    }
}

/// Background fill of one block.
pub async fn fill(world: &Rc<World>, block: u64) {
    if world.health.get().may_fill() {
        fetch(world, block).await;
    }
}

/// Fetches a block without keeping it.
pub async fn fetch_only(world: &Rc<World>, block: u64) -> Vec<Sector> {
    world.fetch(block).await
}

/// Whether states may change: rule 10.
fn may_change(world: &World) -> Result<(), ()> {
    let may = world.health.get().may_change_state();
    if may || world.without(Broken::JournalErrorIgnored) {
        Ok(())
    } else {
        Err(())
    }
}

/// Writes a part of a block.
pub async fn write(world: &Rc<World>, part: Within, data: &[Sector]) -> Result<(), ()> {
    loop {
        let lookup = world.enter(part.block).await;
        let piece = locate(world, part.block);
        match piece.place {
            Place::Home | Place::Slot => {
                if piece.place == Place::Slot && piece.state == BlockState::Clean {
                    may_change(world)?;
                    // Before the write is submitted: see `engine::trust`.
                    world
                        .map()
                        .apply(Run::new(part.block, 1), Change::Overwritten);
                }
                pause().await;
                return world.write(piece.disk_bytes / 512 + part.from, data).await;
            }
            Place::Zero | Place::Absent => {
                may_change(world)?;
                drop(lookup);
                if let Some(done) = write_new(world, part, data).await {
                    return done;
                }
                pause().await;
            }
        }
    }
}

/// Writes to a block that has no slot in use yet. `None`: it got one, or a home, meanwhile.
async fn write_new(world: &Rc<World>, part: Within, data: &[Sector]) -> Option<Result<(), ()>> {
    if !world.claims().try_claim(part.block) {
        return None;
    }
    let result = write_claimed(world, part, data).await;
    world.claims().release(part.block);
    result
}

async fn write_claimed(world: &Rc<World>, part: Within, data: &[Sector]) -> Option<Result<(), ()>> {
    let before = locate(world, part.block).place;
    if before == Place::Home {
        return None;
    }
    let all = match world.map().state(part.block).base(part.whole())? {
        Base::Nothing => data.to_vec(),
        Base::Image => part.merge(fetch_only(world, part.block).await, data),
        Base::Zeroes => {
            let mut old = vec![ZERO; SECTORS as usize];
            if world.without(Broken::ZeroMergedWithSlot) {
                old = world.read(world.slot(part.block), SECTORS).await.ok()?;
            }
            part.merge(old, data)
        }
    };
    let _lookup = world.enter(part.block).await;
    // The commit may have moved it while the network was waited for.
    if locate(world, part.block).place != before {
        return None;
    }
    pause().await;
    let written = world.write(world.slot(part.block), &all).await;
    if written.is_ok() {
        world.map().apply(Run::new(part.block, 1), Change::Written);
    }
    Some(written)
}

/// Discards a block: it reads as zeroes from then on.
pub async fn discard(world: &Rc<World>, block: u64) -> Result<(), ()> {
    loop {
        let lookup = world.enter(block).await;
        let piece = locate(world, block);
        if piece.place == Place::Home {
            pause().await;
            return world
                .write(home(block), &vec![ZERO; SECTORS as usize])
                .await;
        }
        may_change(world)?;
        // A fill that is storing must be through before.
        if world.claims().try_claim(block) {
            if !world.without(Broken::DiscardForgotten) {
                world.map().apply(Run::new(block, 1), Change::Zeroed);
            }
            world.claims().release(block);
            return Ok(());
        }
        drop(lookup);
        pause().await;
    }
}

/// The slot of a block turned out to be unreadable: it is fetched again, where that is allowed. Nobody else may
/// use the device meanwhile.
pub async fn repair(world: &Rc<World>, block: u64) {
    let piece = locate(world, block);
    let wrongly = match piece.state {
        BlockState::Clean => world.without(Broken::CleanBelieved),
        _ => world.without(Broken::DirtyRefetched),
    };
    if piece.place == Place::Slot && (world.trust.get().may_fetch(piece.state) || wrongly) {
        let data = world.fetch(block).await;
        let _ = world.write(world.slot(block), &data).await;
    }
}
