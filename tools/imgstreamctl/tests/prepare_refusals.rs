// SPDX-License-Identifier: GPL-2.0-only
//! What `imgstreamctl prepare` refuses: the exit code, one sentence, no output,
//! and the image as it was.

mod common;

use std::fs;

use common::{imgstreamctl, make, program, write_at, Made, Recipe, KERNEL, MIB};
use imgstreamctl::Exit;

fn refused(made: &Made, more: &[&str], exit: Exit, sentence: &str) {
    let before = fs::read(&made.image).unwrap();
    let out = made.path("published.lun");
    let mut arguments = vec!["prepare", made.image.to_str().unwrap(), "--out"];
    arguments.push(out.to_str().unwrap());
    arguments.extend(more);
    let (code, _, stderr) = imgstreamctl(&arguments);
    assert_eq!(code, i32::from(exit.code()), "{stderr}");
    assert!(stderr.contains(sentence), "{stderr}");
    assert_eq!(
        stderr.trim_end().lines().count(),
        1,
        "one sentence: {stderr}"
    );
    assert!(
        fs::read(&made.image).unwrap() == before,
        "the image was changed"
    );
    assert!(!out.exists(), "there is output");
    let left = fs::read_dir(made.dir.path()).unwrap().count();
    let expected = 2 + usize::from(made.path("bootfs").exists());
    assert_eq!(left, expected, "temporary files were left");
}

#[test]
fn lvm() {
    let made = make(&Recipe::default());
    write_at(&made.image, made.root_start + 512, b"LABELONE");
    refused(&made, &[], Exit::Lvm, "is LVM");
}

#[test]
fn luks() {
    let made = make(&Recipe::default());
    write_at(&made.image, made.root_start, b"LUKS\xba\xbe\0\x02");
    refused(&made, &[], Exit::Luks, "encrypted with LUKS");
}

#[test]
fn md_of_every_version() {
    let magic = 0xa92b_4efc_u32.to_le_bytes();
    let len = 40 * MIB;
    for at in [0, 4096, len - 8192, len - 65536] {
        let made = make(&Recipe::default());
        write_at(&made.image, made.root_start + at, &magic);
        refused(&made, &[], Exit::Md, "software RAID");
    }
}

#[test]
fn hibernated_swap() {
    let made = make(&Recipe {
        swap: true,
        ..Recipe::default()
    });
    write_at(&made.image, 64 * MIB + 4086, b"S1SUSPEND\0");
    refused(&made, &[], Exit::Hibernated, "hibernated system");
}

#[test]
fn hibernated_swap_file() {
    let made = make(&Recipe::default());
    let mut swap = vec![0; 16384];
    swap[4086..4096].copy_from_slice(b"S1SUSPEND\0");
    let file = made.path("root/swapfile");
    fs::write(&file, &swap).unwrap();
    let name = format!("{}?offset={}", made.image.display(), made.root_start);
    let command = format!("write {} swapfile", file.display());
    program("debugfs", &["-w", "-R", &command, &name]);
    refused(
        &made,
        &[],
        Exit::Hibernated,
        "/swapfile holds a hibernated system",
    );
}

#[test]
fn file_system_with_errors() {
    let made = make(&Recipe::default());
    let name = format!("{}?offset={}", made.image.display(), made.root_start);
    program("debugfs", &["-w", "-R", "clri /home/user/data", &name]);
    refused(&made, &[], Exit::FilesystemErrors, "has errors");
}

#[test]
fn file_system_with_an_unplayed_journal() {
    let made = make(&Recipe::default());
    let name = format!("{}?offset={}", made.image.display(), made.root_start);
    program("debugfs", &["-w", "-R", "feature needs_recovery", &name]);
    refused(
        &made,
        &[],
        Exit::FilesystemErrors,
        "journal has not been replayed",
    );
}

#[test]
fn disk_with_sectors_of_4_kib() {
    let made = make(&Recipe::default());
    write_at(&made.image, 512, &[0; 512]);
    write_at(&made.image, 4096, b"EFI PART");
    refused(&made, &[], Exit::BlockSize, "4096 bytes; only 512");
}

#[test]
fn damaged_partition_table() {
    let made = make(&Recipe::default());
    write_at(&made.image, 1024 + 40, &[1]);
    refused(&made, &[], Exit::PartitionTable, "entry array is damaged");
    write_at(&made.image, 512 + 60, &[1]);
    refused(
        &made,
        &[],
        Exit::PartitionTable,
        "primary header is damaged",
    );
    write_at(&made.image, 512, &[0; 92]);
    refused(
        &made,
        &[],
        Exit::PartitionTable,
        "header in LBA 1 is not there",
    );
    write_at(&made.image, 510, &[0, 0]);
    refused(&made, &[], Exit::PartitionTable, "no partition table");
}

#[test]
fn no_grub_in_the_boot_sector() {
    let made = make(&Recipe::default());
    write_at(&made.image, 0x180, b"LILO ");
    refused(
        &made,
        &[],
        Exit::BootSetup,
        "does not hold GRUB's boot sector",
    );
}

#[test]
fn uefi_only() {
    let made = make(&Recipe::default());
    write_at(&made.image, 0x180, b"none ");
    let image = made.image.to_str().unwrap();
    program(
        "sfdisk",
        &[
            "--quiet",
            "--part-type",
            image,
            "1",
            "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        ],
    );
    refused(&made, &[], Exit::BootSetup, "by UEFI only");
}

#[test]
fn no_kernel_in_grub_cfg() {
    let made = make(&Recipe {
        grub_cfg: "menuentry x { echo hello }\n".into(),
        ..Recipe::default()
    });
    refused(&made, &[], Exit::BootSetup, "names no kernel");
}

#[test]
fn missing_initramfs() {
    let cfg = common::grub_cfg("/boot").replace("initrd.img", "no-such.img");
    let made = make(&Recipe {
        grub_cfg: cfg,
        ..Recipe::default()
    });
    refused(&made, &[], Exit::BootSetup, "which is not there");
}

#[test]
fn no_imgstream_in_the_initramfs() {
    for (lacking, sentence) in [
        ("imgstream.ko", "lacks imgstream.ko"),
        ("imgstreamctl", "lacks imgstreamctl"),
        ("local-top", "lacks scripts/local-top/imgstream"),
    ] {
        let mut recipe = Recipe::default();
        recipe.initramfs.retain(|(name, _)| !name.contains(lacking));
        refused(&make(&recipe), &[], Exit::ImgstreamMissing, sentence);
    }
}

#[test]
fn imgstream_for_another_kernel() {
    let mut recipe = Recipe::default();
    for (name, _) in &mut recipe.initramfs {
        *name = name.replace(KERNEL, "6.1.0");
    }
    let sentence = format!("lacks imgstream.ko for kernel {KERNEL}");
    refused(&make(&recipe), &[], Exit::ImgstreamMissing, &sentence);
}

#[test]
fn no_nic_driver() {
    let mut recipe = Recipe::default();
    recipe
        .initramfs
        .retain(|(name, _)| !name.contains("virtio_net"));
    let made = make(&recipe);
    let sentence = "NIC driver missing in the image's initramfs";
    refused(&made, &[], Exit::NicDriverMissing, sentence);
    let made = make(&Recipe::default());
    refused(
        &made,
        &["--nic-driver", "e1000e"],
        Exit::NicDriverMissing,
        "lacks e1000e",
    );
}

#[test]
fn output_over_the_image_itself() {
    let made = make(&Recipe::default());
    let image = made.image.to_str().unwrap();
    let before = fs::read(&made.image).unwrap();
    let (code, _, stderr) = imgstreamctl(&["prepare", image, "--out", image]);
    assert_eq!(code, i32::from(Exit::DiskInUse.code()), "{stderr}");
    assert!(stderr.contains("is the image itself"), "{stderr}");
    assert!(fs::read(&made.image).unwrap() == before);
}
