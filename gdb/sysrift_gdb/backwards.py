# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back in a replay: the instructions before now, newest first, and a way to any of them.

Within the stretch since the last event instructions are stepped through again, and their order is
looked at; what lies before that event is stepped through only when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.engine import Reason
from sysrift.replay.place import Place, is_at_event, play_one
from sysrift.replay.steps import (
    Interrupted,
    Step,
    TooFar,
    Watched,
    nesting,
    step,
    walk,
)
from sysrift.syscalls import NAMES
from sysrift.trace.model import EventKind
from sysrift_gdb.interrupts import is_interrupted
from sysrift_gdb.session import Replay

_INT3 = b"\xcc"
_MOST_HITS = 10_000
_MAPS = {
    NAMES[name]
    for name in ("mmap", "munmap", "mremap", "mprotect", "shmat", "shmdt", "remap_file_pages")
}
_CHUNK = 20_000  # events between two looks at whether the user has had enough


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

    # -- breakpoints ----------------------------------------------------------------------------

    def hits(self, addresses: Collection[int]) -> Iterator[Moment]:
        """Where instructions at these addresses were about to be executed, the newest first."""
        last = self.here.event - 1
        first = self._behind(last)
        passed = walk(self._engine, self.here, is_interrupted)
        for index in reversed(range(len(passed) - 1)):
            if passed[index].ip in addresses:
                yield Moment(first, index, passed[index], 0)
        if self._is_beginning(first):
            return
        for event, count in reversed(self._hits_before(first, addresses)):
            begun = self._behind(event - 1)
            passed = walk(self._engine, None, is_interrupted)
            found = [i for i, each in enumerate(passed) if each.ip in addresses]
            if count > len(found):
                raise ReplayError("the program does not come to that breakpoint again")
            index = found[count - 1]
            yield Moment(begun, index, passed[index], 0)

    def _hits_before(self, last: int, addresses: Collection[int]) -> deque[tuple[int, int]]:
        """(next event, how many-th hit before it) of all hits before event `last` happens."""
        replay, engine, tracee = self._replay, self._engine, self._engine.tracee
        found: deque[tuple[int, int]] = deque(maxlen=_MOST_HITS)
        self._behind(max(replay.trace.beginning, replay.trace.image_before(last)))
        originals: dict[int, bytes] = {}

        def put(code: Callable[[int], bytes]) -> None:
            for address in originals:
                tracee.write(address, code(address))

        while engine.next <= last:
            # Libraries come and go; so do breakpoints in them.
            codes = {address: tracee.read_some(address, 1) for address in addresses}
            originals = {address: code for address, code in codes.items() if code}
            put(lambda _address: _INT3)
            try:
                halt = engine.advance(
                    stop_at=min(last, engine.next + _CHUNK),
                    wanted=lambda event: event.kind == EventKind.SYSCALL and event.nr in _MAPS,
                    wanted_calls=frozenset(),
                )
                registers = tracee.registers()
            finally:
                put(originals.__getitem__)
            if halt.reason is Reason.WANTED and engine.next < last:
                play_one(engine)
                continue
            if halt.reason is Reason.TRAP and registers.rip - 1 in originals:
                registers.rip -= 1
                tracee.set_registers(registers)
                same = found and found[-1][0] == engine.next
                found.append((engine.next, found[-1][1] + 1 if same else 1))
                if not is_at_event(engine):
                    step(engine, 1)
                elif engine.next < last:
                    play_one(engine)
                else:
                    break
            elif halt.reason not in (Reason.REACHED, Reason.WANTED):
                raise ReplayError("the program ran into a breakpoint of its own (int3)")
            elif engine.next >= last:
                break
            if is_interrupted():
                raise Interrupted
        return found


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
