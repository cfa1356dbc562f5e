# SPDX-License-Identifier: GPL-2.0-or-later
"""A measured figure beside its goal, and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PLACES = {"s": 3, "x": 2, "ms": 1, "us": 1, "bytes": 1, "MiB": 0}


@dataclass
class Figure:
    """One figure, e.g. "recording a system call": 49.6 us, which is to be at most 120 us."""

    name: str
    value: float
    unit: str
    goal: float | None = None  # not more than this; None: just to know
    samples: list[float] = field(default_factory=list)
    at_least: bool = False  # the goal is not less than that, instead

    @property
    def verdict(self) -> str:
        """Whether the goal is met: `pass`, `MISS`, or nothing where there is none."""
        if self.goal is None:
            return ""
        good = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "pass" if good else "MISS"

    @property
    def goal_text(self) -> str:
        """The goal for people: `<= 120 us`."""
        if self.goal is None:
            return ""
        sign = ">=" if self.at_least else "<="
        goal = f"{self.goal:,.0f}" if self.goal >= 10_000 else f"{self.goal:g}"
        return f"{sign} {goal} {self.unit}".rstrip()

    @property
    def value_text(self) -> str:
        """The value for people: `49.6 us`."""
        return f"{self.value:,.{_PLACES.get(self.unit, 0)}f} {self.unit}".rstrip()


def median_of(name: str, samples: list[float], unit: str, goal: float | None = None) -> Figure:
    """A figure whose value is the median of samples, which must not be none."""
    return Figure(name, statistics.median(samples), unit, goal, samples)


def print_figures(figures: Sequence[Figure]) -> None:
    """A table on stdout: measured, goal, whether that is met."""
    rows = [("", "measured", "goal", "")]
    rows += [(one.name, one.value_text, one.goal_text, one.verdict) for one in figures]
    for name, value, goal, verdict in rows:
        print(f"{name:<46}{value:>14}  {goal:<14}{verdict}".rstrip())


def machine_facts() -> dict[str, object]:
    """What a reader must know of this machine to compare: processor, kernel, Python, when."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text().partition("flags")[2][:4000],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
