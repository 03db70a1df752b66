// SPDX-License-Identifier: GPL-2.0-only
//! Where a published image is: behind a portal, or in a file.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgstream_engine::session::MAX_CANARIES;
use imgstream_initiator::{
    Canary, Client, Credentials, Designator, Identity, Mismatch, Options, Reason,
};
use imgstream_proto::disk::superblock::{Origin, Superblock};
use imgstream_proto::iscsi::digest::{Policy, UNPROTECTED};

use crate::args;
use crate::chap;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::portal;
use crate::publish::{trailer_crc32c, Published, ReadAt};
use crate::refusal::Refusal;

/// Where open-iscsi keeps this computer's name.
const INITIATOR_FILE: &str = "/etc/iscsi/initiatorname.iscsi";
const MACHINE_ID: &str = "/etc/machine-id";
/// How long a portal may take to say which image is behind it.
const RECOGNISED_WITHIN: Duration = Duration::from_secs(5);

/// The arguments that say where a published image is.
#[derive(Clone, Debug, clap::Args)]
pub struct Address {
    /// Address and port of the iSCSI portal, for example 10.0.2.2:3260; or as `discover` prints it, with its portal group.
    #[arg(long, value_name = "ADDRESS[:PORT][,GROUP]", value_parser = portal::parse, required_unless_present = "image")]
    pub portal: Option<String>,
    /// Name of the iSCSI target.
    #[arg(long, value_name = "IQN", value_parser = portal::parse_target, required_unless_present = "image")]
    pub target: Option<String>,
    /// Number of the LUN.
    #[arg(long, default_value_t = 1, value_parser = args::lun, allow_negative_numbers = true)]
    pub lun: u64,
    /// Whether bytes that come from the portal are protected by checksums: prefer, require, or off.
    #[arg(long, value_name = "POLICY", default_value = "prefer", value_parser = args::digest)]
    pub digest: Policy,
    /// A file with user= and secret= for CHAP, and target-user= and target-secret= if the target has to prove who it is.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub chap_file: Option<PathBuf>,
    /// A published image in a file instead of behind a portal.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["portal", "target", "lun", "digest"])]
    pub image: Option<PathBuf>,
}

/// The same where a file will not do: the target has to find the image by itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Behind {
    /// Address and port of the iSCSI portal, for example 10.0.2.2:3260; or as `discover` prints it, with its portal group.
    #[arg(long, value_name = "ADDRESS[:PORT][,GROUP]", value_parser = portal::parse)]
    portal: String,
    /// Name of the iSCSI target.
    #[arg(long, value_name = "IQN", value_parser = portal::parse_target)]
    target: String,
    /// Number of the LUN.
    #[arg(long, default_value_t = 1, value_parser = args::lun, allow_negative_numbers = true)]
    lun: u64,
    /// Whether bytes that come from the portal are protected by checksums: prefer, require, or off.
    #[arg(long, value_name = "POLICY", default_value = "prefer", value_parser = args::digest)]
    digest: Policy,
    /// A file with user= and secret= for CHAP, and target-user= and target-secret= if the target has to prove who it is.
    #[arg(long, value_name = "FILE")]
    chap_file: Option<PathBuf>,
}

impl From<Behind> for Address {
    fn from(behind: Behind) -> Self {
        Self {
            portal: Some(behind.portal),
            target: Some(behind.target),
            lun: behind.lun,
            digest: behind.digest,
            chap_file: behind.chap_file,
            image: None,
        }
    }
}

impl Address {
    /// Opens the image for reading, wherever it is.
    pub fn open(&self) -> Result<Box<dyn ReadAt>> {
        match &self.image {
            Some(file) => Ok(Box::new(Disk::open(file)?)),
            None => Ok(Box::new(self.connect()?)),
        }
    }

    /// The portal's address, if it has one.
    pub fn portal_ip(&self) -> Option<IpAddr> {
        let found = portal::resolve(self.portal.as_deref()?).ok()?;
        found.first().map(SocketAddr::ip)
    }

    /// Connects to the portal. A file will not do: the target has to find the
    /// image by itself.
    pub fn connect(&self) -> Result<Remote> {
        let (Some(portal), Some(target)) = (&self.portal, &self.target) else {
            return Err(Error::Other("name --portal and --target".into()));
        };
        let initiator_name = own_name();
        let portals = portal::resolve(portal)?;
        let mut options = Options::new(&portals, target, self.lun, &initiator_name);
        options.digests = self.digest;
        options.portal_group = portal::group(portal);
        options.tell = |trouble| eprintln!("{trouble}");
        options.credentials = self.chap_file.as_deref().map(chap::read).transpose()?;
        let credentials = options.credentials.clone();
        let client = Client::open(options).map_err(|error| failed(target, &error))?;
        if !client.digests().data {
            eprintln!("repository at {}: {UNPROTECTED}", client.portal());
        }
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
            digest: self.digest,
            credentials,
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
    /// Which digests connections to it ask for.
    pub digest: Policy,
    /// How both sides prove who they are.
    pub credentials: Option<Credentials>,
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
        read.map_err(|error| failed(&place, &error))
    }
}

impl Remote {
    /// From here on every new connection has to lead to this image.
    pub fn expect(&mut self, image: &Published) {
        let mut canaries = [None; MAX_CANARIES];
        for (to, from) in canaries.iter_mut().zip(&image.manifest.canaries) {
            *to = Some(Canary {
                block: from.block,
                crc32c: from.crc32c,
            });
        }
        self.client.expect(Identity {
            capacity_bytes: image.trailer.lun_bytes,
            designator: self.designator,
            trailer_crc32c: Some(image.trailer_crc32c),
            canaries,
        });
    }

    /// Refuses another image that took this one's place behind the same LUN.
    pub fn refuse_other(&mut self, image: &Published) -> Result<()> {
        if trailer_crc32c(self)? == image.trailer_crc32c {
            return Ok(());
        }
        let place = self.place();
        let what = Mismatch::Trailer.to_string();
        Err(Refusal::WrongImage { place, what }.into())
    }
}

/// Refuses when another image is behind the portal of this migration. A portal
/// that does not answer may have the right one: the module waits for it.
pub fn refuse_wrong_image(superblock: &Superblock) -> Result<()> {
    let Some(options) = options(superblock) else {
        return Ok(());
    };
    let place = options.target_name.clone();
    match Client::open(options).map_err(|error| failed(&place, &error)) {
        Err(error) if error.exit() == Exit::WrongImage => Err(error),
        _ => Ok(()),
    }
}

/// How the module connects, and what it wants to find.
fn options(superblock: &Superblock) -> Option<Options> {
    let (origin, image) = (&superblock.origin, &superblock.image);
    let portals = portals(origin);
    let (target, initiator) = (
        origin.target_name.as_str()?,
        origin.initiator_name.as_str()?,
    );
    let mut options = Options::new(&portals, target, origin.lun, initiator);
    let designator = match origin.vpd83.as_bytes().split_first() {
        Some((&kind, value)) => Designator::new(kind, value)?,
        None => Designator::NONE,
    };
    options.digests = origin.digests;
    options.credentials = Credentials::from_disk(&origin.chap).ok()?;
    options.patience = RECOGNISED_WITHIN;
    options.beside = Some(origin.isid);
    options.identity = Some(Identity {
        capacity_bytes: image.lun_bytes,
        designator,
        trailer_crc32c: Some(image.trailer_crc32c),
        canaries: image.canaries.map(|canary| {
            canary.map(|canary| Canary {
                block: canary.block,
                crc32c: canary.crc32c,
            })
        }),
    });
    Some(options)
}

fn portals(origin: &Origin) -> Vec<SocketAddr> {
    let all = origin.portals.iter().flatten();
    all.map(|portal| match portal.address {
        IpAddr::V4(v4) => (v4, portal.port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, portal.port, 0, portal.scope_id).into(),
    })
    .collect()
}

/// A LUN that is not there is no other image: somebody may still offer it.
fn failed(place: &str, error: &imgstream_initiator::Error) -> Error {
    match error {
        imgstream_initiator::Error::Refused {
            reason: Reason::WrongImage(mismatch) | Reason::Exchanged { mismatch, .. },
            ..
        } if *mismatch != Mismatch::NoUnit => Refusal::WrongImage {
            place: place.to_string(),
            what: mismatch.to_string(),
        }
        .into(),
        other => Refusal::PortalUnreachable {
            place: place.to_string(),
            what: other.to_string(),
        }
        .into(),
    }
}

/// This computer's name.
pub fn own_name() -> String {
    initiator_name(Path::new(INITIATOR_FILE), Path::new(MACHINE_ID))
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
