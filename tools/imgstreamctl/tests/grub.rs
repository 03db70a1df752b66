// SPDX-License-Identifier: GPL-2.0-only
//! GRUB itself, started by SeaBIOS from a disk that has nothing of the image
//! but its boot region: on GPT and MBR, with /boot in the root file system and
//! by itself. Each of them is planned for, too, as image and as source.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    grub_device, imgstreamctl, make, poisoned, prepare, published, Made, Recipe, KERNEL, MIB,
};
use sha2::{Digest, Sha256};

/// After so long the computer hangs; time decides nothing else.
const HANGS: Duration = Duration::from_secs(600);
const FONT: &str = "usr/share/grub/unicode.pf2";

fn recipe(gpt: bool, separate_boot: bool) -> Recipe {
    let boot = if separate_boot { "" } else { "/boot" };
    let mut recipe = Recipe {
        gpt,
        separate_boot,
        real_grub: true,
        ..Recipe::default()
    };
    let root = grub_device(&recipe, if separate_boot { 2 } else { 1 });
    // Says what GRUB reads, and stops before there is a menu.
    recipe.grub_cfg = format!(
        "{}serial --unit=0\nterminal_output serial\n\
         sha256sum {boot}/vmlinuz-{KERNEL}\n\
         sha256sum {boot}/initrd.img-{KERNEL}\n\
         sha256sum ({root})/{FONT}\n\
         halt\n",
        common::grub_cfg(boot)
    );
    recipe
}

/// Kills it when the test fails.
struct Computer(Child);

impl Drop for Computer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a computer with this disk says on its serial port until it is off.
fn start(made: &Made, disk: &Path) -> String {
    let said = made.path("serial.log");
    let child = Command::new("qemu-system-x86_64")
        .args(["-machine", "pc,accel=tcg", "-m", "128", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none", "-nic", "none"])
        .arg("-serial")
        .arg(format!("file:{}", said.display()))
        .arg("-drive")
        .arg(format!("file={},format=raw,snapshot=on", disk.display()))
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86 has to be installed");
    let mut computer = Computer(child);
    let begin = Instant::now();
    while computer.0.try_wait().unwrap().is_none() {
        let text = || fs::read_to_string(&said).unwrap_or_default();
        assert!(begin.elapsed() < HANGS, "it hangs: {}", text());
        std::thread::sleep(Duration::from_millis(50));
    }
    String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned()
}

fn sum(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    let bytes: &[u8] = digest.as_ref();
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat()
}

fn grub_reads_all_that_it_names(recipe: &Recipe) {
    let made = make(recipe);
    let (lun, _, _) = prepare(&made, &[]);
    let region = published(&lun).manifest.boot_region;
    let boot_tree = match recipe.separate_boot {
        true => made.path("bootfs"),
        false => made.path("root/boot"),
    };
    let said = start(&made, &poisoned(&made, &lun));
    for file in [
        boot_tree.join(format!("vmlinuz-{KERNEL}")),
        boot_tree.join(format!("initrd.img-{KERNEL}")),
        made.path("root").join(FONT),
    ] {
        assert!(said.contains(&sum(&file)), "{}: {said}", file.display());
    }
    if recipe.separate_boot {
        let mut whole = 2 * MIB / 4096..18 * MIB / 4096;
        assert!(whole.all(|block| region.contains(block)));
    }
    planned(recipe, &lun, region.bytes(), region.end_bytes());
}

/// As an image for an ordinary source, and as a source for itself.
fn planned(recipe: &Recipe, lun: &Path, boot_bytes: u64, boot_end_bytes: u64) {
    for like in [Recipe::default(), recipe.clone()] {
        let source = make(&Recipe {
            disk_bytes: 320 * MIB,
            root_bytes: 294 * MIB,
            ..like
        });
        let (disk, lun) = (source.image.to_str().unwrap(), lun.to_str().unwrap());
        let (code, stdout, stderr) =
            imgstreamctl(&["plan", "--json", "--disk", disk, "--image", lun]);
        assert_eq!(code, 0, "{stderr}");
        let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(facts["relocated_bytes"], boot_bytes);
        assert_eq!(facts["boot_end_bytes"], boot_end_bytes);
        assert!(facts["source_bytes"].as_u64().unwrap() >= boot_end_bytes);
        assert!(facts["relocated_start_bytes"].as_u64() >= facts["source_bytes"].as_u64());
    }
}

#[test]
fn gpt_with_boot_in_the_root() {
    grub_reads_all_that_it_names(&recipe(true, false));
}

#[test]
fn gpt_with_a_boot_of_its_own() {
    grub_reads_all_that_it_names(&recipe(true, true));
}

#[test]
fn mbr_with_boot_in_the_root() {
    grub_reads_all_that_it_names(&recipe(false, false));
}

#[test]
fn mbr_with_a_boot_of_its_own() {
    grub_reads_all_that_it_names(&recipe(false, true));
}

/// Without one block of it GRUB reads something else: what is compared above
/// is not read from anywhere else.
#[test]
fn a_block_that_is_not_there_shows() {
    let made = make(&recipe(true, false));
    let (lun, _, _) = prepare(&made, &[]);
    let disk = poisoned(&made, &lun);
    let path = format!("/boot/vmlinuz-{KERNEL}");
    let blocks = made.debugfs(&made.image, made.root_start, &format!("blocks {path}"));
    let blocks = String::from_utf8_lossy(&blocks).into_owned();
    let last: u64 = blocks.split_whitespace().last().unwrap().parse().unwrap();
    common::write_at(&disk, made.root_start + last * 4096, &[0xa5; 4096]);
    let said = start(&made, &disk);
    assert!(
        !said.contains(&sum(&made.path("root").join(&path[1..]))),
        "{said}"
    );
    assert!(said.contains(&sum(&made.path("root").join(FONT))), "{said}");
}
