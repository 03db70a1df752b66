# SPDX-License-Identifier: GPL-2.0-only
"""Disks of installed systems: GPT, BIOS boot partition, ext4 root, GRUB; nothing is mounted."""

import mmap
import os
import re
import struct
import uuid

from . import content, rootfs
from .config import BLOCK, CORE_OFFSET, MIB, ROOT_OFFSET
from .shell import Failed, run

SECTOR = 512
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
    script = "\n".join([
        "label: gpt", f"label-id: {_guid(system, 'disk')}",
        f"start={CORE_OFFSET // SECTOR}, size={MIB // SECTOR}, type={BIOS_BOOT}, uuid={_guid(system, 'bios')}",
        f"start={ROOT_OFFSET // SECTOR}, size={system.root_mib * MIB // SECTOR}, type={LINUX}, uuid={_guid(system, 'root')}",
    ])
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, stdin=script + "\n")


def make_root(system, tree, root):
    """The ext4 file system with the tree in it, in a file of its own."""
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", BLOCK, *system.mkfs_options, "-L", system.hostname,
        "-U", rootfs.root_uuid(system), "-d", tree,
        root, system.root_mib * MIB // BLOCK)


def put_root(root, image):
    """Moves the file system to its place on the disk; holes stay holes."""
    run("dd", f"if={root}", f"of={image}", "bs=1M", f"seek={ROOT_OFFSET // MIB}", "conv=notrunc,sparse", "status=none")
    root.unlink()


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


def write_boot_code(image, grub):
    """GRUB's boot sector and core image, with the places that grub-install would set."""
    boot = bytearray((grub / "boot.img").read_bytes())
    struct.pack_into("<Q", boot, KERNEL_SECTOR_AT, CORE_OFFSET // SECTOR)
    boot[DRIVE_CHECK_AT:DRIVE_CHECK_AT + 2] = b"\x90\x90"
    core = bytearray((grub / "core.img").read_bytes())
    sectors = (len(core) + SECTOR - 1) // SECTOR
    if len(core) > MIB:
        raise Failed(f"{grub}/core.img does not fit the BIOS boot partition")
    struct.pack_into("<QHH", core, BLOCK_LIST_AT, CORE_OFFSET // SECTOR + 1, sectors - 1, CORE_SEGMENT)
    with open(image, "r+b") as file:
        file.write(boot[:BOOT_CODE])
        file.seek(CORE_OFFSET)
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


def blocks_used_from(dumped, disk_block):
    """How many used blocks of a file system, as dumpe2fs printed it, stand at or beyond a block of the disk."""
    first = disk_block - ROOT_OFFSET // BLOCK
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
