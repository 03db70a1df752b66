# SPDX-License-Identifier: GPL-2.0-only
"""A disk with a write cache that a power cut empties: an NBD server that QEMU uses as a disk.

What was written can be read at once, but counts as durable only when a flush came after it (or with FUA). At a power cut
each sector that is not durable falls back, or does not, by chance: lost, torn and out of order, as far as a disk may.
The protocol is that of https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, with simple replies."""

import random
import socket
import struct
import threading
from pathlib import Path

SECTOR = 512
GREETING = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3)
OPTION_REPLY = 0x3E889045565A9
OPT_ABORT, OPT_INFO, OPT_GO = 2, 6, 7
REP_ACK, REP_INFO, REP_UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH, WRITE_ZEROES = 0, 1, 2, 3, 6
FLAG_FUA = 1
# Has flags; flush, FUA and write zeroes may be sent.
EXPORT_FLAGS = 1 | 4 | 8 | 64


class Cache:
    """A file, and of each sector that was written since the last flush what it said before."""

    def __init__(self, path: Path, seed: str):
        self.file = open(path, "r+b", buffering=0)
        self.size_bytes = path.stat().st_size
        self.before: dict[int, bytes] = {}
        self.random = random.Random(seed)

    def read(self, at: int, count: int) -> bytes:
        """What was written last."""
        self.file.seek(at)
        return self.file.read(count)

    def write(self, at: int, data: bytes, durable: bool) -> None:
        """Writes whole sectors."""
        if not durable:
            old = self.read(at, len(data))
            for offset in range(0, len(data), SECTOR):
                self.before.setdefault(at + offset, old[offset : offset + SECTOR])
        else:
            for offset in range(0, len(data), SECTOR):
                self.before.pop(at + offset, None)
        self.file.seek(at)
        self.file.write(data)

    def flush(self) -> None:
        """What was written before is durable."""
        self.before.clear()

    def cut(self) -> int:
        """A power cut; how many sectors it took back."""
        lost = [at for at in sorted(self.before) if self.random.random() < 0.5]
        for at in lost:
            self.file.seek(at)
            self.file.write(self.before[at])
        self.before.clear()
        return len(lost)


class Volatile:
    """Serves a cache to one QEMU after the other."""

    def __init__(self, path: Path, directory: Path, seed: str):
        self.cache = Cache(path, seed)
        self.socket_path = directory / f"{path.name}.nbd"
        self.socket_path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket_path))
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """What QEMU opens."""
        return f"nbd+unix:///?socket={self.socket_path}"

    def cut(self) -> int:
        """The machine is gone, and with it what was not durable; how many sectors that were."""
        self.listener.close()
        self.thread.join()
        return self.cache.cut()

    def _serve(self) -> None:
        try:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rwb") as stream:
                if self._agree(stream):
                    while self._answer(stream):
                        pass
        except (OSError, struct.error):
            # It was killed, at any point.
            return

    def _agree(self, stream) -> bool:
        stream.write(GREETING)
        stream.flush()
        stream.read(4)
        while True:
            _, option, length = struct.unpack(">8sII", stream.read(16))
            stream.read(length)
            if option in (OPT_GO, OPT_INFO):
                export = struct.pack(">HQH", 0, self.cache.size_bytes, EXPORT_FLAGS)
                self._option(stream, option, REP_INFO, export)
                self._option(stream, option, REP_ACK)
                if option == OPT_GO:
                    return True
            elif option == OPT_ABORT:
                self._option(stream, option, REP_ACK)
                return False
            else:
                self._option(stream, option, REP_UNSUPPORTED)

    def _option(self, stream, option: int, kind: int, data: bytes = b"") -> None:
        stream.write(struct.pack(">QIII", OPTION_REPLY, option, kind, len(data)) + data)
        stream.flush()

    def _answer(self, stream) -> bool:
        _, flags, kind, cookie, at, length = struct.unpack(">IHHQQI", stream.read(28))
        data = b""
        if kind == READ:
            data = self.cache.read(at, length)
        elif kind == WRITE:
            payload = stream.read(length)
            if len(payload) < length:
                return False
            self.cache.write(at, payload, bool(flags & FLAG_FUA))
        elif kind == WRITE_ZEROES:
            self.cache.write(at, bytes(length), bool(flags & FLAG_FUA))
        elif kind == FLUSH:
            self.cache.flush()
        else:
            return False
        stream.write(struct.pack(">IIQ", 0x67446698, 0, cookie) + data)
        stream.flush()
        return True
