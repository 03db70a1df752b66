// SPDX-License-Identifier: GPL-2.0-only

//! Serves a file over iSCSI, read-only, with faults on request.

#![forbid(unsafe_code)]

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use imgstream_testtarget::{help, Plan, Server, Target, Willing};

/// Serve a file over iSCSI, read-only, and play faults.
#[derive(Parser)]
#[command(after_long_help = help())]
struct Args {
    /// The image.
    file: PathBuf,
    /// Where to listen; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:3260")]
    listen: SocketAddr,
    /// Name of the target.
    #[arg(long, default_value = "iqn.2026-11.test.imgstream:image")]
    target_name: String,
    /// Where discovery says that the target is, as HOST[:PORT],GROUP; else it names the target only.
    #[arg(long, value_name = "ADDRESS")]
    offered_at: Vec<String>,
    /// Number of the logical unit.
    #[arg(long, default_value_t = 1)]
    lun: u64,
    /// Longest data segment that is sent.
    #[arg(long, default_value_t = 262_144)]
    segment_bytes: u32,
    /// Commands that are taken at a time.
    #[arg(long, default_value_t = 64)]
    window: u32,
    /// Statuses come in PDUs of their own.
    #[arg(long)]
    separate_status: bool,
    /// What is made of a proposal of digests: never, offer, or require.
    #[arg(long, default_value = "never", value_parser = parse_willing)]
    digests: Willing,
    /// Size that is reported instead of the file's. What lies behind the end of the file is read as a medium error.
    #[arg(long)]
    capacity_bytes: Option<u64>,
    /// Blocks of 4096 bytes that are read as a medium error, as FIRST[+COUNT].
    #[arg(long, value_name = "BLOCKS", value_parser = parse_blocks)]
    bad: Vec<Range<u64>>,
    /// Bytes of a logical block, whether there can be such or not.
    #[arg(long, default_value_t = 512)]
    block_bytes: u32,
    /// The last block that READ CAPACITY(16) names, whatever the size is.
    #[arg(long)]
    last_block: Option<u64>,
    /// StatSN of the first answer.
    #[arg(long, default_value_t = 1)]
    first_stat_sn: u32,
    /// Another image that is served from a connection on, as CONNECTION:FILE.
    #[arg(long, value_name = "CONNECTION:FILE", value_parser = parse_swap)]
    swap: Vec<(u32, PathBuf)>,
    /// A fault, as [CONNECTION:][PHASE/]NTH:NAME[=NUMBER[,NUMBER...]]; --help lists them.
    #[arg(long)]
    fault: Vec<Plan>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imgstream-testtarget: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut target = Target::new(Arc::new(open(&args.file)?));
    target.settings.target_name = args.target_name.clone();
    target.settings.targets = vec![(args.target_name.clone(), args.offered_at.clone())];
    target.settings.lun = args.lun;
    target.settings.segment_bytes = args.segment_bytes;
    target.settings.window = args.window;
    target.settings.separate_status = args.separate_status;
    target.settings.header_digest = args.digests;
    target.settings.data_digest = args.digests;
    target.settings.capacity_bytes = args.capacity_bytes;
    target.settings.bad.clone_from(&args.bad);
    target.settings.block_bytes = args.block_bytes;
    target.settings.last_block = args.last_block;
    target.settings.first_stat_sn = args.first_stat_sn;
    for (connection, file) in &args.swap {
        target.swaps.push((*connection, Arc::new(open(file)?)));
    }
    target.plans.clone_from(&args.fault);
    let server = Server::start(target, args.listen)
        .map_err(|e| format!("cannot listen at {}: {e}", args.listen))?;
    println!(
        "{} lun {} of {} at {}",
        args.file.display(),
        args.lun,
        args.target_name,
        server.address()
    );
    server.join();
    Ok(())
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))
}

fn parse_swap(text: &str) -> Result<(u32, PathBuf), String> {
    let (connection, file) = text.split_once(':').ok_or("CONNECTION:FILE is asked for")?;
    let number = connection.parse();
    let number = number.map_err(|_| format!("{connection:?} is no number of a connection"))?;
    Ok((number, file.into()))
}

fn parse_willing(text: &str) -> Result<Willing, String> {
    match text {
        "never" => Ok(Willing::Never),
        "offer" => Ok(Willing::Offer),
        "require" => Ok(Willing::Require),
        _ => Err("never, offer or require".into()),
    }
}

/// The bytes of some blocks.
fn parse_blocks(text: &str) -> Result<Range<u64>, String> {
    const BLOCK_BYTES: u64 = 4096;
    let (first, count) = text.split_once('+').unwrap_or((text, "1"));
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    let (first, count) = (number(first)?, number(count)?);
    let bytes = |blocks: u64| {
        blocks
            .checked_mul(BLOCK_BYTES)
            .ok_or_else(|| "behind any end".to_string())
    };
    Ok(bytes(first)?..bytes(first.saturating_add(count))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read() {
        assert_eq!(parse_blocks("7"), Ok(7 * 4096..8 * 4096));
        assert_eq!(parse_blocks("7+3"), Ok(7 * 4096..10 * 4096));
        for bad in ["", "+", "7+", "x", "7-9", "18446744073709551615"] {
            assert!(parse_blocks(bad).is_err(), "{bad}");
        }
    }
}
