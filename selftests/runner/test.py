# SPDX-License-Identifier: GPL-2.0-only
"""A test: a shell script whose first comments say what it needs.

    # needs-file: NAME SIZE [RECIPE [ARGUMENT...]]   a file made on the host, by selftests/recipes/RECIPE if given
    # needs-disk: NAME [ro] [4k] [512e] [volatile]   that file as a virtio disk; `disk NAME` is its device
    # needs-target: NAME [digests]                    that file as an iSCSI LUN; `target_name NAME` is its target
    # needs-peer: NAME FILE                          a second machine, guest/peer-NAME.sh, with that file as its disk
    # needs-module: NAME...                          kernel modules
    # needs-program: NAME...                         programs of the build root; of ours with tools/ or initramfs/ before it
    # needs-memory: MIB                              of the VM (a boot of its own)
    # needs-own-boot: REASON                         no other test in the same boot
    # needs-cmdline: WORD...                         on the kernel's command line (a boot of its own)
    # needs-kernel: FLAVOR...                        runs on these kernels only
    # needs-long: REASON                             runs only in make check-long, or when named
    # needs-kernel-image: REASON                     the kernel itself, as /boot/vmlinuz
    # needs-own-module: PATH...                      other modules of ours, below the module's build directory; not loaded
    # needs-fault: REGEX                             a fault that has to be in the kernel's log, and is no failure
"""

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .config import BUILD, SELFTESTS, Failed

NEED = re.compile(r"^# needs-([a-z-]+):\s*(.*)$")
# Read-only; with logical blocks of 4 KiB, or only physical ones; with a write cache that is lost when the machine ends.
DISK_KINDS = {"ro", "4k", "512e", "volatile"}
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_bytes(text: str) -> int:
    """64M and the like."""
    unit = SIZES.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


@dataclass
class File:
    """A file made for a test."""

    name: str
    size_bytes: int
    recipe: list[str]


@dataclass
class Test:
    """What a test's head says."""

    path: Path
    files: list[File] = field(default_factory=list)
    disks: list[tuple[str, list[str]]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    # Which of them offer digests.
    digests: set[str] = field(default_factory=set)
    peer: tuple[str, str] | None = None
    modules: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    memory_mib: int = 1024
    own_boot: bool = False
    cmdline: list[str] = field(default_factory=list)
    long: bool = False
    flavors: list[str] = field(default_factory=lambda: ["stock", "debug"])
    kernel_image: bool = False
    own_modules: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.stem

    def runs_on(self, flavor: str) -> bool:
        """Whether it is for this kernel; what debug has, debug-long has, too."""
        return flavor in self.flavors or (flavor == "debug-long" and "debug" in self.flavors)

    def directory(self) -> Path:
        """Where its files are made."""
        return BUILD / "selftests" / self.name

    def make_files(self) -> None:
        """Makes its files anew."""
        (self.directory() / "environment").unlink(missing_ok=True)
        for file in self.files:
            path = self.directory() / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with open(path, "wb") as created:
                created.truncate(file.size_bytes)
            if file.recipe:
                done = subprocess.run(
                    [SELFTESTS / "recipes" / file.recipe[0], path, *file.recipe[1:]],
                    cwd=self.directory(),
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
                if done.returncode != 0:
                    raise Failed(f"{self.name}: recipe {shlex.join(file.recipe)} failed: {done.stdout.strip()}")

    def environment(self) -> str:
        """Shell variables that its recipes left for the test."""
        path = self.directory() / "environment"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _need(self, key: str, words: list[str]) -> None:
        match key:
            case "file":
                self.files.append(File(words[0], size_bytes(words[1]), words[2:]))
            case "disk":
                if unknown := set(words[1:]) - DISK_KINDS:
                    raise Failed(f"{self.path.name}: unknown kind of disk: {' '.join(unknown)}")
                self.disks.append((words[0], words[1:]))
            case "target":
                if unknown := set(words[1:]) - {"digests"}:
                    raise Failed(f"{self.path.name}: unknown kind of target: {' '.join(unknown)}")
                self.targets.append(words[0])
                self.digests |= {words[0]} if words[1:] else set()
            case "peer":
                self.peer, self.own_boot = (words[0], words[1]), True
            case "module":
                self.modules += words
            case "program":
                self.programs += words
            case "memory":
                self.memory_mib, self.own_boot = int(words[0]), True
            case "own-boot":
                self.own_boot = True
            case "cmdline":
                self.cmdline, self.own_boot = words, True
            case "long":
                self.long = True
            case "kernel":
                self.flavors = words
            case "kernel-image":
                self.kernel_image = True
            case "own-module":
                self.own_modules += words
            case "fault":
                self.faults.append(" ".join(words))
            case _:
                raise Failed(f"{self.path.name}: unknown need '{key}'")


def read_test(path: Path) -> Test:
    """Reads the head of a test."""
    test = Test(path)
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if match := NEED.match(line):
            try:
                test._need(match[1], shlex.split(match[2]))
            except (IndexError, ValueError) as error:
                raise Failed(f"{path.name}: cannot read '{line}'") from error
    known = {file.name for file in test.files}
    for name in [name for name, _ in test.disks] + test.targets + ([test.peer[1]] if test.peer else []):
        if name not in known:
            raise Failed(f"{path.name}: '{name}' has no needs-file line")
    return test


def group(tests: list[Test], disks_per_boot: int = 6) -> list[list[Test]]:
    """Which tests share a boot: those that do not mind, while there is room for their disks. What usually takes longest is
    first, so that nothing long is left when all else has ended: many tests, then those with a second machine."""
    alone: list[list[Test]] = []
    shared: list[list[Test]] = [[]]
    for test in tests:
        if test.own_boot:
            alone.append([test])
            continue
        if sum(len(other.disks) for other in shared[-1]) + len(test.disks) > disks_per_boot:
            shared.append([])
        shared[-1].append(test)
    boots = [boot for boot in shared if boot] + alone
    return sorted(boots, key=lambda boot: (-len(boot), boot[0].peer is None))
