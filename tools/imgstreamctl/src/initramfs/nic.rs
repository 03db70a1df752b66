// SPDX-License-Identifier: GPL-2.0-only
//! Which modules of a kernel drive a network interface.

/// Directories below drivers/net with real or paravirtual interfaces.
const DIRECTORIES: [&str; 6] = [
    "kernel/drivers/net/ethernet/",
    "kernel/drivers/net/usb/",
    "kernel/drivers/net/hyperv/",
    "kernel/drivers/net/vmxnet3/",
    "kernel/drivers/net/fjes/",
    "kernel/drivers/infiniband/ulp/",
];
/// Drivers that stand in drivers/net itself.
const FILES: [&str; 2] = [
    "kernel/drivers/net/virtio_net.ko",
    "kernel/drivers/net/xen-netfront.ko",
];
/// Helpers in the directories above that drive nothing by themselves.
const LIBRARIES: [&str; 3] = ["usbnet.ko", "8390.ko", "libie.ko"];

/// Whether the module at `path` (below lib/modules/VERSION) drives an interface.
pub(super) fn is_driver(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    if LIBRARIES.iter().any(|library| file.starts_with(library)) {
        return false;
    }
    FILES.iter().any(|driver| path.starts_with(driver))
        || DIRECTORIES
            .iter()
            .any(|directory| path.starts_with(directory))
}

/// Drivers of interfaces that many computers have, virtual ones first.
const USUAL: [&str; 16] = [
    "virtio_net",
    "vmxnet3",
    "hv_netvsc",
    "xen_netfront",
    "ena",
    "e1000e",
    "igb",
    "r8169",
    "tg3",
    "ixgbe",
    "i40e",
    "ice",
    "bnxt_en",
    "mlx5_core",
    "e1000",
    "igc",
];
/// More are counted.
const NAMED: usize = 5;

/// Some of the drivers, for a person: `first` of them, then the usual ones.
pub fn some(drivers: &[String], first: Option<&str>) -> String {
    let first = first.map(|name| name.replace('-', "_"));
    let place = |name: &str| match first.as_deref() == Some(name) {
        true => 0,
        false => {
            let usual = USUAL.iter().position(|usual| *usual == name);
            1 + usual.unwrap_or(USUAL.len())
        }
    };
    let mut all: Vec<&str> = drivers.iter().map(String::as_str).collect();
    all.sort_by_key(|name| place(name));
    let more = match all.len() {
        // One more name is no longer than "and 1 more".
        few if few <= NAMED + 1 => 0,
        many => many - NAMED,
    };
    all.truncate(drivers.len() - more);
    let named = all.join(", ");
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_drivers_the_usual_ones_are_named() {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&own(&["virtio_net"]), None), "virtio_net");
        let six = own(&["a", "b", "c", "d", "e", "virtio_net"]);
        assert_eq!(some(&six, None), "virtio_net, a, b, c, d, e");
        let many = own(&[
            "3c59x",
            "8139cp",
            "e1000e",
            "igb",
            "lan78xx",
            "r8169",
            "tun",
            "virtio_net",
        ]);
        assert_eq!(
            some(&many, None),
            "virtio_net, e1000e, igb, r8169, 3c59x and 3 more"
        );
        assert_eq!(
            some(&many, Some("lan78xx")),
            "lan78xx, virtio_net, e1000e, igb, r8169 and 3 more"
        );
    }
}
