// SPDX-License-Identifier: GPL-2.0-only
//! Which drivers an interface needs: those of the devices that it is made of,
//! through VLANs, bridges and bonds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::refusal::Refusal;

const SYS_NET: &str = "/sys/class/net";
/// Interfaces stand on each other a few deep; a ring of them does not exist.
const MAX_DEPTH: u32 = 8;

/// The drivers of `interface`, as modules are named.
pub fn drivers(interface: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    collect(Path::new(SYS_NET), interface, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn collect(
    sys: &Path,
    interface: &str,
    depth: u32,
    found: &mut BTreeSet<String>,
) -> Result<(), Refusal> {
    let directory = sys.join(interface);
    if directory.join("device").exists() {
        found.insert(driver(&directory).ok_or_else(|| unknown(interface))?);
        return Ok(());
    }
    if depth > 0 {
        for lower in lowers(&directory) {
            collect(sys, &lower, depth - 1, found)?;
        }
    }
    Ok(())
}

/// A driver that is built in has no module; its own name is the module's then.
fn driver(directory: &Path) -> Option<String> {
    let driver: PathBuf = directory.join("device/driver");
    let module = fs::canonicalize(driver.join("module"));
    let path = module.or_else(|_| fs::canonicalize(&driver)).ok()?;
    Some(path.file_name()?.to_str()?.replace('-', "_"))
}

/// What an interface stands on: the kernel links it as `lower_NAME`.
fn lowers(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("lower_")?.to_string()))
        .collect();
    names.sort();
    names
}

fn unknown(interface: &str) -> Refusal {
    Refusal::Network {
        interface: interface.to_string(),
        why: "its driver is not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that stands in for /sys.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Sys {
            Sys(tempfile::tempdir().unwrap())
        }

        fn net(&self) -> PathBuf {
            self.0.path().join("class/net")
        }

        /// A device with a driver; without a module it is built in.
        fn hardware(self, name: &str, driver: &str, module: Option<&str>) -> Sys {
            let device = self.net().join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            let place = self.0.path().join("bus/pci/drivers").join(driver);
            fs::create_dir_all(&place).unwrap();
            if let Some(module) = module {
                let to = self.0.path().join("module").join(module);
                fs::create_dir_all(&to).unwrap();
                let _ = symlink(to, place.join("module"));
            }
            symlink(place, device.join("driver")).unwrap();
            self
        }

        /// An interface made of others.
        fn on(self, name: &str, lowers: &[&str]) -> Sys {
            let directory = self.net().join(name);
            fs::create_dir_all(&directory).unwrap();
            for lower in lowers {
                let to = self.net().join(lower);
                symlink(to, directory.join(format!("lower_{lower}"))).unwrap();
            }
            self
        }

        fn drivers(&self, name: &str) -> Vec<String> {
            let mut found = BTreeSet::new();
            collect(&self.net(), name, MAX_DEPTH, &mut found).unwrap();
            found.into_iter().collect()
        }
    }

    #[test]
    fn a_card_has_its_module_or_its_drivers_name() {
        let sys = Sys::new()
            .hardware("ens3", "virtio_net", Some("virtio_net"))
            .hardware("eth0", "hv_netvsc", Some("hv_netvsc"))
            .hardware("ens4", "virtio-pci-x", None);
        assert_eq!(sys.drivers("ens3"), ["virtio_net"]);
        assert_eq!(sys.drivers("eth0"), ["hv_netvsc"]);
        assert_eq!(sys.drivers("ens4"), ["virtio_pci_x"]);
    }

    #[test]
    fn through_vlan_bridge_and_bond_to_every_card() {
        let sys = Sys::new()
            .hardware("eno1", "e1000e", Some("e1000e"))
            .hardware("eno2", "igb", Some("igb"))
            .on("bond0", &["eno1", "eno2"])
            .on("bond0.5", &["bond0"])
            .on("tap0", &[])
            .on("br0", &["bond0.5", "tap0"]);
        assert_eq!(sys.drivers("br0"), ["e1000e", "igb"]);
        assert_eq!(sys.drivers("bond0.5"), ["e1000e", "igb"]);
        assert!(sys.drivers("tap0").is_empty());
    }

    #[test]
    fn a_ring_ends() {
        let sys = Sys::new().on("a", &["b"]).on("b", &["a"]);
        assert!(sys.drivers("a").is_empty());
    }

    #[test]
    fn a_card_without_a_driver_is_refused() {
        let sys = Sys::new();
        fs::create_dir_all(sys.net().join("ens3/device")).unwrap();
        let refusal = collect(&sys.net(), "ens3", 1, &mut BTreeSet::new()).unwrap_err();
        assert_eq!(refusal.exit(), crate::Exit::Network);
        assert!(
            refusal.to_string().contains("ens3: its driver"),
            "{refusal}"
        );
    }
}
