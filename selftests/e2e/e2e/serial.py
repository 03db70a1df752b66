# SPDX-License-Identifier: GPL-2.0-only
"""A serial port of a VM: everything is logged with its time, text can be awaited and typed."""

import codecs
import re
import socket
import threading
import time

from .shell import Failed

COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\x1bc|\r|\x00")


class Plain:
    """Bytes of a terminal as plain text, however they are cut into pieces."""

    LONGEST = 16  # of the sequences that terminals are sent here

    def __init__(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""

    def feed(self, data):
        text = self.held + self.decoder.decode(data)
        cut = text.rfind("\x1b", -self.LONGEST)
        if cut < 0 or COLOURS.match(text, cut):
            cut = len(text)
        self.held = text[cut:]
        return COLOURS.sub("", text[:cut])


class Serial:
    """Reads the port's socket on a thread of its own until the VM closes it."""

    def __init__(self, path, log_path):
        self.log = open(log_path, "a", encoding="utf-8", buffering=1)
        self.name = str(log_path)
        self.lock = threading.Condition()
        self.text = ""
        self.closed = False
        self.on_line = None  # called with every whole line
        self.socket = _connect(path)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        start, held, plain = time.monotonic(), "", Plain()
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                data = b""
            with self.lock:
                if not data:
                    self.closed = True
                    self.lock.notify_all()
                    return
                text = plain.feed(data)
                held += text
                self.text += text
                *lines, held = held.split("\n")
                for line in lines:
                    self.log.write(f"{time.monotonic() - start:8.2f} {line}\n")
                self.lock.notify_all()
            for line in lines:
                if self.on_line:
                    self.on_line(line)

    def mark(self):
        """The place behind everything read so far."""
        with self.lock:
            return len(self.text)

    def await_text(self, pattern, since=0, seconds=300, alive=lambda: True):
        """Waits for a match behind `since`; gives the match. Says what was read last when it fails."""
        regex, end = re.compile(pattern, re.M), time.monotonic() + seconds
        with self.lock:
            while True:
                found = regex.search(self.text, since)
                if found:
                    return found
                if self.closed or not alive():
                    raise Failed(f"the VM ended while '{pattern}' was awaited ({self.name})\n{self.tail()}")
                left = end - time.monotonic()
                if left <= 0:
                    raise Failed(f"'{pattern}' did not come within {seconds} s ({self.name})\n{self.tail()}")
                self.lock.wait(min(left, 1))

    def tail(self):
        return "\n".join("    | " + line for line in self.text.splitlines()[-25:])

    def type(self, text):
        self.socket.sendall(text.encode())

    def close(self):
        self.socket.close()


def _connect(path, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > end:
                raise Failed(f"QEMU did not open {path}") from None
            time.sleep(0.05)
