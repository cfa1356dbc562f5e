# SPDX-License-Identifier: GPL-2.0-or-later
"""`$_event` and `$_sysrift_time`: where the replay is, as GDB's convenience variables.

Set whenever GDB has stopped and before each prompt, so that conditions of the user's see those of
the last stop; void without a replay.
"""

from __future__ import annotations

import gdb
from sysrift_gdb import arrivals, session

_shown: tuple[int, float] | None = None


def update(_moved: bool = True) -> None:
    """Let them be what is true now."""
    global _shown
    replay = session.current
    if replay is None:
        if _shown is not None:
            _shown = None
            gdb.set_convenience_variable("_event", None)
            gdb.set_convenience_variable("_sysrift_time", None)
        return
    number = replay.engine.next
    if _shown is None or _shown[0] != number:
        _shown = number, time_at(replay, number)
        gdb.set_convenience_variable("_event", number)
        gdb.set_convenience_variable("_sysrift_time", gdb.Value(_shown[1]))


def time_at(replay: session.Replay, number: int) -> float:
    """When an event happened, in seconds since the recording began; behind the last one, that."""
    count = replay.trace.event_count
    return replay.trace.event(min(number, count)).time_us / 1e6 if count else 0.0


def register() -> None:
    """Keep them up to date."""
    arrivals.connect(update)
