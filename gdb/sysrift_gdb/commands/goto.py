# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-goto`."""

from __future__ import annotations

import gdb
from sysrift.errors import UsageError
from sysrift_gdb import session
from sysrift_gdb.commands import ReplayCommand, show_position


class Goto(ReplayCommand):
    """Go to an event of the recording: sysrift-goto N|+N|-N|start|end

    Event N is about to happen afterwards: the program stands on its system call instruction. No
    breakpoint is stopped at on the way. `end` is where the recording ends."""

    name = "sysrift-goto"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go there."""
        replay = session.active()
        if len(words) != 1:
            raise UsageError("sysrift-goto takes one place: an event number, start or end")
        replay.goto(self._target(words[0], replay))
        show_position()

    @staticmethod
    def _target(word: str, replay: session.Replay) -> int:
        count = replay.trace.event_count
        if word == "start":
            return 0
        if word == "end":
            return count + 1
        try:
            number = int(gdb.parse_and_eval(word)) if word.startswith("$") else int(word)
        except (ValueError, gdb.error):
            raise UsageError(f"'{word}' is no event: give a number, start or end") from None
        if word[0] in "+-":
            number += replay.engine.next
        if not 0 <= number <= count + 1:
            raise UsageError(f"there is no event {number}: this trace has events 1 to {count}")
        return number


def register() -> None:
    """Make the command known to GDB."""
    Goto()
