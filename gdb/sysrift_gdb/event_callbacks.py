# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts that want to be told of events as the replay comes to them (`sysrift_gdb.on_event`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sysrift.trace.model import Event, EventFlag
from sysrift.views.filters import EventFilter
from sysrift_gdb import console

if TYPE_CHECKING:
    from sysrift_gdb.session import Replay

_AHEAD = 20_000
"""How many events are searched for the next one that somebody wants; then GDB has its turn."""

Callback = Callable[[Event], object]


class Connection:
    """A callback that is called for events; `disconnect` ends that."""

    def __init__(self, callback: Callback, chosen: EventFilter) -> None:
        self.callback = callback
        self.chosen = chosen
        _connections.append(self)

    def disconnect(self) -> None:
        """Never call it again."""
        if self in _connections:
            _connections.remove(self)

    def __repr__(self) -> str:
        """For people."""
        state = "connected" if self in _connections else "disconnected"
        return f"<sysrift_gdb.Connection of {self.callback!r}, {state}>"


_connections: list[Connection] = []

is_calling = False
"""Whether a callback is being called: it may look at the program, but not move it."""


class Told:
    """Which events of a replay have been told of."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._last = 0
        # Of these connections none wants an event from one number on up to another.
        self._ahead: tuple[list[Connection], int, int] | None = None

    def begin_here(self) -> None:
        """The replay has gone elsewhere: what comes next is told of, again if need be."""
        self._last = self._replay.engine.next - 1

    def tell(self) -> bool:
        """The program stands at the next event, or right behind one that came in one with others.

        Tells of all up to it that have not been. Returns whether a callback wants GDB to stop.
        """
        engine, trace = self._replay.engine, self._replay.trace
        last = min(engine.next, trace.event_count)
        stops = False
        while _connections and self._last < last:
            event = trace.event(self._last + 1)
            self._last += 1
            for connection in tuple(_connections):
                if connection.chosen.includes(event):
                    stops |= _call(connection, event)
        self._last = max(self._last, last)
        return stops

    @property
    def stop_at(self) -> int | None:
        """Where a run-ahead has to end, so that the next wanted event is told of when it comes."""
        if not _connections:
            return None
        first = self._replay.engine.next
        known = self._ahead
        if known is None or known[0] != _connections or not known[1] <= first < known[2]:
            self._ahead = known = list(_connections), first, self._search(first)
        return known[2]

    def _search(self, first: int) -> int:
        last = min(first + _AHEAD, self._replay.trace.event_count)
        for event in self._replay.trace.events(first, last):
            if any(connection.chosen.includes(event) for connection in _connections):
                # GDB cannot be at the place of one in the midst of a computation before it happens.
                return event.number + bool(event.flags & EventFlag.IN_CODE)
        return last + 1


def _call(connection: Connection, event: Event) -> bool:
    global is_calling
    outer, is_calling = is_calling, True
    try:
        return bool(connection.callback(event))
    except Exception as error:
        name = getattr(connection.callback, "__name__", connection.callback)
        console.say(f"on_event: {name} at event {event.number}: {type(error).__name__}: {error}")
        return False
    finally:
        is_calling = outer


__all__ = ["Callback", "Connection", "Told"]
