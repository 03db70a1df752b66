// SPDX-License-Identifier: GPL-2.0-only
//! Everything that `migrate` does between the confirmed plan and the restart.

use std::fs;
use std::path::{Path, PathBuf};

use imgstream_engine::pair;
use imgstream_proto::disk::settings::{Network, Settings, Tunables};
use imgstream_proto::disk::superblock::{
    Canary, Checkpoint, ImageIdentity, Name, Origin, Portal, Superblock, Vpd83,
};
use imgstream_proto::disk::{State, BLOCK_BYTES};

use super::custom_cfg::Entry;
use super::payload::{self, After, Control, Facts};
use super::{overlay, source};
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::plan::Plan;
use crate::program;
use crate::publish::ReadAt;
use crate::refusal::Refusal;
use crate::repository::Remote;
use crate::stage::identity;

/// What stays free in /boot.
const BOOT_SPARE_BYTES: u64 = 16 << 20;
/// Initramfs archives are in memory twice while the kernel unpacks them.
const MEMORY_SPARE_BYTES: u64 = 192 << 20;

/// The kernel that runs and its initramfs, which become the stage's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As GRUB sees its path.
    kernel: String,
    /// As GRUB sees its path.
    initrd: String,
    /// As this system sees it.
    initrd_file: PathBuf,
    /// Command line without what belongs to this boot only.
    cmdline: String,
}

impl Kernel {
    /// Of the running system.
    pub fn running() -> Result<Self> {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy();
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let found = Self::of(&release, &cmdline)?;
        if !found.initrd_file.exists() {
            return Err(boot_setup(&format!("{} is missing", found.initrd_file.display())).into());
        }
        if !Path::new("/usr/share/initramfs-tools/scripts/local").exists() {
            return Err(boot_setup("its initramfs is not made by initramfs-tools").into());
        }
        Ok(found)
    }

    fn of(release: &str, cmdline: &str) -> Result<Self> {
        let image = cmdline
            .split_whitespace()
            .find_map(|word| word.strip_prefix("BOOT_IMAGE="))
            .ok_or_else(|| boot_setup("the running kernel was not started by GRUB"))?;
        let (directory, name) = image.rsplit_once('/').unwrap_or(("", image));
        if name != format!("vmlinuz-{release}") {
            return Err(boot_setup(&format!(
                "the running kernel {release} was started from {image}"
            ))
            .into());
        }
        Ok(Self {
            kernel: image.to_string(),
            initrd: format!("{directory}/initrd.img-{release}"),
            initrd_file: PathBuf::from(format!("/boot/initrd.img-{release}")),
            cmdline: stage_cmdline(cmdline),
        })
    }

    /// The directory of /boot as GRUB sees it.
    fn overlay(&self) -> String {
        let (directory, _) = self.kernel.rsplit_once('/').unwrap_or(("", ""));
        let name = Path::new(source::OVERLAY).file_name().unwrap_or_default();
        format!("{directory}/{}", name.to_string_lossy())
    }
}

/// Consoles and quirks of the machine stay; root stays too, for an initramfs
/// that does not know `boot=` then starts the source as ever.
fn stage_cmdline(running: &str) -> String {
    let mut words: Vec<&str> = running
        .split_whitespace()
        .filter(|word| !word.starts_with("BOOT_IMAGE=") && !word.starts_with("resume"))
        .filter(|word| !matches!(*word, "quiet" | "splash") && !word.starts_with("boot="))
        .collect();
    words.extend(["noresume", "boot=imgstream-stage"]);
    words.join(" ")
}

/// What would go wrong later is found out now.
pub fn refuse_early(plan: &Plan) -> Result<Kernel> {
    if source::is_armed()? {
        return Err(Refusal::WrongState {
            command: "migrate",
            state: "armed (a migration begins at the next boot; cancel it first)".into(),
        }
        .into());
    }
    if !source::grub_reads_custom_cfg()? {
        return Err(boot_setup("its grub.cfg does not read custom.cfg").into());
    }
    let kernel = Kernel::running()?;
    let needed = overlay::estimate_bytes(plan.boot_bytes());
    // The payload is made in /var before it goes into the archive in /boot.
    for directory in ["/boot", "/var/lib"] {
        refuse_full(directory, needed + BOOT_SPARE_BYTES)?;
    }
    refuse_memory(2 * needed + MEMORY_SPARE_BYTES)?;
    Ok(kernel)
}

fn refuse_full(directory: &str, needed: u64) -> Result<()> {
    let space = rustix::fs::statvfs(directory)
        .map_err(|e| Error::io("examining", Path::new(directory))(e.into()))?;
    let free = space.f_bavail * space.f_frsize;
    if free >= needed {
        return Ok(());
    }
    Err(Refusal::NoRoom {
        place: directory.to_string(),
        free_bytes: free,
        needed_bytes: needed,
    }
    .into())
}

fn refuse_memory(needed: u64) -> Result<()> {
    let total = rustix::system::sysinfo();
    let total = total.totalram as u64 * u64::from(total.mem_unit);
    if total >= needed {
        return Ok(());
    }
    Err(Refusal::NoRoom {
        place: "the memory of this computer".into(),
        free_bytes: total,
        needed_bytes: needed,
    }
    .into())
}

fn boot_setup(what: &str) -> Refusal {
    Refusal::BootSetup {
        place: "this system".into(),
        what: what.to_string(),
    }
}

/// The control structures as they will stand on the disk.
pub fn control(
    plan: &Plan,
    remote: &Remote,
    trailer_crc32c: u32,
    network: Network,
) -> Result<Control> {
    let geometry = plan.geometry;
    let uuid = *uuid::Uuid::new_v4().as_bytes();
    let mut superblock = Superblock::new(uuid, State::Relocating, geometry);
    superblock.places = plan.places;
    superblock.image = image_identity(plan, trailer_crc32c)?;
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

fn image_identity(plan: &Plan, trailer_crc32c: u32) -> Result<ImageIdentity> {
    let image = &plan.image;
    let mut identity = ImageIdentity {
        uuid: image.trailer.image_uuid,
        lun_bytes: image.trailer.lun_bytes,
        trailer_crc32c,
        ..ImageIdentity::default()
    };
    for (to, from) in identity.canaries.iter_mut().zip(&image.manifest.canaries) {
        *to = Some(Canary {
            block: from.block,
            crc32c: from.crc32c,
        });
    }
    Ok(identity)
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
        // RFC 7143 section 11.12.5: type 10b, a random number and a qualifier.
        isid: [0x80, a, b, c, d, 0],
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
        let _ = source::remove();
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
    source::install_unit()?;
    let file = Path::new(source::STATE).join("payload");
    fetch(plan, remote, control, facts, &file)?;
    overlay::write(Path::new(source::OVERLAY), &file)?;
    fs::remove_file(&file).map_err(Error::io("removing", &file))?;
    source::arm(&Entry {
        boot_uuid: boot_uuid(plan)?,
        kernel: kernel.kernel.clone(),
        initrds: vec![kernel.initrd.clone(), kernel.overlay()],
        cmdline: kernel.cmdline.clone(),
    })
}

/// Reads the boot blocks from the image. A canary among them is compared.
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
    Ok(())
}

/// UUID of the file system that GRUB finds /boot in.
fn boot_uuid(plan: &Plan) -> Result<String> {
    let findmnt = |column| {
        let output = program::run("findmnt", "util-linux", &["-no", column, "-T", "/boot"])?;
        program::text("findmnt", output).map(|text| text.trim().to_string())
    };
    match findmnt("TARGET")?.as_str() {
        "/" => Ok(plan.source.facts.uuid.clone()),
        _ => Ok(findmnt("UUID")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_becomes_the_stages() {
        let cmdline = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-42-amd64 root=UUID=6b29 ro console=ttyS0,115200 quiet resume=UUID=1";
        let kernel = Kernel::of("6.1.0-42-amd64", cmdline).unwrap();
        assert_eq!(kernel.initrd, "/boot/initrd.img-6.1.0-42-amd64");
        assert_eq!(kernel.overlay(), "/boot/imgstream-stage.img");
        assert_eq!(
            kernel.cmdline,
            "root=UUID=6b29 ro console=ttyS0,115200 noresume boot=imgstream-stage"
        );
    }

    #[test]
    fn a_separate_boot_has_no_boot_in_its_paths() {
        let kernel = Kernel::of("6.1", "BOOT_IMAGE=/vmlinuz-6.1 ro").unwrap();
        assert_eq!(kernel.kernel, "/vmlinuz-6.1");
        assert_eq!(kernel.initrd, "/initrd.img-6.1");
        assert_eq!(kernel.overlay(), "/imgstream-stage.img");
        assert_eq!(kernel.initrd_file, PathBuf::from("/boot/initrd.img-6.1"));
    }

    #[test]
    fn a_kernel_from_elsewhere_is_refused() {
        for cmdline in ["ro quiet", "BOOT_IMAGE=/boot/vmlinuz-6.0 ro"] {
            let error = Kernel::of("6.1", cmdline).unwrap_err();
            assert_eq!(error.exit(), crate::Exit::BootSetup, "{error}");
        }
    }
}
