# SPDX-License-Identifier: GPL-2.0-or-later
"""What `sysrift doctor` finds out: one finding a question."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # something works less well, or will not for some programs
    PROBLEM = "problem"  # recording or replaying is impossible


@dataclass(frozen=True)
class Finding:
    """The answer to one question about this machine; `remedy` says what to do, if anything."""

    name: str
    level: Level
    text: str
    remedy: str = ""


Check = Callable[[], Finding]


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, Level.OK, text)


def warning(name: str, text: str, remedy: str = "") -> Finding:
    """SysRift works, with a limitation."""
    return Finding(name, Level.WARNING, text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """SysRift cannot work."""
    return Finding(name, Level.PROBLEM, text, remedy)
