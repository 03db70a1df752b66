# SPDX-License-Identifier: GPL-2.0-only
"""What is in the initramfs of a test VM besides the kernel's own modules."""

from pathlib import Path

from .config import BUILD, SELFTESTS, TOP
from .initramfs import Initramfs
from .test import Test

BASE_MODULES = ["virtio_pci", "virtio_blk", "virtio_net"]


def furnish(initramfs: Initramfs, tests: list[Test]) -> None:
    """Adds what these tests need, and what runs them in this order."""
    initramfs.add_modules(BASE_MODULES + [module for test in tests for module in test.modules])
    for program in dict.fromkeys(program for test in tests for program in test.programs):
        if program.startswith("tools/"):
            initramfs.add(BUILD / program, f"usr/bin/{Path(program).name}")
        elif program.startswith("initramfs/"):
            initramfs.add(TOP / program, f"installed/{Path(program).name}")
        else:
            initramfs.add_program(program)
    if any(test.kernel_image for test in tests):
        initramfs.add(initramfs.kernel.image, "boot/vmlinuz")
    initramfs.add(SELFTESTS / "guest/init", "init")
    for helpers in sorted((SELFTESTS / "guest").glob("*.sh")):
        initramfs.add(helpers, f"tests/{helpers.name}")
    for test in tests:
        initramfs.add(test.path, f"tests/{test.name}.sh")
    initramfs.write("tests/order", "".join(f"{test.name}\n" for test in tests))
