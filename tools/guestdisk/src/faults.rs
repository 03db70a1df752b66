// SPDX-License-Identifier: GPL-2.0-only

//! Fail-the-nth sweeps: one call is made again and again, and each time another allocation on its way fails, until a call
//! came through without meeting its fault. The kernel counts what the fault attributes in debugfs let pass
//! (Documentation/fault-injection/fault-injection.rst there, "fail-nth").

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use clap::{Args, Subcommand};
use imgstream_proto::disk::BLOCK_LEN;
use imgstreamctl::device::control::{Control, Rates};
use rustix::system::{delete_module, finit_module};

use crate::direct::{self, Access, Aligned};

/// The thread's own, since what counts is its calls.
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
/// More places than any call has: a sweep that gets here would never end.
const MOST_PLACES: u32 = 10_000;

/// Calls after which it is said how far a thorough sweep is.
const ATTEMPTS_A_WORD: u32 = 20;
/// As many as a call has that does little.
const FEW_PLACES: u32 = 6;
/// The rate of a commit.
const SLOWLY: Rates = Rates {
    min_kib_per_s: 0,
    max_kib_per_s: 1,
};

/// The call that has to stand its allocations failing.
#[derive(Subcommand)]
pub(crate) enum Step {
    /// Loading a module.
    Insmod {
        /// Its file.
        module: PathBuf,
        /// Its parameters.
        #[arg(default_value = "")]
        parameters: String,
    },
    /// Unloading imgstream.
    Rmmod {
        /// Its file, to load it again.
        module: PathBuf,
    },
    /// Attaching a disk.
    Attach {
        /// The disk.
        disk: PathBuf,
    },
    /// Detaching it.
    Detach {
        /// The disk, to attach it again.
        disk: PathBuf,
    },
    /// Switching the fill on.
    Fill,
    /// Asking for another session, of which there is one.
    Sessions,
    /// Looking for the repository.
    Reconnect,
    /// Opening the source view.
    SourceView,
    /// Starting the commit, slowly, so that there is time to pause it.
    Commit,
    /// Pausing the commit.
    Pause,
    /// Resuming it.
    Resume,
    /// Reading a block of a device.
    Read {
        /// The device.
        device: PathBuf,
        /// Which block; each call takes the next one.
        block: u64,
    },
    /// Writing half a block, durably.
    Write {
        /// The device.
        device: PathBuf,
        /// Which block; each call takes the next one.
        block: u64,
    },
    /// Making what was written durable.
    Sync {
        /// The device.
        device: PathBuf,
    },
}

/// Which places are tried: all of the first ones, as many of the later ones as there is time for, which are mostly the pages
/// of one pool.
#[derive(Args)]
pub(crate) struct Places {
    /// More of them; says how far it is in this file now and then, as that takes minutes.
    #[arg(long, value_name = "FILE")]
    thorough: Option<PathBuf>,
    /// Which of the later ones: another number, other places.
    #[arg(long)]
    seed: u32,
}

impl Places {
    /// The place before the first one to try. What succeeds only once may do so there, and then no other one is tried.
    fn start(&self, step: &Step) -> u32 {
        match step {
            Step::Commit => self.seed % FEW_PLACES,
            _ => 0,
        }
    }

    /// The one to try behind `place`. Each has its turn in one sweep or another.
    fn behind(&self, place: u32) -> u32 {
        let (first, stride) = match self.thorough {
            Some(_) => (128, 16),
            None => (8, 8),
        };
        let mean = 1 + place.saturating_sub(first) / stride;
        let skipped = self.seed.wrapping_add(place) % (2 * mean - 1);
        place + 1 + skipped
    }

    /// Says how far it is, if it is time for that.
    fn tell(&self, attempt: u32, place: u32) -> io::Result<()> {
        match &self.thorough {
            Some(file) if attempt % ATTEMPTS_A_WORD == 0 => {
                fs::write(file, format!("# at place {place}\n"))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the call with its first allocation failing, its second one and so on.
pub(crate) fn sweep(step: &Step, places: &Places) -> Result<()> {
    let mut failures = BTreeMap::<String, u32>::new();
    let (mut nth, mut attempt) = (places.start(step), 0);
    loop {
        attempt += 1;
        nth = places.behind(nth);
        ensure!(nth < MOST_PLACES, "{MOST_PLACES} places, and no end");
        places.tell(attempt, nth)?;
        let tried = step.attempt(nth)?;
        if tried.outcome.is_ok() && tried.met && step.is_final() {
            return report(nth, &failures);
        }
        match &tried.outcome {
            Ok(()) => step
                .undo()
                .with_context(|| format!("undoing the call at place {nth}"))?,
            Err(sentence) => *failures.entry(sentence.clone()).or_default() += 1,
        }
        if !tried.met {
            ensure!(
                tried.outcome.is_ok(),
                "no fault, and yet: {:?}",
                tried.outcome
            );
            ensure!(
                nth > 1 || step.may_do_without(),
                "nothing was allocated: are the fault attributes set up?"
            );
            return report(nth - 1, &failures);
        }
    }
}

fn report(places: u32, failures: &BTreeMap<String, u32>) -> Result<()> {
    let failed: u32 = failures.values().sum();
    println!("{places} places, {failed} calls failed");
    for (sentence, count) in failures {
        println!("{count}: {sentence}");
    }
    Ok(())
}

/// How a call went.
struct Tried {
    outcome: Result<(), String>,
    /// Whether it came to its fault.
    met: bool,
}

/// Calls `call` with its `nth` allocation failing.
fn under_fault<E: Display>(nth: u32, call: impl FnOnce() -> Result<(), E>) -> Result<Tried> {
    fs::write(FAIL_NTH, nth.to_string()).context("this kernel orders no faults")?;
    let outcome = call();
    let left = fs::read_to_string(FAIL_NTH)?;
    fs::write(FAIL_NTH, "0")?;
    Ok(Tried {
        outcome: outcome.map_err(|error| error.to_string()),
        met: left.trim() == "0",
    })
}

impl Step {
    /// The call; what it needs is made ready before faults are ordered.
    fn attempt(&self, nth: u32) -> Result<Tried> {
        match self {
            Step::Insmod { module, parameters } => {
                let file = open(module)?;
                let parameters = CString::new(parameters.as_str())?;
                under_fault(nth, || finit_module(&file, &parameters, 0))
            }
            Step::Rmmod { .. } => under_fault(nth, || delete_module(c"imgstream", 0)),
            Step::Read { device, block } => {
                let file = direct::open(device, Access::Read)?;
                let mut memory = Aligned::new(BLOCK_LEN);
                let at = offset(*block, nth)?;
                under_fault(nth, || file.read_exact_at(memory.bytes(BLOCK_LEN), at))
            }
            Step::Write { device, block } => {
                let file = direct::open(device, Access::Durable)?;
                let mut memory = Aligned::new(BLOCK_LEN / 2);
                let at = offset(*block, nth)?;
                under_fault(nth, || file.write_all_at(memory.bytes(BLOCK_LEN / 2), at))
            }
            Step::Sync { device } => {
                let file = direct::open(device, Access::Write)?;
                file.write_all_at(Aligned::new(BLOCK_LEN).bytes(BLOCK_LEN), 0)?;
                under_fault(nth, || file.sync_all())
            }
            _ => {
                let control = Control::open()?;
                under_fault(nth, || self.ask(&control))
            }
        }
    }

    fn ask(&self, control: &Control) -> imgstreamctl::error::Result<()> {
        match self {
            Step::Attach { disk } => control.attach(disk),
            Step::Detach { .. } => control.detach(),
            Step::Fill => control.fill(true, Rates::default()),
            Step::SourceView => control.source_view(true),
            Step::Sessions => control.sessions(2),
            Step::Reconnect => control.reconnect(),
            Step::Commit => control.commit(false, SLOWLY),
            Step::Pause => control.pause(),
            Step::Resume => control.resume(),
            _ => Ok(()),
        }
    }

    /// Makes ready for the next call.
    fn undo(&self) -> Result<()> {
        match self {
            Step::Insmod { parameters, .. } => {
                if !parameters.is_empty() {
                    Control::open()?.detach()?;
                }
                delete_module(c"imgstream", 0)?;
            }
            Step::Rmmod { module } => finit_module(open(module)?, c"", 0)?,
            Step::Attach { .. } => Control::open()?.detach()?,
            Step::Detach { disk } => Control::open()?.attach(disk)?,
            Step::Fill => Control::open()?.fill(false, Rates::default())?,
            Step::SourceView => Control::open()?.source_view(false)?,
            Step::Sessions => Control::open()?.sessions(1)?,
            Step::Pause => Control::open()?.resume()?,
            Step::Resume => Control::open()?.pause()?,
            Step::Reconnect
            | Step::Commit
            | Step::Read { .. }
            | Step::Write { .. }
            | Step::Sync { .. } => {}
        }
        Ok(())
    }

    /// Whether it may do without any memory.
    fn may_do_without(&self) -> bool {
        matches!(
            self,
            Step::Read { .. }
                | Step::Write { .. }
                | Step::Sync { .. }
                | Step::Reconnect
                | Step::Pause
                | Step::Resume
        )
    }

    /// Whether it can succeed only once, or has succeeded in a way that nothing undoes.
    fn is_final(&self) -> bool {
        match self {
            Step::Commit => true,
            // The disk is attached, and the file that could detach it found no memory.
            Step::Insmod { parameters, .. } => !parameters.is_empty() && Control::open().is_err(),
            _ => false,
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("opening {}", path.display()))
}

/// Where the block of the `nth` call begins.
fn offset(block: u64, nth: u32) -> io::Result<u64> {
    (block + u64::from(nth))
        .checked_mul(BLOCK_LEN as u64)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first so many of these places.
    fn tried(thorough: bool, seed: u32, count: usize) -> Vec<u32> {
        let thorough = thorough.then(|| PathBuf::from("/dev/null"));
        let places = Places { thorough, seed };
        let next = |place: &u32| Some(places.behind(*place));
        std::iter::successors(Some(1), next).take(count).collect()
    }

    #[test]
    fn the_first_places_are_all_tried() {
        for seed in [0, 1, 7, u32::MAX] {
            assert_eq!(tried(false, seed, 16), Vec::from_iter(1..=16));
            assert_eq!(tried(true, seed, 128), Vec::from_iter(1..=128));
        }
    }

    #[test]
    fn each_later_place_is_tried_with_one_seed_or_another() {
        for thorough in [false, true] {
            let all: std::collections::BTreeSet<u32> = (0..4000)
                .flat_map(|seed| tried(thorough, seed, 300))
                .collect();
            assert!((1..2000).all(|place| all.contains(&place)));
        }
    }
}
