# SPDX-License-Identifier: GPL-2.0-only
"""tgtd on this computer's loopback; QEMU's user network shows it to the guest as 10.0.2.2."""

import socket
import subprocess
import time
from pathlib import Path

from .config import Failed
from .test import Test

PREFIX = "iqn.2026-11.invalid.imgstream"


def target_name(test: Test, file: str) -> str:
    """The iSCSI name of a test's file; the standard knows no underscore."""
    return f"{PREFIX}:{test.name}.{file}".replace("_", "-")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Target:
    """A tgtd with one target a file, by its iSCSI name. Can be stopped and started again; the port stays."""

    def __init__(self, files: dict[str, Path], directory: Path, digests: set[str]):
        self.files = files
        # Names of those that offer digests.
        self.digests = digests
        self.port = free_port()
        self.log = directory / "tgtd.log"
        # The number of tgtd's control socket, which may be up to 32767.
        self.control = str(self.port % 32768)
        self.process: subprocess.Popen[bytes] | None = None
        # Name and secret of who may come in, then of the target itself; empty: everybody may.
        self.accounts: list[str] = []

    def _admin(self, *words: str) -> None:
        command = ["tgtadm", "--control-port", self.control, "--lld", "iscsi", *words]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")

    def _wait(self) -> None:
        assert self.process
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                self._admin("--mode", "sys", "--op", "show")
                return
            except Failed:
                time.sleep(0.05)
        raise Failed(f"tgtd did not start: see {self.log}")

    def start(self) -> None:
        """Starts serving."""
        Path("/var/run/tgtd").mkdir(parents=True, exist_ok=True)
        portal = f"portal=127.0.0.1:{self.port}"
        command = ["tgtd", "--foreground", "--control-port", self.control, "--iscsi", portal]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait()
        for tid, (name, file) in enumerate(sorted(self.files.items()), 1):
            at = ["--tid", str(tid)]
            self._admin("--mode", "target", "--op", "new", *at, "--targetname", name)
            for key in ["HeaderDigest", "DataDigest"] if name in self.digests else []:
                self._admin("--mode", "target", "--op", "update", *at, "--name", key, "--value", "CRC32C,None")
            self._admin("--mode", "logicalunit", "--op", "new", *at, "--lun", "1", "--backing-store", str(file))
            self._admin("--mode", "logicalunit", "--op", "update", *at, "--lun", "1", "--params", "readonly=1")
            self._admin("--mode", "target", "--op", "bind", *at, "--initiator-address", "ALL")
        self._authenticate()

    def _authenticate(self) -> None:
        for place in range(0, len(self.accounts), 2):
            user, secret = self.accounts[place : place + 2]
            account = ["--mode", "account", "--user", user]
            self._admin(*account, "--op", "new", "--password", secret)
            direction = ["--outgoing"] if place else []
            for tid in range(1, len(self.files) + 1):
                self._admin(*account, "--op", "bind", "--tid", str(tid), *direction)

    def stop(self) -> None:
        """Is gone, connections and all, as after a power cut."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
