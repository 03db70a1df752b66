// SPDX-License-Identifier: GPL-2.0-only
//! Where a published image is: behind a portal, or in a file.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use imgstream_initiator::{Client, Designator};

use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::publish::ReadAt;
use crate::refusal::Refusal;

/// iSCSI's own port.
const PORT: u16 = 3260;
/// Where open-iscsi keeps this computer's name.
const INITIATOR_FILE: &str = "/etc/iscsi/initiatorname.iscsi";
const MACHINE_ID: &str = "/etc/machine-id";

/// The arguments that say where a published image is.
#[derive(Clone, Debug, clap::Args)]
pub struct Address {
    /// Address and port of the iSCSI portal, for example 10.0.2.2:3260.
    #[arg(long, requires = "target", required_unless_present = "image")]
    pub portal: Option<String>,
    /// Name of the iSCSI target.
    #[arg(long, value_name = "IQN")]
    pub target: Option<String>,
    /// Number of the LUN.
    #[arg(long, default_value_t = 1)]
    pub lun: u64,
    /// A published image in a file instead of behind a portal.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["portal", "target"])]
    pub image: Option<PathBuf>,
}

impl Address {
    /// Opens the image for reading, wherever it is.
    pub fn open(&self) -> Result<Box<dyn ReadAt>> {
        match &self.image {
            Some(file) => Ok(Box::new(Disk::open(file)?)),
            None => Ok(Box::new(self.connect()?)),
        }
    }

    /// Connects to the portal. A file will not do: the target has to find the
    /// image by itself.
    pub fn connect(&self) -> Result<Remote> {
        let (Some(portal), Some(target)) = (&self.portal, &self.target) else {
            return Err(Error::Other("name --portal and --target".into()));
        };
        let initiator_name = initiator_name(Path::new(INITIATOR_FILE), Path::new(MACHINE_ID));
        let portals = resolve(portal)?;
        let client = Client::connect(&portals, target, self.lun, &initiator_name)
            .map_err(|error| unreachable(portal, &error))?;
        let found_bytes = u64::from(client.block_bytes());
        if found_bytes != SECTOR_BYTES {
            let place = format!("LUN {} of {target}", self.lun);
            return Err(Refusal::BlockSize { place, found_bytes }.into());
        }
        Ok(Remote {
            portal: client.portal(),
            target: target.clone(),
            lun: self.lun,
            designator: client.identity(),
            initiator_name,
            client,
        })
    }
}

/// A LUN behind a portal.
pub struct Remote {
    /// The portal that answered.
    pub portal: SocketAddr,
    /// Name of the target.
    pub target: String,
    /// Number of the LUN.
    pub lun: u64,
    /// What identifies the LUN.
    pub designator: Designator,
    /// Our name.
    pub initiator_name: String,
    client: Client,
}

impl ReadAt for Remote {
    fn place(&self) -> String {
        format!("LUN {} of {} at {}", self.lun, self.target, self.portal)
    }

    fn lun_bytes(&self) -> u64 {
        self.client.capacity()
    }

    /// The client reads whole sectors; what is read here need not be.
    fn read_at(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> Result<()> {
        let before = (offset_bytes % SECTOR_BYTES) as usize;
        let len = before + buffer.len();
        let place = self.place();
        let read = if before == 0 && buffer.len() as u64 % SECTOR_BYTES == 0 {
            self.client.read(offset_bytes, buffer)
        } else {
            let mut whole = vec![0; len.next_multiple_of(SECTOR_BYTES as usize)];
            let read = self.client.read(offset_bytes - before as u64, &mut whole);
            buffer.copy_from_slice(&whole[before..len]);
            read
        };
        read.map_err(|error| unreachable(&place, &error))
    }
}

/// Addresses of `host[:port]`, IPv6 in brackets when a port follows.
fn resolve(portal: &str) -> Result<Vec<SocketAddr>> {
    let with_port = portal.to_socket_addrs();
    let found = with_port.or_else(|_| (portal.trim_matches(['[', ']']), PORT).to_socket_addrs());
    found
        .map(Iterator::collect)
        .map_err(|error| unreachable(portal, &error))
}

fn unreachable(place: &str, error: &dyn std::fmt::Display) -> Error {
    Refusal::PortalUnreachable {
        place: place.to_string(),
        what: error.to_string(),
    }
    .into()
}

/// This computer's name: open-iscsi's if that is installed, else one made of
/// the machine's id, so that it stays the same.
fn initiator_name(file: &Path, machine_id: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let named = text
        .lines()
        .find_map(|line| line.strip_prefix("InitiatorName="))
        .map(str::trim)
        .filter(|name| !name.is_empty());
    if let Some(name) = named {
        return name.to_string();
    }
    let id = std::fs::read_to_string(machine_id).unwrap_or_default();
    let id: String = id.trim().chars().take(12).collect();
    let id = if id.is_empty() { "unknown" } else { &id };
    format!("iqn.2026-11.org.imgstream:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_have_a_usual_port() {
        let one = |text: &str| resolve(text).unwrap()[0].to_string();
        assert_eq!(one("10.0.2.2"), "10.0.2.2:3260");
        assert_eq!(one("10.0.2.2:860"), "10.0.2.2:860");
        assert_eq!(one("fe80::1"), "[fe80::1]:3260");
        assert_eq!(one("[fe80::1]"), "[fe80::1]:3260");
        assert_eq!(one("[fe80::1]:860"), "[fe80::1]:860");
        assert!(resolve("no host at all").is_err());
    }

    #[test]
    fn the_name_is_open_iscsis_or_the_machines() {
        let dir = tempfile::tempdir().unwrap();
        let (file, id) = (dir.path().join("name"), dir.path().join("id"));
        assert_eq!(
            initiator_name(&file, &id),
            "iqn.2026-11.org.imgstream:unknown"
        );
        std::fs::write(&id, "0123456789abcdef0123456789abcdef\n").unwrap();
        let made = "iqn.2026-11.org.imgstream:0123456789ab";
        assert_eq!(initiator_name(&file, &id), made);
        std::fs::write(
            &file,
            "# comment\nInitiatorName=iqn.1993-08.org.debian:01:ab\n",
        )
        .unwrap();
        assert_eq!(initiator_name(&file, &id), "iqn.1993-08.org.debian:01:ab");
    }
}
