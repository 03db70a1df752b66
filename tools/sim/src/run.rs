// SPDX-License-Identifier: GPL-2.0-only

//! One run of the model: lives that end with a power cut or a detach, and at the end a look at everything.

use std::cell::Cell;
use std::rc::Rc;

use imgstream_engine::checkpoint::encode_page;
use imgstream_proto::disk::superblock::{Checkpoint, SUPERBLOCK_LEN};
use imgstream_proto::disk::{
    BootEntry, BootList, BootState, Header, State, Superblock, BLOCK_LEN, SECTOR_BYTES,
};

use crate::commit::commit;
use crate::config::{Config, SECTORS};
use crate::disk::{image, sectors_of, Disk};
use crate::exec::Tasks;
use crate::guest::{self, Stamps};
use crate::io::{self, Within};
use crate::oracle::Oracle;
use crate::record;
use crate::rng::Rng;
use crate::rules::Broken;
use crate::world::{crc, home, World};

/// A life that goes on for longer than this hangs.
const STEPS_MAX: u64 = 3_000_000;

/// The superblock that the stage environment leaves.
fn first_superblock(config: &Config) -> Superblock {
    let mut superblock = Superblock::new([7; 16], State::Streaming, config.geometry());
    superblock.clean = true;
    superblock.places = config.places();
    superblock.checkpoint = Checkpoint {
        sequence: 1,
        position_bytes: 0,
    };
    superblock
}

/// The disk as the stage environment leaves it: boot blocks live, nothing else there.
fn staged(config: &Config) -> Disk {
    let geometry = config.geometry();
    let mut disk = Disk::new(geometry.disk_bytes / SECTOR_BYTES);
    let mut put = |start_bytes: u64, bytes: &[u8]| {
        for (sector, value) in (start_bytes / SECTOR_BYTES..).zip(sectors_of(bytes)) {
            disk.set_up(sector, value);
        }
    };
    let superblock = first_superblock(config);
    for at in imgstream_engine::pair::locations(&superblock).expect("a control area") {
        let mut bytes = [0; SUPERBLOCK_LEN];
        superblock
            .encode(at, &mut bytes, crc)
            .expect("a superblock");
        put(at, &bytes);
    }
    let entries: Vec<BootEntry> = config
        .boot()
        .iter()
        .map(|boot| BootEntry {
            image_block: boot.run.start,
            blocks: boot.run.blocks as u32,
            state: BootState::Live,
            relocated_bytes: boot.relocated_bytes,
        })
        .collect();
    for place in superblock.places.boot_list {
        let mut bytes = vec![0; place.len_bytes as usize];
        let header = Header::new(superblock.uuid, place.start_bytes, 1);
        BootList::encode(&header, &entries, &mut bytes, crc).expect("a boot list");
        put(place.start_bytes, &bytes);
    }
    let empty = empty_map(config);
    for place in superblock.places.map {
        put(place.start_bytes, &empty);
    }
    for boot in config.boot() {
        for block in boot.run.start..boot.run.end() {
            for sector in home(block)..home(block) + SECTORS {
                disk.set_up(sector, image(sector));
            }
        }
    }
    disk
}

fn empty_map(config: &Config) -> Vec<u8> {
    let rng = Rc::new(Rng::new(0));
    let world = World::new(
        config.clone(),
        Broken::Nothing,
        rng,
        Disk::new(0),
        Oracle::new(),
    );
    let pages = config.places().map[0].len_bytes as usize / BLOCK_LEN;
    let mut bytes = vec![0; pages * BLOCK_LEN];
    for (page, to) in (0..).zip(bytes.chunks_exact_mut(BLOCK_LEN)) {
        encode_page(&world.map(), page, 0, &[7; 16], to, crc).expect("a piece of the map");
    }
    bytes
}

/// How a life ends.
enum End {
    Cut,
    Detached,
}

/// Runs the model with this seed and configuration; the first thing that must not be, if anything.
pub fn run(seed: u64, config: &Config, broken: Broken) -> Option<String> {
    let rng = Rc::new(Rng::new(seed ^ 0x5eed));
    let stamps: Stamps = Rc::new(Cell::new(0));
    let mut disk = staged(config);
    let mut oracle = Oracle::new();
    for life in 0..=config.lives {
        let last = life == config.lives;
        let world = World::new(config.clone(), broken, rng.clone(), disk, oracle);
        let end = live(&world, &stamps, last);
        if let Some(violation) = world.oracle.borrow().violation() {
            return Some(format!("life {life}: {violation}"));
        }
        let mut next = world.oracle.borrow().clone();
        if let End::Cut = end {
            next.cut();
        }
        disk = world.disk.borrow().cut(&rng);
        oracle = next;
    }
    None
}

/// Runs the model with this seed, whatever configuration comes with it.
pub fn run_any(seed: u64, broken: Broken) -> Option<String> {
    run(seed, &Config::any(&Rng::new(seed)), broken)
}

fn live(world: &Rc<World>, stamps: &Stamps, last: bool) -> End {
    let rng = world.rng.clone();
    let mut tasks = Tasks::default();
    tasks.spawn(begin(world.clone(), stamps.clone(), last));
    let detach = !last && rng.chance(world.config.detach);
    let steps = if last {
        STEPS_MAX
    } else {
        1 + rng.below(world.config.steps)
    };
    if !last && rng.chance(world.config.journal_errors) {
        let [a, b] = world.config.places().journal;
        let broken = a.start_bytes / SECTOR_BYTES..b.end_bytes().unwrap_or(0) / SECTOR_BYTES;
        let when = rng.below(steps);
        go(world, &mut tasks, when);
        world.disk.borrow_mut().break_writes(broken);
    }
    go(world, &mut tasks, steps);
    if last && !tasks.is_empty() {
        world.fail("hangs".to_string());
    }
    if !detach || !world.attached.get() {
        return End::Cut;
    }
    world.stopping.set(true);
    go(world, &mut tasks, STEPS_MAX);
    if !tasks.is_empty() {
        world.fail("does not stop".to_string());
        return End::Cut;
    }
    if world.committed.get() {
        return End::Cut;
    }
    let done = Rc::new(Cell::new(false));
    let (clean, ok) = (world.clone(), done.clone());
    tasks.spawn(async move { ok.set(record::detach(&clean).await.is_ok()) });
    go(world, &mut tasks, STEPS_MAX);
    if done.get() {
        // A clean detach is a flush of all there is.
        let ticket = world.oracle.borrow().begin_flush();
        world.oracle.borrow_mut().end_flush(&ticket);
        world.oracle.borrow_mut().cut();
        return End::Detached;
    }
    End::Cut
}

fn go(world: &Rc<World>, tasks: &mut Tasks, steps: u64) {
    for _ in 0..steps {
        for task in world.spawned.borrow_mut().drain(..) {
            tasks.spawn(task);
        }
        if tasks.is_empty() || world.oracle.borrow().violation().is_some() {
            return;
        }
        let busy = world.disk.borrow().under_way() > 0;
        if busy && world.rng.chance(50) {
            world.disk.borrow_mut().complete_some(&world.rng);
        } else {
            tasks.step(&world.rng);
        }
    }
}

/// Attaches, then lets everybody loose; or, in the last life, looks at every block.
async fn begin(world: Rc<World>, stamps: Stamps, last: bool) {
    if let Err(damage) = record::attach(&world).await {
        // The journal may be broken on purpose in this life; then the attach may fail, but nothing else.
        if world.disk.borrow().is_sound() {
            world.fail(format!("attach: {damage}"));
        }
        return;
    }
    if world.committed.get() {
        check_plain_disk(&world);
        return;
    }
    if world.config.repair {
        observe_and_repair(&world).await;
    }
    if last {
        for block in world.config.hot.clone() {
            guest::read(&world, whole(block)).await;
        }
        return;
    }
    world.attached.set(true);
    start(&world, &stamps);
}

fn start(world: &Rc<World>, stamps: &Stamps) {
    let mut spawned = world.spawned.borrow_mut();
    for _ in 0..4 {
        world.workers.set(world.workers.get() + 1);
        spawned.push(Box::pin(guest::worker(world.clone(), stamps.clone())));
    }
    spawned.push(Box::pin(guest::rounds(world.clone())));
    if world.config.fill {
        spawned.push(Box::pin(guest::filler(world.clone())));
    }
    if world.config.commit {
        spawned.push(Box::pin(commit(world.clone())));
    }
}

fn whole(block: u64) -> Within {
    Within {
        block,
        from: 0,
        len: SECTORS,
    }
}

/// The first reader builds on what it sees; then slots go bad.
async fn observe_and_repair(world: &Rc<World>) {
    for block in world.config.hot.clone() {
        if world.rng.chance(30) {
            guest::read(world, whole(block)).await;
        }
        if world.rng.chance(30) {
            io::repair(world, block).await;
        }
    }
}

/// After `committed` there is no driver: the disk itself is what the guest sees.
fn check_plain_disk(world: &Rc<World>) {
    let mut oracle = world.oracle.borrow_mut();
    for sector in 0..world.config.image_blocks * SECTORS {
        let ticket = oracle.begin_read(sector, 1);
        let value = world.disk.borrow().peek(sector).clone();
        oracle.end_read(&ticket, &[value]);
    }
}
