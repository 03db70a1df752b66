// SPDX-License-Identifier: GPL-2.0-only

//! Every input that is checked in, once: `corpus` reaches all there is to reach, `regressions` once broke a promise.

use std::fs;
use std::path::Path;

use imgstream_fuzz::{find, TARGETS};

/// The inputs of a directory, in order. There need not be one.
fn inputs(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn replay(name: &str) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = find(name).unwrap();
    let corpus = inputs(&top.join("corpus").join(name));
    let seeds = (target.seeds)();
    assert!(seeds.len() > 1 && corpus.len() > 1);
    let regressions = inputs(&top.join("regressions").join(name));
    for input in seeds.iter().chain(&corpus).chain(&regressions) {
        assert!(input.len() <= target.max_len);
        (target.body)(input);
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!([$(stringify!($name)),*], TARGETS.map(|target| target.name));
        }
    };
}

replayed!(disk login scsi session stream text);
