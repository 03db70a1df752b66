# SPDX-License-Identifier: GPL-2.0-only
"""What happened when, printed as it happens."""

import json
import threading
import time


class Timeline:
    """One line per event: seconds since the start of the run, who, what."""

    def __init__(self, name, title, path):
        self.name = name
        self.start = time.monotonic()
        self.path = path
        self.events = []
        self.lock = threading.Lock()
        print(f"\n== {name}: {title}", flush=True)

    def now(self):
        return time.monotonic() - self.start

    def say(self, who, what):
        with self.lock:
            at = self.now()
            self.events.append({"at_s": round(at, 1), "who": who, "what": what})
            print(f"{self.name:<9} {at:7.1f} s  {who:<10} {what}", flush=True)
            self.path.write_text(json.dumps(self.events, indent=1) + "\n")
        return at


def mib(count):
    return f"{count / (1 << 20):.0f} MiB"
