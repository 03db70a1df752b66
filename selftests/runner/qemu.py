# SPDX-License-Identifier: GPL-2.0-only
"""One boot of a kernel in QEMU: kernel log in a file, a second serial port as a channel to the guest."""

import re
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from .config import say

# What the kernel says when something is wrong in it, or when one of its detectors switches itself off and would say no more.
FAULT = re.compile(
    r"\b(WARNING:|BUG:|Oops|UBSAN:|KASAN:|KFENCE:|INFO: task .* blocked|INFO: .*(stall|lockup)|"
    r"general protection fault|Kernel panic|refcount_t:|list_(add|del) corruption|kernel stack|"
    r"unregister_netdevice: waiting|rust_kernel: panicked|DEBUG_LOCKS_WARN|ODEBUG:|non-static key|"
    r"kmemleak: ([0-9]+ new suspected|Memory pool empty|Kernel memory leak detector disabled)|"
    r"turning off the locking correctness validator)"
)
# QEMU's TCG can take a CPU through code that the other CPU is patching; the stock kernel then dies early. A known fault of
# the emulation, named and counted, and believed only before any code of ours is in the kernel.
EARLY_INT3 = re.compile(r"Oops: int3")
EARLY_DEATHS_ALLOWED = 3
OURS_LOADED = re.compile(r"imgstream: loading out-of-tree module")

# On a busy computer TCG can leave a CPU halted although its timer has expired. If that was the only one, and was set once,
# nothing wakes it again; a tick that comes again and again does.
TICKS = "nohz=off highres=off"
# The kernel's watchdog of the TSC waits for the other CPU with interrupts off, and looks at the time to see when it has
# waited long enough (watchdog_wait_seq in kernel/time/clocksource.c). Before a better clock has replaced the jiffies that
# time stands still while the CPU that counts them waits. If the other one is in the stop_machine() that is to replace the
# clock, both wait for ever. An emulated CPU is slow enough for that, once in a hundred boots. Without the watchdog nobody
# would notice that a busy computer had the kernel measure a rate of the TSC that is far off. So there is no TSC.
NO_TSC = "tsc=unstable"


class Ended(Exception):
    """The guest is gone: QEMU ended."""


class TimedOut(Exception):
    """The guest said nothing for too long, or too much."""


@dataclass
class Disk:
    """A virtio disk: its file (or what else QEMU opens), the serial number by which the guest and QEMU know it."""

    file: Path | str
    serial: str
    read_only: bool = False
    logical_bytes: int = 512
    physical_bytes: int = 512


@dataclass
class Machine:
    """What to boot."""

    kernel: Path
    initramfs: Path
    directory: Path
    accelerator: str
    cmdline: str = ""
    disks: list[Disk] = field(default_factory=list)
    memory_mib: int = 1024
    network: bool = True
    # Our end of a cable to another machine, and theirs.
    link: tuple[str, str] | None = None
    # Whether it can mount our /usr, read-only, as the 9p file system "usr": more programs than an initramfs should hold.
    usr: bool = False

    def command(self) -> list[str]:
        """QEMU's command line."""
        words = f"""qemu-system-x86_64 -accel {self.accelerator} -cpu max -smp 2 -m {self.memory_mib}
            -nodefaults -display none -no-reboot -kernel {self.kernel} -initrd {self.initramfs}
            -serial file:{self.directory}/console.log
            -chardev socket,id=channel,path={self.directory}/channel,server=on,wait=on
            -serial chardev:channel -qmp unix:{self.directory}/monitor,server=on,wait=off""".split()
        # Whether the timer ticks in the first milliseconds says more about this computer's other work than about the machine.
        options = f"console=ttyS0 panic=-1 no_timer_check {self.cmdline}"
        if self.accelerator.startswith("tcg"):
            options += f" {TICKS} {NO_TSC}"
        words += ["-append", options]
        words += ["-nic", "user,model=virtio-net-pci" if self.network else "none"]
        if self.link:
            ends = [f"{end}.type=unix,{end}.path={path}" for end, path in zip(("local", "remote"), self.link)]
            words += ["-netdev", f"dgram,id=link,{','.join(ends)}", "-device", "virtio-net-pci,netdev=link"]
        if self.usr:
            words += ["-virtfs", "local,path=/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap"]
        for number, disk in enumerate(self.disks):
            read_only = "on" if disk.read_only else "off"
            words += ["-drive", f"file={disk.file},if=none,id=d{number},format=raw,discard=unmap,read-only={read_only}"]
            sizes = f"logical_block_size={disk.logical_bytes},physical_block_size={disk.physical_bytes}"
            words += ["-device", f"virtio-blk-pci,drive=d{number},id={disk.serial},serial={disk.serial},{sizes}"]
        return words


class Guest:
    """A running machine. Use as a context manager: it does not outlive the block."""

    def __init__(self, machine: Machine, patience_s: float):
        self.machine = machine
        self.console = machine.directory / "console.log"
        machine.directory.mkdir(parents=True, exist_ok=True)
        for name in ("console.log", "channel"):
            (machine.directory / name).unlink(missing_ok=True)
        with open(machine.directory / "qemu.log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                machine.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.patience_s = patience_s
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX)
        for _ in range(600):
            try:
                channel.connect(str(self.machine.directory / "channel"))
                return channel
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.process.kill()
        raise Ended(f"QEMU did not start: {(self.machine.directory / 'qemu.log').read_text().strip()}")

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()

    def cut(self) -> None:
        """Ends it as a power cut would: in the middle of whatever it does."""
        self.process.kill()

    def answer(self, text: str) -> None:
        """Says a line to the guest."""
        self.socket.sendall(text.encode() + b"\n")

    def lines(self) -> Iterator[str]:
        """Lines that the guest says, until it is gone; TimedOut if one takes longer than patience_s."""
        pending = b""
        while True:
            self.socket.settimeout(self.patience_s)
            try:
                data = self.socket.recv(65536)
            except TimeoutError as error:
                raise TimedOut from error
            except ConnectionResetError:
                data = b""
            if not data:
                self.process.wait()
                return
            *complete, pending = (pending + data).split(b"\n")
            for line in complete:
                yield line.decode(errors="replace").rstrip("\r")

    def log(self) -> str:
        """The kernel's messages so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""


def faults(log: str) -> list[str]:
    """Lines of a kernel log that tell of a fault."""
    return [line for line in log.splitlines() if FAULT.search(line)]


class EarlyDeaths:
    """Boots that the known fault has ended, of a group's machines."""

    def __init__(self) -> None:
        self.count = 0

    def forgive(self, log: str) -> bool:
        """Whether that is how the machine with this log ended, so that it may be booted again."""
        if not is_early_int3(log) or self.count == EARLY_DEATHS_ALLOWED:
            return False
        self.count += 1
        say(f"QEMU's known fault 'Oops: int3' before any code of ours ran: booting again ({self.count})")
        return True


def is_early_int3(log: str) -> bool:
    """Whether the kernel died of TCG's known fault before it had any code of ours."""
    found = EARLY_INT3.search(log)
    ours = OURS_LOADED.search(log)
    return found is not None and (ours is None or found.start() < ours.start())
