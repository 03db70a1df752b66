# SPDX-License-Identifier: GPL-2.0-only
"""A fixed address: carried from the source into the target's initramfs, and kept there until the last write."""

import re

from .check import expect

ADDRESS, ROUTER, DNS, MTU = "10.0.2.77/24", "10.0.2.2", "10.0.2.99", 1400
FILE = "/etc/network/interfaces"
INTERFACES = ("'auto lo' 'iface lo inet loopback' 'auto ens3' 'iface ens3 inet static'"
              f" 'address {ADDRESS}' 'gateway {ROUTER}' 'mtu {MTU}'")


def fix(job):
    """The source gets a fixed address instead of one by DHCP."""
    machine = job.machine
    machine.command("ifdown ens3")
    machine.command(f"printf '%s\\n' {INTERFACES} > {FILE}; echo nameserver {DNS} > /etc/resolv.conf; ifup ens3")
    _as_told(machine)
    job.say(job.pair.source_system.hostname, f"ens3 has the fixed address {ADDRESS}, MTU {MTU}, name server {DNS}")


def is_kept(job):
    """The running target has all of it from its initramfs, and nothing of the target takes it away."""
    machine = job.machine
    told = rf"imgstream: .*network: interface \S+, {re.escape(ADDRESS)} through {re.escape(ROUTER)}"
    expect(re.search(told, machine.console.text), "the initramfs did not say that it sets the fixed address up")
    before = job.status()["reconnects"]
    _as_told(machine)
    _, said = machine.command("cat /run/systemd/network/00-imgstream.network")
    expect(f"DNS={DNS}" in said.splitlines(), f"the name server is not carried:\n{said}")
    machine.command("systemctl restart networking.service && systemctl stop networking.service")
    _as_told(machine)
    # The repository still answers, over the same connection.
    machine.command("dd if=/dev/imgstream0 of=/dev/null bs=1M skip=600 count=8 iflag=direct status=none")
    status = job.status()
    expect(status["reconnects"] == before and status["connection"].startswith("ready"),
           f"the connection broke when networking.service was stopped: {status}")
    job.say(job.pair.target_system.hostname, f"{ADDRESS} on ens3 is the initramfs's and stays, also without networking.service")


def is_back(job):
    """The source has its address again."""
    _as_told(job.machine)


def _as_told(machine):
    _, said = machine.command("(ip addr show ens3; ip route show default) | cat")
    for part in (f"inet {ADDRESS} ", f" mtu {MTU} ", f"default via {ROUTER} dev ens3"):
        expect(part in said, f"'{part}' is missing:\n{said}")
