# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift ls`: the traces that are there."""

from __future__ import annotations

import argparse
from pathlib import Path

from sysrift.errors import TraceError
from sysrift.trace import store


class LsCommand:
    """List the traces in the store directory, the newest last.

    That is $SYSRIFT_TRACE_DIR, else $XDG_DATA_HOME/sysrift, else ~/.local/share/sysrift. A star
    marks the latest trace, which the other commands use when none is named; it is listed also when
    it lies elsewhere.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments: none."""

    def run(self, args: argparse.Namespace) -> int:
        """Print the table."""
        from rich.text import Text

        from sysrift.cli.tables import show, table

        latest = store.latest_path()
        paths = store.list_traces()
        if latest is not None and latest not in paths and latest.exists():
            paths.append(latest)
        if not paths:
            print(f"no traces in {store.store_directory()}: record one with sysrift-record")
            return 0
        listing = table("", "name", "program", "when", "events", "size", "how it ended")
        listing.columns[4].justify = listing.columns[5].justify = "right"
        for path in paths:
            mark = "*" if path == latest else ""
            listing.add_row(mark, Text(_name(path)), *map(Text, _facts(path)))
        show(listing)
        return 0


def _name(path: Path) -> str:
    """The name by which the other commands find the trace."""
    from sysrift.views.text import printable

    return printable(path.stem if path.parent == store.store_directory() else str(path))


def _facts(path: Path) -> tuple[str, ...]:
    """Program, date, events, size and end of a trace; what is wrong with it in place of the end."""
    from sysrift.trace.reader import Trace
    from sysrift.views.summary import size_text, summarize

    try:
        with Trace(path) as trace:
            facts = summarize(trace, last=0)
    except TraceError as error:
        try:
            size = size_text(path.stat().st_size)
        except OSError:
            size = ""
        return "", "", "", size, f"unreadable: {error}"
    when = facts.started.astimezone().strftime("%Y-%m-%d %H:%M:%S") if facts.started else ""
    return facts.program, when, str(facts.all_events), size_text(facts.size), facts.ended
