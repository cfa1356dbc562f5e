# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as `sysrift-events` and the window of `layout sysrift` list them: a mark, the line, and
the bookmarks there are."""

from __future__ import annotations

from typing import NamedTuple

from sysrift.errors import SysRiftError
from sysrift.trace.model import Event
from sysrift.trace.reader import Trace
from sysrift.views.bookmarks import Bookmarks
from sysrift.views.filters import is_failure
from sysrift.views.text import end_line, event_line
from sysrift_gdb import console

_MARKS = ("   ", "=> ")


class Row(NamedTuple):
    """One line. `line` is as `views.text` makes it; `event` the number that it belongs to, one more
    than there are for the end of the recording."""

    event: int
    mark: str
    line: str
    is_current: bool = False
    is_failed: bool = False


def event_rows(trace: Trace, event: Event, here: int, bookmarks: dict[int, list[str]]) -> list[Row]:
    """The rows of an event, when event `here` is next. Raises TraceError."""
    number = event.number
    current = number == here
    rows = [Row(number, _MARKS[current], event_line(event, trace), current, is_failure(event))]
    if number in bookmarks:
        rows.append(Row(number, _MARKS[0], f"{'':22}^ bookmark {', '.join(bookmarks[number])}"))
    return rows


def end_row(trace: Trace, here: int) -> Row:
    """How the recording ended, as the row behind the last event's."""
    number = trace.event_count + 1
    current = here >= number
    return Row(number, _MARKS[current], end_line(trace), current)


def bookmarks_by_event(trace: Trace, complain: bool = True) -> dict[int, list[str]]:
    """The names by the event that comes next there.

    A file of them that cannot be used is no reason to show no events: that is said, if anything.
    """
    marks: dict[int, list[str]] = {}
    try:
        for name, place in Bookmarks(trace).all().items():
            marks.setdefault(place["event"], []).append(name)
    except SysRiftError as error:
        if complain:
            console.say(str(error))
    return marks
