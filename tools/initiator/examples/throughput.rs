// SPDX-License-Identifier: GPL-2.0-only

//! Reads a whole logical unit and says how fast: `throughput PORTAL TARGET LUN [PASSES [FILE [POLICY]]]`. With FILE,
//! every byte is compared with it, unless it is `-`. POLICY says which digests are asked for.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use imgstream_initiator::{Client, Options, Policy};

/// Bytes read by one call: 64 commands of 256 KiB.
const CALL_BYTES: u64 = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [portal, target, lun, rest @ ..] = &args[..] else {
        return Err("usage: throughput PORTAL TARGET LUN [PASSES [FILE [POLICY]]]".into());
    };
    let passes = rest.first().map_or(Ok(1), |p| p.parse::<u32>())?;
    let file = rest.get(1).filter(|name| *name != "-");
    let file = file.map(File::open).transpose()?;
    let me = "iqn.2026-11.example.imgstream:throughput";
    let mut options = Options::new(&[portal.parse()?], target, lun.parse()?, me);
    if let Some(word) = rest.get(2) {
        options.digests = Policy::parse(word).ok_or("POLICY is prefer, require or off")?;
    }
    let mut client = Client::open(options)?;
    println!(
        "{} bytes, digests: {}, designator type {} {:02x?}",
        client.capacity(),
        client.digests(),
        client.identity().kind(),
        client.identity().value()
    );
    let mut buffer = vec![0; CALL_BYTES as usize];
    let mut expected = vec![0; CALL_BYTES as usize];
    for _ in 0..passes {
        let start = Instant::now();
        for offset in (0..client.capacity()).step_by(CALL_BYTES as usize) {
            let len = CALL_BYTES.min(client.capacity() - offset) as usize;
            client.read(offset, &mut buffer[..len])?;
            if let Some(file) = &file {
                file.read_exact_at(&mut expected[..len], offset)?;
                if buffer[..len] != expected[..len] {
                    return Err(format!("bytes from {offset} differ").into());
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let mib = client.capacity() as f64 / f64::from(1 << 20);
        println!(
            "{:.0} MiB/s, {} reconnects",
            mib / seconds,
            client.reconnects()
        );
    }
    Ok(())
}
