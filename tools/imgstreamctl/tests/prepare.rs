// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl prepare` on small disks, checked against e2fsprogs and sfdisk.

mod common;

use std::fs;
use std::process::Command;

use common::{
    image_of, make, poisoned, prepare, program, published, write_at, Made, Recipe, KERNEL, MIB,
};

fn files_of_boot(recipe: &Recipe) -> (Vec<String>, Vec<&'static str>) {
    let at = if recipe.separate_boot { "" } else { "/boot" };
    let boot = vec![
        format!("{at}/vmlinuz-{KERNEL}"),
        format!("{at}/initrd.img-{KERNEL}"),
        format!("{at}/grub/grub.cfg"),
        format!("{at}/grub/grubenv"),
        format!("{at}/grub/i386-pc/normal.mod"),
        format!("{at}/grub/i386-pc/linux.mod"),
    ];
    let root = vec![
        "/usr/share/grub/unicode.pf2",
        "/usr/share/pictures/real.png",
    ];
    (boot, root)
}

/// Whoever reads only the boot region finds every file that GRUB wants. debugfs
/// runs in "catastrophic" mode, in which it reads no bitmaps, as GRUB does.
fn assert_region_is_enough(recipe: &Recipe) {
    let made = make(recipe);
    let (lun, _, _) = prepare(&made, &[]);
    let poisoned = poisoned(&made, &lun);
    let (boot, root) = files_of_boot(recipe);
    let of_boot = boot.iter().map(|path| (made.boot_start, path.as_str()));
    let of_root = root.iter().map(|path| (made.root_start, *path));
    for (start, path) in of_boot.chain(of_root) {
        let wanted = made.debugfs(&made.image, start, &format!("cat {path}"));
        assert!(wanted.len() >= 200, "{path} is empty in the image itself");
        let found = made.debugfs(&poisoned, start, &format!("cat {path}"));
        assert!(
            found == wanted,
            "{path} is not readable from the boot region"
        );
    }
    let link = "/usr/share/images/desktop-base/desktop-grub.png";
    let found = made.debugfs(&poisoned, made.root_start, &format!("stat {link}"));
    assert!(
        String::from_utf8_lossy(&found).contains("Type: symlink"),
        "{link}"
    );
    let data = made.debugfs(&poisoned, made.root_start, "cat /home/user/data");
    assert_ne!(
        data,
        common::noise(3_000_000, 11),
        "users' data is no boot region"
    );
}

#[test]
fn region_is_enough_for_boot_in_root() {
    assert_region_is_enough(&Recipe::default());
}

#[test]
fn region_is_enough_on_mbr() {
    assert_region_is_enough(&Recipe {
        gpt: false,
        swap: true,
        ..Recipe::default()
    });
}

#[test]
fn region_is_enough_without_extents_and_with_small_blocks() {
    assert_region_is_enough(&Recipe {
        block_bytes: 1024,
        features: "^extent,^64bit,^metadata_csum",
        ..Recipe::default()
    });
}

#[test]
fn region_is_enough_with_meta_groups() {
    assert_region_is_enough(&Recipe {
        block_bytes: 1024,
        features: "meta_bg,^resize_inode",
        ..Recipe::default()
    });
}

#[test]
fn region_is_enough_for_separate_boot_and_holds_all_of_it() {
    let recipe = Recipe {
        separate_boot: true,
        grub_cfg: common::grub_cfg(""),
        ..Recipe::default()
    };
    assert_region_is_enough(&recipe);
    let made = make(&recipe);
    let (lun, _, _) = prepare(&made, &[]);
    let region = published(&lun).manifest.boot_region;
    assert!((2 * MIB / 4096..18 * MIB / 4096).all(|block| region.contains(block)));
}

/// Block numbers that debugfs prints for `command`, as image blocks.
fn debugfs_blocks(made: &Made, command: &str) -> Vec<u64> {
    let said = made.debugfs(&made.image, made.root_start, command);
    String::from_utf8_lossy(&said)
        .split_whitespace()
        .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
        .map(|block| made.root_start / 4096 + block)
        .collect()
}

#[test]
fn region_holds_metadata_but_no_users_data() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let region = published(&lun).manifest.boot_region;
    let first_partition = MIB / 4096;
    assert!((0..first_partition).all(|block| region.contains(block)));
    assert!((first_partition..2 * first_partition).all(|block| region.contains(block)));
    for path in [
        "/",
        "/boot",
        "/boot/grub",
        "/usr",
        "/etc/alternatives",
        "/boot/grub/grubenv",
    ] {
        let blocks = debugfs_blocks(&made, &format!("blocks {path}"));
        assert!(!blocks.is_empty(), "{path}");
        assert!(
            blocks.iter().all(|b| region.contains(*b)),
            "{path}: {blocks:?}"
        );
        let imap = made.debugfs(&made.image, made.root_start, &format!("imap {path}"));
        let imap = String::from_utf8_lossy(&imap).into_owned();
        let table = imap.split("located at block ").nth(1).unwrap();
        let table: u64 = table.split(',').next().unwrap().parse().unwrap();
        assert!(
            region.contains(made.root_start / 4096 + table),
            "{path}: {imap}"
        );
    }
    let data = debugfs_blocks(&made, "blocks /home/user/data");
    assert!(data.len() > 700);
    let inside = data.iter().filter(|block| region.contains(**block)).count();
    assert_eq!(inside, 0, "users' data is no boot region");
}

#[test]
fn gpt_is_trimmed_to_the_last_partition() {
    let made = make(&Recipe::default());
    let (lun, facts, _) = prepare(&made, &["--name", "My image"]);
    let found = published(&lun);
    let expected = (made.end + 33 * 512).next_multiple_of(4096);
    assert_eq!(found.trailer.image_bytes, expected);
    assert_eq!(facts["manifest"]["image_bytes"], expected);
    assert_eq!(found.manifest.name, "My image");
    assert_eq!(fs::metadata(&lun).unwrap().len(), found.trailer.lun_bytes);
    let image = image_of(&made, &lun);
    let said = program("sfdisk", &["--verify", image.to_str().unwrap()]);
    let said =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("No errors detected"), "{said}");
    // Damage the primary header: sfdisk has to find the backup at the end.
    write_at(&image, 512, &[0; 512]);
    let dump = program("sfdisk", &["--dump", image.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&dump.stdout).contains("start=       40960"));
}

#[test]
fn mbr_ends_with_the_last_partition() {
    let made = make(&Recipe {
        gpt: false,
        swap: true,
        ..Recipe::default()
    });
    let (lun, _, _) = prepare(&made, &[]);
    let found = published(&lun);
    assert_eq!(found.trailer.image_bytes, made.end);
    // The loader follows the chain of logical partitions.
    assert!(found.manifest.boot_region.contains(63 * MIB / 4096));
    let image = fs::read(image_of(&made, &lun)).unwrap();
    let swap = 64 * MIB as usize;
    assert_eq!(&image[swap + 4086..swap + 4096], b"SWAPSPACE2");
    assert!(
        image[swap + 4096..].iter().all(|byte| *byte == 0),
        "swapped pages were kept"
    );
}

#[test]
fn files_stay_and_free_blocks_are_zero() {
    let made = make(&Recipe::default());
    let blocks = common::free_blocks(&made, &made.image);
    assert!(blocks.len() > 1000);
    for block in &blocks {
        write_at(&made.image, made.root_start + block * 4096, b"deleted file");
    }
    let (lun, _, _) = prepare(&made, &[]);
    let image = fs::read(image_of(&made, &lun)).unwrap();
    for block in blocks {
        let at = (made.root_start + block * 4096) as usize;
        assert!(
            image[at..at + 4096].iter().all(|byte| *byte == 0),
            "block {block}"
        );
    }
    let data = made.debugfs(&lun, made.root_start, "cat /home/user/data");
    assert!(data == common::noise(3_000_000, 11));
    let name = format!("{}?offset={}", lun.display(), made.root_start);
    program("e2fsck", &["-fn", &name]);
}

#[test]
fn manifest_describes_what_was_written() {
    let made = make(&Recipe::default());
    let (lun, facts, _) = prepare(&made, &["--nic-driver", "virtio-net"]);
    let found = published(&lun);
    let image = fs::read(image_of(&made, &lun)).unwrap();
    let blocks = image.chunks(4096);
    let data = blocks.filter(|block| block.iter().any(|b| *b != 0)).count() as u64 * 4096;
    assert_eq!(found.manifest.data_bytes, data);
    let sum = program("sha256sum", &[image_of(&made, &lun).to_str().unwrap()]).stdout;
    assert!(String::from_utf8_lossy(&sum).starts_with(&found.manifest.image_sha256));
    let canaries: Vec<u64> = found.manifest.canaries.iter().map(|c| c.block).collect();
    assert_eq!(canaries.len(), 4);
    assert!(canaries.windows(2).all(|pair| pair[0] < pair[1]));
    for canary in &found.manifest.canaries {
        let at = canary.block as usize * 4096;
        assert!(image[at..at + 4096].iter().any(|byte| *byte != 0));
        assert_eq!(crc32c::crc32c(&image[at..at + 4096]), canary.crc32c);
    }
    let initramfs = &found.manifest.initramfs[0];
    assert_eq!(initramfs.kernels, [KERNEL]);
    assert_eq!(initramfs.nic_drivers, ["virtio_net"]);
    assert_eq!(found.manifest.architecture, "x86_64");
    assert!(facts["tgt"]
        .as_str()
        .unwrap()
        .contains(lun.to_str().unwrap()));
    let lun_bytes = fs::read(&lun).unwrap();
    let last = &lun_bytes[lun_bytes.len() - 4096..];
    assert_eq!(found.trailer_crc32c, crc32c::crc32c(last));
}

#[test]
fn slow_layouts_are_warned_of() {
    let made = make(&Recipe {
        block_bytes: 1024,
        ..Recipe::default()
    });
    let (_, facts, stderr) = prepare(&made, &[]);
    assert!(stderr.contains("blocks of 1024 bytes"), "{stderr}");
    assert_eq!(facts["warnings"].as_array().unwrap().len(), 1);
}

/// A limit on the size of files stands for a full disk: the copy fails near its
/// end. (It is above the file system's size, of which e2image makes a copy.)
#[test]
fn a_copy_that_fails_leaves_the_old_output_alone() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let before = fs::read(&lun).unwrap();
    let command = format!(
        "trap '' XFSZ; ulimit -f {}; exec {} prepare {} --out {}",
        50 * MIB / 512,
        env!("CARGO_BIN_EXE_imgstreamctl"),
        made.image.display(),
        lun.display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    assert!(
        fs::read(&lun).unwrap() == before,
        "the old output was changed"
    );
    let left: Vec<_> = fs::read_dir(made.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with(".imgstream-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
