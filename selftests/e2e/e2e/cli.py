# SPDX-License-Identifier: GPL-2.0-only
"""The command line of the end-to-end runs."""
import sys
import time

from . import build, vm
from .config import BUILD, VARIANTS
from .shell import Failed

START = time.monotonic()


def log(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def disks(variant, side):
    system = getattr(VARIANTS[variant], side)
    made = build.prepare(system, log)
    print(made.path, made.facts)
    return system, made


def boot(variant, side):
    system, made = disks(variant, side)
    work = BUILD / "demo" / "boot"
    work.mkdir(parents=True, exist_ok=True)
    disk = vm.overlay(made.disk, work / f"{side}.qcow2")
    log("power on")
    with vm.Vm(disk, work, name=side) as machine:
        machine.login(system.hostname)
        log("login prompt")
        machine.open_shell(system.hostname)
        for text in ("uname -a", "findmnt -no SOURCE,FSTYPE /", "df -h /", "ip -br addr", "systemctl --failed --no-legend",
                     "time sha256sum /home/alice/dir0*/* | tail -1; du -shc /home/alice/dir0* | tail -1"):
            log(f"$ {text}\n" + machine.command(text, check=False)[1])
        machine.power_off()
        log("power off")


def main(args):
    try:
        {"disks": disks, "boot": boot}[args[0]](*args[1:])
    except Failed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    return 0
