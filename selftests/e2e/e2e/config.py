# SPDX-License-Identifier: GPL-2.0-only
"""Where things are and how large they are made."""

import os
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("IMGSTREAM_BUILD", REPO / "build"))
CACHE = Path(os.environ.get("IMGSTREAM_CACHE", Path.home() / ".cache/imgstream")) / "e2e"
JOBS = int(os.environ.get("IMGSTREAM_JOBS", "1"))

MIB = 1 << 20
BLOCK = 4096
SECTOR = 512


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
    cmdline: str = "console=tty0 console=ttyS0,115200"
    fills_slowly: bool = False  # from early on, so that blocks are still absent when somebody looks
    table: str = "gpt"  # or dos
    boot_mib: int = 0  # a file system of its own for /boot, in front of root

    @property
    def core_offset(self):
        """Where GRUB's core image stands: in a BIOS boot partition of 1 MiB, or behind the MBR."""
        return MIB if self.table == "gpt" else SECTOR

    @property
    def boot_offset(self):
        """The first partition with a file system."""
        return 2 * MIB if self.table == "gpt" else MIB

    @property
    def root_offset(self):
        return self.boot_offset + self.boot_mib * MIB

    @property
    def root_mib(self):
        """Size of the root partition: to 1 MiB before the end of the disk."""
        return self.disk_mib - self.root_offset // MIB - 1

    @property
    def boot_number(self):
        """Number of the partition that /boot is in."""
        return 2 if self.table == "gpt" else 1

    @property
    def root_number(self):
        return self.boot_number + (self.boot_mib > 0)


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


def _source(name, disk_mib, users_mib, far_mib, kernel, suite="bookworm", **layout):
    return System(
        name=name, suite=suite, hostname="imgsource", kernel=kernel, packages=tuple(BASE),
        disk_mib=disk_mib, users_mib=users_mib, users_far_mib=far_mib,
        mkfs_options=SOURCE_MKFS, **layout,
    )


def _target(name, disk_mib, packages, **layout):
    return System(
        name=name, suite="trixie", hostname="imgtarget", kernel="",
        packages=tuple(packages), disk_mib=disk_mib, has_imgstream=True, **layout,
    )


# The small pair's machines run beside each other: see TICKS and NO_TSC in selftests/runner/qemu.py.
TICKING = System.cmdline + " nohz=off highres=off tsc=unstable"

VARIANTS = {
    "demo": Variant(
        "demo",
        _source("demo-source", 6272, 2530, 360, "linux-image-amd64"),
        _target("demo-target", 2052, BASE + TARGET_EXTRA),
    ),
    "small": Variant(
        "small",
        _source("small-source", 3072, 600, 120, "linux-image-cloud-amd64", cmdline=TICKING),
        _target("small-target", 1028, BASE, fills_slowly=True, cmdline=TICKING),
    ),
    # What the others are not: Debian 13 as the source, an MBR on both sides, a /boot of its own in the target.
    "mbr": Variant(
        "mbr",
        _source("mbr-source", 3472, 600, 120, "linux-image-cloud-amd64", suite="trixie", table="dos"),
        _target("mbr-target", 1124, BASE, table="dos", boot_mib=192),
    ),
}
