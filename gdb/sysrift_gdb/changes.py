# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user writes to memory and registers of a replayed program (`set var x = 5`).

GDB tells of it when it is done. So before each command that could do such a thing the process is
kept, once for each stop: to put it back if the user says that it was not meant, by
`sysrift-restore`, or when something is asked for that needs the recording's own state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import gdb
from sysrift.errors import ReplayError
from sysrift.replay.place import Place, is_at_event
from sysrift.replay.saved import Saved, TooLarge
from sysrift_gdb import console

if TYPE_CHECKING:
    from sysrift_gdb.session import Replay

_MOST = 64 << 20
"""Bytes of memory that are read for this; some 20 ms. Beyond that only events lead back."""

_MEANS = (
    "it may do something else than recorded, until sysrift-restore, sysrift-goto or a reverse "
    "command leads back"
)


class Changes:
    """The user's changes to one replay, since it was last as recorded."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._tracee = replay.tracee
        self._now: tuple[int, Saved] | None = None  # of this stop: the next event, and the process
        self._original: Saved | None = None  # from before the first change
        self._moved = False  # the program went on since then
        self._place: Place | None = None  # where that was
        self._ignored = False

    @contextlib.contextmanager
    def none(self) -> Iterator[None]:
        """What GDB writes within it, a command of SysRift's own told it to: nothing changes."""
        self._ignored = True
        try:
            yield
        finally:
            self._ignored = False

    def before_command(self) -> None:
        """A command that may change the program is about to be executed."""
        replay = self._replay
        if replay.is_changed or replay.user_call:
            return
        if self._now is not None:
            event, saved = self._now
            if event == self._engine.next and saved.is_before(self._tracee.registers()):
                return
        self._now = None
        try:
            saved = Saved(self._tracee, self._engine.brk, _MOST)
            self._now = self._engine.next, saved
        except TooLarge:
            pass

    def on_change(self, address: int = 0, length: int = 0) -> None:
        """The user has written to `length` bytes of memory, or to a register (0)."""
        replay = self._replay
        if self._ignored:
            return
        if replay.user_call:
            if length and not replay.diversions.puts_back(address, length):
                replay.is_changed = True  # it stays when the function is over
                self._original = None
            return
        if replay.is_changed:
            if self._original is not None and length:
                self._original = self._original if self._original.covers(address, length) else None
            return
        original = self._now[1] if self._now is not None else None
        if original is not None and length and not original.covers(address, length):
            original = None  # code, for instance
        if not _is_meant():
            if original is not None:
                original.put_back()
                console.forget_caches()
                console.say("nothing was changed")
                return
            console.say("it is done already, and was not kept as it was: sysrift-goto leads back")
        elif not _can_ask():
            console.say(f"the program is changed from here on: {_MEANS}")
        replay.is_changed = True
        self._original, self._moved, self._place = original, False, None

    def on_resume(self) -> None:
        """The program is about to go on, and GDB looks at nothing before it does."""
        self._now = None
        if self._replay.is_changed and not self._moved:
            self._note_place()

    def _note_place(self) -> None:
        """The changed program leaves the place of the change, which is to be found again."""
        self._moved = True
        original = self._original
        if self._replay.kept is not None:
            self._place = Place(self._engine.next)
        elif original is not None:
            changed = Saved(self._tracee, self._engine.brk)
            original.put_back()
            self._place = Place.of(self._engine)
            changed.put_back()
        elif is_at_event(self._engine):
            self._place = Place(self._engine.next)

    def forget(self) -> None:
        """The program is as recorded again, somewhere."""
        self._now = self._original = self._place = None
        self._moved = False

    @property
    def place(self) -> Place:
        """Where the first change was, or else the event that comes next."""
        return self._place or Place(self._engine.next)

    def take_back_at_once(self) -> None:
        """Take the changes back if the program has not gone on since."""
        if self._replay.is_changed and not self._moved and self._original is not None:
            self._original.put_back()
            self._replay.as_recorded()
            console.forget_caches()
            gdb.invalidate_cached_frames()

    def take_back(self) -> None:
        """Let the program be what it was before the first change. Raises ReplayError."""
        self.take_back_at_once()
        if not self._replay.is_changed:
            return
        if not self._moved:
            self._note_place()
        if self._place is None:
            raise ReplayError(
                "you changed the program, and where that was is not known: sysrift-goto "
                f"{self._engine.next}, or another place, leads back to the recording"
            )
        self._replay.return_to(self._place)
        console.say("back to where you changed the program, as it was before")


def _can_ask() -> bool:
    """Whether a question can be put to the user."""
    return bool(gdb.parameter("confirm")) and os.isatty(0) and not console.is_machine_interface()


def _is_meant() -> bool:
    """Ask the user, if there is one to ask, whether the program is to be changed."""
    if not _can_ask():
        return True
    while True:
        gdb.write(f"SysRift: this changes the program: {_MEANS}. Change it? (y or n) ")
        gdb.flush()
        answer = os.read(0, 4096).decode("utf-8", "replace").strip().lower()
        if answer[:1] in ("y", "n"):
            return answer[0] == "y"
        if not answer:
            return False  # end of file, or nothing


__all__ = ["Changes"]
