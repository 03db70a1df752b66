// SPDX-License-Identifier: GPL-2.0-only
//! Attaches a disk: network, module, raw partitions out of the way, device.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use imgstream_proto::abi::{CONTROL_PATH, DISK_NAME};
use imgstream_proto::disk::settings::Network;

use super::{control_area, Report};
use crate::blockdev;
use crate::device::{Control, Status};
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::network::{self, apply, keep};
use crate::ondisk::Found;
use crate::program;
use crate::sys;

/// What survives from the initramfs into the system.
const RUN: &str = "/run";
/// The interface appears within this time, or the rest goes on without.
const NETWORK_PATIENCE: Duration = Duration::from_secs(20);
const DEVICE_PATIENCE: Duration = Duration::from_secs(20);

/// Sets up the network that the disk's settings describe; whether that worked.
pub fn network(path: &Path, found: &Found, report: &mut Report) -> Result<bool> {
    let mut disk = DiskMedium::open_ro(path)?;
    let settings = control_area::read_settings(&mut disk, &found.superblock)?;
    let Some(network) = settings.network else {
        return Ok(true);
    };
    report.line(&format!("network: {}", network::describe(&network)));
    match set_up(&network) {
        Ok(name) => {
            report.line(&format!("network: {name} is up"));
            Ok(true)
        }
        Err(error) => {
            report.line(&format!("network: {error}; going on without it for now"));
            Ok(false)
        }
    }
}

/// Applies the settings and tells the managers of interfaces to keep away.
fn set_up(network: &Network) -> Result<String> {
    for module in ["8021q", "af_packet"] {
        let _ = program::run("modprobe", "kmod", &["-q", module]);
    }
    let interface = apply::apply(network, NETWORK_PATIENCE)?;
    keep::write(Path::new(RUN), network, &interface)?;
    Ok(interface.name)
}

/// Attaches the disk. Its partitions are known after [`settle`].
pub fn attach(path: &Path, report: &mut Report) -> Result<()> {
    load_module()?;
    hide(path)?;
    Control::open()?.attach(path)?;
    report.line(&format!(
        "{} is attached as /dev/{DISK_NAME}",
        path.display()
    ));
    Ok(())
}

/// Waits for the partitions of the device, as long as the repository is gone if need be.
pub fn settle(report: &mut Report) -> Result<()> {
    partitions(report)?;
    let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    mark_attached()
}

/// Waits until the partition table has been read. Where it is not here yet that may take as long as the repository is
/// gone, so it is said.
fn partitions(report: &mut Report) -> Result<()> {
    let mut said = None;
    loop {
        let status = Status::read()?;
        if status.partitions == "known" {
            return Ok(());
        }
        let note = status.waits_for();
        if let Some(note) = note.as_ref().filter(|_| note != said) {
            report.line(note);
        }
        said = note;
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn load_module() -> Result<()> {
    if !Path::new(CONTROL_PATH).exists() {
        let output = program::run("modprobe", "kmod", &["imgstream"])?;
        program::text("modprobe", output)?;
    }
    wait(CONTROL_PATH, || Path::new(CONTROL_PATH).exists())
}

/// Makes udev and the kernel forget the raw partitions: they carry the file
/// systems of the target with most of their blocks missing. The module does not
/// attach a disk while one of them is open, and has them go itself; who has one
/// open for a moment is waited for here.
fn hide(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rules = Path::new(RUN).join("udev/rules.d/00-imgstream.rules");
    let text = format!(
        "SUBSYSTEM==\"block\", KERNEL==\"{name}\", ENV{{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}}=\"1\", \
         ENV{{SYSTEMD_READY}}=\"0\", ENV{{UDISKS_IGNORE}}=\"1\", OPTIONS:=\"nowatch\"\n\
         SUBSYSTEM==\"block\", KERNEL==\"{name}[0-9]*|{name}p[0-9]*\", \
         ENV{{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}}=\"1\", ENV{{SYSTEMD_READY}}=\"0\", ENV{{UDISKS_IGNORE}}=\"1\"\n"
    );
    let directory = rules.parent().unwrap_or(Path::new(RUN));
    fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
    fs::write(&rules, text).map_err(Error::io("writing", &rules))?;
    let _ = program::run("udevadm", "udev", &["control", "--reload"]);
    let _ = program::run("udevadm", "udev", &["settle", "--timeout=10"]);
    let disk = DiskMedium::open_ro(path)?;
    let begin = Instant::now();
    loop {
        let left = blockdev::partitions(path);
        let Some((number, partition)) = left.first() else {
            return Ok(());
        };
        let gone = sys::forget_partition(disk.file(), *number as i32);
        match gone {
            Ok(()) => {}
            Err(_) if begin.elapsed() < DEVICE_PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(e) => return Err(Error::io("hiding", partition)(e)),
        }
    }
}

fn mark_attached() -> Result<()> {
    let mark = Path::new(RUN).join("imgstream/attached");
    let directory = mark.parent().unwrap_or(Path::new(RUN));
    fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
    fs::write(&mark, "").map_err(Error::io("writing", &mark))
}

/// Waits until `there` says yes.
pub fn wait(what: &str, there: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !there() {
        if begin.elapsed() > DEVICE_PATIENCE {
            return Err(Error::Other(format!("{what} did not appear")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
