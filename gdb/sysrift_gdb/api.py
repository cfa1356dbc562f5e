# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python scripts in GDB may use of a replay: `sysrift_gdb.current_event()` and its like."""

from __future__ import annotations

from collections.abc import Iterator

import gdb
from sysrift.errors import SysRiftError
from sysrift.replay.place import Place
from sysrift.trace.model import Event
from sysrift_gdb import arrivals, session


def current_event() -> Event | None:
    """The event that has not happened yet; None behind the last one.

    A `sysrift.trace.model.Event`: `number`, `nr`, `args`, `result`, `time_us`, ... Raises
    gdb.GdbError without a replay.
    """
    replay = session.active()
    if replay.engine.next > replay.trace.event_count:
        return None
    return replay.trace.event(replay.engine.next)


def events(first: int = 1, last: int | None = None) -> Iterator[Event]:
    """Events `first` to `last` (included; None: all) of the replayed process.

    Raises gdb.GdbError without a replay, or when the trace is damaged.
    """
    trace = session.active().trace
    try:
        yield from trace.events(first, last)
    except SysRiftError as error:
        raise gdb.GdbError(f"SysRift: {error}") from None


def goto(number: int) -> None:
    """Go to an event, as `sysrift-goto` does (0: the start; one more than there are: the end).

    `sysrift-back` goes back from there. Raises gdb.GdbError when there is no such event, without a
    replay, or when replaying fails.
    """
    replay = session.active()
    if not 0 <= number <= replay.trace.event_count + 1:
        raise gdb.GdbError(f"SysRift: there is no event {number}")
    try:
        here = replay.place()
        replay.return_to(Place(number))
    except (SysRiftError, session.RemoteSyscallError, OSError) as error:
        raise gdb.GdbError(f"SysRift: {error}") from None
    replay.history.note(here)
    arrivals.tell()
