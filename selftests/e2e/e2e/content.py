# SPDX-License-Identifier: GPL-2.0-only
"""Users' files with contents that are the same whenever they are made."""

import os
import random

from .config import MIB

SIZES = (700, 4096, 19_000, 130_000, 1 * MIB, 3 * MIB + 1, 24 * MIB + 77)


def make(home, mib, seed, owner=1000):
    """Fills a home directory with that many MiB in files of mixed sizes."""
    rng = random.Random(seed)
    left, number = mib * MIB, 0
    while left > 0:
        size = min(left, rng.choice(SIZES))
        path = home / f"dir{number % 37:02}" / f"file{number:05}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        left, number = left - size, number + 1
    _own(home, owner)


def _own(home, owner):
    for top, _dirs, files in os.walk(home):
        for name in [top, *(os.path.join(top, f) for f in files)]:
            os.chown(name, owner, owner, follow_symlinks=False)
