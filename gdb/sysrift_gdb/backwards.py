# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back in a replay: the instructions before now, newest first, and a way to any of them.

Within the stretch since the last event instructions are stepped through again, and their order is
looked at; of a long one, the last of them. What lies before that event is stepped through only when
it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.place import Place, is_at_event
from sysrift.replay.steps import (
    Interrupted,
    Step,
    TooFar,
    Watched,
    nesting,
    step,
    walk,
)
from sysrift.replay.stretch import Contents, Landed, Stretch, contents
from sysrift_gdb.interrupts import is_interrupted
from sysrift_gdb.session import Replay

_FEW = 2000
"""Instructions between two events that are stepped through without more ado: 20 ms."""
_WINDOW, _LARGEST_WINDOW = 256, 1 << 16
"""Instructions of a longer way that are stepped through at once, the last ones first."""
_CALLS_WITHIN = 4096  # instructions, after the start of a block, in which a call may come


class Moment(NamedTuple):
    """Which instruction behind event `event` is next: so many steps after `base` instructions; so
    much deeper in calls than now."""

    event: int
    base: int
    offset: int
    step: Step
    depth: int

    @property
    def position(self) -> int:
        """How many instructions behind the event that is."""
        return self.base + self.step.done


class Skipped(NamedTuple):
    """On from which position to look further back; whether that is out of calls made meanwhile."""

    position: int
    out_of_calls: bool


class Seek(NamedTuple):
    """Which of the moments before now matter; the others need not be told one by one.

    Those that are not in functions called meanwhile; those where the stack pointer is not below
    `above`; those where the watched memory is about to change.
    """

    over_calls: bool = False
    above: int = 0
    changes: bool = False


_ALL = Seek()


class Backwards:
    """One look back from where the replay stands; to be used within `Replay.travel`."""

    def __init__(self, replay: Replay, watched: Watched | None = None) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._watched = watched or Watched()
        self.here: Place = Place.exactly(self._engine)
        # Where a call was entered and taken back, the registers that `syscall` overwrites are not
        # what they are before it: the event's number tells the place.
        self._at_event = is_at_event(self._engine)
        self._known: Contents = {}
        self._nexts: dict[int, int] = {}  # the events after those behind which one has gone
        self._stretches: dict[int, int] = {}  # position of the end of those that are long
        landed = replay.landed
        if landed is not None and landed.place == self.here:
            self._stretches[self.here.event] = landed.position
        else:
            self._known = contents(self._engine)

    def moments(self, seek: Seek = _ALL) -> Iterator[Moment]:
        """The moments before now, and now, the newest first. Raises TooFar, Interrupted."""
        depth = 0
        newer: Step | None = None
        level = 0  # the stack pointer when we were not in a call last
        last = self.here.event - 1
        place = None if self._at_event else self.here
        while True:
            first = self._behind(last)
            size, base = _WINDOW, 0
            passed, end = self._passed(first, last + 1, place)
            told: int | None = None  # the position down to which all is told
            while True:
                if end is not None:
                    skipped = told is not None and self._skip(first, seek, end, depth, level)
                    if skipped:
                        end, told = skipped.position, None
                        if skipped.out_of_calls:
                            depth, newer = -1 if seek.above else 0, None
                    start = max(end - size, 0)
                    size = min(size * 4, _LARGEST_WINDOW)
                    base, passed = self._stretch(first).walk(start, end, self._watched)
                    if told == end:
                        passed.pop()
                    told = end = base
                for index in reversed(range(len(passed))):
                    at = passed[index]
                    if newer is not None:
                        depth -= nesting(at, newer)
                    if depth <= 0:
                        level = at.sp
                    yield Moment(first, base, index, at, depth)
                    newer = at
                if not end:
                    break
            if self._is_beginning(first):
                return
            last, place = first - 1, None

    def _passed(self, first: int, event: int, place: Place | None) -> tuple[list[Step], int | None]:
        """All from behind event `first`, where the tracee stands, to `place`, or to the next event,
        which is `event`; or, of a long way, the position of its end instead."""
        if event not in self._stretches:
            try:
                return walk(self._engine, place, is_interrupted, self._watched, most=_FEW), None
            except TooFar:
                pass
            try:
                stretch = self._stretch(first)
                self._stretches[event] = (
                    stretch.end() if place is None else stretch.find(place, self._known)
                )
            except TooFar:
                # What cannot be counted can still be stepped through, if it is not too much.
                self._behind(first)
                return walk(self._engine, place, is_interrupted, self._watched), None
        return [], self._stretches[event]

    def _stretch(self, first: int) -> Stretch:
        """What follows event `first`, behind which one can go, or has gone."""
        event = self._nexts[first]
        return Stretch(
            self._engine, event, lambda: self._behind(first), is_interrupted,
            self._replay.checkpoints,
        )  # fmt: skip

    def _skip(self, first: int, seek: Seek, end: int, depth: int, level: int) -> Skipped | None:
        """Where to look further back from, in a long stretch that was looked at down to `end`."""
        stretch = self._stretch(first)
        if seek.changes:
            changed = stretch.last_change(self._watched, end)
            return Skipped(0 if changed is None else changed, False)
        above = seek.above or (level if seek.over_calls and depth > 0 else 0)
        if not above:
            return None
        block = stretch.last_above(above, end)
        if block is None:
            return Skipped(0, False)
        base, passed = stretch.walk(block, min(block + _CALLS_WITHIN, end), self._watched)
        last = max((each.done for each in passed if each.sp >= above), default=0)
        return Skipped(base + last, True)

    def _is_beginning(self, event: int) -> bool:
        """Whether the program began with that event: there is nothing of it before."""
        trace = self._replay.trace
        return event <= trace.beginning or trace.has_image(event)

    def _behind(self, last: int) -> int:
        """Go behind event `last`; returns the number of the event that was played for that."""
        if self._replay.go_behind(last):
            raise Interrupted
        self._nexts[self._replay.behind] = self._engine.next
        return self._replay.behind

    def go_to(self, moment: Moment) -> None:
        """Go there. Raises Interrupted, ReplayError."""
        if moment.base:
            self._stretch(moment.event).go_to(moment.base)
        else:
            self._behind(moment.event)
        step(self._engine, moment.offset)
        if moment.position > _FEW:
            place = Place.exactly(self._engine)
            self._replay.landed = Landed(moment.position, place)

    def last_pass(self, addresses: Collection[int]) -> Moment | None:
        """Where, since the event before now, one of these instructions was executed last, if that
        is a long way; None otherwise, and when none was. The tracee stands anywhere then."""
        first = self._behind(self.here.event - 1)
        _, end = self._passed(first, self.here.event, None if self._at_event else self.here)
        if end is None:
            return None
        stretch = self._stretch(first)
        position = stretch.last_pass(addresses, end)
        if position is None:
            return None
        base, passed = stretch.walk(position, position, self._watched)
        return Moment(first, base, len(passed) - 1, passed[-1], 0)

    def stay(self) -> None:
        """Go back to where the look began."""
        place = Place(self.here.event) if self._at_event else self.here
        self._replay.go_to_place(place, lambda: False)


def look_back(
    replay: Replay,
    choose: Callable[[Backwards], Moment | None],
    watched: Watched | None = None,
) -> bool:
    """Let the replay go to the moment that `choose` takes; returns False when it takes none, and
    the replay stands where it stood. Raises SysRiftError when going back is not possible."""
    replay.restore()
    outcome: list[bool | ReplayError] = []

    def go() -> bool:
        back = Backwards(replay, watched)
        try:
            moment = choose(back)
            if moment is not None:
                back.go_to(moment)
            else:
                back.stay()
            outcome.append(moment is not None)
        except Interrupted:
            back.stay()
            return True
        except TooFar as error:
            back.stay()
            outcome.append(error)
        return False

    replay.travel(go)
    if outcome and isinstance(outcome[0], ReplayError):
        raise outcome[0]
    return not outcome or outcome[0] is True


__all__ = ["Backwards", "Moment", "look_back"]
