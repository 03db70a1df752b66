# SPDX-License-Identifier: GPL-2.0-only
"""Running programs, with their output in the error when one fails."""

import hashlib
import json
import subprocess


class Failed(Exception):
    """A step that did not do what it had to; the text says what."""


def run(*args, stdin=None, env=None, cwd=None):
    """Runs a program to its end and gives its standard output."""
    done = subprocess.run(
        [str(a) for a in args], input=stdin, env=env, cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        **({} if stdin is not None else {"stdin": subprocess.DEVNULL}),
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise Failed(f"{' '.join(map(str, args))}: exit code {done.returncode}\n{tail}")
    return done.stdout


# In a chroot the root is no mount point and cannot be made private; the chroot's maker did that.
ENTER = (
    'mount --make-rprivate / 2>/dev/null || true;'
    ' for d in dev proc sys; do mkdir -p "$0/$d"; mount --rbind "/$d" "$0/$d"; done;'
    ' exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8'
    ' DEBIAN_FRONTEND=noninteractive "$@"'
)


def in_tree(tree, *args, stdin=None):
    """Runs a program inside a system's tree, in a mount namespace of its own."""
    return run("unshare", "-m", "--propagation", "unchanged", "sh", "-euc", ENTER, tree, *args,
               stdin=stdin)


def key_of(*parts):
    """A short name for everything that something was made from."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
