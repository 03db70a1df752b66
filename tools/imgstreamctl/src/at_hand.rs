// SPDX-License-Identifier: GPL-2.0-only
//! What a system needs to be shut down, looked at and rolled back while the repository is away. It is read once, after the
//! boot, so that it is on the disk: systemd reads units when they are wanted, and programs are paged in as they run, so a
//! shutdown would wait for blocks that nobody can give.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::device::status::bytes;

/// systemd, its units and what it runs at the end.
const TREES: [&str; 2] = ["/usr/lib/systemd", "/etc/systemd"];
/// What may not run yet, and what all of them read.
const FILES: [&str; 10] = [
    "/usr/bin/systemctl",
    "/usr/bin/sh",
    "/usr/bin/umount",
    "/usr/sbin/imgstreamctl",
    "/usr/sbin/reboot",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/shadow",
];

/// Reads all of it. What cannot be read is left out: it is a help, no duty.
pub(crate) fn read() {
    // Whatever it says: the boot is over, or nobody can tell.
    let _ = Command::new("systemctl")
        .args(["is-system-running", "--wait"])
        .output();
    let read: u64 = files().iter().map(|path| whole(path)).sum();
    println!(
        "{} are on the disk now, with which this system can be shut down and rolled back without the repository",
        bytes(read)
    );
}

fn files() -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for tree in TREES {
        add_tree(Path::new(tree), &mut files);
    }
    let stops: Vec<PathBuf> = files.iter().flat_map(|unit| stops_with(unit)).collect();
    files.extend(stops);
    files.extend(mapped());
    files
}

fn add_tree(directory: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => add_tree(&entry.path(), files),
            Ok(_) => drop(files.insert(entry.path())),
            Err(_) => {}
        }
    }
}

/// The programs that a unit is stopped with.
fn stops_with(unit: &Path) -> Vec<PathBuf> {
    let is_unit = unit.extension().is_some_and(|end| end == "service");
    let text = match is_unit {
        true => fs::read_to_string(unit).unwrap_or_default(),
        false => String::new(),
    };
    text.lines().filter_map(stop_program).collect()
}

/// Of a line of systemd.service(5), behind the characters that say how it is run.
fn stop_program(line: &str) -> Option<PathBuf> {
    let (key, command) = line.split_once('=')?;
    let first = command.split_whitespace().next()?;
    let program = first.trim_start_matches(['@', '-', ':', '+', '!', '|']);
    (key.starts_with("ExecStop") && program.starts_with('/')).then(|| PathBuf::from(program))
}

/// Programs and libraries of everything that runs, which has to run a little longer.
fn mapped() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let maps = processes.filter_map(|entry| fs::read_to_string(entry.path().join("maps")).ok());
    maps.flat_map(|text| text.lines().filter_map(mapped_file).collect::<Vec<_>>())
        .collect()
}

/// Of a line of proc_pid_maps(5): what is behind five words.
fn mapped_file(line: &str) -> Option<PathBuf> {
    let path = line.splitn(6, ' ').nth(5)?.trim_start();
    let gone = path.ends_with(" (deleted)");
    (path.starts_with('/') && !path.starts_with("/dev/") && !gone).then(|| PathBuf::from(path))
}

fn whole(path: &Path) -> u64 {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let file = is_file.then(|| File::open(path).ok()).flatten();
    file.and_then(|mut file| io::copy(&mut file, &mut io::sink()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_stop_a_unit_are_found() {
        let program = |line| stop_program(line);
        let found = |path: &str| Some(PathBuf::from(path));
        assert_eq!(program("ExecStop=/sbin/ifdown -a"), found("/sbin/ifdown"));
        assert_eq!(program("ExecStopPost=-+/bin/x"), found("/bin/x"));
        for none in ["ExecStart=/bin/y", "ExecStop=", "ExecStop=kill", "[Unit]"] {
            assert_eq!(program(none), None, "{none}");
        }
    }

    #[test]
    fn what_runs_is_found_in_its_maps() {
        let line = "7f00-7f01 r-xp 00000000 fe:01 1234                       /usr/lib/libc.so.6";
        assert_eq!(mapped_file(line), Some(PathBuf::from("/usr/lib/libc.so.6")));
        for none in [
            "7f00-7f01 rw-p 00000000 00:00 0 ",
            "7f00-7f01 rw-p 00000000 00:00 0                          [heap]",
            "7f00-7f01 r-xp 00000000 fe:01 12    /usr/lib/old (deleted)",
            "7f00-7f01 rw-s 00000000 00:05 12    /dev/zero",
        ] {
            assert_eq!(mapped_file(none), None, "{none}");
        }
    }

    #[test]
    fn trees_are_read_with_all_below() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/a.service"), "ExecStop=/bin/stop\n").unwrap();
        let mut files = BTreeSet::new();
        add_tree(dir.path(), &mut files);
        let unit = dir.path().join("below/a.service");
        assert!(files.contains(&unit));
        assert_eq!(stops_with(&unit), [PathBuf::from("/bin/stop")]);
        assert_eq!(whole(&unit), 19);
        assert_eq!(whole(dir.path()), 0);
    }
}
