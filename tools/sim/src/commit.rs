// SPDX-License-Identifier: GPL-2.0-only

//! The model's commit: the engine's settle batches on the model's disk.

use std::collections::BTreeMap;
use std::rc::Rc;

use imgstream_engine::block::{BlockState, Run};
use imgstream_engine::fill::next_absent;
use imgstream_engine::settle::{batch, parts, remedy, Batch, Part, Remedy, Source, Step};
use imgstream_proto::disk::State;

use crate::config::SECTORS;
use crate::disk::{Sector, ZERO};
use crate::exec::{pause, until};
use crate::record::{flush_round, set_state};
use crate::rules::Broken;
use crate::world::{home, World};

/// Blocks that came from the image.
type Fetched = BTreeMap<u64, Vec<Sector>>;

/// Why a batch did not get to its end.
enum Halt {
    /// The disk or the journal failed.
    Failed,
    /// The slot of this block could not be read.
    Slot(u64, BlockState),
}

impl From<()> for Halt {
    fn from((): ()) -> Self {
        Self::Failed
    }
}

/// Moves the whole image home, then marks the disk as a plain one.
pub async fn commit(world: Rc<World>) {
    if set_state(&world, State::Committing).await.is_err() {
        return;
    }
    let mut rescued = Fetched::new();
    while !world.stopping.get() {
        let Some(run) = next_batch(&world) else {
            break;
        };
        match settle(&world, run, &rescued).await {
            Ok(()) => {}
            Err(Halt::Failed) => return world.excluded.set(None),
            Err(Halt::Slot(block, state)) => {
                world.excluded.set(None);
                if may_rescue(&world, block, state) {
                    rescued.insert(block, world.fetch(block).await);
                }
            }
        }
        dawdle(&world).await;
    }
    let home = world.locate(|locator| locator.counter());
    if home == world.config.image_blocks && set_state(&world, State::Committed).await.is_ok() {
        world.committed.set(true);
    }
}

/// The commit gives way to the guest, or just is not run for a while.
async fn dawdle(world: &World) {
    for _ in 0..1 + world.rng.below(2) * world.rng.below(150) {
        pause().await;
    }
}

fn may_rescue(world: &World, block: u64, state: BlockState) -> bool {
    let wrongly = match state {
        BlockState::Clean => world.without(Broken::CleanBelieved),
        _ => world.without(Broken::DirtyRefetched),
    };
    wrongly
        || matches!(
            remedy(world.trust.get(), false, state, block, 0, None),
            Remedy::Fetch(_)
        )
}

fn next_batch(world: &World) -> Option<Run> {
    let durable = world.locate(|locator| locator.counter());
    let blocks = world.config.image_blocks;
    let max = 1 + world.rng.below(blocks);
    if world.without(Broken::NoOverlapBound) {
        let run = Run::from_to(durable, (durable + max).min(blocks));
        return (!run.is_empty()).then_some(run);
    }
    batch(durable, durable, world.config.offset_blocks, blocks, max)
}

async fn settle(world: &Rc<World>, run: Run, rescued: &Fetched) -> Result<(), Halt> {
    // What is absent is fetched before anything is excluded. No block becomes absent, so this is all that can be
    // missing afterwards.
    let fetched = fetch_absent(world, run).await;
    let mut batch = Batch::new(run);
    loop {
        dawdle(world).await;
        match batch.next() {
            Step::Exclude(run) => exclude(world, run).await,
            Step::WriteHome(run) => write_home(world, run, &fetched, rescued).await?,
            Step::Flush => world.flush_disk().await?,
            Step::Record(counter) => {
                if !world.without(Broken::RouteBeforeRecord) {
                    flush_round(world, Some(counter)).await?;
                }
            }
            Step::Route(counter) => world.locate(|locator| locator.raise_counter(counter)),
            Step::Release(_) => world.excluded.set(None),
            Step::Done => break,
        }
        batch.advance();
    }
    if world.without(Broken::RouteBeforeRecord) {
        flush_round(world, Some(run.end())).await?;
    }
    Ok(())
}

async fn fetch_absent(world: &Rc<World>, run: Run) -> Fetched {
    let mut fetched = Fetched::new();
    let mut at = run.start;
    while let Some(absent) = world.locate(|locator| next_absent(locator, at, run.end(), 1)) {
        let data = world.fetch(absent.start).await;
        fetched.insert(absent.start, data);
        at = absent.end();
    }
    fetched
}

async fn exclude(world: &Rc<World>, run: Run) {
    world.excluded.set(Some(run));
    if !world.without(Broken::NoDrain) {
        // All of it, not only what goes to this batch: reads of earlier batches may still be on the way to old slots.
        let epoch = world.epoch();
        until(|| world.drained(epoch).then_some(())).await;
    }
}

async fn write_home(
    world: &Rc<World>,
    run: Run,
    fetched: &Fetched,
    rescued: &Fetched,
) -> Result<(), Halt> {
    let parts: Vec<Part> = world.locate(|locator| parts(locator, run).collect());
    for part in parts {
        for block in part.run.start..part.run.end() {
            let data = match part.source {
                Source::Skip => continue,
                Source::Zeroes => vec![ZERO; SECTORS as usize],
                Source::Slot { state, .. } => read_slot(world, block, state, rescued).await?,
                Source::Fetch => match fetched.get(&block) {
                    Some(data) => data.clone(),
                    None => {
                        world.fail(format!("block {block} became absent"));
                        return Err(Halt::Failed);
                    }
                },
            };
            world.write(home(block), &data).await?;
        }
    }
    Ok(())
}

/// A slot, or what was fetched again because it could not be read.
async fn read_slot(
    world: &Rc<World>,
    block: u64,
    state: BlockState,
    rescued: &Fetched,
) -> Result<Vec<Sector>, Halt> {
    if let Some(data) = rescued.get(&block) {
        if may_rescue(world, block, state) || world.without(Broken::RescueNotAsked) {
            return Ok(data.clone());
        }
    }
    if world.config.repair && world.rng.chance(5) {
        return Err(Halt::Slot(block, state));
    }
    Ok(world.read(world.slot(block), SECTORS).await?)
}
