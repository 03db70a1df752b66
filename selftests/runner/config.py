# SPDX-License-Identifier: GPL-2.0-only
"""Where things are, and how to say something."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SELFTESTS = TOP / "selftests"
CACHE = Path(os.environ.get("IMGSTREAM_CACHE", Path.home() / ".cache/imgstream"))
BUILD = Path(os.environ.get("IMGSTREAM_BUILD", TOP / "build"))


class Failed(Exception):
    """Something that the person at the keyboard must know; the text is a sentence for them."""


def say(text: str) -> None:
    """A line for the person at the keyboard."""
    print(f"imgstream: {text}", file=sys.stderr, flush=True)


def _answer(*command: Path | str) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def flavor() -> str:
    """Which kernel is tested: stock, debug, or debug-long, which is the debug kernel with more in it."""
    return os.environ.get("IMGSTREAM_FLAVOR", "stock")


def jobs() -> int:
    """How many virtual machines run at a time."""
    wanted = os.environ.get("IMGSTREAM_JOBS", "1")
    if not wanted.isdigit() or int(wanted) < 1:
        raise Failed(f"IMGSTREAM_JOBS is '{wanted}', not a number of virtual machines")
    return int(wanted)


@dataclass
class Kernel:
    """A kernel to boot: where it is, where its modules are, and where imgstream.ko for it is."""

    release: str
    image: Path
    modules: Path
    ours: Path
    # The sanitizer's shadow and the freed memory that it keeps back take their part.
    memory_factor: int = 1
    cmdline: str = ""


def kernel() -> Kernel:
    """The kernel that is tested."""
    if flavor() == "stock":
        return stock_kernel()
    tree = Path(_answer(TOP / "scripts/kernel-tree").strip())
    release = (tree / "include/config/kernel.release").read_text(encoding="ascii").strip()
    # While the kernel identifies its CPU (identify_cpu) it does not know for a moment how many levels its page tables have,
    # and takes what an interrupt does then for a wild access. There is no such moment with four.
    return Kernel(release, tree / "arch/x86/boot/bzImage", tree / "install", BUILD / f"module-{flavor()}", 2, "no5lvl")


def stock_kernel() -> Kernel:
    """Debian's kernel, which is in the build root."""
    release = _answer(TOP / "scripts/kernel-release").split()[0]
    return Kernel(release, Path(f"/boot/vmlinuz-{release}"), Path("/"), BUILD / "module")
