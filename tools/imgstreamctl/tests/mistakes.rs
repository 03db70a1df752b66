// SPDX-License-Identifier: GPL-2.0-only
//! What somebody gets to read who calls a command wrongly: one sentence that
//! says what to do, and the right exit code.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use common::{as_nobody, imgstreamctl, make, prepare, program, write_at, Made, Recipe, MIB};
use imgstreamctl::Exit;

const PORTAL: [&str; 4] = ["--portal", "192.0.2.1", "--target", "iqn.2026-11.test:x"];

/// Ends with `exit` and one sentence with these words, and says nothing else.
fn ends(arguments: &[&str], exit: Exit, words: &str) {
    let (code, stdout, stderr) = imgstreamctl(arguments);
    assert_eq!(code, i32::from(exit.code()), "{arguments:?}: {stderr}");
    assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("os error"), "{arguments:?}: {stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
    if exit != Exit::Usage {
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    }
}

#[test]
fn values_are_checked_before_anything_is_asked() {
    let plan = |name: &str, value: &str, words: &str| {
        let others = match name {
            "--portal" => &PORTAL[2..],
            "--target" => &PORTAL[..2],
            _ => &PORTAL,
        };
        for command in ["plan", "migrate"] {
            let arguments = [&[command, name, value], others].concat();
            ends(&arguments, Exit::Usage, words);
        }
    };
    for portal in [
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:x",
        "[2001:db8::1]:-1",
    ] {
        plan("--portal", portal, "is no number from 1 to 65535");
    }
    plan("--portal", "", "a host or its address is needed");
    plan("--target", "", "the target's name is needed");
    plan("--target", "two words", "no iSCSI name");
    for lun in ["-1", "16384", "one"] {
        plan("--lun", lun, "a whole number from 0 to 16383 is needed");
    }
    for sessions in ["-1", "0", "9", "two"] {
        ends(
            &["sessions", sessions],
            Exit::Usage,
            "a whole number from 1 to 8 is needed",
        );
    }
    for rate in ["-5", "1.5", "4M"] {
        ends(
            &["fill", "on", "--max", rate],
            Exit::Usage,
            "KiB a second, as a whole number",
        );
        ends(
            &["commit", "--min", rate],
            Exit::Usage,
            "KiB a second, as a whole number",
        );
    }
    let contradiction = ["--min", "2000", "--max", "1000"];
    ends(
        &[&["fill", "on"], &contradiction[..]].concat(),
        Exit::Usage,
        "--min 2000 is more",
    );
    ends(
        &[&["commit"], &contradiction[..]].concat(),
        Exit::Usage,
        "--min 2000 is more",
    );
    for seconds in ["0", "-1", "86401"] {
        ends(
            &["watch", "--every", seconds],
            Exit::Usage,
            "seconds, as a whole number from 1",
        );
    }
    let prepare = ["prepare", "image", "--out", "out", "--boot-partition"];
    ends(
        &[&prepare[..], &["0"]].concat(),
        Exit::Usage,
        "the number of a partition",
    );
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    for command in ["plan", "migrate"] {
        for missing in ["--portal <ADDRESS[:PORT][,GROUP]>", "--target <IQN>"] {
            ends(&[command], Exit::Usage, missing);
        }
    }
    ends(&["plan"], Exit::Usage, "imgstreamctl plan --image <FILE>");
    // The target could not find it.
    ends(
        &["migrate", "--image", "file"],
        Exit::Usage,
        "unexpected argument '--image'",
    );
    ends(
        &["attach"],
        Exit::Usage,
        "imgstreamctl attach [--network] --scan",
    );
}

#[test]
fn help_is_a_command() {
    let (code, said, stderr) = imgstreamctl(&["help"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        said.contains("rollback") && !said.contains("finish-commit"),
        "{said}"
    );
    let (code, said, stderr) = imgstreamctl(&["help", "rollback"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        said.contains("restarts this computer three times"),
        "{said}"
    );
}

#[test]
fn what_is_no_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().to_str().unwrap();
    let fifo = dir.path().join("fifo");
    program("mkfifo", &[fifo.to_str().unwrap()]);
    let image = dir.path().join("image");
    fs::write(&image, "x").unwrap();
    let (fifo, image) = (fifo.to_str().unwrap(), image.to_str().unwrap());
    let commands: [&[&str]; 6] = [
        &["check"],
        &["dump"],
        &["attach"],
        &["rollback", "--yes"],
        &["prepare", "--out", "/no/such/directory"],
        &["plan", "--image", image, "--disk"],
    ];
    for command in commands {
        let with = |path: &str, words: &str| {
            ends(&[command, &[path]].concat(), Exit::Failure, words);
        };
        with(
            directory,
            "is a directory; a disk, or an image of one, is needed",
        );
        with(fifo, "is neither a disk nor a file");
        with("/no/such/disk", "there is no /no/such/disk");
    }
}

/// A file that only its owner may read; other users may not be root.
fn secret(dir: &Path) -> String {
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir, everybody).unwrap();
    let path = dir.join("secret");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn what_only_root_can_do() {
    let dir = tempfile::tempdir().unwrap();
    let secret = secret(dir.path());
    let refused = |arguments: &[&str], words: &str| {
        let (code, stdout, stderr) = as_nobody(arguments);
        assert_eq!(code, i32::from(Exit::NotRoot.code()), "{stderr}");
        let expected = format!("imgstreamctl {}: {words}\n", arguments[0]);
        assert_eq!((stdout.as_str(), stderr), ("", expected));
    };
    let root = "only root can do this";
    refused(&["cancel"], root);
    refused(&["attach", "--scan"], root);
    // Nobody waits for this portal.
    refused(&[&["migrate"], &PORTAL[..]].concat(), root);
    refused(&[&["plan"], &PORTAL[..]].concat(), root);
    let may_not = format!("this user may not open {secret}; root may");
    refused(
        &[&["plan", "--disk", &secret], &PORTAL[..]].concat(),
        &may_not,
    );
    for command in ["check", "dump", "attach", "rollback"] {
        refused(&[command, &secret], &may_not);
    }
    refused(&["prepare", &secret, "--out", "/tmp/out"], &may_not);
}

/// `plan` for a source with an image behind a portal.
fn plan_through(source: &Made, portal: &str) -> (i32, String, String) {
    let disk = source.image.to_str().unwrap();
    let [option, _, target @ ..] = PORTAL;
    imgstreamctl(&[&["plan", "--disk", disk, option, portal], &target[..]].concat())
}

#[test]
fn a_portal_that_refuses_is_told_of_at_once() {
    let source = make(&Recipe::default());
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let portal = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (code, _, stderr) = plan_through(&source, &portal);
    assert_eq!(code, i32::from(Exit::PortalUnreachable.code()), "{stderr}");
    assert_eq!(
        stderr,
        format!(
            "the portal {portal} refuses connections; trying for 5 s more\n\
             imgstreamctl plan: nothing can be read from iqn.2026-11.test:x: \
             the portal {portal} refuses connections; tried for 5 s\n"
        )
    );
}

#[test]
fn a_link_local_portal_is_refused_before_it_is_asked() {
    let source = make(&Recipe::default());
    for portal in ["fe80::1", "[fe80::1]:3260"] {
        let (code, _, stderr) = plan_through(&source, portal);
        assert_eq!(code, i32::from(Exit::Network.code()), "{stderr}");
        assert!(stderr.contains("fe80::1: a link-local address"), "{stderr}");
    }
}

/// `prepare` of a file that holds `content`.
fn not_prepared(name: &str, content: &[u8], exit: Exit, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join(name), dir.path().join("out"));
    fs::write(&file, content).unwrap();
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    ends(&["prepare", file, "--out", out], exit, words);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "there is output"
    );
}

#[test]
fn what_is_no_raw_image_is_named() {
    let table = Exit::PartitionTable;
    let whole = "name the disk of an installed system";
    not_prepared("notes", b"hello\nworld\n", table, "is a text file");
    not_prepared("notes", &b"hello world\n".repeat(999), table, whole);
    not_prepared("nothing", b"", table, "is empty");
    not_prepared("blank", &[0; 8192], table, "is blank");
    not_prepared(
        "noise",
        &common::noise(9000, 3),
        table,
        "has no partition table",
    );
    let head = |magic: &[u8], at: usize| {
        let mut bytes = vec![0; 80_000];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    let convert = "is a qcow2 image, not a disk or the raw image of one; make a raw one with: \
                   qemu-img convert -O raw /";
    not_prepared("a.qcow2", &head(b"QFI\xfb", 0), table, convert);
    not_prepared("a.qcow2", &head(b"QFI\xfb", 0), table, "a.qcow2 /");
    not_prepared("a.qcow2", &head(b"QFI\xfb", 0), table, "/a.raw\n");
    not_prepared("a.vmdk", &head(b"KDMV", 0), table, "is a VMDK image");
    not_prepared(
        "a.vdi",
        &head(b"\x7f\x10\xda\xbe", 0x40),
        table,
        "is a VDI image",
    );
    not_prepared("a.vhdx", &head(b"vhdxfile", 0), table, "is a VHDX image");
    not_prepared(
        "a.xz",
        &head(b"\xfd7zXZ\0", 0),
        table,
        "is packed with xz, not a disk",
    );
    not_prepared(
        "a.iso",
        &head(b"CD001", 0x8001),
        table,
        "is the image of a CD",
    );
    not_prepared(
        "xfs",
        &head(b"XFSB", 0),
        table,
        "a file system (xfs) without a partition table",
    );
    not_prepared(
        "luks",
        &head(b"LUKS\xba\xbe", 0),
        Exit::Luks,
        "encrypted with LUKS",
    );
}

#[test]
fn a_file_system_without_a_partition_table_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("root.img");
    fs::File::create(&file).unwrap().set_len(8 * MIB).unwrap();
    let file = file.to_str().unwrap();
    program("mke2fs", &["-q", "-t", "ext4", file]);
    let words = "is a file system (ext4) without a partition table";
    let out = dir.path().join("out");
    let arguments = ["prepare", file, "--out", out.to_str().unwrap()];
    ends(&arguments, Exit::PartitionTable, words);
}

#[test]
fn an_output_that_cannot_be_written_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.raw");
    fs::write(&file, "no image at all").unwrap();
    let file = file.to_str().unwrap();
    let directory = dir.path().to_str().unwrap();
    let to = |out: &str, words: &str| {
        ends(&["prepare", file, "--out", out], Exit::Usage, words);
    };
    to("/no/such/out", "there is no directory /no/such");
    to(
        directory,
        &format!("is a directory; name a file in it, for example {directory}/image.img"),
    );
    to("/dev/null", "--out /dev/null is not a file");
}

#[test]
fn a_boot_partition_has_to_be_there() {
    let made = make(&Recipe::default());
    let image = made.image.to_str().unwrap();
    let out = made.path("out");
    let with = |number: &str, exit: Exit, words: &str| {
        let out = out.to_str().unwrap();
        ends(
            &["prepare", image, "--out", out, "--boot-partition", number],
            exit,
            words,
        );
    };
    with("9", Exit::Usage, "has no such partition, only 1, 2");
    with(
        "1",
        Exit::BootSetup,
        "its partition 1 is no ext4 file system with a grub.cfg",
    );
}

#[test]
fn a_lun_that_was_not_prepared_is_said_so() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let len = fs::metadata(&lun).unwrap().len();
    write_at(&lun, len - 4096, &[0; 4096]);
    let (lun, disk) = (lun.to_str().unwrap(), made.image.to_str().unwrap());
    let (code, _, stderr) = imgstreamctl(&["plan", "--image", lun, "--disk", disk]);
    assert_eq!(code, i32::from(Exit::NotPublished.code()), "{stderr}");
    assert!(
        stderr.contains("`imgstreamctl prepare` makes published images"),
        "{stderr}"
    );
}

#[test]
fn whoever_stops_reading_is_not_scolded() {
    let made = make(&Recipe::default());
    let (lun, _, _) = prepare(&made, &[]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    let output = Command::new(env!("CARGO_BIN_EXE_imgstreamctl"))
        .arg("dump")
        .arg(lun)
        .stdout(OwnedFd::from(theirs))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(i32::from(Exit::Failure.code())));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
