// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan`: the dry run before the first write.

use std::path::PathBuf;

use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::network::{self, capture};
use crate::plan::{brought_bytes, Plan, Survey};
use crate::repository::Address;

/// An image behind a portal, or in a file.
const USAGE: &str = "\
imgstreamctl plan --portal <ADDRESS[:PORT]> --target <IQN> [OPTIONS]
       imgstreamctl plan --image <FILE> [OPTIONS]";

/// Says what a migration would do, without writing anything.
#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// Where the image is.
    #[command(flatten)]
    pub address: Address,
    /// The source's disk; the running system's without it.
    #[arg(long, value_name = "DEVICE")]
    pub disk: Option<PathBuf>,
    /// Addresses that the target uses instead of this system's.
    #[arg(long = "static", value_name = "IP/PREFIX[,ROUTER[,DNS[,DNS]]]")]
    pub fixed: Option<capture::StaticAddress>,
    /// Print facts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. What is known is printed even if something is refused.
pub fn run(args: Args) -> Result<()> {
    let survey = Survey::of(&args.address, args.disk.as_deref(), args.fixed.as_ref());
    if args.json {
        println!("{:#}", facts(&survey));
    } else if !survey.is_empty() {
        print(&survey);
    }
    survey.refusals.end()
}

/// Everything that is known; `null` what is not.
fn facts(survey: &Survey) -> Value {
    let plan = survey.plan.as_ref();
    let source = survey.inspection.source.as_ref();
    let manifest = survey.image.as_ref().map(|image| &image.manifest);
    let region = manifest.map(|manifest| &manifest.boot_region);
    let geometry = plan.map(|plan| &plan.geometry);
    json!({
        "disk": survey.disk,
        "root_device": source.map(|source| &source.root_device),
        "root_partition": source.map(|source| source.root.number),
        "filesystem": survey.inspection.facts,
        "filesystem_minimum_bytes": survey.inspection.minimum_bytes,
        "brought_bytes": survey.image.as_ref().map(brought_bytes),
        "filesystem_new_bytes": plan.map(|plan| plan.filesystem_bytes),
        "network": survey.network.as_ref().map(network::describe),
        "disk_bytes": survey.inspection.disk_bytes,
        "source_bytes": geometry.map(|g| g.source_bytes),
        "relocated_start_bytes": geometry.map(|g| g.relocated_start_bytes),
        "relocated_bytes": plan.map(Plan::boot_bytes),
        "useful_start_bytes": geometry.map(|g| g.useful_start_bytes),
        "control_start_bytes": geometry.map(|g| g.control_start_bytes),
        "image_bytes": manifest.map(|manifest| manifest.image_bytes),
        "boot_bytes": region.map(|region| region.bytes()),
        "boot_end_bytes": region.map(|region| region.end_bytes()),
        "shrink_bytes": plan.map(|plan| plan.shrink_bytes),
        "spare_bytes": plan.map(|plan| plan.spare_bytes),
        "forecast": plan.map(|plan| plan.forecast),
        "image": manifest.map(|manifest| &manifest.name),
        "image_uuid": manifest.map(|manifest| &manifest.image_uuid),
        "refusals": survey.refusals.iter().map(refusal).collect::<Vec<_>>(),
    })
}

fn refusal(error: &Error) -> Value {
    let exit = error.exit();
    json!({ "code": exit.code(), "name": exit.name(), "sentence": error.to_string() })
}

fn print(survey: &Survey) {
    if let Some(image) = &survey.image {
        let manifest = &image.manifest;
        println!("image    {} ({})", manifest.name, manifest.image_uuid);
    }
    if let Some(source) = &survey.inspection.source {
        println!(
            "source   {}, root on partition {} ({})",
            source.disk.display(),
            source.root.number,
            source.root_device.display()
        );
    }
    if let Some(network) = &survey.network {
        println!("network  {}", network::describe(network));
    }
    println!();
    for (name, bytes, what) in numbers(survey) {
        if let Some(bytes) = bytes {
            println!("{name:>11} {bytes:>16}  {:>11}  {what}", human(bytes));
        }
    }
    println!();
    if let Some(plan) = &survey.plan {
        print_forecast(plan);
    }
    println!("Nothing was written.");
}

fn print_forecast(plan: &Plan) {
    let forecast = &plan.forecast;
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
}

/// A number of the plan: name, bytes if they are known, meaning.
type Number = (&'static str, Option<u64>, &'static str);

/// Every number, as they lie on the disk, then those behind them.
fn numbers(survey: &Survey) -> [Number; 16] {
    let plan = survey.plan.as_ref();
    let geometry = plan.map(|plan| &plan.geometry);
    let inspection = &survey.inspection;
    let facts = inspection.facts.as_ref();
    let manifest = survey.image.as_ref().map(|image| &image.manifest);
    let region = manifest.map(|manifest| &manifest.boot_region);
    [
        ("D", inspection.disk_bytes, "size of the disk"),
        (
            "S",
            geometry.map(|g| g.source_bytes),
            "end of the shrunk source",
        ),
        (
            "R",
            geometry.map(|g| g.relocated_start_bytes),
            "start of the relocated blocks",
        ),
        (
            "U",
            geometry.map(|g| g.useful_start_bytes),
            "start of the useful part: the image's blocks",
        ),
        (
            "C",
            geometry.map(|g| g.control_start_bytes),
            "start of the control area",
        ),
        (
            "T",
            manifest.map(|manifest| manifest.image_bytes),
            "size of the image",
        ),
        (
            "boot",
            region.map(|region| region.bytes()),
            "boot region: so much is relocated",
        ),
        (
            "boot end",
            region.map(|region| region.end_bytes()),
            "end of the boot region",
        ),
        (
            "fs now",
            facts.map(|facts| facts.size_bytes()),
            "size of the source's file system",
        ),
        (
            "fs used",
            facts.map(|facts| facts.used_bytes()),
            "used in it",
        ),
        (
            "fs least",
            inspection.minimum_bytes,
            "what resize2fs can shrink it to",
        ),
        (
            "brought",
            survey.image.as_ref().map(brought_bytes),
            "written into it by migrate before that",
        ),
        (
            "fs new",
            plan.map(|plan| plan.filesystem_bytes),
            "what it will be shrunk to",
        ),
        ("shrink", plan.map(|plan| plan.shrink_bytes), "by so much"),
        (
            "moved",
            plan.map(|plan| plan.forecast.moved_bytes),
            "used behind the new end: moved by the shrink",
        ),
        (
            "spare",
            plan.map(|plan| plan.spare_bytes),
            "could be added to the source, and it would still fit",
        ),
    ]
}

/// Bytes for people.
fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
