# SPDX-License-Identifier: GPL-2.0-only
"""Tests of what the scripts share (scripts/lib.sh)."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def bash(words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `words` behind lib.sh, with cache and build directory of its own."""
    with tempfile.TemporaryDirectory() as place:
        directories = {name: f"{place}/{name}" for name in ("IMGSTREAM_CACHE", "IMGSTREAM_BUILD")}
        return subprocess.run(
            ["bash", "-c", f". {SCRIPTS}/lib.sh; {words}"],
            env=os.environ | directories | variables,
            text=True,
            capture_output=True,
            check=False,
        )


class Room(unittest.TestCase):
    """What has no room is not begun."""

    def test_enough_is_enough(self) -> None:
        self.assertEqual(bash('need_room "$build" 0').returncode, 0)

    def test_too_little_is_said(self) -> None:
        done = bash('need_room "$build" 99999999; echo begun')
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"needs 99999999 GiB free in \S+, and there are \d+: make clean and make clean-cache")


class Jobs(unittest.TestCase):
    """How many virtual machines run at a time."""

    def test_what_is_set_is_kept(self) -> None:
        self.assertEqual(bash("echo $IMGSTREAM_JOBS", IMGSTREAM_JOBS="7").stdout, "7\n")

    def test_else_there_are_more_than_processors(self) -> None:
        done = bash("unset IMGSTREAM_JOBS; . \"$top/scripts/lib.sh\"; echo $((IMGSTREAM_JOBS - $(nproc)))")
        self.assertEqual(done.stdout, "1\n")


class Flavor(unittest.TestCase):
    """Which kernel."""

    def test_one_that_there_is(self) -> None:
        for flavor in "stock", "debug", "debug-long":
            self.assertEqual(bash("kernel_flavor", IMGSTREAM_FLAVOR=flavor).stdout, f"{flavor}\n")

    def test_no_other(self) -> None:
        done = bash("kernel_flavor", IMGSTREAM_FLAVOR="old")
        self.assertEqual(done.returncode, 1)
        self.assertIn("KERNEL=old: stock, debug or debug-long is possible", done.stderr)


if __name__ == "__main__":
    unittest.main()
