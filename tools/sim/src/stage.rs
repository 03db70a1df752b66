// SPDX-License-Identifier: GPL-2.0-only

//! The stage environment on the model's disk: relocate, store and roll back, cut at any write.

use imgstream_engine::block::Run;
use imgstream_engine::locate::BootRun;
use imgstream_engine::pair::{self, choose, Choice, Update};
use imgstream_engine::stage::{Stage, Step};
use imgstream_engine::state::transition;
use imgstream_proto::disk::superblock::{Places, SUPERBLOCK_LEN};
use imgstream_proto::disk::{
    BootEntry, BootList, BootState, Copy2, Extent, Geometry, Header, State, Superblock,
    BLOCK_BYTES, SECTOR_BYTES,
};

use crate::config::SECTORS;
use crate::disk::{bytes_of, image, sectors_of, Disk, Sector};
use crate::rng::Rng;
use crate::world::{crc, home};

/// Blocks of the source.
const SOURCE_BLOCKS: u64 = 24;
/// Boot blocks: the first run holds block 0, the last is longer than a step would be if steps were short.
const BOOT: [(u64, u64); 3] = [(0, 3), (5, 1), (9, 6)];
const RELOCATED: u64 = SOURCE_BLOCKS + 8;
const CONTROL: u64 = 64;

/// What the source has in a sector.
pub const fn source(sector: u64) -> Sector {
    Sector::Tag((1 << 61) | sector)
}

/// The power went.
#[derive(Debug)]
pub struct Cut;

/// A computer between two power cuts.
pub struct Stager {
    /// Its disk.
    pub disk: Disk,
    rng: Rng,
    /// Writes until the next cut.
    writes_left: u64,
}

fn geometry() -> Geometry {
    Geometry {
        disk_bytes: (CONTROL + 16 + 256) * BLOCK_BYTES,
        source_bytes: SOURCE_BLOCKS * BLOCK_BYTES,
        relocated_start_bytes: RELOCATED * BLOCK_BYTES,
        useful_start_bytes: 48 * BLOCK_BYTES,
        control_start_bytes: CONTROL * BLOCK_BYTES,
        image_bytes: 8 * BLOCK_BYTES,
        logical_block_bytes: 512,
    }
}

fn first_superblock() -> Superblock {
    let mut superblock = Superblock::new([7; 16], State::Relocating, geometry());
    let list = |block: u64| Extent::new((CONTROL + block) * BLOCK_BYTES, BLOCK_BYTES);
    superblock.places = Places {
        boot_list: [list(1), list(2)],
        ..Places::default()
    };
    superblock
}

/// The blocks of the boot region.
pub fn boot_blocks() -> impl Iterator<Item = u64> {
    BOOT.into_iter()
        .flat_map(|(start, blocks)| start..start + blocks)
}

fn entries(state: BootState) -> Vec<BootEntry> {
    let mut relocated_bytes = RELOCATED * BLOCK_BYTES;
    let mut entries = Vec::new();
    for (image_block, blocks) in BOOT {
        entries.push(BootEntry {
            image_block,
            blocks: blocks as u32,
            state,
            relocated_bytes,
        });
        relocated_bytes += blocks * BLOCK_BYTES;
    }
    entries
}

impl Stager {
    /// The shrunk source, and a control area that says `relocating`.
    pub fn new(seed: u64) -> Self {
        let mut disk = Disk::new(geometry().disk_bytes / SECTOR_BYTES);
        for sector in 0..SOURCE_BLOCKS * SECTORS {
            disk.set_up(sector, source(sector));
        }
        let mut stager = Self {
            disk,
            rng: Rng::new(seed),
            writes_left: u64::MAX,
        };
        let superblock = first_superblock();
        let set_up = stager
            .write_boot_list(&superblock, BootState::Saved)
            .and_then(|()| stager.write_pair(&superblock, None));
        set_up.expect("no cut is planned");
        stager
    }

    /// Plans the next cut.
    pub fn cut_after(&mut self, writes: u64) {
        self.writes_left = writes;
    }

    /// The power goes, and comes back.
    pub fn power_cycle(&mut self) {
        self.disk = self.disk.cut(&self.rng);
        self.writes_left = u64::MAX;
    }

    fn finish(&mut self) {
        while self.disk.under_way() > 0 {
            self.disk.complete_some(&self.rng);
        }
    }

    fn write(&mut self, start: u64, values: &[Sector]) -> Result<(), Cut> {
        self.disk.write(start, values, false);
        if self.writes_left == 0 {
            // Under way when the power goes.
            return Err(Cut);
        }
        self.writes_left -= 1;
        self.finish();
        Ok(())
    }

    fn flush(&mut self) {
        self.disk.flush();
        self.finish();
    }

    fn bytes(&self, start_bytes: u64, len_bytes: u64) -> Vec<u8> {
        let start = start_bytes / SECTOR_BYTES;
        bytes_of((start..start + len_bytes / SECTOR_BYTES).map(|at| self.disk.peek(at)))
    }

    fn sectors(&self, start_bytes: u64, len_bytes: u64) -> Vec<Sector> {
        let start = start_bytes / SECTOR_BYTES;
        (start..start + len_bytes / SECTOR_BYTES)
            .map(|at| self.disk.peek(at).clone())
            .collect()
    }

    fn write_pair(&mut self, superblock: &Superblock, stale: Option<Copy2>) -> Result<(), Cut> {
        let locations = pair::locations(superblock).expect("a control area");
        let mut update = Update::new(stale);
        loop {
            match update.next() {
                pair::Step::Write(copy) => {
                    let mut bytes = [0; SUPERBLOCK_LEN];
                    let at = *copy.of(&locations);
                    superblock
                        .encode(at, &mut bytes, crc)
                        .expect("a superblock");
                    self.write(at / SECTOR_BYTES, &sectors_of(&bytes))?;
                }
                pair::Step::Flush => self.flush(),
                pair::Step::Done => return Ok(()),
            }
            update.advance();
        }
    }

    fn write_boot_list(&mut self, superblock: &Superblock, state: BootState) -> Result<(), Cut> {
        for place in superblock.places.boot_list {
            let mut bytes = vec![0; place.len_bytes as usize];
            let header = Header::new(superblock.uuid, place.start_bytes, state as u64);
            BootList::encode(&header, &entries(state), &mut bytes, crc).expect("a boot list");
            self.write(place.start_bytes / SECTOR_BYTES, &sectors_of(&bytes))?;
            self.flush();
        }
        Ok(())
    }

    /// The superblock that counts, and the copy that needs to be written.
    pub fn superblock(&self) -> Option<(Superblock, Option<Copy2>)> {
        let locations = pair::locations(&first_superblock()).expect("a control area");
        let read = |at| Superblock::decode(at, &self.bytes(at, SUPERBLOCK_LEN as u64), crc);
        let [a, b] = locations.map(read);
        match choose(&a, &b) {
            Choice::Found { copy, stale } => {
                let found = if copy == Copy2::A { a } else { b };
                Some((found.expect("it was chosen"), stale))
            }
            Choice::None { .. } => None,
            other => panic!("superblocks: {other:?}"),
        }
    }

    /// The state that the disk says.
    pub fn state(&self) -> Option<State> {
        self.superblock().map(|(superblock, _)| superblock.state)
    }

    fn boot(&self, superblock: &Superblock) -> Vec<BootRun> {
        let list = superblock.places.boot_list.into_iter().find_map(|place| {
            let bytes = self.bytes(place.start_bytes, place.len_bytes);
            let list = BootList::decode(&superblock.uuid, place.start_bytes, &bytes, crc).ok()?;
            Some(list.entries().map(Into::into).collect())
        });
        list.expect("one copy of the boot list is always whole")
    }

    /// Asks for the roll back, as the device would.
    pub fn ask_roll_back(&mut self) -> Result<(), Cut> {
        let (superblock, stale) = self.superblock().expect("a migration");
        self.replace(superblock, stale, |next| {
            transition(next.state, State::RollingBack).expect("not committed");
            next.state = State::RollingBack;
            next.cursor = 0;
        })
    }

    fn replace(
        &mut self,
        mut next: Superblock,
        stale: Option<Copy2>,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), Cut> {
        next.generation += 1;
        change(&mut next);
        self.write_pair(&next, stale)
    }

    /// Does what the superblock says until nothing is left to do.
    pub fn work(&mut self) -> Result<(), Cut> {
        while let Some((superblock, stale)) = self.superblock() {
            let boot = self.boot(&superblock);
            let Some(mut stage) = Stage::resume(superblock.state, &boot, superblock.cursor) else {
                return Ok(());
            };
            if stale.is_some() {
                // A copy was lost: both must be whole before anything is acted on.
                self.replace(superblock, stale, |_| ())?;
            }
            loop {
                let step = stage.next();
                if step == Step::Done {
                    break;
                }
                self.step(step)?;
                stage.advance();
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Cut> {
        match step {
            Step::Copy {
                from_bytes,
                to_bytes,
                len_bytes,
            } => {
                let data = self.sectors(from_bytes, len_bytes);
                self.write(to_bytes / SECTOR_BYTES, &data)
            }
            Step::Compare {
                from_bytes,
                to_bytes,
                len_bytes,
            } => {
                let same = self.sectors(from_bytes, len_bytes) == self.sectors(to_bytes, len_bytes);
                assert!(same, "relocated blocks differ");
                Ok(())
            }
            Step::Store(run) => self.store(run),
            Step::Flush => {
                self.flush();
                Ok(())
            }
            Step::Cursor(at) => self.change(|next| next.cursor = at),
            Step::State(to) => self.change(|next| {
                transition(next.state, to).expect("the machine names legal states only");
                next.state = to;
                next.cursor = 0;
            }),
            Step::BootList(state) => {
                let (superblock, _) = self.superblock().expect("a migration");
                self.write_boot_list(&superblock, state)
            }
            Step::Wipe => self.wipe(),
            Step::Done => Ok(()),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<(), Cut> {
        let (superblock, stale) = self.superblock().expect("a migration");
        self.replace(superblock, stale, change)
    }

    fn store(&mut self, run: Run) -> Result<(), Cut> {
        let start = home(run.start);
        let data: Vec<Sector> = (start..start + run.blocks * SECTORS).map(image).collect();
        self.write(start, &data)
    }

    fn wipe(&mut self) -> Result<(), Cut> {
        let zeroes = vec![crate::disk::ZERO; SECTORS as usize];
        for at in pair::locations(&first_superblock()).expect("a control area") {
            self.write(at / SECTOR_BYTES, &zeroes)?;
        }
        self.flush();
        Ok(())
    }

    /// Whether a block at home is, as a whole, what `what` says.
    pub fn block_is(&self, block: u64, what: impl Fn(u64) -> Sector) -> bool {
        (home(block)..home(block) + SECTORS).all(|at| *self.disk.peek(at) == what(at))
    }

    /// Whether the source is whole.
    pub fn source_is_whole(&self) -> bool {
        (0..SOURCE_BLOCKS).all(|block| self.block_is(block, source))
    }

    /// Whether all boot blocks are the target's.
    pub fn target_boots(&self) -> bool {
        boot_blocks().all(|block| self.block_is(block, image))
    }
}
