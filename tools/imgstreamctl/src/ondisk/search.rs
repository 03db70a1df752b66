// SPDX-License-Identifier: GPL-2.0-only
//! Looks for migrations on several disks.

use std::path::{Path, PathBuf};

use imgstream_proto::disk::State;

use super::{find, Found};
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::refusal::Refusal;

/// What is on some disks. One that cannot be read, or carries something
/// foreign, keeps nobody from using what another carries.
#[derive(Debug, Default)]
pub struct Search {
    found: Vec<(PathBuf, Found)>,
    failed: Vec<(PathBuf, Error)>,
}

impl Search {
    /// Looks at all of these.
    pub fn of(disks: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut search = Self::default();
        for path in disks {
            match on(&path) {
                Ok(Some(found)) => search.found.push((path, found)),
                Ok(None) => {}
                Err(error) => search.failed.push((path, error)),
            }
        }
        search
    }

    /// The one disk whose state is among those that are wanted. With two of
    /// them nobody can tell which is meant.
    pub fn only(&self, wanted: impl Fn(State) -> bool) -> Result<Option<(PathBuf, Found)>> {
        let all: Vec<&(PathBuf, Found)> = self
            .found
            .iter()
            .filter(|(_, found)| wanted(found.superblock.state))
            .collect();
        match all[..] {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            _ => Err(Refusal::SecondSuperblock {
                places: join(all.iter().map(|(path, _)| path.display().to_string())),
            }
            .into()),
        }
    }

    /// Whether nothing can be said of this disk.
    pub fn failed_on(&self, disk: &Path) -> bool {
        self.failed.iter().any(|(path, _)| path == disk)
    }

    /// The disks of which nothing can be said, and why.
    pub fn failures(&self) -> Option<String> {
        let all = self.failed.iter();
        let said = join(all.map(|(path, error)| format!("{}: {error}", path.display())));
        (!said.is_empty()).then_some(said)
    }
}

fn on(path: &Path) -> Result<Option<Found>> {
    let mut disk = DiskMedium::open_ro(path)?;
    find(&mut disk, &path.display().to_string())
}

fn join(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<String>>().join(", ")
}
