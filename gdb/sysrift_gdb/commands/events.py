# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-events`."""

from __future__ import annotations

import argparse
from typing import Any

from sysrift.errors import SysRiftError, UsageError
from sysrift.trace.reader import Trace
from sysrift.views.bookmarks import Bookmarks
from sysrift.views.filters import EventFilter, parse_names, parse_range
from sysrift.views.lexer import highlight
from sysrift.views.text import end_line, event_line
from sysrift_gdb import arguments, console, session
from sysrift_gdb.commands import ReplayCommand

_AROUND = 10


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser("sysrift-events")
    parser.add_argument("range", nargs="?")
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--name")
    return parser


class Events(ReplayCommand):
    """List events of the recording: sysrift-events [A-B] [--failed] [--name openat,read,...]

    Without a range, those around the current one (marked =>); with --failed or --name, all of that
    kind. A-, -B and A-end are ranges too."""

    name = "sysrift-events"

    def run(self, words: list[str], from_tty: bool) -> None:
        """List them."""
        replay = session.active()
        trace, here = replay.trace, replay.engine.next
        options = _parser().parse_args(words)
        first, last = trace.process.first_event, None
        if options.range:
            first, last = parse_range(options.range)
            if first > trace.event_count:
                raise UsageError(f"this trace has events 1 to {trace.event_count}")
        elif not options.failed and not options.name:
            first, last = max(1, here - _AROUND), here + _AROUND
        names = parse_names(options.name) if options.name else None
        chosen = EventFilter(first, last, options.failed, names)
        styled = console.styled()
        marks: dict[int, list[str]] = {}
        for name, place in _bookmarks(trace).items():
            marks.setdefault(place["event"], []).append(name)
        for event in chosen.select(trace):
            mark = "=> " if event.number == here else "   "
            console.emit(mark + highlight(event_line(event, trace), styled))
            if event.number in marks:
                console.emit(f"{'':25}^ bookmark {', '.join(marks[event.number])}")
        if chosen.reaches_end(trace) and not options.failed and not options.name:
            mark = "=> " if here > trace.event_count else "   "
            console.emit(mark + highlight(end_line(trace), styled))


def _bookmarks(trace: Trace) -> dict[str, dict[str, Any]]:
    """Those there are; a file of them that cannot be used is no reason to show no events."""
    try:
        return Bookmarks(trace).all()
    except SysRiftError as error:
        console.say(str(error))
        return {}


def register() -> None:
    """Make the command known to GDB."""
    Events()
