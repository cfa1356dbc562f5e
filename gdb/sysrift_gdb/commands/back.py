# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-back`."""

from __future__ import annotations

from sysrift.errors import UsageError
from sysrift_gdb import session
from sysrift_gdb.commands import ReplayCommand, show_position


class Back(ReplayCommand):
    """Go back to where you came from: sysrift-back [N]

    Undoes the last (or the last N) sysrift-goto. A place in the midst between two events is found
    again by comparing all registers and memory; if it is not, a line says so."""

    name = "sysrift-back"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go there."""
        replay = session.active()
        if len(words) > 1 or (words and not words[0].isdigit()):
            raise UsageError("sysrift-back takes the number of steps, or nothing")
        steps = int(words[0]) if words else 1
        place = replay.history.look_back(steps)
        replay.return_to(place)
        replay.history.forget(steps)
        show_position()


def register() -> None:
    """Make the command known to GDB."""
    Back()
