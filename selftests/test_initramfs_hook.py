# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs hook of the target, run over a file system of its own. Run by make test-unit."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

HOOK = Path(__file__).resolve().parents[1] / "initramfs/hooks/imgstream"
KERNEL = "7.2.0-test"
# Of initramfs-tools, and of the system: what they were called with is written down.
FUNCTIONS = """
copy_exec() { echo "copy_exec $*" >> "$DESTDIR/called"; }
manual_add_modules() { echo "modules $*" >> "$DESTDIR/called"; }
auto_add_modules() { :; }
"""


class Hook(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.top = Path(directory.name)
        for name in ("bin", "made", f"lib/modules/{KERNEL}", "usr/lib/udev/rules.d"):
            (self.top / name).mkdir(parents=True)
        (self.top / "usr/lib/udev/rules.d/61-imgstream.rules").touch()
        (self.top / "functions").write_text(FUNCTIONS)
        self.program("findmnt", 'echo "$BOOT_ON"')
        self.program("ip", ":")

    def program(self, name, text):
        path = self.top / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def state(self, name):
        path = self.top / "sys/block/imgstream0/imgstream/state"
        path.parent.mkdir(parents=True)
        path.write_text(name + "\n")

    def module(self):
        (self.top / "lib/modules" / KERNEL / "imgstream.ko.xz").touch()

    def hook(self):
        """The hook with the places that it looks at below the test's directory."""
        text = HOOK.read_text()
        for real, own in (("/usr/share/initramfs-tools/hook-functions", "functions"), ("/sys/block", "sys/block"),
                          ("/lib/modules", "lib/modules"), ("-p /usr/lib/udev", "-p {}/usr/lib/udev")):
            self.assertIn(real, text)
            text = text.replace(real, own.format(self.top) if "{}" in own else f"{self.top}/{own}")
        return text

    def run_hook(self, boot_on="/"):
        """Exit code, what was said, and whether imgstream is in the initramfs."""
        done = subprocess.run(
            ["sh", "-ec", self.hook(), "hook"], text=True, capture_output=True, check=False,
            env={"PATH": f"{self.top}/bin:{os.environ['PATH']}", "version": KERNEL, "BOOT_ON": boot_on,
                 "DESTDIR": str(self.top / "made")})
        called = self.top / "made/called"
        added = called.exists() and "imgstream" in called.read_text()
        return done.returncode, done.stderr, added

    def test_an_image_gets_it(self):
        self.module()
        self.assertEqual(self.run_hook(), (0, "", True))

    def test_a_kernel_without_the_module_is_installed_if_nothing_is_alive(self):
        for state in (None, "committed"):
            if state:
                self.state(state)
            code, said, added = self.run_hook()
            self.assertEqual((code, added), (0, False))
            self.assertIn(f"no imgstream.ko for kernel {KERNEL}", said)

    def test_nor_does_a_missing_program_stop_it(self):
        self.module()
        (self.top / "bin/ip").unlink()
        text = self.hook().replace("command -v ip", f"test -e {self.top}/bin/ip")
        self.hook = lambda: text
        code, said, added = self.run_hook()
        self.assertEqual((code, added), (0, False))
        self.assertIn("iproute2", said)

    def test_a_system_that_is_alive_never_gets_an_initramfs_without_it(self):
        self.state("streaming")
        code, said, added = self.run_hook(boot_on="/boot")
        self.assertEqual((code, added), (1, False))
        self.assertIn("is streaming and would not start", said)
        self.module()
        self.assertEqual(self.run_hook(boot_on="/boot"), (0, "", True))

    def test_boot_in_the_root_does_not_change_while_it_is_alive(self):
        self.module()
        self.state("committing")
        code, said, added = self.run_hook()
        self.assertEqual((code, added), (1, False))
        self.assertIn("commit first", said)


if __name__ == "__main__":
    unittest.main()
