// SPDX-License-Identifier: GPL-2.0-only
//! Commands that work on a disk that is not attached, as a user calls them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use imgstream_engine::plan::{plan, Demand};
use imgstream_proto::disk::boot_list::BootState;
use imgstream_proto::disk::settings::{Hostname, Method, Network, Settings, Tunables};
use imgstream_proto::disk::superblock::{Checkpoint, Superblock, CHAP_AT};
use imgstream_proto::disk::State;
use imgstreamctl::medium::{DiskMedium, Medium};
use imgstreamctl::ondisk::Found;
use imgstreamctl::stage::control_area;
use imgstreamctl::switch::payload::{boot_entries, Control};
use imgstreamctl::Exit;

const MIB: u64 = 1 << 20;

fn imgstreamctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imgstreamctl"))
        .args(arguments)
        .output()
        .unwrap()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn control() -> Control {
    let fitted = plan(&Demand {
        disk_bytes: 130 * MIB,
        disk_logical_bytes: 512,
        image_bytes: 24 * MIB,
        image_logical_bytes: 512,
        boot_blocks: 13,
        boot_end_block: 110,
        boot_entries: 2,
        source_bytes: 129 * MIB,
        source_min_bytes: 21 * MIB,
        source_granule_bytes: 4096,
        source_base_bytes: 2 * MIB,
    })
    .unwrap();
    let mut superblock = Superblock::new([7; 16], State::Relocating, fitted.geometry);
    superblock.places = fitted.places;
    superblock.checkpoint = Checkpoint {
        sequence: 1,
        position_bytes: 0,
    };
    superblock.source_hash = [0xab; 32];
    superblock.boot_blocks_crc32c = 77;
    Control {
        boot_list: boot_entries([(0, 3), (100, 10)], fitted.geometry.relocated_start_bytes),
        superblock,
        settings: Settings {
            generation: 1,
            network: Some(Network {
                mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
                method: Method::Static {
                    address: "192.0.2.7".parse().unwrap(),
                    prefix_len: 24,
                    gateway: Some("192.0.2.1".parse().unwrap()),
                },
                dns: [Some("192.0.2.53".parse().unwrap()), None],
                mtu: 9000,
                vlan: 5,
                hostname: Hostname::new(b"web").unwrap(),
            }),
            tunables: Tunables::default(),
        },
    }
}

/// A disk image whose migration is in `state`; blocks at home are 't', saved ones 's'.
fn disk(directory: &Path, state: State) -> PathBuf {
    let path = directory.join("disk");
    File::create(&path).unwrap().set_len(130 * MIB).unwrap();
    let mut medium = DiskMedium::open_alone(&path).unwrap();
    let control = control();
    let mut found: Found = control_area::create(&mut medium, &control).unwrap();
    for entry in &control.boot_list {
        let len = entry.blocks as usize * 4096;
        medium
            .write(entry.image_block * 4096, &vec![b't'; len])
            .unwrap();
        medium
            .write(entry.relocated_bytes, &vec![b's'; len])
            .unwrap();
    }
    let list = &control.boot_list;
    control_area::set_boot_state(&mut medium, &found.superblock, list, BootState::Live).unwrap();
    let next = Superblock {
        state,
        clean: true,
        ..found.superblock.clone()
    };
    found.replace(&mut medium, next).unwrap();
    path
}

#[test]
fn a_file_without_superblock_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    File::create(&path).unwrap().set_len(80 * MIB).unwrap();
    for command in ["check", "dump", "rollback", "attach"] {
        let output = imgstreamctl(&[command, path.to_str().unwrap()]);
        assert_eq!(
            exit(&output),
            i32::from(Exit::NoSuperblock.code()),
            "{command}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains("no imgstream superblock"),
            "{}",
            said(&output)
        );
    }
}

/// Both superblocks of a disk, changed and sealed again.
fn reseal(path: &Path, change: impl Fn(u64, &mut [u8])) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for place in imgstream_engine::pair::locations(&control().superblock).unwrap() {
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, place).unwrap();
        change(place, &mut block);
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&block, place).unwrap();
    }
}

#[test]
fn superblocks_of_others_are_refused_by_every_command() {
    type Change = fn(u64, &mut [u8]);
    let cases: [(Change, Exit, &str); 5] = [
        (
            |_, block| block[12] = 2,
            Exit::NewerSuperblock,
            "is of a newer version",
        ),
        (
            |_, block| block[24] = 1,
            Exit::NewerSuperblock,
            "is of a newer version",
        ),
        // Copied from another disk, where it stood somewhere else.
        (
            |place, block| block[48..56].copy_from_slice(&(place + 4096).to_le_bytes()),
            Exit::ForeignSuperblock,
            "is not its own",
        ),
        (
            |_, block| block[56..].fill(0xff),
            Exit::DamagedSuperblock,
            "is damaged",
        ),
        // A name without a secret.
        (
            |_, block| block[CHAP_AT] = 7,
            Exit::DamagedSuperblock,
            "names and secrets for CHAP make no sense",
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (change, exit_code, sentence) in cases {
        let path = disk(dir.path(), State::Streaming);
        reseal(&path, change);
        let before = std::fs::read(&path).unwrap();
        let name = path.to_str().unwrap();
        for command in [
            &["attach", name][..],
            &["check", name],
            &["dump", name],
            &["rollback", "--yes", name],
            &["plan", "--image", name, "--disk", name],
        ] {
            let output = imgstreamctl(command);
            let said = said(&output);
            // plan has to say, too, that this is no published image.
            let line = said.lines().find(|line| line.contains(sentence));
            let line = line.unwrap_or_else(|| panic!("{command:?}: {said}"));
            let start = format!("imgstreamctl {}: the imgstream superblock of", command[0]);
            assert!(line.starts_with(&start), "{line}");
            if command[0] != "plan" {
                assert_eq!(exit(&output), i32::from(exit_code.code()), "{said}");
                assert_eq!(said.lines().count(), 1, "one sentence: {said}");
            }
        }
        assert!(std::fs::read(&path).unwrap() == before, "{sentence}");
    }
}

#[test]
fn dump_shows_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), State::Streaming);
    let output = imgstreamctl(&["dump", "--json", "--boot-list", path.to_str().unwrap()]);
    assert_eq!(exit(&output), 0, "{}", said(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["state"], "streaming");
    assert_eq!(value["disk_bytes"], 130 * MIB);
    assert_eq!(value["source_hash"], "ab".repeat(32));
    assert_eq!(value["boot_blocks_crc32c"], 77);
    assert_eq!(value["blocks"]["absent"], 24 * MIB / 4096);
    assert_eq!(value["settings"]["network"]["mac"], "52:54:00:12:34:56");
    assert_eq!(value["settings"]["network"]["address"], "192.0.2.7/24");
    assert_eq!(value["settings"]["network"]["vlan"], 5);
    assert_eq!(value["boot_list"][1]["image_block"], 100);
    assert_eq!(value["boot_list"][1]["state"], "live");
    let human = imgstreamctl(&["dump", path.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&human.stdout).contains("state: streaming\n"));
}

#[test]
fn check_grades_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), State::Streaming);
    let name = path.to_str().unwrap();
    assert_eq!(exit(&imgstreamctl(&["check", name])), 0);
    let [a, b] = control().superblock.places.map;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 512], a.start_bytes).unwrap();
    let output = imgstreamctl(&["check", name]);
    assert_eq!(exit(&output), i32::from(Exit::OneCopyBad.code()));
    assert!(String::from_utf8_lossy(&output.stdout).contains("map A: 1 segments are damaged"));
    file.write_all_at(&[0xff; 512], b.start_bytes).unwrap();
    let output = imgstreamctl(&["check", "--json", name]);
    assert_eq!(exit(&output), i32::from(Exit::DamagedSuperblock.code()));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(findings
        .as_array()
        .unwrap()
        .iter()
        .any(|f| f["grade"] == "damage"));
}

#[test]
fn roll_back_of_a_detached_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), State::Streaming);
    let name = path.to_str().unwrap();
    // Nobody is asked where nobody can answer.
    let output = imgstreamctl(&["rollback", name]);
    assert_eq!(exit(&output), i32::from(Exit::NotConfirmed.code()));
    let output = imgstreamctl(&["rollback", "--yes", name]);
    assert_eq!(exit(&output), 0, "{}", said(&output));
    let dump = imgstreamctl(&["dump", "--json", name]);
    let value: serde_json::Value = serde_json::from_slice(&dump.stdout).unwrap();
    assert_eq!(value["state"], "rolling-back");
    let output = imgstreamctl(&["rollback", "--yes", "--now", name]);
    assert_eq!(exit(&output), 0, "{}", said(&output));
    // The hash that the test recorded is none of this source: it has to be said.
    assert!(String::from_utf8_lossy(&output.stdout).contains("WARNING: the source differs"));
    let mut medium = DiskMedium::open_ro(&path).unwrap();
    for entry in &control().boot_list {
        let mut bytes = vec![0; entry.blocks as usize * 4096];
        medium.read(entry.image_block * 4096, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == b's'));
    }
    // The stage of the source, whose entry a file system in a file keeps, finds out that it is over.
    let dump = imgstreamctl(&["dump", "--json", name]);
    let value: serde_json::Value = serde_json::from_slice(&dump.stdout).unwrap();
    assert_eq!(value["state"], "rolled-back");
}

#[test]
fn states_that_do_not_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    for state in [State::Committing, State::Committed] {
        let path = disk(dir.path(), state);
        let output = imgstreamctl(&["rollback", "--yes", path.to_str().unwrap()]);
        assert_eq!(exit(&output), i32::from(Exit::WrongState.code()), "{state}");
        assert!(said(&output).contains(state.name()), "{}", said(&output));
    }
    let path = disk(dir.path(), State::Committed);
    let output = imgstreamctl(&["attach", path.to_str().unwrap()]);
    assert_eq!(exit(&output), i32::from(Exit::WrongState.code()));
}

#[test]
fn without_a_device_there_is_nothing_to_control() {
    if Path::new("/dev/imgstream-control").exists() {
        return;
    }
    for command in [
        &["status"][..],
        &["watch"],
        &["pause"],
        &["resume"],
        &["reconnect"],
        &["sessions", "2"],
        &["detach"],
        &["fill", "on"],
        &["commit", "--yes"],
        &["rollback", "--yes"],
    ] {
        let output = imgstreamctl(command);
        assert_eq!(
            exit(&output),
            i32::from(Exit::NotAttached.code()),
            "{command:?}"
        );
        assert!(said(&output).contains("no imgstream device is attached"));
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    for command in [
        &["fill", "maybe"][..],
        &["attach"],
        &["rollback", "--now"],
        &[
            "migrate",
            "--portal",
            "192.0.2.1",
            "--target",
            "iqn.x",
            "--static",
            "192.0.2.7",
        ],
        &["boot", "--once", "--root", "/dev/vda1"],
        &["watch", "--every", "0"],
    ] {
        assert_eq!(
            exit(&imgstreamctl(command)),
            i32::from(Exit::Usage.code()),
            "{command:?}"
        );
    }
}
