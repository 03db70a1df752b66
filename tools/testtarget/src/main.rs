// SPDX-License-Identifier: GPL-2.0-only

//! Serves a file over iSCSI, read-only, with faults on request.

#![forbid(unsafe_code)]

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use imgstream_proto::iscsi::bhs::opcode;
use imgstream_testtarget::{
    Announcement, Damage, Fault, LoginFault, Phase, Plan, ReadFault, Server, Target, Willing,
};

/// Serve a file over iSCSI, read-only, and play faults.
#[derive(Parser)]
struct Args {
    /// The image.
    file: PathBuf,
    /// Where to listen; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:3260")]
    listen: SocketAddr,
    /// Name of the target.
    #[arg(long, default_value = "iqn.2026-11.test.imgstream:image")]
    target_name: String,
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
    /// A fault, as [CONNECTION:]NTH:NAME[=NUMBER[,NUMBER...]]; CONNECTION and NTH count from 0, `*` is each.
    #[arg(long)]
    fault: Vec<String>,
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
    let name = args.file.display();
    let file = File::open(&args.file).map_err(|e| format!("cannot open {name}: {e}"))?;
    let mut target = Target::new(Arc::new(file));
    target.settings.target_name = args.target_name.clone();
    target.settings.lun = args.lun;
    target.settings.segment_bytes = args.segment_bytes;
    target.settings.window = args.window;
    target.settings.separate_status = args.separate_status;
    target.settings.header_digest = args.digests;
    target.settings.data_digest = args.digests;
    target.settings.capacity_bytes = args.capacity_bytes;
    target.settings.bad.clone_from(&args.bad);
    for text in &args.fault {
        let plan = parse_plan(text).ok_or_else(|| format!("no such fault: {text}"))?;
        target.plans.push(plan);
    }
    let server = Server::start(target, args.listen)
        .map_err(|e| format!("cannot listen at {}: {e}", args.listen))?;
    println!(
        "{} lun {} of {} at {}",
        name,
        args.lun,
        args.target_name,
        server.address()
    );
    server.join();
    Ok(())
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

fn parse_plan(text: &str) -> Option<Plan> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let fault = parse_fault(parts.pop()?)?;
    let place = |text: &str| {
        if text == "*" {
            Some(None)
        } else {
            text.parse().ok().map(Some)
        }
    };
    let nth = place(parts.pop()?)?;
    let connection = parts.pop().map_or(Some(None), place)?;
    let times = if nth.is_some() && connection.is_some() {
        1
    } else {
        u32::MAX
    };
    parts.is_empty().then_some(Plan {
        connection,
        nth,
        times,
        fault,
    })
}

fn parse_fault(text: &str) -> Option<Fault> {
    let (name, numbers) = text.split_once('=').unwrap_or((text, ""));
    let numbers: Vec<u32> = match numbers {
        "" => Vec::new(),
        numbers => numbers
            .split(',')
            .map(|n| n.parse().ok())
            .collect::<Option<_>>()?,
    };
    let at = |i: usize| numbers.get(i).copied();
    let byte = |i: usize| at(i).and_then(|n| u8::try_from(n).ok());
    let read = |fault| Some(Fault::Read(fault));
    match name {
        "reset" => read(ReadFault::Reset(at(0)? as usize)),
        "stall" => read(ReadFault::Stall),
        "short" => read(ReadFault::Short(at(0)?)),
        "nothing" => read(ReadFault::Nothing),
        "missing" => read(ReadFault::Missing),
        "hole" => read(ReadFault::Hole),
        "duplicate" => read(ReadFault::Duplicate),
        "overlap" => read(ReadFault::Overlap),
        "beyond" => read(ReadFault::Beyond),
        "wrap" => read(ReadFault::Wrap),
        "wrong-tag" => read(ReadFault::WrongTag),
        "late-tag" => read(ReadFault::LateTag),
        "data-sn" => read(ReadFault::DataSn),
        "residual" => read(ReadFault::Residual),
        "response" => read(ReadFault::Response),
        "status" => read(ReadFault::Status(byte(0)?)),
        "sense" => read(ReadFault::Sense(byte(0)?, byte(1)?, byte(2)?)),
        "stat-sn" => read(ReadFault::StatSn),
        "oversize" => read(ReadFault::Oversize),
        "r2t" => read(ReadFault::R2t),
        "opcode" => read(ReadFault::Opcode(byte(0)?)),
        "reject" => read(ReadFault::Reject),
        "forged-reject" => read(ReadFault::ForgedReject),
        "ping" => Some(Fault::Ping(at(0).unwrap_or(1))),
        "close-window" => Some(Fault::CloseWindow),
        "async" => Some(Fault::Async(Announcement::of(byte(0)?))),
        "flip" => Some(Fault::Wire(
            Phase::Opcode(opcode::DATA_IN),
            Damage::Flip(at(0)? as usize),
        )),
        "mute" => Some(Fault::Mute),
        "login-status" => Some(Fault::Login(LoginFault::Status(byte(0)?, byte(1)?))),
        "login-silence" => Some(Fault::Login(LoginFault::Silence)),
        _ => None,
    }
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

    #[test]
    fn places_and_numbers_are_read() {
        let plan = parse_plan("0:3:short=512").unwrap();
        assert_eq!(
            (plan.connection, plan.nth, plan.times),
            (Some(0), Some(3), 1)
        );
        assert_eq!(plan.fault, Fault::Read(ReadFault::Short(512)));
        let plan = parse_plan("*:sense=3,17,0").unwrap();
        assert_eq!(
            (plan.connection, plan.nth, plan.times),
            (None, None, u32::MAX)
        );
        assert_eq!(plan.fault, Fault::Read(ReadFault::Sense(3, 17, 0)));
        for bad in [
            "short",
            "1:short",
            "1:status=256",
            "x:stall",
            "0:0:0:stall",
            "0:nonsense",
        ] {
            assert!(parse_plan(bad).is_none(), "{bad}");
        }
    }
}
