# SPDX-License-Identifier: GPL-2.0-only
"""The power fails while files are written: every file whose fsync had returned is there afterwards."""

import re

from .check import expect
from .repository import Shelf

PLACE = "/root/cut"
COPIED = "/sys/block/imgstream0/imgstream/copied"
# Each line is printed when the file and its name are durable.
WRITER = (
    f"mkdir -p {PLACE}; n=0; while :; do n=$((n + 1)); f={PLACE}/{{name}}$n;"
    f" head -c $((n * 7919 % 150000 + 1)) /dev/urandom > $f && sync $f {PLACE} || break;"
    f" read -r home < {COPIED}; echo \"kept $(sha256sum < $f | cut -c 1-64) $f at $home\"; done"
)
KEPT = re.compile(r"^kept ([0-9a-f]{64}) (\S+) at (\d+)$", re.M)


class Cut:
    """Files that are written until the power is cut."""

    def __init__(self, job, name):
        self.job, self.name = job, name
        self.kept = {}
        self.home = 0  # bytes that were home when the last of them was durable

    def write_and_cut(self, count, beyond=None):
        """Writes so many files at least; with `beyond` until the commit is further than that many bytes."""
        machine = self.job.machine
        machine.command("sync")
        since = machine.port.mark()
        machine.port.type(WRITER.format(name=self.name) + "\n")
        number = 0
        while number < count or (beyond is not None and self.home <= beyond):
            found = machine.port.await_text(KEPT.pattern, since, 300, machine.alive)
            self.home, since, number = int(found.group(3)), found.end(), number + 1
        self.job.cut_power()
        text = machine.port.text
        self.kept = {path: digest for digest, path, _ in KEPT.findall(text)}
        self.job.say("machine", f"{len(self.kept)} files were written and synced until then")

    def all_there(self):
        """Every file that was told of is whole."""
        machine, sums = self.job.machine, self.job.work / "kept"
        expect(self.kept, "no file was written before the power was cut")
        sums.write_text("".join(f"{digest}  {path}\n" for path, digest in self.kept.items()))
        with Shelf(sums) as shelf:
            shelf.carry_to(machine, "/run/kept")
        code, said = machine.command("sha256sum --quiet -c /run/kept", check=False)
        expect(code == 0, f"files that were synced before the cut are not there:\n{said[-2000:]}")
        self.job.say(self.job.pair.target_system.hostname, f"all {len(self.kept)} are there")
