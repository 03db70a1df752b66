// SPDX-License-Identifier: GPL-2.0-only
//! Everything that `migrate` does between the confirmed plan and the restart.

use std::fs;
use std::path::Path;

use imgstream_engine::pair;
use imgstream_engine::session::isid;
use imgstream_proto::disk::settings::{Network, Settings, Tunables};
use imgstream_proto::disk::superblock::{
    Canary, Chap, Checkpoint, ImageIdentity, Name, Origin, Portal, Superblock, Vpd83,
};
use imgstream_proto::disk::{State, BLOCK_BYTES};

use super::custom_cfg::Entry;
use super::payload::{self, After, Control, Facts};
use super::running::Kernel;
use super::{overlay, source};
use crate::blockdev;
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::plan::Plan;
use crate::program;
use crate::publish::ReadAt;
use crate::refusal::Refusal;
use crate::repository::Remote;
use crate::stage::identity;

/// The control structures as they will stand on the disk.
pub fn control(plan: &Plan, remote: &Remote, network: Network) -> Result<Control> {
    let geometry = plan.geometry;
    let uuid = *uuid::Uuid::new_v4().as_bytes();
    let mut superblock = Superblock::new(uuid, State::Relocating, geometry);
    superblock.places = plan.places;
    superblock.image = image_identity(plan);
    superblock.origin = origin(remote, &uuid)?;
    superblock.checkpoint = Checkpoint {
        sequence: 1,
        position_bytes: 0,
    };
    if pair::locations(&superblock).is_none() {
        return Err(Error::Other("the plan has no place for superblocks".into()));
    }
    let runs = plan.image.manifest.boot_region.runs();
    Ok(Control {
        superblock,
        boot_list: payload::boot_entries(
            runs.iter().map(|run| (run.block, run.blocks)),
            geometry.relocated_start_bytes,
        ),
        settings: Settings {
            generation: 1,
            network: Some(network),
            tunables: Tunables::default(),
        },
    })
}

fn image_identity(plan: &Plan) -> ImageIdentity {
    let image = &plan.image;
    let mut identity = ImageIdentity {
        uuid: image.trailer.image_uuid,
        lun_bytes: image.trailer.lun_bytes,
        trailer_crc32c: image.trailer_crc32c,
        ..ImageIdentity::default()
    };
    for (to, from) in identity.canaries.iter_mut().zip(&image.manifest.canaries) {
        *to = Some(Canary {
            block: from.block,
            crc32c: from.crc32c,
        });
    }
    identity
}

fn origin(remote: &Remote, uuid: &[u8; 16]) -> Result<Origin> {
    let long = |what: &str| Error::Other(format!("{what} is too long"));
    let mut vpd83 = vec![remote.designator.kind()];
    vpd83.extend_from_slice(remote.designator.value());
    let mut portals = [None; imgstream_proto::disk::superblock::PORTALS];
    portals[0] = Some(Portal {
        address: remote.portal.ip(),
        port: remote.portal.port(),
        scope_id: match remote.portal {
            std::net::SocketAddr::V6(v6) => v6.scope_id(),
            std::net::SocketAddr::V4(_) => 0,
        },
    });
    let [a, b, c, d, ..] = *uuid;
    Ok(Origin {
        target_name: Name::new(remote.target.as_bytes())
            .ok_or_else(|| long("the target's name"))?,
        lun: remote.lun,
        vpd83: Vpd83::new(&vpd83).ok_or_else(|| long("the designator of the unit"))?,
        portals,
        initiator_name: Name::new(remote.initiator_name.as_bytes())
            .ok_or_else(|| long("the initiator's name"))?,
        isid: isid::installation([a, b, c, d]),
        digests: remote.digest,
        chap: match &remote.credentials {
            Some(credentials) => credentials.to_disk().clone(),
            None => Chap::NONE,
        },
    })
}

/// What the stage compares and does.
pub fn facts(plan: &Plan, hash_source: bool, after: After) -> Result<Facts> {
    let facts = &plan.source.facts;
    let mut disk = DiskMedium::open_ro(&plan.source.disk)?;
    Ok(Facts {
        disk_bytes: plan.source.disk_bytes,
        lba0_crc32c: identity::lba0_crc32c(&mut disk)?,
        root_number: plan.source.root.number,
        root_start_bytes: plan.source.root.start_bytes,
        root_uuid: facts.uuid.clone(),
        filesystem_block_bytes: facts.block_bytes,
        filesystem_blocks_before: facts.blocks,
        filesystem_blocks_after: plan.filesystem_bytes / facts.block_bytes,
        hash_source,
        after,
    })
}

/// Fetches the boot blocks and installs everything; on an error all of it is
/// taken out again.
pub fn install(
    plan: &Plan,
    remote: &mut Remote,
    kernel: &Kernel,
    control: &Control,
    facts: &Facts,
) -> Result<()> {
    let done = try_install(plan, remote, kernel, control, facts);
    if done.is_err() {
        if let Err(left) = source::remove() {
            eprintln!("imgstreamctl: what was installed is not all gone: {left}; `imgstreamctl cancel` removes it");
        }
    }
    done
}

fn try_install(
    plan: &Plan,
    remote: &mut Remote,
    kernel: &Kernel,
    control: &Control,
    facts: &Facts,
) -> Result<()> {
    let boot_uuid = boot_uuid(plan)?;
    source::install_unit()?;
    source::record_blocks(facts.filesystem_blocks_before)?;
    let file = Path::new(source::PAYLOAD);
    fetch(plan, remote, control, facts, file)?;
    overlay::write(Path::new(source::OVERLAY), file)?;
    source::remove_secret(file)?;
    source::arm(&Entry {
        boot_uuid,
        kernel: kernel.kernel.clone(),
        initrds: vec![kernel.initrd.clone(), kernel.overlay()],
        cmdline: kernel.cmdline.clone(),
    })
}

/// Reads the boot blocks from the image. A canary among them is compared; at
/// the end it has to be the image still that the plan was made for.
fn fetch(
    plan: &Plan,
    remote: &mut Remote,
    control: &Control,
    facts: &Facts,
    file: &Path,
) -> Result<()> {
    let bar = crate::progress::bytes("boot blocks", plan.boot_bytes());
    let canaries = &plan.image.manifest.canaries;
    payload::write(file, facts, control, &mut |entry, to| {
        remote.read_at(entry.image_block * BLOCK_BYTES, to)?;
        for (number, block) in (entry.image_block..).zip(to.chunks(BLOCK_BYTES as usize)) {
            let canary = canaries.iter().find(|c| c.block == number);
            if canary.is_some_and(|c| c.crc32c != crc32c::crc32c(block)) {
                remote.refuse_other(&plan.image)?;
                return Err(Refusal::NotPublished {
                    place: remote.place(),
                    what: format!("block {number} is not what its manifest says"),
                }
                .into());
            }
        }
        bar.inc(to.len() as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    remote.refuse_other(&plan.image)
}

/// UUID of the file system that GRUB finds /boot in: one in which the stage,
/// which mounts what is on the source's disk, finds its boot entry again.
fn boot_uuid(plan: &Plan) -> Result<String> {
    let columns = "TARGET,FSROOT,FSTYPE,SOURCE,UUID";
    let output = program::run(
        "findmnt",
        "util-linux",
        &["-rno", columns, "-T", source::GRUB],
    )?;
    let mount = program::text("findmnt", output)?;
    let grub = Path::new(source::GRUB);
    let real = fs::canonicalize(grub).map_err(Error::io("examining", grub))?;
    let on_disk = |device: &str| {
        blockdev::disk_of(Path::new(device)).as_deref() == Some(plan.source.disk.as_path())
    };
    let place = boot_place(&mount, real == grub, on_disk).map_err(|what| Refusal::BootSetup {
        place: "this system".into(),
        what: what.into(),
    })?;
    Ok(place.unwrap_or_else(|| plan.source.facts.uuid.clone()))
}

/// The UUID of a separate /boot, from what findmnt says of GRUB's directory;
/// `None` if that is in the root file system.
fn boot_place(
    findmnt: &str,
    plain: bool,
    on_disk: impl Fn(&str) -> bool,
) -> Result<Option<String>, &'static str> {
    let words: Vec<&str> = findmnt.split_whitespace().collect();
    let (target, device, uuid) = match words[..] {
        [target, "/", "ext2" | "ext3" | "ext4", device, ref rest @ ..] if plain => {
            (target, device, rest.first())
        }
        _ => return Err("/boot/grub is a link, a bind mount or not on ext4"),
    };
    match (target, uuid) {
        ("/", _) => Ok(None),
        ("/boot", _) if !on_disk(device) => Err("/boot is not on the disk that root is on"),
        ("/boot", Some(uuid)) => Ok(Some(uuid.to_string())),
        _ => Err("/boot has no UUID, or /boot/grub is a file system of its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_finds_its_entry_where_grub_reads_it() {
        let place = |mount: &str, plain| boot_place(mount, plain, |device| device == "/dev/vda1");
        assert_eq!(place("/ / ext4 /dev/vda2 6b29\n", true), Ok(None));
        let separate = place("/boot / ext2 /dev/vda1 77aa\n", true);
        assert_eq!(separate, Ok(Some("77aa".into())));
        for mount in [
            "/boot / ext4 /dev/sdb1 77aa",
            "/boot / ext4 /dev/vda1",
            "/boot /srv/boot ext4 /dev/vda1[/srv/boot] 77aa",
            "/boot / xfs /dev/vda1 77aa",
            "/boot/grub / ext4 /dev/vda1 77aa",
            "",
        ] {
            assert!(place(mount, true).is_err(), "{mount}");
        }
        assert!(place("/ / ext4 /dev/vda2 6b29", false).is_err());
    }
}
