# SPDX-License-Identifier: GPL-2.0-only
"""The command line of the end-to-end runs."""

import argparse
import json
import sys
import time

from . import build, check, poison, runs, selfcheck, vm
from .config import BUILD, VARIANTS
from .pair import Pair
from .shell import Failed
from .timeline import mib

START = time.monotonic()


def log(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


def _work(name):
    work = BUILD / name
    work.mkdir(parents=True, exist_ok=True)
    return work


def _disks(args):
    """Prepares a pair's disks and proves them fit."""
    pair = Pair(VARIANTS[args.variant], log)
    print(f"source: {pair.source.disk}\ntarget: {pair.target.disk}\npublished: {pair.target.published}")


def _boot(args):
    """Boots one of the systems by itself, to its login prompt."""
    system = getattr(VARIANTS[args.variant], args.side)
    made = build.prepare(system, log)
    work = _work("e2e")
    with vm.Vm(vm.overlay(made.disk, work / "boot.qcow2"), work, name="boot") as machine:
        machine.login(system.hostname)
        log("login prompt")
        machine.open_shell(system.hostname)
        print(machine.command("uname -r; findmnt -no SOURCE /; df -h /")[1])
        machine.power_off()


def _poison(args):
    """Boots the target with everything but its boot region destroyed."""
    poison.start_from_boot_region(Pair(VARIANTS[args.variant], log), _work("e2e"), log)


def _demo(args):
    """The whole story, three runs, and the report."""
    work = _work("demo")
    pair = Pair(VARIANTS[args.variant], log)
    if args.variant == "demo":
        check.expect(pair.image_bytes >= 2 << 30, "the image has less than 2 GiB")
        check.expect(pair.source.facts["used"] >= 0.6, "the source is less than 60 % full")
    report = {"image_bytes": pair.image_bytes}
    for name in args.only or RUNS:
        report |= RUNS[name](pair, work)
    path = work / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    _summary(report)
    print(f"report: {path}")


def _summary(report):
    print("\n== Report")
    for name, value in report.items():
        text = f"{value} ({mib(value)})" if name.endswith("_bytes") else value
        print(f"{name:26} {text}")
    if {"ready_s", "local_boot_s"} <= report.keys():
        boots = report["ready_s"] / report["local_boot_s"]
        share = report["fetched_at_ready_bytes"] / report["image_bytes"]
        print(f"ready within {boots:.1f} local boots (aim: 4), {100 * share:.0f} % of the image fetched by then (aim: under 33 %)")


RUNS = {
    "local": runs.local_boot,
    "commit": runs.migrate_and_commit,
    "rollback": runs.roll_back,
    "initramfs": runs.commit_in_initramfs,
}


def _e2e(_args):
    """The small tier of `make check`: every part runs, and the last line counts those that passed."""
    work = _work("e2e")
    pair = Pair(VARIANTS["small"], log)
    parts = {
        "the checks themselves can fail": selfcheck.run_all,
        "the target starts from its boot region": lambda: poison.start_from_boot_region(pair, work, log),
        "migrate and commit, the repository gone for a while": lambda: runs.migrate_and_commit(pair, work, outage=True),
        "migrate and roll back": lambda: runs.roll_back(pair, work),
    }
    failed = 0
    for number, (name, part) in enumerate(parts.items(), 1):
        try:
            part()
            print(f"ok {number} - {name}", flush=True)
        except Failed as failure:
            failed += 1
            print(f"# {failure}\nnot ok {number} - {name}", flush=True)
    print(f"e2e: {len(parts) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main(words):
    parser = argparse.ArgumentParser(prog="selftests/e2e/run", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, call in (("demo", _demo), ("e2e", _e2e), ("disks", _disks), ("boot", _boot),
                       ("poison", _poison)):
        command = commands.add_parser(name, help=call.__doc__)
        command.set_defaults(call=call)
        if name != "e2e":
            command.add_argument("--variant", choices=VARIANTS, default="demo")
        if name == "boot":
            command.add_argument("side", choices=("source", "target"))
        if name == "demo":
            command.add_argument("--only", action="append", choices=RUNS, help="leave the other runs out")
    args = parser.parse_args(words)
    try:
        return args.call(args) or 0
    except Failed as failed:
        print(f"\nFAILED: {failed}", file=sys.stderr)
        return 1
