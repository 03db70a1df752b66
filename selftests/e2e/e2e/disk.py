# SPDX-License-Identifier: GPL-2.0-only
"""Disks of installed systems: partition table, /boot if it has a file system of its own, root, GRUB; nothing is mounted."""

import mmap
import os
import re
import struct
import uuid

from . import content, rootfs
from .config import BLOCK, MIB, SECTOR
from .shell import Failed, run

BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

# Places in GRUB's own boot sector and in the first sector of its core image.
BOOT_CODE = 440
KERNEL_SECTOR_AT = 0x5C
DRIVE_CHECK_AT = 0x66
BLOCK_LIST_AT = 500
CORE_SEGMENT = 0x820


def _guid(system, what):
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"imgstream-e2e/{system.name}/{what}")).upper()


def partition(system, image):
    """An empty disk with its partition table."""
    with open(image, "wb") as file:
        file.truncate(system.disk_mib * MIB)
    script = "\n".join(_gpt(system) if system.table == "gpt" else _mbr(system))
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, stdin=script + "\n")


def _gpt(system):
    yield f"label: gpt\nlabel-id: {_guid(system, 'disk')}"
    yield f"start={system.core_offset // SECTOR}, size={MIB // SECTOR}, type={BIOS_BOOT}, uuid={_guid(system, 'bios')}"
    for name, start, mib in _file_systems(system):
        yield f"start={start // SECTOR}, size={mib * MIB // SECTOR}, type={LINUX}, uuid={_guid(system, name)}"


def _mbr(system):
    yield f"label: dos\nlabel-id: 0x{_guid(system, 'disk')[:8]}"
    for _, start, mib in _file_systems(system):
        yield f"start={start // SECTOR}, size={mib * MIB // SECTOR}, type=83"


def _file_systems(system):
    if system.boot_mib:
        yield "boot", system.boot_offset, system.boot_mib
    yield "root", system.root_offset, system.root_mib


def make_file_systems(system, tree, root, boot):
    """The ext4 file systems with the tree in them, in files of their own; `boot` only if /boot has one."""
    if not system.boot_mib:
        return _make_ext4(system, tree, root, rootfs.root_uuid(system), system.root_mib)
    _make_ext4(system, tree / "boot", boot, rootfs.boot_uuid(system), system.boot_mib)
    kept = tree.parent / "boot"
    (tree / "boot").rename(kept)
    (tree / "boot").mkdir()
    _make_ext4(system, tree, root, rootfs.root_uuid(system), system.root_mib)
    (tree / "boot").rmdir()
    kept.rename(tree / "boot")


def _make_ext4(system, tree, file, ident, mib):
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", BLOCK, *system.mkfs_options, "-L", system.hostname,
        "-U", ident, "-d", tree, file, mib * MIB // BLOCK)


def put(file_system, image, offset):
    """Moves a file system to its place on the disk; holes stay holes."""
    run("dd", f"if={file_system}", f"of={image}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse", "status=none")
    file_system.unlink()


def debugfs(root, commands, write=False):
    """Runs debugfs commands on the root file system; debugfs itself does not fail on a bad one."""
    flags = ["-w"] if write else []
    said = run("debugfs", *flags, "-f", "-", root, stdin="\n".join(commands) + "\n")
    errors = [line for line in said.splitlines()
              if re.search(r": .*(not found|error|Error|cannot|Could not|No such|Ext2)", line)]
    if errors:
        raise Failed("debugfs: " + "; ".join(errors[:5]))
    return said


def check_clean(root):
    run("e2fsck", "-f", "-n", root)


def write_boot_code(system, image, grub):
    """GRUB's boot sector and core image, with the places that grub-install would set."""
    boot = bytearray((grub / "boot.img").read_bytes())
    struct.pack_into("<Q", boot, KERNEL_SECTOR_AT, system.core_offset // SECTOR)
    boot[DRIVE_CHECK_AT:DRIVE_CHECK_AT + 2] = b"\x90\x90"
    core = bytearray((grub / "core.img").read_bytes())
    sectors = (len(core) + SECTOR - 1) // SECTOR
    if system.core_offset + len(core) > system.boot_offset:
        raise Failed(f"{grub}/core.img does not fit in front of the file systems")
    struct.pack_into("<QHH", core, BLOCK_LIST_AT, system.core_offset // SECTOR + 1, sectors - 1, CORE_SEGMENT)
    with open(image, "r+b") as file:
        file.write(boot[:BOOT_CODE])
        file.seek(system.core_offset)
        file.write(core)


def fill_far(system, root, work):
    """Users' files at the end of the file system, behind room that is free again afterwards."""
    home = work / "far"
    content.make(home, system.users_far_mib, seed=2, owner=0)
    free = _free_blocks(root)
    keep = (system.users_far_mib + 64) * MIB // BLOCK
    debugfs(root, ["write /dev/null filler", f"fallocate filler 0 {free - keep}"], write=True)
    commands = ["mkdir /home/bob"]
    for top, dirs, files in sorted(os.walk(home)):
        place = "/home/bob/" + os.path.relpath(top, home)
        commands += [f"mkdir {place}/{name}" for name in sorted(dirs)]
        commands += [f"write {top}/{name} {place}/{name}" for name in sorted(files)]
    debugfs(root, commands, write=True)
    debugfs(root, ["rm filler"], write=True)
    return home


def _free_blocks(root):
    said = run("dumpe2fs", "-h", root)
    return int(re.search(r"^Free blocks:\s+(\d+)", said, re.M).group(1))


def used_share(root):
    """Used blocks of the root file system as a share of all."""
    said = run("dumpe2fs", "-h", root)
    count = int(re.search(r"^Block count:\s+(\d+)", said, re.M).group(1))
    return 1 - _free_blocks(root) / count


def blocks_used_from(dumped, start_block, disk_block):
    """How many used blocks of a file system that starts at a block of the disk, as dumpe2fs printed it, stand at or beyond
    another."""
    first = disk_block - start_block
    count = int(re.search(r"^Block count:\s+(\d+)", dumped, re.M).group(1))
    free = 0
    for line in re.findall(r"^  Free blocks: (.*)$", dumped, re.M):
        for low, _, high in re.findall(r"(\d+)(-(\d+))?", line):
            free += max(0, int(high or low) - max(int(low), first) + 1)
    return count - first - free


def blocks_that_differ(one, other):
    """Of the non-zero blocks of the first disk: how many there are, how many differ from the second."""
    nonzero = differ = 0
    zero = bytes(BLOCK)
    with open(one, "rb") as a, open(other, "rb") as b:
        left = mmap.mmap(a.fileno(), 0, access=mmap.ACCESS_READ)
        right = mmap.mmap(b.fileno(), 0, access=mmap.ACCESS_READ)
        for at in range(0, len(left), BLOCK):
            block = left[at:at + BLOCK]
            if block != zero:
                nonzero += 1
                differ += block != right[at:at + BLOCK]
    return nonzero, differ
