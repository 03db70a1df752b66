# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the runner itself: that it cannot take a failure for a success."""

import tempfile
import unittest
from pathlib import Path
from typing import Iterator
from unittest import mock

from runner.boot import Group
from runner.config import Failed
from runner.ktap import Report
from runner.peer import Peer
from runner.qemu import EarlyDeaths, Ended, TimedOut, faults, is_early_int3
from runner.test import Test, group, read_test
from runner.volatile import SECTOR, Cache

OURS = "[    4.5] imgstream: loading out-of-tree module taints kernel.\n"
INT3 = "[    0.9] Oops: int3: 0000 [#1] SMP\n"


def report(text: str, status: int | None = 0) -> Report:
    """What is made of this output."""
    made = Report()
    for line in text.splitlines():
        made.read(line)
    made.finish(status)
    return made


class Ktap(unittest.TestCase):
    """Output of a test."""

    def test_counts(self) -> None:
        made = report("KTAP version 1\n1..3\nok 1 - a\n# talk\nok 2 - b # SKIP no disk\nnot ok 3 - c\n", 1)
        self.assertEqual((made.passed, made.failed, made.skipped), (1, 1, 1))

    def test_missing_results_fail(self) -> None:
        self.assertEqual(report("1..2\nok 1 - a\n").failed, 1)

    def test_no_plan_fails(self) -> None:
        self.assertEqual(report("ok 1 - a\n").failed, 1)

    def test_silence_fails(self) -> None:
        self.assertEqual(report("").failed, 1)

    def test_no_end_fails(self) -> None:
        self.assertEqual(report("1..1\nok 1 - a\n", None).failed, 1)

    def test_exit_status_without_failed_result_fails(self) -> None:
        self.assertEqual(report("1..1\nok 1 - a\n", 1).failed, 1)

    def test_wrong_numbers_fail(self) -> None:
        self.assertEqual(report("1..2\nok 1 - a\nok 1 - a\n").failed, 1)


class WriteCache(unittest.TestCase):
    """The disk that forgets."""

    def test_only_what_was_not_flushed_is_lost(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(100 * SECTOR))
            file.flush()
            cache = Cache(Path(file.name), "seed")
            cache.write(0, b"a" * 40 * SECTOR, False)
            cache.flush()
            cache.write(0, b"b" * 20 * SECTOR, False)
            cache.write(50 * SECTOR, b"c" * 10 * SECTOR, True)
            self.assertEqual(cache.read(0, SECTOR), b"b" * SECTOR)
            lost = cache.cut()
            self.assertTrue(0 < lost < 20)
            found = [cache.read(at * SECTOR, SECTOR)[:1] for at in range(100)]
            self.assertEqual(found[:20].count(b"a"), lost)
            self.assertEqual(set(found[:20]), {b"a", b"b"})
            self.assertEqual(set(found[20:40]), {b"a"})
            self.assertEqual(set(found[50:60]), {b"c"})
            cache.file.close()


class KernelLog(unittest.TestCase):
    """The kernel's messages."""

    def test_faults_are_seen(self) -> None:
        for line in (
            "[ 1.0] WARNING: CPU: 0 PID: 1 at fs/inode.c:1",
            "[ 1.0] BUG: kernel NULL pointer dereference",
            "[ 1.0] INFO: task imgstreamctl:99 blocked for more than 120 seconds.",
            "[ 1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks",
            "[ 1.0] Kernel panic - not syncing",
            "[ 1.0] rust_kernel: panicked at 'index out of bounds'",
            "[ 1.0] BUG: KASAN: slab-use-after-free in init_module+0x0/0x1 [canary]",
            "[ 1.0] WARNING: possible circular locking dependency detected",
            "[ 1.0] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:1",
            "[ 1.0] kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "[ 1.0] ODEBUG: free active (active state 0) object: 0 object type: timer_list hint: 0x0",
            "[ 1.0] INFO: trying to register non-static key.",
        ):
            self.assertEqual(faults(line), [line])

    def test_a_detector_that_switches_itself_off_is_a_fault(self) -> None:
        for line in (
            "[ 1.0] kmemleak: Memory pool empty, consider increasing CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE",
            "[ 1.0] kmemleak: Kernel memory leak detector disabled",
            "[ 1.0] turning off the locking correctness validator.",
            "[ 1.0] ODEBUG: Out of memory. ODEBUG disabled",
        ):
            self.assertEqual(faults(line), [line])

    def test_ordinary_lines_are_not(self) -> None:
        for line in (OURS, "[ 1.0] imgstream: loaded", "[ 1.0] virtio_blk virtio1: [vda] 8192 512-byte logical blocks"):
            self.assertEqual(faults(line), [])

    def test_int3_is_forgiven_only_before_our_code(self) -> None:
        self.assertTrue(is_early_int3(INT3))
        self.assertTrue(is_early_int3(INT3 + OURS))
        self.assertFalse(is_early_int3(OURS + INT3))
        self.assertFalse(is_early_int3(OURS))


class FakeMachine:
    """A second machine with this log, that says this."""

    def __init__(self, log: str, said: list[str]):
        self.texts = (log, said)

    def lines(self) -> Iterator[str]:
        """What it says."""
        return iter(self.texts[1])

    def log(self) -> str:
        """Its kernel's messages."""
        return self.texts[0]

    def cut(self) -> None:
        """Ends it."""

    def __exit__(self) -> None:
        pass


class SecondMachine(unittest.TestCase):
    """Its start."""

    DIES = (INT3, [])
    STARTS = (OURS, ["#! ready"])

    def started(self, *boots: tuple[str, list[str]]) -> int:
        """How many early deaths were forgiven if it boots like that, one time after the other."""
        role = "runner.peer.read_test", lambda path: Test(path)
        machines = [FakeMachine(*boot) for boot in boots]
        with mock.patch(*role), mock.patch("runner.peer.Guest", side_effect=machines), mock.patch.object(Peer, "_machine"):
            test = Test(Path("test_a_01.sh"), peer=("lio", "disk"))
            peer = Peer(test, Path("vm1"), EarlyDeaths())
            peer.start()
            return peer.early_deaths.count

    def test_it_is_booted_again_after_an_early_death(self) -> None:
        self.assertEqual(self.started(self.STARTS), 0)
        self.assertEqual(self.started(self.DIES, self.DIES, self.STARTS), 2)

    def test_nothing_else_is_forgiven(self) -> None:
        for boots in ([("", [])], [(OURS, ["a word"])], 4 * [self.DIES]):
            with self.assertRaises(Failed):
                self.started(*boots)


class OutsideOfATest(unittest.TestCase):
    """What goes wrong before a test begins, or between two."""

    def test_it_counts_against_those_that_have_not_ended(self) -> None:
        for error in Failed("tgtd did not start"), Ended("QEMU did not start"), ValueError("no JSON"):
            with tempfile.TemporaryDirectory() as name, mock.patch("runner.test.BUILD", Path(name)):
                group = Group([Test(Path("test_a_01.sh")), Test(Path("test_a_02.sh"))], Path(name) / "vm1", False)
                ended = group.outcomes["test_a_01"]
                ended.status = 0
                for line in ("1..1", "ok 1 - a"):
                    ended.report.read(line)
                with mock.patch.object(group, "_run", side_effect=error):
                    failed = [outcome.report.complaints for outcome in group.run().values()]
            self.assertEqual(failed[0], [])
            self.assertIn(str(error), failed[1][0])


class WantedFaults(unittest.TestCase):
    """Faults that a test needs."""

    BUG = "[ 1.0] BUG: KASAN: slab-use-after-free\n"
    WARNING = "[ 1.0] WARNING: CPU: 0\n"

    def complaints(self, log: str) -> int:
        """How many there are if this is the kernel's log and the test needs a BUG."""
        test = Test(Path("test_a_01.sh"), faults=["BUG: KASAN"])
        group = Group([test], Path("vm1"), False)
        group.outcomes["test_a_01"].begun = True
        group.judge(log, ["test_a_01"], Path("boot1"))
        group.judge_silence()
        return len(group.outcomes["test_a_01"].report.complaints)

    def test_what_is_needed_is_forgiven_and_nothing_else(self) -> None:
        self.assertEqual(self.complaints(self.BUG), 0)
        self.assertEqual(self.complaints(self.BUG + self.WARNING), 1)

    def test_what_is_needed_has_to_be_there(self) -> None:
        self.assertEqual(self.complaints(OURS), 1)


class Chatter:
    """A guest whose test says the same line every minute."""

    def __init__(self, line: str):
        self.line = line
        self.now_s = 0

    def lines(self) -> Iterator[str]:
        """What it says."""
        yield "#! begin test_a_01"
        for _ in range(1000):
            self.now_s += 60
            yield self.line


class Patience(unittest.TestCase):
    """How long a test may take."""

    def follow(self, line: str) -> tuple[str | None, int]:
        """Which test was given up, and after how many seconds."""
        guest = Chatter(line)
        group = Group([Test(Path("test_a_01.sh"))], Path("vm1"), False)
        with mock.patch("runner.boot.time.monotonic", lambda: guest.now_s):
            try:
                group._follow(guest)  # type: ignore[arg-type]
            except TimedOut as error:
                return error.args[0], guest.now_s
        return None, guest.now_s

    def test_who_talks_without_results_is_given_up(self) -> None:
        self.assertEqual(self.follow("cat: not there"), ("test_a_01", 960))

    def test_who_has_results_is_not(self) -> None:
        self.assertEqual(self.follow("ok 1 - a"), (None, 60_000))


class Leavings(unittest.TestCase):
    """What a test leaves in the build directory."""

    def left(self, point: str, status: int) -> list[str]:
        """Which files are still there behind a test that said this."""
        with tempfile.TemporaryDirectory() as name, mock.patch("runner.test.BUILD", Path(name)):
            vm = Path(name) / "vm1"
            test = Test(Path("test_a_01.sh"))
            group = Group([test], vm, False)
            outcome = group.outcomes["test_a_01"]
            for line in ("1..1", point):
                outcome.report.read(line)
            outcome.status = status
            (vm / "boot1").mkdir(parents=True)
            test.directory().mkdir(parents=True)
            for path in (vm / "boot1/initrd", vm / "boot1/console.log", test.directory() / "disk"):
                path.touch()
            group.finish()
            return sorted(path.name for path in Path(name).rglob("*") if path.is_file())

    def test_a_success_leaves_its_logs(self) -> None:
        self.assertEqual(self.left("ok 1 - a", 0), ["console.log"])

    def test_a_failure_leaves_everything(self) -> None:
        for point, status in (("not ok 1 - a", 1), ("ok 1 - a", 1)):
            self.assertEqual(self.left(point, status), ["console.log", "disk", "initrd"])


class Head(unittest.TestCase):
    """What a test needs."""

    def read(self, text: str) -> Test:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "test_x_01.sh"
            path.write_text(text, encoding="utf-8")
            return read_test(path)

    def test_needs(self) -> None:
        test = self.read(
            "#!/bin/sh\n# Text.\n# needs-file: a 4M stamp w\n# needs-disk: a ro\n# needs-target: a\n"
            "# needs-module: ext4 sd_mod\n\n# needs-own-boot: not in the head any more\n"
        )
        self.assertEqual((test.files[0].size_bytes, test.files[0].recipe), (4 << 20, ["stamp", "w"]))
        self.assertEqual((test.disks, test.targets), ([("a", ["ro"])], ["a"]))
        self.assertEqual((test.modules, test.own_boot), (["ext4", "sd_mod"], False))

    def test_needs_of_a_second_machine(self) -> None:
        test = self.read("#!/bin/sh\n# needs-file: a 4M\n# needs-peer: lio a\n")
        self.assertEqual((test.peer, test.own_boot), (("lio", "a"), True))

    def test_needs_of_the_debug_kernel(self) -> None:
        test = self.read(
            '#!/bin/sh\n# needs-kernel: debug\n# needs-cmdline: a=1 b\n# needs-own-module: x/y.ko\n# needs-fault: "BUG: .* x"\n'
        )
        self.assertEqual((test.flavors, test.own_boot, test.cmdline), (["debug"], True, ["a=1", "b"]))
        self.assertEqual((test.own_modules, test.faults), (["x/y.ko"], ["BUG: .* x"]))
        self.assertEqual(self.read("#!/bin/sh\n").flavors, ["stock", "debug"])
        for flavors, long in ("stock", False), ("debug", True), ("stock debug-long", True), ("stock debug", True):
            self.assertEqual(self.read(f"#!/bin/sh\n# needs-kernel: {flavors}\n").runs_on("debug-long"), long)
        self.assertFalse(self.read("#!/bin/sh\n# needs-kernel: stock debug-long\n").runs_on("debug"))
        self.assertTrue(self.read("#!/bin/sh\n# needs-long: hours\n").long)

    def test_mistakes_are_refused(self) -> None:
        for line in ("# needs-disk: unknown", "# needs-nonsense: x", "# needs-file: a", "# needs-peer: lio b"):
            with self.assertRaises(Failed):
                self.read(f"#!/bin/sh\n{line}\n")

    def test_grouping(self) -> None:
        def test(name: str, disks: int, own: bool = False, peer: tuple[str, str] | None = None) -> Test:
            return Test(Path(name), disks=[(str(number), []) for number in range(disks)], own_boot=own, peer=peer)

        tests = [test("a", 2), test("b", 2), test("c", 1, own=True), test("d", 1, own=True, peer=("lio", "f")), test("e", 1)]
        boots = group(tests, disks_per_boot=4)
        names = [[each.path.name for each in boot] for boot in boots]
        self.assertEqual(names, [["a", "b"], ["d"], ["e"], ["c"]])
        self.assertEqual(group(tests[2:3]), [tests[2:3]])


if __name__ == "__main__":
    unittest.main()
