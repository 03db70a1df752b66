# SPDX-License-Identifier: GPL-2.0-only
"""Makes the initramfs of a test VM: busybox, kernel modules and programs with all they need, and files of ours."""

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

from .config import Failed, Kernel

PROGRAM_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def _lines(*command: str) -> list[str]:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def needed_by(module: Path) -> list[str]:
    """The kernel's modules that one of ours needs."""
    return [name for line in _lines("modinfo", "-F", "depends", str(module)) for name in line.split(",") if name]


class Initramfs:
    """A directory that becomes a cpio archive."""

    def __init__(self, directory: Path, kernel: Kernel):
        shutil.rmtree(directory, ignore_errors=True)
        self.directory = directory
        self.kernel = kernel
        self.load: list[str] = []
        for name in "bin proc sys dev tmp mnt run etc modules".split():
            (directory / name).mkdir(parents=True)
        shutil.copy2("/bin/busybox", directory / "bin/busybox")

    def add(self, source: Path, place: str) -> None:
        """Adds one file of ours."""
        target = self.directory / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)

    def write(self, place: str, text: str) -> None:
        """Adds a file with this text."""
        target = self.directory / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def add_modules(self, names: list[str]) -> None:
        """Adds kernel modules and what they depend on; init loads them in this order."""
        if not names:
            return
        where = ("--dirname", str(self.kernel.modules), "--set-version", self.kernel.release)
        for line in _lines("modprobe", *where, "--show-depends", "--all", *names):
            word, _, rest = line.partition(" ")
            if word != "insmod":  # built in
                continue
            path = Path(rest.split()[0])
            plain = path.name.removesuffix(".xz")
            if plain in self.load:
                continue
            self.load.append(plain)
            if path.suffix == ".xz":
                (self.directory / "modules" / plain).write_bytes(lzma.decompress(path.read_bytes()))
            else:
                shutil.copy2(path, self.directory / "modules" / plain)

    def add_program(self, name: str) -> None:
        """Adds a program of the build root with its shared libraries, in its own place."""
        path = name if name.startswith("/") else shutil.which(name, path=":".join(PROGRAM_PATH))
        if path is None:
            raise Failed(f"the build root has no program {name}: see scripts/packages")
        self.add(Path(path).resolve(), path.lstrip("/"))
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return
        libraries = subprocess.run(["ldd", path], text=True, capture_output=True, check=False)
        for library in re.findall(r"(/\S+)", libraries.stdout):
            self.add(Path(library).resolve(), library.lstrip("/"))

    def pack(self, output: Path) -> None:
        """Writes the archive."""
        self.write("modules/order", "".join(f"{name}\n" for name in self.load))
        names = sorted(
            os.path.relpath(os.path.join(base, name), self.directory)
            for base, directories, files in os.walk(self.directory)
            for name in directories + files
        )
        with open(output, "wb") as archive:
            subprocess.run(
                ["cpio", "--create", "--format=newc", "--quiet", "--owner=+0:+0"],
                input="".join(f"{name}\n" for name in names).encode(),
                stdout=archive,
                cwd=self.directory,
                check=True,
            )
