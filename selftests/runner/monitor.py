# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's monitor, for what a machine cannot do for itself: wake up, have a disk taken out.

See https://www.qemu.org/docs/master/interop/qmp-spec.html."""

import json
import socket
import threading
from pathlib import Path
from typing import TextIO


def _command(connection: socket.socket, name: str, **arguments: str) -> None:
    connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")


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


def _connect(path: Path) -> tuple[socket.socket, TextIO]:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    messages = connection.makefile("r", encoding="utf-8")
    # Events are told only after this.
    _command(connection, "qmp_capabilities")
    _until(messages, "return")
    return connection, messages


def wake_when_asleep(path: Path) -> None:
    """Wakes the machine with this monitor up as soon as it has gone to sleep the next time."""
    threading.Thread(target=_wake, args=_connect(path), daemon=True).start()


def unplug(path: Path, device: str) -> bool:
    """Asks the machine with this monitor to let go of a device; False if there is none of that name."""
    connection, messages = _connect(path)
    with connection, messages:
        _command(connection, "device_del", id=device)
        for line in messages:
            message = json.loads(line)
            if "return" in message or "error" in message:
                return "return" in message
    return False
