# SPDX-License-Identifier: GPL-2.0-only
"""The second machine of a test, on a network that only the two of them have, with Debian's kernel, as it is not
what is tested. It runs guest/peer-NAME.sh, which says "#! ready", then does what it is told, a line at a time, and says
"#! did STATUS"."""

import shutil
from pathlib import Path
from typing import Iterator

from .accel import accelerator
from .config import SELFTESTS, Failed, say, stock_kernel
from .furnish import furnish
from .initramfs import Initramfs
from .qemu import Disk, EarlyDeaths, Guest, Machine, TimedOut, faults
from .test import Test, read_test

PATIENCE_S = 300


class Peer:
    """It, from when it is started until it is cut off. Can be started again, with the same disk."""

    def __init__(self, test: Test, directory: Path, early_deaths: EarlyDeaths):
        assert test.peer
        name, file = test.peer
        self.role = read_test(SELFTESTS / f"guest/peer-{name}.sh")
        self.file = test.directory() / file
        self.directory = directory
        self.early_deaths = early_deaths
        self.guest: Guest | None = None
        self.lines: Iterator[str] = iter(())
        self.starts = 0

    def links(self) -> tuple[str, str]:
        """Our end and theirs of the cable: of the test's machine, and of this one."""
        return f"{self.directory}/near", f"{self.directory}/far"

    def start(self) -> None:
        """Switches it on, and waits until it does what it is for."""
        self.starts += 1
        directory = self.directory / f"peer{self.starts}"
        self.guest = Guest(self._machine(directory), PATIENCE_S)
        self.lines = self.guest.lines()
        try:
            self._heard("ready")
        except Failed:
            if not self.early_deaths.forgive(self.guest.log()):
                raise
            self.cut()
            self.start()

    def _machine(self, directory: Path) -> Machine:
        booted = stock_kernel()
        initramfs = Initramfs(directory / "root", booted)
        furnish(initramfs, [self.role])
        initramfs.write(f"tests/{self.role.name}.env", "BOOT=1\nktap_number=0\nktap_failed=0\n")
        near, far = self.links()
        machine = Machine(booted.image, directory / "initrd", directory, accelerator(), booted.cmdline)
        machine.network = False
        machine.usr = True
        machine.link = (far, near)
        machine.memory_mib = self.role.memory_mib
        machine.disks.append(Disk(self.file, "peer"))
        initramfs.pack(machine.initramfs)
        shutil.rmtree(directory / "root")
        return machine

    def _heard(self, word: str) -> list[str]:
        try:
            for line in self.lines:
                said = line.split()
                if said[:2] == ["#!", word]:
                    return said[2:]
                if not line.startswith("#! "):
                    say(f"the second machine: {line}")
        except TimedOut:
            pass
        raise Failed(f"the second machine is silent: see {self.directory}/peer{self.starts}/console.log")

    def order(self, words: list[str]) -> bool:
        """Has it do something."""
        if not self.guest:
            return False
        self.guest.answer(" ".join(words))
        return self._heard("did") == ["0"]

    def cut(self) -> list[str]:
        """Ends it as a power cut would; what its kernel has had to complain about."""
        if not self.guest:
            return []
        self.guest.cut()
        log = self.guest.log()
        self.guest.__exit__()
        self.guest = None
        return faults(log)
