# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-when`."""

from __future__ import annotations

from sysrift.views.lexer import highlight
from sysrift.views.text import event_line
from sysrift_gdb import console, session
from sysrift_gdb.commands import ReplayCommand


class When(ReplayCommand):
    """Say where in the recording the program is: sysrift-when"""

    name = "sysrift-when"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Say it."""
        replay = session.active()
        if replay.user_call:
            console.say("in a function called from GDB; without it the program is")
        elif replay.is_changed:
            console.say("you have changed the program (sysrift-restore takes it back); it is")
        number, count = replay.engine.next, replay.trace.event_count
        if number > count:
            console.say(f"after the last of {count} events: {replay.ending()}")
            return
        event = replay.trace.event(number)
        console.say(f"before event {number} of {count}, {event.time_us / 1e6:.6f} s:")
        console.emit(highlight(event_line(event, replay.trace), console.styled()))


def register() -> None:
    """Make the command known to GDB."""
    When()
