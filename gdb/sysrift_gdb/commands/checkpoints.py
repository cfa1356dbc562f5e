# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-checkpoints`: where going back need not start from the beginning."""

from __future__ import annotations

from sysrift_gdb import console, session
from sysrift_gdb.commands import ReplayCommand


class ListCheckpoints(ReplayCommand):
    """List the checkpoints taken so far, by event: sysrift-checkpoints"""

    name = "sysrift-checkpoints"

    def run(self, words: list[str], from_tty: bool) -> None:
        """List them."""
        checkpoints = session.active().checkpoints
        events = checkpoints.events
        if not events:
            console.say("no checkpoints: sysrift-goto takes them on its way")
            return
        size = checkpoints.size / (1 << 20)
        console.say(f"{len(events)} checkpoints, {size:.1f} MiB, before events")
        for number, event in enumerate(events, 1):
            console.emit(f"{number:5} {event:10}")


def register() -> None:
    """Make the command known to GDB."""
    ListCheckpoints()
