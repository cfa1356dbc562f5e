# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-events`."""

from __future__ import annotations

import argparse

from sysrift.errors import UsageError
from sysrift.views.filters import EventFilter, parse_names, parse_range
from sysrift.views.lexer import highlight
from sysrift_gdb import arguments, console, session
from sysrift_gdb.commands import ReplayCommand
from sysrift_gdb.event_rows import bookmarks_by_event, end_row, event_rows

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
        bookmarks = bookmarks_by_event(trace)
        for event in chosen.select(trace):
            for row in event_rows(trace, event, here, bookmarks):
                console.emit(row.mark + highlight(row.line, styled))
        if chosen.reaches_end(trace) and not options.failed and not options.name:
            row = end_row(trace, here)
            console.emit(row.mark + highlight(row.line, styled))


def register() -> None:
    """Make the command known to GDB."""
    Events()
