# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-last-write`."""

from __future__ import annotations

import gdb
from sysrift.errors import UsageError
from sysrift.replay.steps import Watched
from sysrift.views.lexer import highlight
from sysrift.views.text import event_line
from sysrift_gdb import console, session
from sysrift_gdb.backwards import Backwards, Moment, Seek, look_back
from sysrift_gdb.commands import ReplayCommand, show_position

_LARGEST = 4096  # bytes that are looked at


class LastWrite(ReplayCommand):
    """Go back to what changed a variable last: sysrift-last-write EXPRESSION

    The program stands right before the instruction that changed the memory of EXPRESSION, or before
    the system call whose result did. All since the recording began is looked through for that, the
    newest first: Ctrl-C ends a search that takes too long. sysrift-back goes back to where you
    were.
    sysrift-who is the same."""

    name = "sysrift-last-write"

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by GDB: the expression is not to be cut into words."""
        self._expression = argument.strip()
        super().invoke("", from_tty)

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go there."""
        replay = session.active()
        watched = _memory_of(self._expression)
        here = replay.place()
        changed_by: list[int] = []

        def choose(back: Backwards) -> Moment | None:
            newer: Moment | None = None
            for moment in back.moments(Seek(changes=True)):
                if newer is not None and moment.step.watched != newer.step.watched:
                    if moment.event != newer.event:
                        changed_by.append(newer.event)
                    return moment
                newer = moment
            return None

        if not look_back(replay, choose, watched):
            console.say(f"{self._expression} was not changed since the recording began")
            return
        replay.history.note(here)
        if changed_by:
            console.say(f"{self._expression} was changed by event {changed_by[0]}:")
            event = replay.trace.event(changed_by[0])
            console.emit(highlight(event_line(event, replay.trace), console.styled()))
        else:
            console.say(f"{self._expression} is about to be changed here:")
        show_position()
        gdb.execute("backtrace")


class Who(LastWrite):
    """Go back to what changed a variable last: sysrift-who EXPRESSION (see sysrift-last-write)"""

    name = "sysrift-who"


def _memory_of(expression: str) -> Watched:
    if not expression:
        raise UsageError("sysrift-last-write takes an expression that lies in memory")
    try:
        value = gdb.parse_and_eval(expression)
        address, size = value.address, value.type.sizeof
    except gdb.error as error:
        raise UsageError(str(error)) from None
    if address is None:
        raise UsageError(f"{expression} does not lie in memory (a register, or a computed value)")
    if not 0 < size <= _LARGEST:
        raise UsageError(f"{expression} has {size} bytes: at most {_LARGEST} can be looked at")
    start = int(address)
    try:
        gdb.selected_inferior().read_memory(start, size)
    except gdb.error:
        raise UsageError(f"there is no memory at {start:#x}, where {expression} lies") from None
    return Watched(start, size)


def register() -> None:
    """Make the commands known to GDB."""
    LastWrite(gdb.COMPLETE_EXPRESSION)
    Who(gdb.COMPLETE_EXPRESSION)
