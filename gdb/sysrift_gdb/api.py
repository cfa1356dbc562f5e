# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python scripts in GDB may use of a replay: `sysrift_gdb.current_event()` and its like."""

from __future__ import annotations

from collections.abc import Iterator

import gdb
from sysrift.errors import SysRiftError
from sysrift.replay.place import Place
from sysrift.trace.model import Event
from sysrift.views.filters import EventFilter, parse_names
from sysrift_gdb import arrivals, event_callbacks, session
from sysrift_gdb.event_callbacks import Callback, Connection


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


def on_event(
    callback: Callback,
    *,
    names: str | None = None,
    failed: bool = False,
    first: int = 1,
    last: int | None = None,
) -> Connection:
    """Call `callback(event)` when the replay comes to an event, until `disconnect()` of what this
    returns. Several are called in the order in which they were connected.

    `names`: only these, as `sysrift-events --name` takes them; `failed`: only system calls that
    returned an error; `first` and `last`: only events with these numbers. It holds for all replays
    in this GDB, also for those still to begin.

    Each event is told of once, in order, while the program runs forwards: by `continue`, `next`,
    `finish` and their like. The program stands at it then (`current_event()` is it), and can be
    looked at: registers, memory, frames. Of signals that came at the end of a system call or in the
    midst of a computation, and of what happens in a signal handler while GDB steps over a line, it
    is told behind them, when the program comes to the next event. Going elsewhere
    (`sysrift-goto`, reverse-*, `goto`) tells of none; what comes after that is told of again.

    If the callback returns something true, GDB stops there. An exception is reported, and the
    replay goes on. It must not run, step or move the program.
    Raises gdb.GdbError for names that there are not.
    """
    try:
        chosen = None if names is None else parse_names(names)
    except SysRiftError as error:
        raise gdb.GdbError(f"SysRift: {error}") from None
    return Connection(callback, EventFilter(first, last, failed, chosen))


def goto(number: int) -> None:
    """Go to an event, as `sysrift-goto` does (0: the start; one more than there are: the end).

    `sysrift-back` goes back from there. Raises gdb.GdbError when there is no such event, without a
    replay, or when replaying fails.
    """
    replay = session.active()
    if event_callbacks.is_calling:
        raise gdb.GdbError("SysRift: a callback of on_event cannot go elsewhere")
    if not 0 <= number <= replay.trace.event_count + 1:
        raise gdb.GdbError(f"SysRift: there is no event {number}")
    try:
        here = replay.place()
        replay.return_to(Place(number))
    except (SysRiftError, session.RemoteSyscallError, OSError) as error:
        raise gdb.GdbError(f"SysRift: {error}") from None
    replay.history.note(here)
    arrivals.tell()
