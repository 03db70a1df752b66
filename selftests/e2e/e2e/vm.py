# SPDX-License-Identifier: GPL-2.0-only
"""A virtual computer: SeaBIOS, one disk, one network card, two serial ports."""

import functools
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .config import REPO
from .serial import Serial
from .shell import Failed, run

COUNT = itertools.count(1)


def overlay(base, path, more_mib=0):
    """A disk that begins as the base and keeps its own changes; so much longer."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path)
    run("qemu-img", "resize", "-q", path, f"+{more_mib}M")
    return path


def raw_of(overlay_path, path):
    """The disk's present contents as a sparse raw file, for the host to read."""
    run("qemu-img", "convert", "-O", "raw", overlay_path, path)
    return path


def ends_of(overlay_path, path, length=1 << 20):
    """A sparse file as long as the disk with only its first and last bytes."""
    size = json.loads(run("qemu-img", "info", "--output=json", overlay_path))["virtual-size"]
    part = path.with_suffix(".part")
    with open(path, "wb") as whole:
        whole.truncate(size)
        for at in (0, size - length):
            run("qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={length}", f"if={overlay_path}", f"of={part}",
                f"skip={at // length}", f"count={at // length + 1}")
            whole.seek(at)
            whole.write(part.read_bytes())
    part.unlink()
    return path


@functools.cache
def accelerator():
    """KVM where a guest really runs in it, else TCG."""
    return run(REPO / "scripts/accel").split()[-1]


class Vm:
    """One power cycle of the computer: from power on to power off (reboots are inside)."""

    def __init__(self, disk, work, memory_mib=1024, network=True, name="vm"):
        self.name = f"{name}-{next(COUNT)}"
        self.bad = []
        self.sockets = Path(tempfile.mkdtemp(prefix="imgstream-"))
        self.log = Path(work) / f"{self.name}.console.log"
        self.errors = open(Path(work) / f"{self.name}.qemu.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            self._command(disk, memory_mib, network), stdin=subprocess.DEVNULL,
            stdout=self.errors, stderr=subprocess.STDOUT)
        try:
            self.console = Serial(self.sockets / "console", self.log)
            self.port = Serial(self.sockets / "commands", Path(work) / f"{self.name}.commands.log")
            self.qmp = Qmp(self.sockets / "qmp")
        except BaseException:
            self.kill()
            raise

    def _command(self, disk, memory_mib, network):
        card = ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,addr=0x3"]
        serials = []
        for name in ("console", "commands"):
            serials += ["-chardev", f"socket,id={name},path={self.sockets / name},server=on,wait=off",
                        "-serial", f"chardev:{name}"]
        return [
            "qemu-system-x86_64", "-accel", accelerator(), "-cpu", "max", "-smp", "2",
            "-m", str(memory_mib), "-display", "none", "-vga", "none",
            "-drive", f"file={disk},if=none,id=disk0,format=qcow2,discard=unmap,detect-zeroes=unmap",
            "-device", "virtio-blk-pci,drive=disk0,addr=0x4",
            *(card if network else ["-nic", "none"]), *serials,
            "-device", "virtio-rng-pci,addr=0x5",
            "-qmp", f"unix:{self.sockets / 'qmp'},server=on,wait=off",
        ]

    def refuse(self, serial, pattern):
        """From now on this text on a serial port ends whatever is awaited."""
        self.bad.append((serial, re.compile(pattern), serial.mark()))

    def alive(self):
        """Still running, and nothing has failed that somebody waits for."""
        for serial, pattern, since in self.bad:
            if pattern.search(serial.text, since):
                raise Failed(f"it was refused or has failed:\n{serial.tail()}")
        return self.process.poll() is None

    def await_console(self, pattern, seconds=300, since=0):
        return self.console.await_text(pattern, since, seconds, self.alive)

    def login(self, hostname, seconds=300, since=0):
        """Waits for the login prompt on the console, then opens the command port."""
        self.await_console(rf"^{hostname} login:", seconds, since)

    def open_shell(self, hostname, seconds=120):
        """Makes the shell on the command port ready for `command`.

        What is typed before the shell reads can be lost from its beginning on (login flushes its terminal), so the
        answer has to prove that the whole line was run."""
        since = self.port.mark()
        end = time.monotonic() + seconds
        while True:
            self.port.type("\nstty -echo; PS1=; PS2=; TERM=dumb;"
                           " echo \"shell-$(hostname)-[$PS1$PS2]$(stty -a | grep -ow -e -echo)\"\n")
            try:
                self.port.await_text(rf"^shell-{hostname}-\[\]-echo\n", since, 5, self.alive)
                break
            except Failed:
                if not self.alive() or time.monotonic() > end:
                    raise
        self.command("true")  # behind the answers to all that was typed

    def command(self, text, seconds=300, check=True):
        """Runs a shell command in the VM; gives its exit code and output."""
        number = next(COUNT)
        since = self.port.mark()
        self.port.type(f"{{ {text}\n}} 2>&1; echo \"end-{number}-of:$?\"\n")
        found = self.port.await_text(rf"end-{number}-of:(\d+)\n", since, seconds, self.alive)
        output = self.port.text[since:found.start()].strip()
        code = int(found.group(1))
        if check and code != 0:
            raise Failed(f"in the VM: {text}: exit code {code}\n{output}")
        return code, output

    def cable(self, plugged):
        """Puts the network card's cable in, or takes it out."""
        self.qmp.ask("set_link", name="net0", up=plugged)

    def reset(self):
        """The reset button."""
        self.qmp.ask("system_reset")

    def await_off(self, seconds=120):
        """Waits until the computer has switched itself off."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not power off within {seconds} s\n{self.console.tail()}") from None
        self._clean()
        if self.process.returncode != 0:
            raise Failed(f"QEMU ended with exit code {self.process.returncode}, see {self.errors.name}")

    def power_off(self, seconds=120):
        """Asks the running system to shut down."""
        self.port.type("systemctl poweroff\n")
        self.await_off(seconds)

    def kill(self):
        """The end of this VM whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._clean()

    def _clean(self):
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Qmp:
    """QEMU's own control port."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, execute, **arguments):
        self.file.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise Failed("QEMU closed its control port")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failed(f"QMP {execute}: {answer['error']['desc']}")
