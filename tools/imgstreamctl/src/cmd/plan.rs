// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan`: the dry run before the first write.

use std::path::PathBuf;

use crate::error::Result;
use crate::plan::{self, Plan, Source};
use crate::publish::Published;
use crate::repository::Address;

/// Says what a migration would do, without writing anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the image is.
    #[command(flatten)]
    pub address: Address,
    /// The source's disk; the running system's without it.
    #[arg(long, value_name = "DEVICE")]
    pub disk: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let image = Published::read(args.address.open()?.as_mut())?;
    let source = Source::inspect(args.disk.as_deref())?;
    let plan = plan::compute(source, image)?;
    if args.json {
        println!("{:#}", facts(&plan));
    } else {
        print(&plan);
    }
    Ok(())
}

fn facts(plan: &Plan) -> serde_json::Value {
    let geometry = &plan.geometry;
    serde_json::json!({
        "disk": plan.source.disk,
        "root_device": plan.source.root_device,
        "root_partition": plan.source.root.number,
        "filesystem": plan.source.facts,
        "filesystem_minimum_bytes": plan.source.minimum_bytes,
        "filesystem_new_bytes": plan.filesystem_bytes,
        "nic_driver": plan.source.nic_driver,
        "disk_bytes": geometry.disk_bytes,
        "source_bytes": geometry.source_bytes,
        "relocated_start_bytes": geometry.relocated_start_bytes,
        "relocated_bytes": plan.boot_bytes(),
        "useful_start_bytes": geometry.useful_start_bytes,
        "control_start_bytes": geometry.control_start_bytes,
        "image_bytes": geometry.image_bytes,
        "boot_bytes": plan.boot_bytes(),
        "boot_end_bytes": plan.image.manifest.boot_region.end_bytes(),
        "shrink_bytes": plan.shrink_bytes,
        "spare_bytes": plan.spare_bytes,
        "forecast": plan.forecast,
        "image": plan.image.manifest.name,
        "image_uuid": plan.image.manifest.image_uuid,
    })
}

fn print(plan: &Plan) {
    let source = &plan.source;
    let manifest = &plan.image.manifest;
    println!("image    {} ({})", manifest.name, manifest.image_uuid);
    println!(
        "source   {}, root on partition {} ({})",
        source.disk.display(),
        source.root.number,
        source.root_device.display()
    );
    println!();
    for (name, bytes, what) in numbers(plan) {
        println!("{name:>11} {bytes:>16}  {:>11}  {what}", human(bytes));
    }
    let forecast = &plan.forecast;
    println!();
    println!(
        "Fetched before the restart: {}. Fetched in all: {}.",
        human(forecast.fetch_first_bytes),
        human(forecast.fetch_bytes)
    );
    println!(
        "Downtime: about {} s (two starts of 15 s, {} of files moved by the shrink, at 100 MiB/s).",
        forecast.downtime_s,
        human(forecast.moved_bytes)
    );
    println!("Nothing was written.");
}

/// Every number of the plan, as name, bytes and meaning.
fn numbers(plan: &Plan) -> Vec<(&'static str, u64, &'static str)> {
    let (geometry, source) = (&plan.geometry, &plan.source);
    vec![
        ("D", geometry.disk_bytes, "size of the disk"),
        ("S", geometry.source_bytes, "end of the shrunk source"),
        (
            "R",
            geometry.relocated_start_bytes,
            "start of the relocated blocks",
        ),
        (
            "U",
            geometry.useful_start_bytes,
            "start of the useful part: the image's blocks",
        ),
        (
            "C",
            geometry.control_start_bytes,
            "start of the control area",
        ),
        ("T", geometry.image_bytes, "size of the image"),
        (
            "boot",
            plan.boot_bytes(),
            "boot region: so much is relocated",
        ),
        (
            "boot end",
            plan.image.manifest.boot_region.end_bytes(),
            "end of the boot region",
        ),
        (
            "fs now",
            source.facts.size_bytes(),
            "size of the source's file system",
        ),
        ("fs used", source.facts.used_bytes(), "used in it"),
        (
            "fs least",
            source.minimum_bytes,
            "what resize2fs can shrink it to",
        ),
        ("fs new", plan.filesystem_bytes, "what it will be shrunk to"),
        ("shrink", plan.shrink_bytes, "by so much"),
        (
            "moved",
            plan.forecast.moved_bytes,
            "used behind the new end: moved by the shrink",
        ),
        (
            "spare",
            plan.spare_bytes,
            "could be added to the source, and it would still fit",
        ),
    ]
}

/// Bytes for people.
fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
