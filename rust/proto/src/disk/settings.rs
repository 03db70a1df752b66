// SPDX-License-Identifier: GPL-2.0-only

//! Settings: how the target's initramfs reaches the network, and how the driver is tuned. Two copies of 4 KiB; the newest
//! valid one counts.

use core::mem::{offset_of, size_of};
use core::net::IpAddr;

use zerocopy::little_endian::{U16, U32};
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::address::{address_bytes, address_from};
use super::bounded::{len16, string, Bounded};
use super::error::{Error, Field};
use super::geometry::BLOCK_LEN;
use super::header::{Crc32c, Header, HeaderDisk, Uuid};

const MAGIC: [u8; 8] = *b"IMGSTRST";

/// Length of one copy.
pub const SETTINGS_LEN: usize = BLOCK_LEN;
/// The longest host name.
pub const HOSTNAME_LEN: usize = 64;

/// A host name.
pub type Hostname = Bounded<HOSTNAME_LEN>;

const METHOD_DHCP: u32 = 1;
const METHOD_STATIC: u32 = 2;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct AddressDisk {
    /// 0: none; 4; 6.
    family: U16,
    prefix_len: U16,
    address: [u8; 16],
}

/// The bytes of the settings.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct SettingsDisk {
    header: HeaderDisk,
    method: U32,
    mac: [u8; 6],
    mtu: U16,
    vlan: U16,
    hostname_len: U16,
    address: AddressDisk,
    gateway: AddressDisk,
    dns: [AddressDisk; 2],
    hostname: [u8; HOSTNAME_LEN],
    fill: U32,
    fill_min_kib_s: U32,
    fill_max_kib_s: U32,
    reserved: [u8; SETTINGS_LEN - 236],
}

const _: () = assert!(size_of::<SettingsDisk>() == SETTINGS_LEN);
const _: () = assert!(offset_of!(SettingsDisk, method) == 64);
const _: () = assert!(offset_of!(SettingsDisk, mac) == 68);
const _: () = assert!(offset_of!(SettingsDisk, mtu) == 74);
const _: () = assert!(offset_of!(SettingsDisk, vlan) == 76);
const _: () = assert!(offset_of!(SettingsDisk, address) == 80);
const _: () = assert!(offset_of!(SettingsDisk, gateway) == 100);
const _: () = assert!(offset_of!(SettingsDisk, dns) == 120);
const _: () = assert!(offset_of!(SettingsDisk, hostname) == 160);
const _: () = assert!(offset_of!(SettingsDisk, fill) == 224);

/// How the interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By DHCP.
    Dhcp,
    /// A fixed one.
    Static {
        /// The address.
        address: IpAddr,
        /// Leading bits of the address that name the network.
        prefix_len: u8,
        /// The router.
        gateway: Option<IpAddr>,
    },
}

/// The network that the image is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which interface: the one with this address.
    pub mac: [u8; 6],
    /// How it gets its address.
    pub method: Method,
    /// Name servers.
    pub dns: [Option<IpAddr>; 2],
    /// MTU; 0: leave it.
    pub mtu: u16,
    /// VLAN; 0: none.
    pub vlan: u16,
    /// The computer's name; may be empty.
    pub hostname: Hostname,
}

/// The background fill as it was last set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// Whether absent blocks are fetched in the background.
    pub fill: bool,
    /// What the fill gets even while the guest is busy, KiB a second.
    pub fill_min_kib_s: u32,
    /// What it may take at most; 0: no limit.
    pub fill_max_kib_s: u32,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            fill: true,
            fill_min_kib_s: 1024,
            fill_max_kib_s: 0,
        }
    }
}

/// Checked settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Counts the writes.
    pub generation: u64,
    /// The network; `None`: nothing is set up by the initramfs.
    pub network: Option<Network>,
    /// The driver.
    pub tunables: Tunables,
}

impl Settings {
    /// Writes the copy of that migration that stands at `location_bytes`.
    pub fn encode(
        &self,
        uuid: &Uuid,
        location_bytes: u64,
        to: &mut [u8; SETTINGS_LEN],
        crc: Crc32c,
    ) -> Result<(), Error> {
        to.fill(0);
        let raw = SettingsDisk::mut_from_bytes(to).map_err(|_| Error::Short {
            found: 0,
            expected: SETTINGS_LEN,
        })?;
        if let Some(network) = &self.network {
            network.fill(raw);
        }
        raw.fill = U32::new(self.tunables.fill.into());
        raw.fill_min_kib_s = U32::new(self.tunables.fill_min_kib_s);
        raw.fill_max_kib_s = U32::new(self.tunables.fill_max_kib_s);
        Header::new(*uuid, location_bytes, self.generation).seal(MAGIC, to, crc)
    }

    /// Reads the copy of that migration that stands at `location_bytes`.
    pub fn decode(
        uuid: &Uuid,
        location_bytes: u64,
        from: &[u8],
        crc: Crc32c,
    ) -> Result<Self, Error> {
        let raw = SettingsDisk::ref_from_bytes(from).map_err(|_| Error::Short {
            found: from.len(),
            expected: SETTINGS_LEN,
        })?;
        let header = Header::open(MAGIC, from, crc)?;
        header.expect(uuid, location_bytes)?;
        let fill = match raw.fill.get() {
            0 => false,
            1 => true,
            found => return Err(Error::value(Field::Flags, found.into())),
        };
        Ok(Self {
            generation: header.generation,
            network: raw.network()?,
            tunables: Tunables {
                fill,
                fill_min_kib_s: raw.fill_min_kib_s.get(),
                fill_max_kib_s: raw.fill_max_kib_s.get(),
            },
        })
    }
}

impl Network {
    fn fill(&self, raw: &mut SettingsDisk) {
        let [dns0, dns1] = self.dns;
        raw.mac = self.mac;
        raw.mtu = U16::new(self.mtu);
        raw.vlan = U16::new(self.vlan);
        raw.dns = [AddressDisk::encode(dns0, 0), AddressDisk::encode(dns1, 0)];
        raw.hostname_len = len16(self.hostname.len());
        raw.hostname = self.hostname.padded();
        raw.method = U32::new(METHOD_DHCP);
        if let Method::Static {
            address,
            prefix_len,
            gateway,
        } = self.method
        {
            raw.method = U32::new(METHOD_STATIC);
            raw.address = AddressDisk::encode(Some(address), prefix_len);
            raw.gateway = AddressDisk::encode(gateway, 0);
        }
    }
}

impl AddressDisk {
    fn encode(address: Option<IpAddr>, prefix_len: u8) -> Self {
        let (family, bytes) = address_bytes(address);
        Self {
            family: U16::new(family),
            prefix_len: U16::new(prefix_len.into()),
            address: bytes,
        }
    }

    fn check(&self) -> Result<Option<IpAddr>, Error> {
        address_from(self.family.get(), &self.address)
    }

    fn prefix_len(&self) -> Result<u8, Error> {
        let most = if self.family.get() == 4 { 32 } else { 128 };
        u8::try_from(self.prefix_len.get())
            .ok()
            .filter(|len| *len <= most)
            .ok_or(Error::value(Field::Length, self.prefix_len.get().into()))
    }
}

impl SettingsDisk {
    fn network(&self) -> Result<Option<Network>, Error> {
        let [dns0, dns1] = &self.dns;
        let method = match self.method.get() {
            0 => return Ok(None),
            METHOD_DHCP => Method::Dhcp,
            METHOD_STATIC => self.fixed()?,
            found => return Err(Error::value(Field::NetworkMethod, found.into())),
        };
        Ok(Some(Network {
            mac: self.mac,
            method,
            dns: [dns0.check()?, dns1.check()?],
            mtu: self.mtu.get(),
            vlan: self.vlan.get(),
            hostname: string(&self.hostname, self.hostname_len)?,
        }))
    }

    fn fixed(&self) -> Result<Method, Error> {
        Ok(Method::Static {
            address: self
                .address
                .check()?
                .ok_or(Error::value(Field::Family, 0))?,
            prefix_len: self.address.prefix_len()?,
            gateway: self.gateway.check()?,
        })
    }
}
