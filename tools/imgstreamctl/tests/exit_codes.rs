// SPDX-License-Identifier: GPL-2.0-only
//! Every exit code but that of success is expected by some test.

use std::fs;
use std::path::{Path, PathBuf};

use imgstreamctl::Exit;

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .collect()
}

/// What of a source file is test.
fn tests_in(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    if path.ends_with("tests.rs") {
        return text;
    }
    text.split_once("\nmod tests {")
        .map_or_else(String::new, |(_, tests)| tests.to_string())
}

#[test]
fn every_code_has_a_test() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = package.join("tests/exit_codes.rs");
    let whole = sources(&package.join("tests"))
        .into_iter()
        .filter(|path| *path != own)
        .map(|path| fs::read_to_string(path).unwrap());
    let parts = sources(&package.join("src"))
        .into_iter()
        .map(|path| tests_in(&path));
    let all = whole.chain(parts).collect::<Vec<_>>().concat();
    let words: Vec<&str> = all
        .split(|c: char| !c.is_alphanumeric() && c != ':')
        .collect();
    for exit in Exit::ALL.iter().filter(|exit| **exit != Exit::Success) {
        let name = format!("Exit::{}", exit.name());
        assert!(words.iter().any(|word| word.ends_with(&name)), "{name}");
    }
}
