# SPDX-License-Identifier: GPL-2.0-only
"""A repository that wants CHAP in both directions, and where its secrets may be, and for how long."""

import mmap

from .check import expect
from .repository import Shelf
from .shell import Failed

HOST = ("host-17", "a-secret-of-the-host-that-moves")
REPOSITORY = ("repository", "a-secret-of-the-repository")
SECRETS = [secret.encode() for _, secret in (HOST, REPOSITORY)]
# Not on the disk: what is left of a removed file would be found there.
FILE = "/run/chap"


def want(job):
    """From now on nobody gets in without, and migrate knows how."""
    job.repository.authenticate(HOST, REPOSITORY)
    # Not typed: the shell would keep it in its history, which is a file.
    words = job.work / "chap"
    words.write_text(f"user={HOST[0]}\nsecret={HOST[1]}\ntarget-user={REPOSITORY[0]}\ntarget-secret={REPOSITORY[1]}\n")
    with Shelf(words) as shelf:
        shelf.carry_to(job.machine, FILE, "0600")
    job.options += ["--chap-file", FILE]
    job.say("repository", "wants CHAP, and proves who it is")


def told_nobody(job):
    """Neither to those who look at the running system, nor on its console."""
    words = "dmesg; cat /proc/cmdline /sys/block/imgstream0/imgstream/*; imgstreamctl status --json; imgstreamctl dump /dev/vda"
    _, said = job.machine.command(f"({words}) 2>&1 | cat")
    expect("imgstream: " in said, f"nothing was said at all:\n{said}")
    for secret in SECRETS:
        expect(secret.decode() not in said + job.machine.console.text, "a secret is shown")
    job.say(job.pair.target_system.hostname, "the secrets are neither in the kernel's log nor in its command line or status")


def on_disk(raw, there):
    """Whether a powered-off disk has the secrets anywhere; else it fails."""
    with open(raw, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as disk:
        found = [secret for secret in SECRETS if disk.find(secret) >= 0]
    if found != (SECRETS if there else []):
        raise Failed(f"{len(found)} of {len(SECRETS)} secrets are on the disk")
