// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl prepare`.

use std::path::PathBuf;

use crate::args;
use crate::bootregion;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::in_use;
use crate::initramfs;
use crate::publish::{self, check, snippet, Request, Written};

/// Makes a published image from a raw image or disk.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Raw image or disk of a Linux system that starts by BIOS and GRUB.
    pub image: PathBuf,
    /// Where to write the published image, one LUN.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// A name for people; the output's file name without it.
    #[arg(long)]
    pub name: Option<String>,
    /// The NIC driver that the computers to be moved need.
    #[arg(long, value_name = "NAME")]
    pub nic_driver: Option<String>,
    /// The partition with GRUB's files, when several have a grub.cfg.
    #[arg(long, value_name = "NUMBER", value_parser = args::partition, allow_negative_numbers = true)]
    pub boot_partition: Option<u32>,
    /// Print facts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let disk = Disk::open(&args.image)?;
    if disk.is_device() {
        in_use::refuse(&args.image)?;
    }
    publish::refuse_output(&args.image, &args.out)?;
    let image = Image::read(disk)?;
    let setup = bootregion::find(&image, args.boot_partition)?;
    let found = check::initramfs(&setup, args.nic_driver.as_deref())?;
    check::filesystems(&image)?;
    let missing = setup.closure.missing.iter();
    let warnings: Vec<String> = image
        .warnings()
        .into_iter()
        .chain(missing.map(|path| format!("grub.cfg names {path}, which is not there")))
        .chain(found.warnings)
        .collect();
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let written = publish::publish(Request {
        image: &image,
        setup: &setup,
        initramfs: found.initramfs,
        architecture: found.machine.unwrap_or("unknown").to_string(),
        name: name(&args),
        out: args.out.clone(),
    })?;
    report(&args, &written, &warnings)
}

fn name(args: &Args) -> String {
    let stem = || {
        let stem = args.out.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    args.name.clone().unwrap_or_else(stem)
}

fn report(args: &Args, written: &Written, warnings: &[String]) -> Result<()> {
    let manifest = &written.manifest;
    let target = snippet::target_name(&manifest.name);
    let out = std::path::absolute(&args.out).map_err(Error::io("resolving", &args.out))?;
    let tgt = snippet::tgt(&target, &out);
    let lio = snippet::lio(&target, &manifest.name, &out, written.lun_bytes);
    if args.json {
        let facts = serde_json::json!({
            "out": out,
            "lun_bytes": written.lun_bytes,
            "boot_bytes": manifest.boot_region.bytes(),
            "boot_end_bytes": manifest.boot_region.end_bytes(),
            "manifest": manifest,
            "warnings": warnings,
            "target": target,
            "tgt": tgt,
            "lio": lio,
        });
        println!("{facts:#}");
        return Ok(());
    }
    println!("published       {}", out.display());
    println!(
        "image           {} ({})",
        manifest.name, manifest.image_uuid
    );
    println!("image size T    {} bytes", manifest.image_bytes);
    println!("data in it      {} bytes", manifest.data_bytes);
    println!(
        "boot region     {} bytes in {} runs, ends at byte {}",
        manifest.boot_region.bytes(),
        manifest.boot_region.runs().len(),
        manifest.boot_region.end_bytes()
    );
    println!("LUN size        {} bytes", written.lun_bytes);
    for initramfs in &manifest.initramfs {
        println!(
            "initramfs       {}: kernel {}, NIC drivers {}",
            initramfs.path,
            initramfs.kernels.join(" "),
            initramfs::some_drivers(&initramfs.nic_drivers, args.nic_driver.as_deref())
        );
    }
    println!("\n# tgt: /etc/tgt/conf.d/imgstream.conf, then \"tgt-admin --update ALL\"\n{tgt}");
    println!("# LIO\n{lio}");
    Ok(())
}
