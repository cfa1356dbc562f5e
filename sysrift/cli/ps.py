# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift ps`: the processes of a trace."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sysrift.cli.trace_argument import add_trace_argument, open_trace

if TYPE_CHECKING:
    from sysrift.views.processes import ProcessFacts

_CRASHED = "bold red"


class PsCommand:
    """List the processes of a trace.

    Each is shown below the one that made it: its process id and its parent's, how it began
    (started, fork, vfork, clone, with +exec when it executed a program then), its events, how it
    ended, and what it executed (in parentheses: what its parent did). `sysrift-replay --process`
    opens any of them.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_trace_argument(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON array")

    def run(self, args: argparse.Namespace) -> int:
        """Print the table."""
        from sysrift.views.processes import process_facts

        with open_trace(args) as trace:
            facts = process_facts(trace)
            pids = {process.id: process.pid for process in trace.processes.values()}
        if args.json:
            print(json.dumps([_json(fact, pids) for fact in facts], indent=2))
        else:
            _show(facts, pids)
        return 0


def _show(facts: list[ProcessFacts], pids: dict[int, int]) -> None:
    from rich.text import Text

    from sysrift.cli.tables import show, table
    from sysrift.views.summary import how_it_ended

    listing = table("pid", "parent", "began", "events", "how it ended", "command")
    listing.columns[5].no_wrap, listing.columns[5].overflow = True, "ellipsis"
    for column in (0, 1, 3):
        listing.columns[column].justify = "right"
    for fact in facts:
        process = fact.process
        style = _CRASHED if fact.crashed else ""
        listing.add_row(
            Text(str(process.pid), style=style),
            Text(str(pids[process.parent]) if process.parent else ""),
            Text(fact.began),
            Text(str(fact.events)),
            Text(how_it_ended(fact.end), style=style),
            Text("  " * fact.depth + fact.command),
        )
    show(listing)


def _json(fact: ProcessFacts, pids: dict[int, int]) -> dict[str, Any]:
    process = fact.process
    return {
        "id": process.id,
        "pid": process.pid,
        "parent": pids.get(process.parent),
        "parent_event": process.parent_event or None,
        "began": fact.began,
        "time_us": process.time_us,
        "command": fact.command,
        "events": fact.events,
        "first_event": process.first_event,
        "end": None if fact.end is None else fact.end.to_json(),
    }
