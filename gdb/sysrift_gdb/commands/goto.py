# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-goto`."""

from __future__ import annotations

import gdb
from sysrift.errors import SysRiftError, UsageError
from sysrift.replay.place import Place
from sysrift.views.bookmarks import Bookmarks
from sysrift.views.positions import WORDS, event_at
from sysrift_gdb import session
from sysrift_gdb.commands import ReplayCommand, completed, show_position
from sysrift_gdb.commands.bookmark import bookmark_names


class Goto(ReplayCommand):
    """Go to an event of the recording: sysrift-goto N|+N|-N|start|end|next-failed|...

    Event N is about to happen afterwards: the program stands on its system call instruction. No
    breakpoint is stopped at on the way. `end` is where the recording ends. `next-failed` and
    `previous-failed` are system calls that returned an error; @12.5s is a time since the recording
    began, @-10ms one before its end; else it is a bookmark's name (see sysrift-bookmark).
    `sysrift-back` goes back to where you were."""

    name = "sysrift-goto"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go there."""
        replay = session.active()
        if len(words) != 1:
            raise UsageError("sysrift-goto takes one place: an event number, start or end")
        here = replay.place()
        target = self._target(words[0], replay, here)
        replay.return_to(target)
        replay.history.note(here)
        show_position()

    @staticmethod
    def _target(word: str, replay: session.Replay, here: Place) -> Place:
        if word.startswith("$"):
            try:
                word = str(int(gdb.parse_and_eval(word)))
            except (ValueError, TypeError, gdb.error):
                raise UsageError(f"'{word}' is no event: give a number, start or end") from None
        number = event_at(word, replay.trace, replay.engine.next, here.is_at_event)
        if number is not None:
            return Place(number)
        marks = Bookmarks(replay.trace).all()
        if word not in marks:
            raise UsageError(
                f"'{word}' is no event: give a number, a time, start or end, a bookmark"
            )
        try:
            place = Place.from_json(marks[word])
        except ValueError as error:
            raise SysRiftError(f"the bookmark {word} is damaged ({error})") from None
        if place.event > replay.trace.event_count + 1:
            raise SysRiftError(f"the bookmark {word} is beyond the last event")
        return place

    def complete(self, text: str, word: str) -> list[str]:
        """Called by GDB."""
        return completed(text, word, [*WORDS, *bookmark_names()])


def register() -> None:
    """Make the command known to GDB."""
    Goto(completion=None)
