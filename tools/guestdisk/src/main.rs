// SPDX-License-Identifier: GPL-2.0-only

//! Lays disks and images out for the tests of the module: an image whose blocks say their own number, published as a
//! LUN, and a disk that is ready to be attached, as `imgstreamctl migrate` would leave it, but without any file system.
//! Runs inside of the test's virtual machine, where the portal is known.
//!
//! Every block says a word and its number all over, so that a block read from the wrong place or the wrong side is seen.

#![forbid(unsafe_code)]

mod direct;
mod disk;
mod exercise;
mod faults;
mod network;
mod probe;
mod stage;
mod stamp;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use imgstream_proto::iscsi::digest::Policy;

use direct::Access;

/// See the crate.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn digest_policy(word: &str) -> Result<Policy, String> {
    Policy::parse(word).ok_or_else(|| "prefer, require or off".into())
}

#[derive(Subcommand)]
enum Command {
    /// Fills FILE with an image that says "image", and a trailer in its last block.
    Lun {
        /// The file; its size is that of the LUN.
        file: PathBuf,
    },
    /// Makes DISK ready to be attached: blocks of the source say "source", those of the boot region "image".
    Disk {
        /// The disk.
        disk: PathBuf,
        /// Where the image is served; several times: at the first of these now.
        #[arg(long, required = true)]
        portal: Vec<SocketAddr>,
        /// Name of the target.
        #[arg(long)]
        target: String,
        /// Number of boot blocks from block 0 on.
        #[arg(long, default_value_t = 16)]
        boot_blocks: u32,
        /// The source is what is on the disk.
        #[arg(long)]
        as_is: bool,
    },
    /// Writes to FILE what `imgstreamctl migrate` would put into the stage of a source on DISK.
    Payload {
        /// The disk.
        disk: PathBuf,
        /// The file.
        file: PathBuf,
        /// Where the image is served; several times: at the first of these now.
        #[arg(long, required = true)]
        portal: Vec<SocketAddr>,
        /// Name of the target.
        #[arg(long)]
        target: String,
        /// Number of boot blocks from block 0 on.
        #[arg(long, default_value_t = 16)]
        boot_blocks: u32,
    },
    /// Makes DISK, whose switch is done, one on which it was cut before its last step, after the last boot block.
    Storing {
        /// The disk.
        disk: PathBuf,
    },
    /// Has both superblocks of DISK demand something that nobody knows yet.
    Newer {
        /// The disk.
        disk: PathBuf,
    },
    /// Has the connections of DISK ask for digests by another policy.
    Digest {
        /// The disk.
        disk: PathBuf,
        /// prefer, require or off.
        #[arg(value_parser = digest_policy)]
        policy: Policy,
    },
    /// Has both superblocks of DISK keep names and secrets for CHAP.
    Chap {
        /// The disk.
        disk: PathBuf,
        /// Our name and secret, and the target's.
        #[arg(num_args = 2..=4)]
        words: Vec<String>,
    },
    /// Has the settings of DISK describe a network.
    Network {
        /// The disk.
        disk: PathBuf,
        /// The network.
        #[command(flatten)]
        network: network::Args,
    },
    /// Checks that blocks [START, START + BLOCKS) of DEVICE say WORD and their numbers; "zero" means zeroes.
    Verify {
        /// The device or file.
        device: PathBuf,
        /// The word.
        word: String,
        /// The first block.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Number of blocks; to the end if not given.
        #[arg(long)]
        blocks: Option<u64>,
    },
    /// Writes WORD and their numbers to blocks of DEVICE, and flushes.
    Stamp {
        /// The device or file.
        device: PathBuf,
        /// The word.
        word: String,
        /// The first block.
        #[arg(long)]
        start: u64,
        /// Number of blocks.
        #[arg(long)]
        blocks: u64,
        /// Have each write durable when it returns (FUA).
        #[arg(long)]
        durable: bool,
    },
    /// Random reads, writes of whole and part blocks, zeroes and flushes by several threads, against a model. DEVICE must
    /// still say what the image says in [FIRST, END).
    Exercise {
        /// The device.
        device: PathBuf,
        /// Seed of the random numbers.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of threads.
        #[arg(long, default_value_t = 4)]
        threads: u64,
        /// Operations of each thread.
        #[arg(long, default_value_t = 500)]
        operations: u64,
        /// The first block.
        #[arg(long)]
        first: u64,
        /// The block behind the last.
        #[arg(long)]
        end: u64,
        /// Each operation past the page cache, durably, or through it; then the blocks of other threads and programs have to
        /// be 2 MiB away.
        #[arg(long)]
        mixed: bool,
        /// Where to leave what the device has to say afterwards.
        #[arg(long)]
        expected: Option<PathBuf>,
    },
    /// Checks that blocks [FIRST, END) of DEVICE are what an exercise left in EXPECTED.
    Compare {
        /// The device.
        device: PathBuf,
        /// The file.
        expected: PathBuf,
        /// The first block.
        #[arg(long)]
        first: u64,
        /// The block behind the last.
        #[arg(long)]
        end: u64,
    },
    /// Makes a call again and again, each time with another allocation on its way failing.
    Faults {
        /// At which of them.
        #[command(flatten)]
        places: faults::Places,
        /// The call.
        #[command(subcommand)]
        step: faults::Step,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Lun { file } => disk::lun(&file),
        Command::Disk {
            disk,
            portal,
            target,
            boot_blocks,
            as_is,
        } => {
            let facts = probe::probe(&portal, &target)?;
            disk::lay_out(&disk, &portal, &target, &facts, boot_blocks, as_is)
        }
        Command::Payload {
            disk,
            file,
            portal,
            target,
            boot_blocks,
        } => {
            let facts = probe::probe(&portal, &target)?;
            stage::payload(&file, &disk, &portal, &target, &facts, boot_blocks)
        }
        Command::Storing { disk } => stage::storing(&disk),
        Command::Newer { disk } => disk::newer(&disk),
        Command::Digest { disk, policy } => disk::digest(&disk, policy),
        Command::Chap { disk, words } => disk::chap(&disk, &words),
        Command::Network { disk, network } => network::write(&disk, &network),
        Command::Verify {
            device,
            word,
            start,
            blocks,
        } => stamp::verify(&device, &word, start, blocks),
        Command::Stamp {
            device,
            word,
            start,
            blocks,
            durable,
        } => {
            let access = if durable {
                Access::Durable
            } else {
                Access::Write
            };
            stamp::write(&device, &word, start, blocks, access)
        }
        Command::Exercise {
            device,
            seed,
            threads,
            operations,
            first,
            end,
            mixed,
            expected,
        } => {
            let options = exercise::Options {
                seed,
                threads,
                operations,
                first,
                end,
                mixed,
            };
            exercise::exercise(&device, &options, expected.as_deref())
        }
        Command::Compare {
            device,
            expected,
            first,
            end,
        } => exercise::compare(&device, &expected, first, end),
        Command::Faults { places, step } => faults::sweep(&step, &places),
    }
}
