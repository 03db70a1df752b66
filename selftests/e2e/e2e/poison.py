# SPDX-License-Identifier: GPL-2.0-only
"""Can firmware and GRUB start the target when only its boot region is there?"""

import shutil

from .config import BLOCK
from .vm import Vm, overlay

POISON = b"\xa5"


def outside(region, blocks):
    """The runs of blocks that do not belong to the region."""
    at = 0
    for run in [*region, {"block": blocks, "blocks": 0}]:
        if run["block"] > at:
            yield at, run["block"] - at
        at = run["block"] + run["blocks"]


def poisoned(system, path):
    """A copy of the published image in which everything outside of the boot region is garbage, as on a disk where
    the source's data still stands there."""
    manifest = system.facts["published"]["manifest"]
    shutil.copyfile(system.published, path)
    with open(path, "r+b") as disk:
        disk.truncate(manifest["image_bytes"])
        for block, count in outside(manifest["boot_region"], manifest["image_bytes"] // BLOCK):
            disk.seek(block * BLOCK)
            for at in range(0, count, 256):
                disk.write(POISON * (min(256, count - at) * BLOCK))
    return path


def start_from_boot_region(pair, work, log):
    """Boots the poisoned image: SeaBIOS, GRUB with its menu, kernel, and the whole initramfs up to its first program."""
    disk = poisoned(pair.target, work / "poisoned.raw")
    try:
        with Vm(overlay(disk, work / "poisoned.qcow2"), work, pair.memory_mib, network=False, name="poison") as machine:
            machine.await_console(r"Linux version \S+", seconds=120)
            log("the kernel runs")
            machine.await_console(r"Run /init as init process", seconds=300)
            log("the initramfs was unpacked and started: the boot region is enough")
    finally:
        disk.unlink()
