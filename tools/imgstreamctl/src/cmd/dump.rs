// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl dump`.

use std::path::{Path, PathBuf};

use imgstream_proto::disk::boot_list::BootState;
use imgstream_proto::disk::settings::{Method, Settings};
use imgstream_proto::disk::superblock::Superblock;
use imgstream_proto::disk::Extent;
use serde_json::{json, Value};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::network::mac_text;
use crate::ondisk::inspect::{inspect, Area};
use crate::publish::Published;
use crate::refusal::Refusal;

/// Prints the control structure of a disk, or the manifest of a published image.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk, an image of one, or a published image.
    disk: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print every entry of the boot list, too.
    #[arg(long)]
    boot_list: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let mut disk = DiskMedium::open_ro(&args.disk)?;
    let value = match inspect(&mut disk, &args.disk.display().to_string()) {
        Ok(area) => dump(&area, args.json || args.boot_list),
        Err(none @ Error::Refused(Refusal::NoSuperblock { .. })) => {
            published(&args.disk).map_err(|_| none)?
        }
        Err(error) => return Err(error),
    };
    if args.json {
        println!("{value:#}");
    } else {
        print!("{}", lines(&value, 0));
    }
    Ok(())
}

fn dump(area: &Area, with_boot_list: bool) -> Value {
    let mut value = superblock(&area.superblock);
    value["copied_blocks"] = area.copied_blocks.into();
    value["blocks"] = json!(area.blocks);
    value["journal_replayed"] = json!(area.journal);
    value["settings"] = area.settings.as_ref().map_or(Value::Null, settings);
    let boot_blocks: u64 = area.boot_list.iter().map(|e| u64::from(e.blocks)).sum();
    value["boot_entries"] = area.boot_list.len().into();
    value["boot_blocks"] = boot_blocks.into();
    if with_boot_list {
        value["boot_list"] = boot_list(area);
    }
    value["findings"] = json!(area.findings);
    value
}

/// A published image carries no superblock, but a trailer and a manifest.
fn published(file: &Path) -> Result<Value> {
    let found = Published::read(&mut Disk::open(file)?)?;
    let mut value =
        serde_json::to_value(&found.manifest).map_err(|e| Error::Other(e.to_string()))?;
    value["published"] = true.into();
    value["lun_bytes"] = found.trailer.lun_bytes.into();
    value["trailer_crc32c"] = found.trailer_crc32c.into();
    value["boot_blocks"] = found.manifest.boot_region.blocks().into();
    Ok(value)
}

fn superblock(sb: &Superblock) -> Value {
    let geometry = &sb.geometry;
    let uuid = |bytes: [u8; 16]| uuid::Uuid::from_bytes(bytes).to_string();
    let portals: Vec<String> = sb.origin.portals.iter().flatten().map(portal).collect();
    let canaries: Vec<Value> = sb
        .image
        .canaries
        .iter()
        .flatten()
        .map(|c| json!({"block": c.block, "crc32c": c.crc32c}))
        .collect();
    json!({
        "uuid": uuid(sb.uuid),
        "generation": sb.generation,
        "state": sb.state.name(),
        "cursor": sb.cursor,
        "clean": sb.clean,
        "suspect": sb.suspect,
        "disk_bytes": geometry.disk_bytes,
        "source_bytes": geometry.source_bytes,
        "relocated_start_bytes": geometry.relocated_start_bytes,
        "useful_start_bytes": geometry.useful_start_bytes,
        "control_start_bytes": geometry.control_start_bytes,
        "image_bytes": geometry.image_bytes,
        "logical_block_bytes": geometry.logical_block_bytes,
        "image_uuid": uuid(sb.image.uuid),
        "lun_bytes": sb.image.lun_bytes,
        "trailer_crc32c": sb.image.trailer_crc32c,
        "canaries": canaries,
        "source_hash": hash(&sb.source_hash),
        "boot_blocks_crc32c": sb.boot_blocks_crc32c,
        "copy_counter_blocks": sb.copy_counter_blocks,
        "checkpoint": {
            "sequence": sb.checkpoint.sequence,
            "position_bytes": sb.checkpoint.position_bytes,
        },
        "target_name": sb.origin.target_name.as_str(),
        "lun": sb.origin.lun,
        "vpd83": hex(sb.origin.vpd83.as_bytes()),
        "portals": portals,
        "initiator_name": sb.origin.initiator_name.as_str(),
        "isid": hex(&sb.origin.isid),
        "digests": sb.origin.digests.word(),
        // Whether, never what.
        "authentication": format!("{:?}", sb.origin.chap),
        "places": {
            "boot_list": sb.places.boot_list.map(place),
            "map": sb.places.map.map(place),
            "journal": sb.places.journal.map(place),
            "settings": sb.places.settings.map(place),
        },
    })
}

fn portal(portal: &imgstream_proto::disk::superblock::Portal) -> String {
    std::net::SocketAddr::new(portal.address, portal.port).to_string()
}

fn place(extent: Extent) -> Value {
    json!({"start_bytes": extent.start_bytes, "len_bytes": extent.len_bytes})
}

fn settings(settings: &Settings) -> Value {
    let network = settings.network.map(|network| {
        let (method, address, gateway) = match network.method {
            Method::Dhcp => ("dhcp", None, None),
            Method::Static {
                address,
                prefix_len,
                gateway,
            } => (
                "static",
                Some(format!("{address}/{prefix_len}")),
                gateway.map(|g| g.to_string()),
            ),
        };
        let dns: Vec<String> = network
            .dns
            .iter()
            .flatten()
            .map(|d| d.to_string())
            .collect();
        json!({
            "mac": mac_text(&network.mac),
            "method": method,
            "address": address,
            "gateway": gateway,
            "dns": dns,
            "mtu": network.mtu,
            "vlan": network.vlan,
            "hostname": network.hostname.as_str(),
        })
    });
    json!({
        "generation": settings.generation,
        "network": network,
        "fill": settings.tunables.fill,
        "fill_min_kib_per_s": settings.tunables.fill_min_kib_s,
        "fill_max_kib_per_s": settings.tunables.fill_max_kib_s,
    })
}

fn boot_list(area: &Area) -> Value {
    area.boot_list
        .iter()
        .map(|entry| {
            json!({
                "image_block": entry.image_block,
                "blocks": entry.blocks,
                "state": match entry.state {
                    BootState::Saved => "saved",
                    BootState::Live => "live",
                },
                "relocated_bytes": entry.relocated_bytes,
            })
        })
        .collect()
}

fn hash(bytes: &[u8; 32]) -> Value {
    if *bytes == [0; 32] {
        Value::Null
    } else {
        hex(bytes).into()
    }
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.concat()
}

/// The same for a person: one fact a line, what belongs together indented.
fn lines(value: &Value, depth: usize) -> String {
    let Value::Object(fields) = value else {
        return format!("{}{}\n", "  ".repeat(depth), plain(value));
    };
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, field)| field_lines(name, field, depth))
        .collect();
    lines.concat()
}

fn field_lines(name: &str, field: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match field {
        Value::Object(_) => format!("{indent}{name}:\n{}", lines(field, depth + 1)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let items: Vec<String> = items.iter().map(|i| one_line(i, depth + 1)).collect();
            format!("{indent}{name}:\n{}", items.concat())
        }
        other => format!("{indent}{name}: {}\n", plain(other)),
    }
}

fn one_line(item: &Value, depth: usize) -> String {
    let fields = item.as_object().into_iter().flatten();
    let text: Vec<String> = fields
        .map(|(name, field)| format!("{name} {}", plain(field)))
        .collect();
    format!("{}{}\n", "  ".repeat(depth), text.join(", "))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
