# SPDX-License-Identifier: GPL-2.0-only
"""Lists of every file of a system, and what of them may differ later."""

import json
import os
import stat
from pathlib import Path

from .shell import file_hash


def of_tree(tree):
    """Everything under a directory: path -> type, mode, owner, size, hash or link."""
    found = {}
    for top, dirs, files in os.walk(tree):
        for name in sorted(dirs + files):
            path = Path(top) / name
            found["/" + str(path.relative_to(tree))] = entry(path)
    return found


def entry(path):
    info = path.lstat()
    facts = {"mode": f"{info.st_mode:o}", "owner": f"{info.st_uid}:{info.st_gid}"}
    if stat.S_ISLNK(info.st_mode):
        facts["link"] = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        facts["size"] = info.st_size
        facts["sha256"] = file_hash(path)
    return facts


def save(found, path):
    path.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")


def load(path):
    return json.loads(path.read_text())


def sums(found, leave_out=()):
    """The regular files in the form that sha256sum -c reads."""
    return "".join(
        f"{facts['sha256']}  {path}\n" for path, facts in sorted(found.items())
        if "sha256" in facts and not any(path.startswith(prefix) for prefix in leave_out)
        and "\\" not in path and "\n" not in path
    )
