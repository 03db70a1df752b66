# SPDX-License-Identifier: GPL-2.0-only
"""The command line of the end-to-end runs."""

import argparse
import functools
import itertools
import json
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed

from . import build, check, poison, runs, selfcheck, vm
from .config import BUILD, JOBS, VARIANTS
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


def _clean(_args):
    """Removes what no variant uses any more from the cache."""
    build.clean([side for pair in VARIANTS.values() for side in (pair.source, pair.target)], log)


def _poison(args):
    """Boots the target with everything but its boot region destroyed."""
    poison.start_from_boot_region(Pair(VARIANTS[args.variant], log), _work("e2e"), log)


def _demo(args):
    """The whole story, three runs, and the report."""
    work = _work("demo" if args.variant == "demo" else f"demo-{args.variant}")
    path = work / "report.json"
    path.unlink(missing_ok=True)
    report = {}
    pair = _pair(args.variant)
    parts = {"the disks are fit": lambda: report.update(_fit(args.variant, pair()))}
    for name in args.only or RUNS:
        parts[name] = lambda run=RUNS[name]: report.update(run(pair(), work))
    parts["the report"] = lambda: _report(report, path, whole=not args.only)
    return _run_parts("demo", parts)


def _pair(variant):
    """Makes the pair when it is first asked for, by whoever of those at once."""
    made, lock = functools.cache(lambda: Pair(VARIANTS[variant], log)), threading.Lock()

    def pair():
        with lock:
            return made()

    return pair


def _fit(variant, pair):
    if variant == "demo":
        check.expect(pair.image_bytes >= 2 << 30, "the image has less than 2 GiB")
        check.expect(pair.source.facts["used"] >= 0.6, "the source is less than 60 % full")
    return {"image_bytes": pair.image_bytes}


def _report(report, path, whole):
    """What was measured in these runs, and nothing else."""
    path.write_text(json.dumps(report, indent=2) + "\n")
    _summary(report)
    print(f"report: {path}")
    missing = [name for name in REPORT if name not in report]
    check.expect(not (whole and missing), f"not measured: {', '.join(missing)}")


def _run_parts(tier, parts, together=()):
    """Runs every part, even if one fails, and then those of `together`, as many at a time as there are jobs; the last line
    counts those that passed."""
    total = len(parts) + len(together)
    say = functools.partial(_say_outcome, itertools.count(1))
    passed = sum([say(name, _failure(part)) for name, part in parts.items()])
    with ThreadPoolExecutor(JOBS) as pool:
        running = {pool.submit(_failure, part): name for name, part in together.items()}
        passed += sum(say(running[ended], ended.result()) for ended in as_completed(running))
    print(f"{tier}: {passed} passed, {total - passed} failed")
    return 1 if passed < total else 0


def _failure(part):
    """What a part failed of; whatever it is, the other parts are worth running."""
    try:
        part()
    except Exception as failure:
        return str(failure) if isinstance(failure, Failed) else traceback.format_exc()
    return None


def _say_outcome(numbers, name, failure):
    if failure is not None:
        print("".join(f"# {line}\n" for line in failure.splitlines()), end="")
    print(f"{'ok' if failure is None else 'not ok'} {next(numbers)} - {name}", flush=True)
    return failure is None


def _summary(report):
    print("\n== Report")
    for name, value in report.items():
        text = f"{value} ({mib(value)})" if name.endswith("_bytes") else value
        print(f"{name:26} {text}")
    if {"ready_s", "local_boot_s"} <= report.keys():
        boots = report["ready_s"] / report["local_boot_s"]
        share = report["fetched_at_ready_bytes"] / report["image_bytes"]
        print(f"ready within {boots:.1f} local boots (aim: 4), {100 * share:.0f} % of the image fetched by then (aim: under 33 %)")


# What report.json has at least; README describes each.
REPORT = ("image_bytes", "ready_s", "local_boot_s", "fetched_at_ready_bytes", "commit_s", "commit_verified",
          "network_free_boot", "rollback_s", "source_identical")
RUNS = {
    "local": runs.local_boot,
    "commit": runs.migrate_and_commit,
    "rollback": runs.roll_back,
    "initramfs": runs.commit_in_initramfs,
}


def _e2e(args):
    """The small tier of `make check`."""
    work = _work("e2e")
    pair = _pair("small")
    parts = {"the checks themselves can fail": selfcheck.run_all, "the disks are fit": pair}
    together = {
        "migrate and commit; the repository gone at boot, a pause and power cuts": lambda: runs.migrate_and_commit(pair(), work, harder=True),
        "cancel; migrate and roll back; a power cut, the module missing": lambda: runs.roll_back(pair(), work, harder=True),
        "the target starts from its boot region": lambda: poison.start_from_boot_region(pair(), work, log),
    }
    return _run_parts("e2e", *({name: part for name, part in some.items() if args.only in name} for some in (parts, together)))


def main(words):
    parser = argparse.ArgumentParser(prog="selftests/e2e/run", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, call in (("demo", _demo), ("e2e", _e2e), ("disks", _disks), ("boot", _boot),
                       ("poison", _poison), ("clean", _clean)):
        command = commands.add_parser(name, help=call.__doc__)
        command.set_defaults(call=call)
        if name not in ("e2e", "clean"):
            command.add_argument("--variant", choices=VARIANTS, default="demo")
        if name == "boot":
            command.add_argument("side", choices=("source", "target"))
        if name == "e2e":
            command.add_argument("--only", default="", metavar="WORD", help="parts that have this word in their name")
        if name == "demo":
            command.add_argument("--only", action="append", choices=RUNS, help="leave the other runs out")
    args = parser.parse_args(words)
    try:
        return args.call(args) or 0
    except Failed as failed:
        print(f"\nFAILED: {failed}", file=sys.stderr)
        return 1
