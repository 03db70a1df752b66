# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor, for what a machine cannot do for itself: wake up.

See https://www.qemu.org/docs/master/interop/qmp-spec.html."""

import json
import socket
import threading
from pathlib import Path
from typing import TextIO


def _command(connection: socket.socket, name: str) -> None:
    connection.sendall(json.dumps({"execute": name}).encode() + b"\n")


def _until(messages: TextIO, key: str, value: object = None) -> None:
    for line in messages:
        message = json.loads(line)
        if key in message and value in (None, message[key]):
            return


def _wake(connection: socket.socket, messages: TextIO) -> None:
    with connection, messages:
        try:
            _until(messages, "event", "SUSPEND")
            _command(connection, "system_wakeup")
            _until(messages, "event", "WAKEUP")
        except OSError:
            # The machine has ended.
            return


def wake_when_asleep(path: Path) -> None:
    """Wakes the machine with this monitor up as soon as it has gone to sleep the next time."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    messages = connection.makefile("r", encoding="utf-8")
    # Events are told only after this.
    _command(connection, "qmp_capabilities")
    _until(messages, "return")
    threading.Thread(target=_wake, args=(connection, messages), daemon=True).start()
