# SPDX-License-Identifier: GPL-2.0-only
"""Runs a group of tests in one VM, and follows what the guest says about them."""

import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from .accel import accelerator
from .config import Failed, kernel, say
from .furnish import furnish
from .initramfs import Initramfs, needed_by
from .ktap import Report
from .monitor import unplug, wake_when_asleep
from .peer import Peer
from .qemu import Disk, EarlyDeaths, Guest, Machine, TimedOut, faults
from .target import Target, target_name
from .test import Test
from .volatile import Volatile

# After so long a silence a machine or a test counts as hung.
PATIENCE_S = 300
# So does a test that goes on talking without a result.
RESULT_PATIENCE_S = 900


@dataclass
class Outcome:
    """How a test went."""

    report: Report = field(default_factory=Report)
    output: list[str] = field(default_factory=list)
    seconds: float = 0.0
    begun: bool = False
    status: int | None = None
    boot: int = 1
    results: tuple[str, str] = ("0", "0")
    # Which of the faults that it needs were in the log.
    seen: set[str] = field(default_factory=set)


class Group:
    """Tests that share a VM."""

    def __init__(self, tests: list[Test], directory: Path, verbose: bool):
        self.tests = {test.name: test for test in tests}
        self.directory = directory
        self.verbose = verbose
        self.outcomes = {test.name: Outcome() for test in tests}
        self.target: Target | None = None
        self.peer: Peer | None = None
        self.early_deaths = EarlyDeaths()
        self.again: str | None = None
        self.volatile: list[Volatile] = []

    def run(self) -> dict[str, Outcome]:
        """Runs them. What goes wrong outside of a test counts against those that have not ended."""
        try:
            self._run()
        except Failed as error:
            self._blame(str(error))
        except Exception as error:  # The others go on, whatever it was.
            self._blame(repr(error))
        self.finish()
        return self.outcomes

    def _blame(self, complaint: str) -> None:
        for outcome in self.outcomes.values():
            if outcome.status is None:
                outcome.report.complaints.append(complaint)

    def _run(self) -> None:
        """Boots until every test has had its turn."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        for test in self.tests.values():
            test.make_files()
        files = {
            target_name(test, name): test.directory() / name
            for test in self.tests.values()
            for name in test.targets
        }
        digests = {target_name(test, name) for test in self.tests.values() for name in test.digests}
        self.target = Target(files, self.directory, digests) if files else None
        self.peer = next((Peer(test, self.directory, self.early_deaths) for test in self.tests.values() if test.peer), None)
        try:
            if self.target:
                self.target.start()
            if self.peer:
                self.peer.start()
            boots = 0
            while waiting := self._waiting():
                boots += 1
                self._boot(waiting, self.directory / f"boot{boots}")
            self.judge_silence()
        finally:
            if self.target:
                self.target.stop()
            self._cut_peer()

    def finish(self) -> None:
        """Judges each test as a whole. If all have passed, their disks go and the logs stay; else everything is kept."""
        for outcome in self.outcomes.values():
            outcome.report.finish(outcome.status)
        if any(outcome.report.failed for outcome in self.outcomes.values()):
            return
        for test in self.tests.values():
            shutil.rmtree(test.directory(), ignore_errors=True)
        for initramfs in self.directory.rglob("initrd"):
            initramfs.unlink()

    def _cut_peer(self) -> None:
        """The second machine is gone, and what its kernel had to say counts against the test."""
        for line in self.peer.cut() if self.peer else []:
            next(iter(self.outcomes.values())).report.complaints.append(f"kernel log of the second machine: {line}")

    def _waiting(self) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if not outcome.begun or name == self.again]

    def _boot(self, names: list[str], directory: Path) -> None:
        current: str | None = None
        self.again = None
        with Guest(self._machine(names, directory), PATIENCE_S) as guest:
            complaint = "the machine ended"
            try:
                current = self._follow(guest)
            except TimedOut as error:
                current = error.args[0] if error.args else None
                complaint = "no word for too long"
        for volatile in self.volatile:
            lost = volatile.cut()
            if self.verbose:
                say(f"{lost} sectors that were not flushed are lost")
        self.volatile.clear()
        log = guest.log()
        if not any(self.outcomes[name].begun for name in names) or current:
            if self.early_deaths.forgive(log):
                for name in names:
                    self.tests[name].make_files()
                    self.outcomes[name] = Outcome()
                return
        if current and current != self.again:
            self.outcomes[current].report.complaints.append(complaint)
        self.judge(log, names, directory)
        if not any(self.outcomes[name].begun for name in names):
            raise Failed(f"the machine did not come to its first test ({complaint}): see {directory}/console.log")

    def _follow(self, guest: Guest) -> str | None:
        """Reads what the guest says; returns the test that had begun and not ended when it fell silent."""
        current: str | None = None
        begun_at = result_at = time.monotonic()
        lines = guest.lines()
        while True:
            try:
                line = next(lines, None)
            except TimedOut as error:
                raise TimedOut(current) from error
            if line is None:
                return current
            if line.startswith(("#! ", "ok ", "not ok ")):
                result_at = time.monotonic()
            elif time.monotonic() - result_at > RESULT_PATIENCE_S:
                raise TimedOut(current)
            if not line.startswith("#! "):
                self._heard(current, line)
                continue
            word, *rest = line.split()[1:]
            if word == "begin":
                current, begun_at = rest[0], time.monotonic()
                self.outcomes[current].begun = True
            elif word == "end" and current:
                self._ended(current, int(rest[1]), rest[2:])
                self.outcomes[current].seconds += time.monotonic() - begun_at
                current = None
            elif word == "host":
                guest.answer(self._host(guest, rest))
            elif word in ("next-boot", "power-cut") and current:
                outcome = self.outcomes[current]
                outcome.boot, outcome.results, self.again = outcome.boot + 1, (rest[0], rest[1]), current
                if word == "power-cut":
                    guest.cut()
                else:
                    guest.answer("ok")

    def _heard(self, current: str | None, line: str) -> None:
        if self.verbose:
            print(f"    {line}", flush=True)
        if current:
            self.outcomes[current].output.append(line)
            self.outcomes[current].report.read(line)

    def _ended(self, name: str, status: int, left: list[str]) -> None:
        outcome = self.outcomes[name]
        outcome.status = status
        if left:
            outcome.report.complaints.append("imgstream.ko was left loaded")

    def _host(self, guest: Guest, words: list[str]) -> str:
        if self.target and words == ["target-stop"]:
            self.target.stop()
        elif self.target and words == ["target-start"]:
            self.target.start()
        elif self.peer and words == ["peer", "cut"]:
            self._cut_peer()
        elif self.peer and words == ["peer", "start"]:
            self.peer.start()
        elif self.peer and words[:1] == ["peer"]:
            return "ok" if self.peer.order(words[1:]) else "failed"
        elif self.target and words[:1] == ["target-chap"]:
            self.target.stop()
            self.target.accounts = words[1:]
            self.target.start()
        elif words == ["wake"]:
            wake_when_asleep(guest.machine.directory / "monitor")
        elif words[:1] == ["unplug"]:
            return "ok" if unplug(guest.machine.directory / "monitor", words[-1]) else "not there"
        else:
            return "unknown"
        return "ok"

    def _machine(self, names: list[str], directory: Path) -> Machine:
        booted = kernel()
        tests = [self.tests[name] for name in names]
        initramfs = Initramfs(directory / "root", booted)
        furnish(initramfs, tests)
        initramfs.add_modules(needed_by(booted.ours / "imgstream.ko"))
        for module in ["imgstream.ko"] + [module for test in tests for module in test.own_modules]:
            initramfs.add(booted.ours / module, f"modules/{Path(module).name}")
        machine = Machine(
            booted.image,
            directory / "initrd",
            directory,
            accelerator(),
            cmdline=" ".join([booted.cmdline] + [word for test in tests for word in test.cmdline]),
            memory_mib=booted.memory_factor * max(test.memory_mib for test in tests),
            link=self.peer.links() if self.peer else None,
        )
        for test in tests:
            variables = self._variables(test, machine)
            initramfs.write(f"tests/{test.name}.env", variables + test.environment())
        initramfs.pack(machine.initramfs)
        shutil.rmtree(directory / "root")
        return machine

    def _variables(self, test: Test, machine: Machine) -> str:
        outcome = self.outcomes[test.name]
        lines = [f"BOOT={outcome.boot}", f"LONG={os.environ.get('IMGSTREAM_LONG', '')}"]
        lines += [f"ktap_number={outcome.results[0]}", f"ktap_failed={outcome.results[1]}"]
        if self.target:
            lines.append(f"PORTAL=10.0.2.2:{self.target.port}")
            lines += [f"TARGET_{name}={target_name(test, name)}" for name in test.targets]
        for name, kinds in test.disks:
            serial = f"d{len(machine.disks)}"
            file: Path | str = test.directory() / name
            if "volatile" in kinds:
                volatile = Volatile(test.directory() / name, machine.directory, f"{test.name} {outcome.boot}")
                self.volatile.append(volatile)
                file = volatile.url
            logical = 4096 if "4k" in kinds else 512
            physical = 4096 if "512e" in kinds else logical
            machine.disks.append(Disk(file, serial, "ro" in kinds, logical, physical))
            lines.append(f"DISK_{name}={serial}")
        return "".join(f"{line}\n" for line in lines)

    def judge(self, log: str, names: list[str], directory: Path) -> None:
        """Every fault in the kernel's log counts against the test that ran then, or the first one of the boot."""
        guilty = next((name for name in names if self.outcomes[name].begun), None)
        for line in log.splitlines():
            if "imgstream-selftest: begin " in line:
                guilty = line.rsplit(" ", 1)[1].strip()
            elif guilty and faults(line):
                self._judge_fault(guilty, f"kernel log ({directory.name}/console.log): {line.strip()}")

    def judge_silence(self) -> None:
        """Every fault that a test needs and that was in no log counts against it."""
        for name, outcome in self.outcomes.items():
            for pattern in self.tests[name].faults:
                if pattern not in outcome.seen:
                    outcome.report.complaints.append(f"the kernel's log has no fault like '{pattern}'")

    def _judge_fault(self, name: str, line: str) -> None:
        outcome = self.outcomes[name]
        wanted = [pattern for pattern in self.tests[name].faults if re.search(pattern, line)]
        outcome.seen.update(wanted)
        if not wanted:
            outcome.report.complaints.append(line)
