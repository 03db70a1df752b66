# SPDX-License-Identifier: GPL-2.0-only
"""The source before a migration and after a roll back: nothing of imgstream stays in it."""

import re

from . import check
from .check import expect

WRONG_STATE = 5  # an exit code of imgstreamctl
OURS = ("/boot/imgstream-stage.img", "/boot/grub/custom.cfg", "/var/lib/imgstream",
        "/etc/systemd/system/imgstream-source.service",
        "/etc/systemd/system/multi-user.target.wants/imgstream-source.service")
# All that decides how this system starts; directories change when something comes and goes, what is in them does not.
STARTS = ("{ find /boot /etc/systemd -xdev -type f -exec sha256sum {} + | sort -k 2;"
          " ls -lR /boot /etc/systemd | grep -v -e ^total -e ^d; }")


def blocks(machine):
    """Size of the root file system in blocks."""
    _, said = machine.command("dumpe2fs -h $(findmnt -no SOURCE /) 2>/dev/null")
    return int(re.search(r"^Block count:\s+(\d+)", said, re.M).group(1))


def widen(job):
    """The root partition takes the rest of the disk, its file system does not."""
    number = job.pair.source_system.root_number
    size = f"$(cat /sys/class/block/vda{number}/size)"
    job.machine.command(f"before={size}; echo ,+ | sfdisk --quiet --no-reread --force -N {number} /dev/vda"
                        f" && partx --update /dev/vda && test {size} -gt $before")
    job.say(job.pair.source_system.hostname, "the root partition is larger than its file system now")


def cancel(job):
    """A migration that waits for the next start is taken back: this system starts as before."""
    machine, source = job.machine, job.pair.source_system.hostname
    machine.command(f"{STARTS} > /run/before")
    machine.command(job.migrate_words("--no-reboot"))
    _, said = machine.command("cat /boot/grub/custom.cfg; ls -d " + " ".join(OURS))
    expect("imgstream-stage" in said, f"no migration is about to begin:\n{said}")
    machine.command("imgstreamctl cancel")
    check.gone(machine, OURS)
    code, said = machine.command(f"{STARTS} > /run/after; test -s /run/before && diff /run/before /run/after", check=False)
    expect(code == 0, f"cancel left something behind:\n{said}")
    code, said = machine.command("imgstreamctl cancel", check=False)
    expect(code == WRONG_STATE, f"cancel without a migration: exit code {code}: {said}")
    job.say(source, "migrate --no-reboot, then cancel: this system starts as before")


def await_cleaned_up(job, size):
    """imgstream-source.service has run: the file system is as large as before, and all that migrate brought is gone."""
    machine = job.machine
    machine.command("systemctl is-system-running --wait", check=False)
    _, said = machine.command("journalctl -b --no-pager -o cat -u imgstream-source.service")
    expect("this system is as it was before" in said, f"imgstream-source.service did not end well:\n{said}")
    check.gone(machine, OURS)
    expect(blocks(machine) == size, f"the file system has {blocks(machine)} blocks, it had {size}")
    job.say(job.pair.source_system.hostname, f"imgstream-source.service is done: file system grown to {size} blocks, nothing of imgstream left")
