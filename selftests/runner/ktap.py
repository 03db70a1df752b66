# SPDX-License-Identifier: GPL-2.0-only
"""Reads KTAP (Documentation/dev-tools/ktap.rst of the kernel), the format of a test's output."""

import re
from dataclasses import dataclass, field

PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#.*)?$")
RESULT = re.compile(r"^(ok|not ok) (\d+)\s*-?\s*([^#]*)(?:#\s*(\w+)\s*(.*))?$")


@dataclass
class Point:
    """One result."""

    passed: bool
    skipped: bool
    text: str


@dataclass
class Report:
    """What one test said."""

    plan: int | None = None
    points: list[Point] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Takes one line of output."""
        if match := PLAN.match(line):
            if self.plan is not None:
                self.complaints.append("two plans")
            self.plan = int(match[1])
        elif match := RESULT.match(line):
            if int(match[2]) != len(self.points) + 1:
                self.complaints.append(f"result {match[2]} came where {len(self.points) + 1} was due")
            skipped = (match[4] or "").upper() == "SKIP"
            self.points.append(Point(match[1] == "ok", skipped, match[3].strip()))

    def finish(self, status: int | None) -> None:
        """Checks the whole: status is the test's exit status, None if it never ended."""
        if self.plan is None:
            self.complaints.append("no plan (1..N)")
        elif self.plan != len(self.points):
            self.complaints.append(f"{self.plan} results planned, {len(self.points)} came")
        if status is None:
            self.complaints.append("the test did not end")
        elif status != 0 and all(point.passed for point in self.points):
            self.complaints.append(f"exit status {status} without a failed result")

    @property
    def failed(self) -> int:
        """How many results failed; every complaint counts as one."""
        return sum(not point.passed for point in self.points) + len(self.complaints)

    @property
    def skipped(self) -> int:
        """How many results were skipped."""
        return sum(point.passed and point.skipped for point in self.points)

    @property
    def passed(self) -> int:
        """How many results passed."""
        return sum(point.passed and not point.skipped for point in self.points)
