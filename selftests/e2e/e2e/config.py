# SPDX-License-Identifier: GPL-2.0-only
"""Where things are and how large they are made."""

import os
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("IMGSTREAM_BUILD", REPO / "build"))
CACHE = Path(os.environ.get("IMGSTREAM_CACHE", Path.home() / ".cache/imgstream")) / "e2e"

MIB = 1 << 20
BLOCK = 4096
# The first partition (BIOS boot) takes the second MiB, root starts at the third.
CORE_OFFSET = 1 * MIB
ROOT_OFFSET = 2 * MIB


@dataclass(frozen=True)
class System:
    """One installed Debian system: what is in it and how large its disk is."""

    name: str
    suite: str
    hostname: str
    kernel: str  # a kernel package; with imgstream it is the kernel that the module is built for
    packages: tuple
    disk_mib: int
    mkfs_options: tuple = ()
    users_mib: int = 0  # users' files laid out by mke2fs
    users_far_mib: int = 0  # users' files put at the end of the file system
    has_imgstream: bool = False

    @property
    def root_mib(self):
        """Size of the root partition: to 1 MiB before the end of the disk."""
        return self.disk_mib - 3


@dataclass(frozen=True)
class Variant:
    """One pair of systems and the directory it is prepared in."""

    name: str
    source: System
    target: System
    memory_mib: int = 1024
    settings: dict = field(default_factory=dict)


BASE = (
    "systemd-sysv udev dbus kmod initramfs-tools zstd grub-pc e2fsprogs fdisk procps"
    " iproute2 iputils-ping ifupdown isc-dhcp-client less vim-tiny ca-certificates"
).split()
TARGET_EXTRA = "python3 perl git rsync man-db curl openssh-client".split()


# GRUB of Debian 12 cannot read the two newest ext4 features. Without -G 1 resize2fs demands more than 1 GiB beyond what is
# used (its estimate counts flexible block groups badly), which a disk as small as these does not have.
SOURCE_MKFS = ("-O", "^metadata_csum_seed,^orphan_file", "-G", "1")


def _source(name, disk_mib, users_mib, far_mib, kernel):
    return System(
        name=name, suite="bookworm", hostname="imgsource", kernel=kernel, packages=tuple(BASE),
        disk_mib=disk_mib, users_mib=users_mib, users_far_mib=far_mib,
        mkfs_options=SOURCE_MKFS,
    )


def _target(name, disk_mib, packages):
    return System(
        name=name, suite="trixie", hostname="imgtarget", kernel="",
        packages=tuple(packages), disk_mib=disk_mib, has_imgstream=True,
    )


VARIANTS = {
    "demo": Variant(
        "demo",
        _source("demo-source", 6656, 3000, 360, "linux-image-amd64"),
        _target("demo-target", 2052, BASE + TARGET_EXTRA),
    ),
    "small": Variant(
        "small",
        _source("small-source", 3072, 600, 120, "linux-image-cloud-amd64"),
        _target("small-target", 1028, BASE),
    ),
}
