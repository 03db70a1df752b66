// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl discover`: which targets a portal offers.

use std::fmt::Write;
use std::path::PathBuf;

use imgstream_initiator::{discover, Credentials, DiscoveredPortal, DiscoveredTarget};
use serde_json::{json, Value};

use crate::chap;
use crate::error::Result;
use crate::portal;
use crate::refusal::Refusal;
use crate::repository;

/// Lists the targets that a portal offers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port of the iSCSI portal, for example 10.0.2.2:3260.
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = portal::parse)]
    pub portal: String,
    /// A file with user= and secret= for CHAP, and target-user= and target-secret= if the portal has to prove who it is.
    #[arg(long, value_name = "FILE")]
    pub chap_file: Option<PathBuf>,
    /// Print facts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. Each of the portal's addresses is asked once.
pub fn run(args: Args) -> Result<()> {
    let credentials = args.chap_file.as_deref().map(chap::read).transpose()?;
    let targets = ask(&args.portal, credentials.as_ref())?;
    if args.json {
        println!("{:#}", facts(&targets));
    } else if targets.is_empty() {
        eprintln!("{} offers no targets to this computer", args.portal);
    } else {
        print!("{}", lines(&args.portal, &targets));
    }
    Ok(())
}

fn ask(name: &str, credentials: Option<&Credentials>) -> Result<Vec<DiscoveredTarget>> {
    let initiator = repository::own_name();
    let mut failed = Vec::new();
    for address in portal::resolve(name)? {
        match discover(address, &initiator, credentials.cloned()) {
            Ok(targets) => return Ok(targets),
            Err(error) => failed.push(error.to_string()),
        }
    }
    let what = failed.join("; ");
    let place = name.to_string();
    Err(Refusal::PortalUnreachable { place, what }.into())
}

fn facts(targets: &[DiscoveredTarget]) -> Value {
    let portal = |portal: &DiscoveredPortal| json!({ "address": portal.place, "portal_group": portal.group });
    let target = |target: &DiscoveredTarget| {
        let portals: Vec<Value> = target.portals.iter().map(portal).collect();
        json!({ "name": target.name, "portals": portals })
    };
    json!({ "targets": targets.iter().map(target).collect::<Vec<_>>() })
}

/// A line for each portal of each target, as `iscsiadm -m discovery` has it: what `--portal` takes, then what `--target` does.
/// A target without portals is at the one that was asked (RFC 7143 appendix C).
fn lines(asked: &str, targets: &[DiscoveredTarget]) -> String {
    let mut text = String::new();
    for target in targets {
        for portal in &target.portals {
            let _ = writeln!(text, "{portal} {}", target.name);
        }
        if target.portals.is_empty() {
            let _ = writeln!(text, "{asked} {}", target.name);
        }
    }
    text
}
