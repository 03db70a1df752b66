# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator QEMU can use here: KVM if a guest really runs in it, else TCG.

/dev/kvm proves little: in some clouds a machine can be created and its guest then never runs. So a kernel is booted, once
per boot of this computer."""

import os
import sys
import tempfile
from pathlib import Path

from .config import CACHE, say, stock_kernel
from .initramfs import Initramfs
from .qemu import Ended, Guest, Machine, TimedOut

TCG = "tcg,thread=multi"
KVM = "kvm"
PROBE_PATIENCE_S = 30

PROBE_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo imgstream-guest-runs >/dev/ttyS1
/bin/busybox poweroff -f
"""


def _kvm_works() -> bool:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError:
        return False
    kernel = stock_kernel()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        initramfs = Initramfs(directory / "root", kernel)
        initramfs.write("init", PROBE_INIT)
        (directory / "root/init").chmod(0o755)
        initramfs.pack(directory / "initrd")
        machine = Machine(kernel.image, directory / "initrd", directory, KVM, network=False)
        try:
            with Guest(machine, PROBE_PATIENCE_S) as guest:
                return any("imgstream-guest-runs" in line for line in guest.lines())
        except (Ended, TimedOut):
            return False


def accelerator() -> str:
    """What goes behind -accel: $IMGSTREAM_ACCEL, or what was found out."""
    wanted = os.environ.get("IMGSTREAM_ACCEL")
    if wanted:
        if wanted.split(",")[0] not in ("kvm", "tcg"):
            sys.exit(f"imgstream: IMGSTREAM_ACCEL={wanted}: kvm or tcg is possible")
        return wanted
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    known = CACHE / "accelerator"
    if known.exists() and known.read_text(encoding="ascii").split()[0] == boot:
        return known.read_text(encoding="ascii").split()[1]
    found = KVM if _kvm_works() else TCG
    if found == TCG and Path("/dev/kvm").exists():
        say("/dev/kvm is there, but no guest runs in it: QEMU emulates (TCG), which is slower")
    known.write_text(f"{boot} {found}\n", encoding="ascii")
    return found


if __name__ == "__main__":
    print(accelerator())
