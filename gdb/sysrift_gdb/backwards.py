# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back in a replay: the instructions before now, newest first, and a way to any of them.

Within the stretch since the last event instructions are stepped through again, and their order is
looked at; what lies before that event is stepped through only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.place import Place
from sysrift.replay.steps import (
    Interrupted,
    Step,
    TooFar,
    Watched,
    nesting,
    step,
    walk,
)
from sysrift_gdb.interrupts import is_interrupted
from sysrift_gdb.session import Replay


class Moment(NamedTuple):
    """Which instruction behind event `event` is next; so much deeper in calls than now."""

    event: int
    offset: int
    step: Step
    depth: int


class Backwards:
    """One look back from where the replay stands; to be used within `Replay.travel`."""

    def __init__(self, replay: Replay, watched: Watched | None = None) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._watched = watched or Watched()
        self.here: Place = Place.exactly(self._engine)

    def moments(self) -> Iterator[Moment]:
        """All moments before now, and now, the newest first. Raises TooFar, Interrupted."""
        depth = 0
        newer: Step | None = None
        last, place = self.here.event - 1, self.here
        while True:
            first = self._behind(last)
            passed = walk(
                self._engine,
                place if newer is None else None,
                is_interrupted,
                self._watched,
            )
            for index in reversed(range(len(passed))):
                at = passed[index]
                if newer is not None:
                    depth -= nesting(at, newer)
                yield Moment(first, index, at, depth)
                newer = at
            if self._is_beginning(first):
                return
            last = first - 1

    def _is_beginning(self, event: int) -> bool:
        """Whether the program began with that event: there is nothing of it before."""
        trace = self._replay.trace
        return event <= trace.beginning or trace.has_image(event)

    def _behind(self, last: int) -> int:
        """Go behind event `last`; returns the number of the event that was played for that."""
        if self._replay.go_behind(last):
            raise Interrupted
        return self._replay.behind

    def go_to(self, moment: Moment) -> None:
        """Go there. Raises Interrupted, ReplayError."""
        self._behind(moment.event)
        step(self._engine, moment.offset)

    def stay(self) -> None:
        """Go back to where the look began."""
        if not self._replay.go_behind(self.here.event - 1):
            self.here.run_to(self._engine, lambda: False)


def look_back(
    replay: Replay,
    choose: Callable[[Backwards], Moment | None],
    watched: Watched | None = None,
) -> bool:
    """Let the replay go to the moment that `choose` takes; returns False when it takes none, and
    the replay stands where it stood. Raises SysRiftError when going back is not possible."""
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
