# SPDX-License-Identifier: GPL-2.0-only
"""Where things are, and how to say something."""

import os
import subprocess
import sys
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


def kernel_release() -> str:
    """The stock kernel that is tested."""
    answer = subprocess.run(
        [TOP / "scripts/kernel-release"], check=True, text=True, stdout=subprocess.PIPE
    )
    return answer.stdout.split()[0]
