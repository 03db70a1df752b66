// SPDX-License-Identifier: GPL-2.0-only

//! Settings of a disk that describe a network with a fixed address.

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{anyhow, ensure, Context, Result};
use crc32c::crc32c;
use imgstream_proto::disk::settings::{
    Hostname, Method, Network, Settings, Tunables, SETTINGS_LEN,
};
use imgstream_proto::disk::Copy2;

use crate::disk::superblock_of;

/// The network.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// MAC address of the interface.
    #[arg(long, value_parser = mac)]
    mac: [u8; 6],
    /// Its address, as ADDRESS/BITS.
    #[arg(long, value_parser = address)]
    address: (IpAddr, u8),
    /// The router.
    #[arg(long)]
    gateway: Option<IpAddr>,
    /// A name server; up to two.
    #[arg(long)]
    dns: Vec<IpAddr>,
    /// MTU; 0: leave it.
    #[arg(long, default_value_t = 0)]
    mtu: u16,
    /// VLAN; 0: none.
    #[arg(long, default_value_t = 0)]
    vlan: u16,
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<u8>, _>>()?;
    bytes.try_into().map_err(|_| anyhow!("not six bytes"))
}

fn address(text: &str) -> Result<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/').context("no prefix")?;
    Ok((address.parse()?, bits.parse()?))
}

impl Args {
    fn network(&self) -> Result<Network> {
        ensure!(self.dns.len() <= 2, "more than two name servers");
        let (address, prefix_len) = self.address;
        Ok(Network {
            mac: self.mac,
            method: Method::Static {
                address,
                prefix_len,
                gateway: self.gateway,
            },
            dns: [self.dns.first().copied(), self.dns.get(1).copied()],
            mtu: self.mtu,
            vlan: self.vlan,
            hostname: Hostname::EMPTY,
        })
    }
}

/// Writes both copies of the settings.
pub(crate) fn write(path: &Path, args: &Args) -> Result<()> {
    let mut disk = OpenOptions::new().read(true).write(true).open(path)?;
    let superblock = superblock_of(&mut disk)?;
    let settings = Settings {
        generation: 1,
        network: Some(args.network()?),
        tunables: Tunables::default(),
    };
    for copy in Copy2::BOTH {
        let at = copy.of(&superblock.places.settings).start_bytes;
        let mut bytes = [0; SETTINGS_LEN];
        settings
            .encode(&superblock.uuid, at, &mut bytes, crc32c)
            .map_err(|e| anyhow!("settings: {e}"))?;
        disk.write_all_at(&bytes, at)?;
    }
    Ok(disk.sync_all()?)
}
