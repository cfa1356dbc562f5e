# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-ps`."""

from __future__ import annotations

from sysrift.views.processes import process_facts
from sysrift.views.summary import how_it_ended
from sysrift_gdb import console, session
from sysrift_gdb.commands import ReplayCommand


class Ps(ReplayCommand):
    """List the processes of the recording: sysrift-ps

    The one that is being replayed is marked. `sysrift-replay --process PID` opens another."""

    name = "sysrift-ps"

    def run(self, words: list[str], from_tty: bool) -> None:
        """List them."""
        trace = session.active().trace
        for fact in process_facts(trace):
            mark = "=>" if fact.process.id == trace.process.id else "  "
            command = "  " * fact.depth + fact.command
            console.emit(
                f"{mark} {fact.process.pid:>7} {fact.events:>8} events, {how_it_ended(fact.end)}: "
                f"{command}"
            )


def register() -> None:
    """Make the command known to GDB."""
    Ps()
