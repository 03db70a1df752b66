// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan` with small disks: its numbers, checked with resize2fs,
//! and everything it refuses. It never writes.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use imgstream_engine::pair;
use imgstream_proto::disk::superblock::{Superblock, SUPERBLOCK_LEN};
use imgstream_proto::disk::State;
use imgstream_proto::iscsi::digest::Policy;
use imgstreamctl::disk::Disk;
use imgstreamctl::medium::DiskMedium;
use imgstreamctl::ondisk;
use imgstreamctl::plan::{self, Survey};
use imgstreamctl::publish::Published;
use imgstreamctl::repository::Address;

use common::{imgstreamctl, make, prepare, program, write_at, Made, Recipe, MIB};
use imgstreamctl::Exit;

const SLOT: u64 = 64 << 10;

/// A published image of 60 MiB. The directory goes away with the first part.
fn image() -> (Made, PathBuf) {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    (made, lun)
}

const DISK: u64 = 256 * MIB;
const ROOT: u64 = 230 * MIB;

/// A source that fills its disk.
fn large() -> Recipe {
    Recipe {
        disk_bytes: DISK,
        root_bytes: ROOT,
        ..Recipe::default()
    }
}

fn run_plan(source: &Path, lun: &Path, more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["plan", "--image", lun.to_str().unwrap(), "--disk"];
    arguments.push(source.to_str().unwrap());
    arguments.extend(more);
    let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = (written(source), written(lun));
    let result = imgstreamctl(&arguments);
    assert_eq!(
        (written(source), written(lun)),
        before,
        "something was written"
    );
    result
}

fn refused(recipe: &Recipe, change: impl Fn(&Made), exit: Exit, sentence: &str) {
    let (_keep, lun) = image();
    let source = make(recipe);
    change(&source);
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &[]);
    assert_eq!(code, i32::from(exit.code()), "{stderr}");
    assert!(stderr.contains(sentence), "{stderr}");
    assert_eq!(
        stderr.trim_end().lines().count(),
        1,
        "one sentence: {stderr}"
    );
    assert!(stdout.ends_with("Nothing was written.\n"), "{stdout}");
}

/// What is known of a source and an image.
fn survey(source: &Path, lun: &Path) -> Survey {
    let address = Address {
        portal: None,
        target: None,
        lun: 1,
        digest: Policy::Prefer,
        chap_file: None,
        image: Some(lun.to_path_buf()),
    };
    Survey::of(&address, Some(source), None)
}

#[test]
fn every_number_is_right() {
    let (_keep, lun) = image();
    let source = make(&large());
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let number = |name: &str| facts[name].as_u64().unwrap();
    let (s, r) = (number("source_bytes"), number("relocated_start_bytes"));
    let (u, c) = (number("useful_start_bytes"), number("control_start_bytes"));
    let t = number("image_bytes");
    assert_eq!(number("disk_bytes"), DISK);
    assert!(s <= r && r + number("relocated_bytes") <= u);
    assert!(u + t.next_multiple_of(SLOT) + SLOT <= c && c < DISK - MIB);
    assert!(number("boot_end_bytes") <= s);
    assert_eq!(number("boot_bytes"), number("relocated_bytes"));
    assert_eq!(number("filesystem_new_bytes"), s - source.root_start);
    assert_eq!(number("shrink_bytes"), ROOT - (s - source.root_start));
    assert!(number("shrink_bytes") > 0, "this disk has to be shrunk");
    let least = number("filesystem_minimum_bytes") + number("brought_bytes");
    assert!(number("brought_bytes") > number("boot_bytes"));
    assert!(number("filesystem_new_bytes") >= least + number("spare_bytes"));
    let fetch = facts["forecast"]["fetch_bytes"].as_u64().unwrap();
    assert!(fetch > number("boot_bytes") && fetch < t);
    // What the plan says is possible is done, on a copy.
    let copy = source.path("copy.img");
    fs::copy(&source.image, &copy).unwrap();
    let name = format!("{}?offset={}", copy.display(), source.root_start);
    let kib = format!("{}K", number("filesystem_new_bytes") / 1024);
    program("resize2fs", &["-f", &name, &kib]);
    program("e2fsck", &["-fn", &name]);
    let data = source.debugfs(&copy, source.root_start, "cat /home/user/data");
    assert!(data == common::noise(3_000_000, 11));
}

#[test]
fn moved_bytes_are_those_behind_the_new_end() {
    let (_keep, lun) = image();
    let source = make(&Recipe {
        data_bytes: 34 << 20,
        ..large()
    });
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let first = facts["filesystem_new_bytes"].as_u64().unwrap() / 4096;
    let free = common::free_blocks(&source, &source.image);
    let free_behind = free.iter().filter(|block| **block >= first).count() as u64;
    let expected = (ROOT / 4096 - first - free_behind) * 4096;
    assert!(expected > 0, "a backup superblock at least is there");
    assert_eq!(facts["forecast"]["moved_bytes"], expected);
}

#[test]
fn text_names_every_part() {
    let (_keep, lun) = image();
    let source = make(&large());
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &[]);
    assert_eq!(code, 0, "{stderr}");
    for name in [
        "D", "S", "R", "U", "C", "T", "boot", "fs least", "shrink", "spare",
    ] {
        let found = stdout
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{name} ")));
        assert!(found, "{name}: {stdout}");
    }
    assert!(stdout.contains("Downtime: about") && stdout.contains("Nothing was written."));
}

#[test]
fn no_shrink_where_there_is_room_behind_the_source() {
    let (_keep, lun) = image();
    let source = make(&Recipe {
        root_bytes: 50 * MIB,
        ..large()
    });
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(facts["shrink_bytes"], 0);
    assert_eq!(facts["source_bytes"], 70 * MIB);
    assert_eq!(facts["forecast"]["moved_bytes"], 0);
}

#[test]
fn image_too_large() {
    let small = Recipe {
        disk_bytes: 130 * MIB,
        root_bytes: 100 * MIB,
        ..Recipe::default()
    };
    refused(
        &small,
        |_| {},
        Exit::ImageTooLarge,
        "the image is too large: it has",
    );
}

#[test]
fn disk_too_small() {
    let tiny = Recipe {
        disk_bytes: 62 * MIB,
        ..Recipe::default()
    };
    refused(
        &tiny,
        |_| {},
        Exit::DiskTooSmall,
        "the disk is too small: it has",
    );
}

#[test]
fn source_too_full() {
    let full = Recipe {
        data_bytes: 150 << 20,
        ..large()
    };
    refused(&full, |_| {}, Exit::FilesystemFull, "bytes in it would do");
}

#[test]
fn boot_region_beyond_the_source() {
    // The source ends at 44 MiB; the image's chain of logical partitions is
    // read at 63 MiB.
    let image = make(&Recipe {
        gpt: false,
        swap: true,
        ..Recipe::default()
    });
    let (lun, _, _) = prepare(&image, &[]);
    let source = make(&Recipe {
        root_bytes: 24 * MIB,
        ..large()
    });
    let (code, _, stderr) = run_plan(&source.image, &lun, &[]);
    assert_eq!(
        code,
        i32::from(Exit::BootRegionBeyondSource.code()),
        "{stderr}"
    );
    assert!(
        stderr.contains("boot region reaches to byte 66064384"),
        "{stderr}"
    );
}

#[test]
fn root_is_not_last() {
    let recipe = Recipe {
        swap: true,
        disk_bytes: DISK,
        ..Recipe::default()
    };
    refused(
        &recipe,
        |_| {},
        Exit::RootNotLast,
        "partition 3 is the last one",
    );
}

#[test]
fn root_is_no_ext4() {
    let to_xfs = |made: &Made| {
        write_at(&made.image, made.root_start, &[0; 4096]);
        write_at(&made.image, made.root_start, b"XFSB");
    };
    refused(
        &large(),
        to_xfs,
        Exit::FilesystemKind,
        "holds xfs; only ext4",
    );
}

/// Lets debugfs change the source's file system.
fn debugfs_w(made: &Made, command: &str) {
    let name = format!("{}?offset={}", made.image.display(), made.root_start);
    program("debugfs", &["-w", "-R", command, &name]);
}

#[test]
fn file_system_cannot_shrink() {
    let stable = |made: &Made| debugfs_w(made, "feature stable_inodes");
    refused(
        &large(),
        stable,
        Exit::CannotShrink,
        "the feature stable_inodes",
    );
}

#[test]
fn file_system_has_errors() {
    let recorded = |made: &Made| debugfs_w(made, "set_super_value state 3");
    refused(&large(), recorded, Exit::FilesystemErrors, "has errors");
    let hidden = |made: &Made| debugfs_w(made, "clri /home/user/data");
    refused(&large(), hidden, Exit::FilesystemErrors, "has errors");
}

#[test]
fn lvm_luks_md_and_hibernation() {
    let put = |bytes: &'static [u8], at: u64| {
        move |made: &Made| write_at(&made.image, made.root_start + at, bytes)
    };
    refused(&large(), put(b"LABELONE", 512), Exit::Lvm, "is LVM");
    refused(
        &large(),
        put(b"LUKS\xba\xbe", 0),
        Exit::Luks,
        "encrypted with LUKS",
    );
    refused(
        &large(),
        put(b"\xfc\x4e\x2b\xa9", 4096),
        Exit::Md,
        "software RAID",
    );
    let hibernated = put(b"S1SUSPEND\0", 4086);
    refused(&large(), hibernated, Exit::Hibernated, "hibernated system");
}

#[test]
fn disk_with_sectors_of_4_kib() {
    let to_4kn = |made: &Made| {
        write_at(&made.image, 512, &[0; 512]);
        write_at(&made.image, 4096, b"EFI PART");
    };
    refused(&large(), to_4kn, Exit::BlockSize, "4096 bytes; only 512");
}

#[test]
fn source_without_grub() {
    let no_grub = |made: &Made| write_at(&made.image, 0x180, b"LILO ");
    refused(
        &large(),
        no_grub,
        Exit::BootSetup,
        "does not hold GRUB's boot sector",
    );
}

/// Writes both superblocks of a migration in `state` to the source's disk.
fn put_superblocks(source: &Path, lun: &Path, state: State) {
    let plan = survey(source, lun).plan.unwrap();
    let mut superblock = Superblock::new([9; 16], state, plan.geometry);
    superblock.places = plan.places;
    superblock.image.lun_bytes = plan.image.trailer.lun_bytes;
    for at in pair::locations(&superblock).unwrap() {
        let mut bytes = [0; SUPERBLOCK_LEN];
        superblock.encode(at, &mut bytes, crc32c::crc32c).unwrap();
        write_at(source, at, &bytes);
    }
}

#[test]
fn an_older_migration_is_alive() {
    let (_keep, lun) = image();
    let source = make(&large());
    put_superblocks(&source.image, &lun, State::Streaming);
    let (code, _, stderr) = run_plan(&source.image, &lun, &[]);
    assert_eq!(code, i32::from(Exit::MigrationAlive.code()), "{stderr}");
    assert!(stderr.contains("(state streaming)"), "{stderr}");
    put_superblocks_ended(&source.image, &lun);
    let (code, _, stderr) = run_plan(&source.image, &lun, &[]);
    assert_eq!(code, 0, "{stderr}");
}

/// The same migration, ended: its superblocks do not stop another one.
fn put_superblocks_ended(source: &Path, lun: &Path) {
    let mut medium = DiskMedium::open_alone(source).unwrap();
    ondisk::pair::wipe(&mut medium, 0).unwrap();
    drop(medium);
    put_superblocks(source, lun, State::Committed);
}

#[test]
fn the_image_lacks_the_drivers_of_this_computers_interface() {
    let (_keep, lun) = image();
    let published = Published::read(&mut Disk::open(&lun).unwrap()).unwrap();
    let refused = |drivers: &[&str]| {
        let drivers = drivers.iter().map(|name| name.to_string()).collect();
        plan::refuse_drivers(&published, &drivers).collect::<Vec<_>>()
    };
    assert_eq!(refused(&["virtio_net"]), []);
    assert_eq!(refused(&[]), []);
    let refusals = refused(&["e1000e", "igb", "virtio_net"]);
    for (refusal, name) in refusals.iter().zip(["e1000e", "igb"]) {
        assert_eq!(refusal.exit(), Exit::NicDriverMissing);
        assert!(refusal.to_string().contains(&format!("it lacks {name}")));
    }
    assert_eq!(refusals.len(), 2);
}

/// Not only the first: whoever frees space should know that the swap space
/// behind the root file system is in the way, too.
#[test]
fn everything_that_is_wrong_is_said_with_every_number() {
    let (_keep, lun) = image();
    let source = make(&Recipe {
        swap: true,
        data_bytes: 20_000_000,
        ..Recipe::default()
    });
    write_at(&source.image, 0x180, b"LILO ");
    write_at(&source.image, 64 * MIB + 4086, b"S1SUSPEND\0");
    let (code, stdout, stderr) = run_plan(&source.image, &lun, &["--json"]);
    assert_eq!(
        code,
        i32::from(Exit::Hibernated.code()),
        "the first: {stderr}"
    );
    let sentences = [
        "hibernated system",
        "GRUB's boot sector",
        "partition 3 is the last one",
        "the image is too large",
    ];
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), sentences.len(), "{stderr}");
    for (line, sentence) in lines.iter().zip(sentences) {
        assert!(
            line.starts_with("imgstreamctl plan: ") && line.contains(sentence),
            "{line}"
        );
    }
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let codes: Vec<u64> = facts["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refusal| refusal["code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [21, 24, 26, 10]);
    assert_eq!(facts["disk_bytes"], 96 * MIB);
    assert!(facts["filesystem_minimum_bytes"].as_u64().unwrap() > 20_000_000);
    assert!(facts["image_bytes"].as_u64().is_some());
    assert!(facts["source_bytes"].is_null(), "nothing was planned");
    let (_, stdout, _) = run_plan(&source.image, &lun, &[]);
    for name in [
        "D", "T", "boot", "boot end", "fs now", "fs used", "fs least",
    ] {
        let is_it = |line: &str| line.trim_start().starts_with(&format!("{name} "));
        assert!(stdout.lines().any(is_it), "{name}: {stdout}");
    }
}

#[test]
fn what_is_no_published_image() {
    let source = make(&large());
    let (_keep, lun) = image();
    let len = fs::metadata(&lun).unwrap().len();
    let refuse = |change: &dyn Fn(&Path), exit: Exit, sentence: &str| {
        let copy = source.path("copy.lun");
        fs::copy(&lun, &copy).unwrap();
        change(&copy);
        let (code, _, stderr) = run_plan(&source.image, &copy, &[]);
        assert_eq!(code, i32::from(exit.code()), "{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
    };
    let published =
        imgstreamctl::publish::Published::read(&mut imgstreamctl::disk::Disk::open(&lun).unwrap())
            .unwrap();
    let manifest = published.trailer.manifest;
    let none = |file: &Path| write_at(file, len - 4096, &[0; 4096]);
    refuse(&none, Exit::NotPublished, "no valid trailer");
    let torn = |file: &Path| write_at(file, len - 100, &[1]);
    refuse(&torn, Exit::NotPublished, "no valid trailer");
    let rot = |file: &Path| write_at(file, manifest.start_bytes + 9, b"#");
    refuse(&rot, Exit::NotPublished, "manifest is damaged");
    let newer = |file: &Path| newer_format(file, &published.trailer);
    refuse(
        &newer,
        Exit::NewerImage,
        "newer version of imgstreamctl (format 9)",
    );
}

/// Raises the manifest's format and seals everything again.
fn newer_format(file: &Path, trailer: &imgstream_proto::disk::Trailer) {
    let at = trailer.manifest.start_bytes as usize;
    let end = at + trailer.manifest.len_bytes as usize;
    let bytes = fs::read(file).unwrap();
    let manifest = String::from_utf8(bytes[at..end].to_vec()).unwrap();
    let manifest = manifest.replace("\"format\": 1", "\"format\": 9");
    assert_eq!(manifest.len(), end - at);
    write_at(file, at as u64, manifest.as_bytes());
    let mut trailer = *trailer;
    trailer.manifest_crc32c = crc32c::crc32c(manifest.as_bytes());
    let mut block = [0; 4096];
    trailer.encode(&mut block, crc32c::crc32c).unwrap();
    write_at(file, trailer.lun_bytes - 4096, &block);
}
