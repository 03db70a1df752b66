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
