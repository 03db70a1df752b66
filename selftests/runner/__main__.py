# SPDX-License-Identifier: GPL-2.0-only
"""selftests/run: see ../run."""

import argparse
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Iterator

from .boot import Group, Outcome
from .config import BUILD, SELFTESTS, Failed, flavor, jobs, kernel, say
from .test import Test, group, read_test


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="selftests/run", description="Runs tests in virtual machines.")
    parser.add_argument("tests", nargs="*", metavar="TEST", help="test_AREA_NN, all if none is named; or bench_AREA_NN")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what tests say while they say it")
    return parser.parse_args()


def _chosen(names: list[str]) -> list[Test]:
    paths = sorted(SELFTESTS.glob("test_*.sh"))
    known = {path.stem: path for path in paths + sorted(SELFTESTS.glob("bench/bench_*.sh"))}
    wanted = [name.removesuffix(".sh") for name in names] or [path.stem for path in paths]
    for name in wanted:
        if name not in known:
            raise Failed(f"there is no test {name}; there are: {', '.join(known)}")
    tests = [read_test(known[name]) for name in wanted]
    elsewhere = [test.name for test in tests if not test.runs_on(flavor())]
    if names and elsewhere:
        raise Failed(f"{', '.join(elsewhere)}: not for the {flavor()} kernel")
    later = [test.name for test in tests if test.long and not names and not os.environ.get("IMGSTREAM_LONG")]
    if later:
        say(f"left for make check-long: {', '.join(later)}")
    return [test for test in tests if test.name not in elsewhere + later]


def _need_modules(tests: list[Test]) -> None:
    """Whether what they load is built."""
    for module in ["imgstream.ko"] + [module for test in tests for module in test.own_modules]:
        if not (kernel().ours / module).exists():
            raise Failed(f"{kernel().ours / module} is not there: make module, with KERNEL=debug for the debug kernel")


def _show(number: int, name: str, outcome: Outcome) -> None:
    report = outcome.report
    word = "not ok" if report.failed else "ok"
    numbers = f"{report.passed} passed, {report.failed} failed, {report.skipped} skipped"
    if report.failed:
        for line in outcome.output:
            print(f"    {line}")
        for complaint in report.complaints:
            print(f"    # failed: {complaint}")
    print(f"{word} {number} - {name} # {numbers}, {outcome.seconds:.0f} s", flush=True)


def _boots(groups: list[Group], at_once: int) -> Iterator[dict[str, Outcome]]:
    """Runs them, so many at a time; how their tests went, as they end."""
    with ThreadPoolExecutor(at_once) as pool:
        running: list[Future[dict[str, Outcome]]] = [pool.submit(together.run) for together in groups]
        for ended in as_completed(running):
            yield ended.result()


def _run(tests: list[Test], verbose: bool) -> tuple[int, int]:
    boots = enumerate(group(tests), 1)
    groups = [Group(together, BUILD / f"selftests/vm{index}", verbose) for index, together in boots]
    # What several say while they say it, nobody can read.
    at_once = 1 if verbose else jobs()
    say(
        f"{len(tests)} tests in {len(groups)} boots of a virtual machine, {at_once} at a time; one boot usually takes "
        "5 to 10 s without KVM"
    )
    print(f"KTAP version 1\n1..{len(tests)}")
    passed = failed = number = 0
    for outcomes in _boots(groups, at_once):
        for name, outcome in outcomes.items():
            number += 1
            _show(number, name, outcome)
            passed += outcome.report.passed
            failed += outcome.report.failed
    if deaths := sum(together.early_deaths.count for together in groups):
        say(f"{deaths} boots were repeated because of QEMU's known early fault (Oops: int3)")
    return passed, failed


def main() -> int:
    """Runs; the last line says how it went."""
    arguments = _arguments()
    start = time.monotonic()
    try:
        tests = _chosen(arguments.tests)
        _need_modules(tests)
        passed, failed = _run(tests, arguments.verbose)
    except Failed as error:
        say(str(error))
        return 2
    say(f"selftests took {time.monotonic() - start:.0f} s; logs are in {BUILD}/selftests")
    print(f"selftest: {passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
