# SPDX-License-Identifier: GPL-2.0-only
"""The checks of these runs, proved able to fail."""

import tempfile
from pathlib import Path

from . import check, disk, filelist, poison, serial
from .config import BLOCK
from .shell import Failed, run

BLOCKS = 600  # more than one piece of same_bytes()


def must_fail(what, call, *args):
    try:
        call(*args)
    except Failed:
        return
    raise Failed(f"{what} was not noticed")


def run_all():
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _bytes_that_differ(work)
        _partition_table(work)
        _lists(work)
        _free_blocks()
        _terminal()
        _outside()


def _bytes_that_differ(work):
    one, other = work / "one", work / "other"
    one.write_bytes(bytes(BLOCKS * BLOCK))
    other.write_bytes(bytes(BLOCKS * BLOCK))
    check.same_bytes(one, other, BLOCKS * BLOCK)
    for at in (0, 521, BLOCKS * BLOCK - 1):
        data = bytearray(BLOCKS * BLOCK)
        data[at] = 1
        other.write_bytes(data)
        must_fail(f"a changed byte at {at}", check.same_bytes, one, other, len(data))
    must_fail("a file that is too short", check.same_bytes, one, one, BLOCKS * BLOCK + 1)


def _partition_table(work):
    image = work / "gpt"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, stdin="label: gpt\nstart=2048, size=2048\n")
    check.gpt_is_whole(image)
    with open(image, "r+b") as file:
        file.truncate(9 << 20)
    must_fail("a backup GPT that is not in the last sector", check.gpt_is_whole, image)


def _lists(work):
    tree = work / "tree"
    tree.mkdir()
    (tree / "file").write_text("a")
    before = filelist.of_tree(tree)
    check.expect(len(filelist.sums(before).splitlines()) == 1, "the list lacks a file")
    check.expect(filelist.sums(before, ("/file",)) == "", "a file is listed that was to be left out")
    (tree / "file").write_text("b")
    check.expect(filelist.of_tree(tree) != before, "a changed file has the same entry")


def _free_blocks():
    dumped = "Block count:              2000\n  Free blocks: 100-199, 1500\n  Free blocks: 1800-1999\n"
    used = disk.blocks_used_from(dumped, 512, 512 + 1000)
    check.expect(used == 1000 - 1 - 200, f"{used} used blocks counted instead of 799")


def _terminal():
    sent = "\x1b[?2004lshell\x1b[01;31m é\x1b(B\r\n".encode()
    for at in range(len(sent) + 1):
        plain = serial.Plain()
        said = plain.feed(sent[:at]) + plain.feed(sent[at:])
        check.expect(said == "shell é\n", f"a terminal's bytes, cut at {at}: {said!r}")


def _outside():
    found = list(poison.outside([{"block": 0, "blocks": 2}, {"block": 5, "blocks": 1}], 8))
    check.expect(found == [(2, 3), (6, 2)], f"outside of the region: {found}")
