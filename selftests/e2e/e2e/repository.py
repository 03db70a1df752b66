# SPDX-License-Identifier: GPL-2.0-only
"""The repository: tgtd with one read-only LUN, behind a relay that counts the bytes it passes."""

import itertools
import os
import select
import socket
import subprocess
import threading
import time
from pathlib import Path

from .shell import Failed, file_hash, run

NUMBER = itertools.count(os.getpid() % 20_000 * 4)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Relay:
    """Passes TCP connections on to tgtd; `fetched` counts what went towards the VM."""

    def __init__(self, to_port):
        self.to_port = to_port
        self.fetched = 0
        self.connections = 0
        self.open = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.to_port))
        except OSError:
            near.close()
            return
        with self.lock:
            self.connections += 1
            self.open |= {near, far}
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._pass(near, far)
        except OSError:
            pass
        with self.lock:
            self.open -= {near, far}
        near.close()
        far.close()

    def _pass(self, near, far):
        while True:
            ready, _, _ = select.select([near, far], [], [])
            for sock in ready:
                data = sock.recv(1 << 18)
                if not data:
                    return
                if sock is far:
                    with self.lock:
                        self.fetched += len(data)
                    near.sendall(data)
                else:
                    far.sendall(data)

    def cut(self):
        """Breaks every open connection."""
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Repository:
    """One tgtd of our own, with its own control port."""

    def __init__(self, image, work, name):
        self.image, self.log = image, Path(work) / f"{name}.tgtd.log"
        self.iqn = f"iqn.2026-11.example.imgstream:{name}"
        self.control = str(next(NUMBER))
        self.port = free_port()
        self.relay = Relay(self.port)
        self.process = None
        self.accounts = ()
        self.start()

    @property
    def portal(self):
        """The portal's address as a VM sees it through QEMU's user network."""
        return f"10.0.2.2:{self.relay.port}"

    def _admin(self, *args):
        return run("tgtadm", "-C", self.control, "--lld", "iscsi", *args)

    def start(self):
        Path("/run/tgtd").mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["tgtd", "-f", "-C", self.control, "--iscsi", f"portal=127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._await_admin()
        self._admin("--op", "new", "--mode", "target", "--tid", "1", "-T", self.iqn)
        self._admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(self.image))
        self._admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1",
                    "--params", "readonly=1,scsi_id=imgstream-e2e,scsi_sn=imgstream-e2e")
        self._admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        for (user, secret), direction in zip(self.accounts, ([], ["--outgoing"])):
            account = ["--mode", "account", "--user", user]
            self._admin("--op", "new", *account, "--password", secret)
            self._admin("--op", "bind", *account, "--tid", "1", *direction)

    def authenticate(self, host, repository):
        """From now on both sides have to prove who they are; each is a name and a secret."""
        self.stop()
        self.accounts = (host, repository)
        self.start()

    def _await_admin(self, seconds=20):
        end = time.monotonic() + seconds
        while True:
            try:
                self._admin("--op", "show", "--mode", "target")
                return
            except Failed:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise Failed(f"tgtd did not start, see {self.log}") from None
                time.sleep(0.1)

    def stop(self):
        """The repository is gone: no answer on its port, open connections end."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.relay.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.relay.listener.close()


class Shelf:
    """Hands one file to each connection: how things are carried into a VM."""

    def __init__(self, path):
        self.path = path
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
                with sock, open(self.path, "rb") as file:
                    sock.sendfile(file)
            except OSError:
                if self.listener.fileno() < 0:
                    return

    def carry_to(self, machine, place, mode="0644"):
        """Copies the file to a place in the VM and proves that it arrived whole."""
        machine.command(f"cat < /dev/tcp/10.0.2.2/{self.port} > {place} && chmod {mode} {place}")
        _, said = machine.command(f"sha256sum < {place}")
        if said.split()[0] != file_hash(self.path):
            raise Failed(f"{place} did not arrive whole")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
