// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl migrate`.

use crate::confirm::confirm;
use crate::device::status::bytes;
use crate::error::Result;
use crate::network::{self, capture};
use crate::plan::{Plan, Ready, Survey};
use crate::program;
use crate::repository::{Behind, Remote};
use crate::root;
use crate::switch::arm;
use crate::switch::payload::After;

/// Moves this computer to another image.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the image is.
    #[command(flatten)]
    behind: Behind,
    /// Addresses that the target uses instead of this system's.
    #[arg(long = "static", value_name = "IP/PREFIX[,ROUTER[,DNS[,DNS]]]")]
    fixed: Option<capture::StaticAddress>,
    /// Record the SHA-256 of the shrunk source, which a roll back compares.
    #[arg(long)]
    hash_source: bool,
    /// What happens when the switch is done.
    #[arg(long, value_enum, default_value = "reboot")]
    after: After,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Do not restart the computer: the migration begins at its next start.
    #[arg(long)]
    no_reboot: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    root::required()?;
    let Ready {
        mut remote,
        plan,
        kernel,
        network,
    } = Survey::of(&args.behind.into(), None, args.fixed.as_ref()).ready()?;
    tell(&plan, &remote, &network::describe(&network));
    confirm(
        args.yes,
        "This computer restarts and comes back as the image; until you commit you can go back.",
    )?;
    let control = arm::control(&plan, &remote, network)?;
    let facts = arm::facts(&plan, args.hash_source, args.after)?;
    arm::install(&plan, &mut remote, &kernel, &control, &facts)?;
    if args.no_reboot {
        println!("the migration begins at the next start; `imgstreamctl cancel` takes it back");
        return Ok(());
    }
    println!("restarting; until the computer does, `imgstreamctl cancel` takes the migration back");
    let output = program::run("systemctl", "systemd", &["reboot"])?;
    program::text("systemctl", output)?;
    Ok(())
}

fn tell(plan: &Plan, remote: &Remote, network: &str) {
    let geometry = &plan.geometry;
    println!(
        "{} at {} ({}) replaces this system on {} ({})",
        remote.target,
        remote.portal,
        bytes(geometry.image_bytes),
        plan.source.disk.display(),
        bytes(geometry.disk_bytes),
    );
    println!(
        "  this system shrinks by {} to {}; {} of boot blocks are fetched first",
        bytes(plan.shrink_bytes),
        bytes(geometry.source_bytes),
        bytes(plan.boot_bytes()),
    );
    println!("  network in the target: {network}");
}
