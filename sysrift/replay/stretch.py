# SPDX-License-Identifier: GPL-2.0-or-later
"""The long way between two events: places in it are found, and gone to, by counting instructions.

Position 0 is right behind the event; a repeated string instruction counts as one. Between two
events nothing but the program's own code runs, so a position means the same moment every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from sysrift import image as images
from sysrift.errors import ReplayError
from sysrift.replay.checkpoints import Checkpoints
from sysrift.replay.counter import Counted, Counter
from sysrift.replay.engine import Engine
from sysrift.replay.place import Place, is_at_event
from sysrift.replay.steps import Interrupted, Step, TooFar, Watched, advance, walk
from sysrift.tracee import BadAddress, Registers


class Landed(NamedTuple):
    """A place between two events that was gone to, and how to know it again."""

    position: int
    place: Place


Contents = dict[int, bytes]
"""What is in writable memory, by address."""

_MOST_CONTENTS = 256 << 20
_WORDS_AT_ONCE = 8  # to compare beside, after a pass that was another one
_MOST_WORDS = 60
_LAST_STEPS = 100_000  # from the start of a block to what it raises
_FAR, _NEAR = 30_000_000, 1_000_000
"""A way of more instructions than that gets a checkpoint so far before its end: who goes back a
little goes back a little more next."""
_NEARBY = 100_000_000  # from a checkpoint on a place is looked for so far first
_ANYWHERE = 1 << 62
_RED_ZONE, _DEAD = 128, 64 << 10  # what is dead below the stack pointer: it may differ


def contents(engine: Engine) -> Contents:
    """All writable memory, to tell a place by; nothing where that is more than 256 MiB."""
    found: Contents = {}
    size = 0
    for at, length in images.checksum_spans(engine.tracee.pid):
        size += length
        if size > _MOST_CONTENTS:
            return {}
        found[at] = engine.tracee.read_some(at, length)
    return found


class Stretch:
    """What lies between the event that was played last and the next, which is number `event`.

    `behind` puts the tracee right behind the event before; `enough` says whether the user has had
    enough. All that runs raises Interrupted then, and TooFar where instructions cannot be counted.
    """

    def __init__(
        self,
        engine: Engine,
        event: int,
        behind: Callable[[], object],
        enough: Callable[[], bool],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._engine = engine
        self._event = event
        self._behind = behind
        self._enough = enough
        self._checkpoints = checkpoints

    def find(self, place: Place, known: Contents | None = None) -> int:
        """The position of a place; the tracee stands there afterwards.

        `known`, what memory contains there, helps where registers are the same at many passes.
        Raises ReplayError when the program does not come there.
        """
        starts = self._starts(None)
        most = starts[0] + _NEARBY if starts[0] else None
        position = self._find(place, known, starts[0], most)
        if position is None and starts[0]:
            position = self._find(place, known, 0, None)
        if position is None:
            raise ReplayError("the program does not come to that place again")
        return position

    def _find(
        self, place: Place, known: Contents | None, start: int, most: int | None
    ) -> int | None:
        registers = Registers.from_bytes(place.registers)
        words = list(place.words)
        with self._from(start) as counter:
            counter.look_for(registers, words)
            while True:
                why = self._run(counter, most)
                if why in (Counted.PLACE, Counted.SPECIAL) and place.is_here(
                    self._engine, counter.own
                ):
                    return counter.position
                if why is not Counted.PLACE:
                    return None
                if known and len(words) < _MOST_WORDS:
                    words += self._differing(known, counter.own, registers.rsp)
                    counter.look_for(registers, words)

    def end(self) -> int:
        """The position of the next event, at which the tracee stands afterwards."""
        engine = self._engine
        with self._from(self._starts(None)[0]) as counter:
            point = engine.point
            if point is not None:
                counter.look_for(point.registers, point.words)
            why = self._run(counter)
            while why is Counted.PLACE:
                assert point is not None
                if point.is_here(engine.tracee.registers()):
                    return counter.position
                why = self._run(counter)
            position = counter.position
        if why is Counted.SPECIAL:
            return position
        # An instruction of the block at whose start that is raises what the event tells of.
        rest = self.approach(position)
        position -= rest
        return position + walk(engine, None, self._enough, most=_LAST_STEPS)[-1].done

    def approach(self, position: int) -> int:
        """Let the tracee run from behind the event to a position at most that far; returns how many
        instructions are left to it, some dozens at most."""
        start = self._starts(position)[0]
        begun: Callable[[int], AbstractContextManager[Counter]] = self._from
        if self._checkpoints is not None and position - start > _FAR:
            with self._from(start) as counter:
                self._run_to(counter, position - _NEAR)
                start = counter.position
            self._checkpoints.take_within(start)
            begun = self._here
        with begun(start) as counter:
            self._run_to(counter, position)
            return position - counter.position

    def go_to(self, position: int) -> None:
        """Let the tracee run from behind the event to a position."""
        advance(self._engine, self.approach(position))

    def walk(self, start: int, end: int, watched: Watched) -> tuple[int, list[Step]]:
        """(base, all that is passed from there to `end`, that included); `base` <= `start`."""
        base = start - self.approach(start)
        return base, walk(self._engine, None, self._enough, watched, count=end - base)

    def last_above(self, pointer: int, before: int) -> int | None:
        """The start of the last block of instructions, before `before`, that begins with the stack
        pointer not below `pointer`; None when there is none."""

        def search(start: int, end: int) -> int | None:
            with self._from(start) as counter:
                counter.note_stack(pointer)
                self._run_to(counter, end)
                return counter.above

        return self._last(search, before)

    def last_change(self, watched: Watched, before: int) -> int | None:
        """The position, up to `before`, shortly before which the memory was changed last; None when
        it was not. Raises TooFar where it is not there all the time."""
        tracee = self._engine.tracee

        def search(start: int, end: int) -> int | None:
            with self._from(start) as counter:
                try:
                    counter.note_changes(watched.address, watched.length)
                except BadAddress:
                    raise TooFar("the memory to look at is not there all the time") from None
                self._run_to(counter, end)
                changed, position = counter.changed, counter.position
                if tracee.read(watched.address, watched.length) != counter.value:
                    changed = position
            rest = walk(self._engine, None, self._enough, watched, count=end - position)
            return end if rest[0].watched != rest[-1].watched else changed

        return self._last(search, before)

    def last_pass(self, addresses: Collection[int], before: int) -> int | None:
        """The position before `before` where the program came to one of the addresses last."""

        def search(start: int, end: int) -> int | None:
            with self._from(start) as counter:
                counter.note_passes(addresses)
                self._run_to(counter, end)
                last = max((each.last for each in counter.passes.values()), default=None)
                position = counter.position
            for each in walk(self._engine, None, self._enough, count=end - position)[:-1]:
                if each.ip in addresses:
                    last = position + each.done
            return last

        return self._last(search, before)

    # -- where to start -------------------------------------------------------------------------

    def _starts(self, before: int | None) -> list[int]:
        """Positions, at most `before`, from which on it can be run; the last one first."""
        if self._checkpoints is None:
            return [0]
        known = self._checkpoints.within(self._event, _ANYWHERE if before is None else before)
        return [*reversed(known), 0]

    def _last(self, search: Callable[[int, int], int | None], before: int) -> int | None:
        """What `search` finds between two positions, as near before `before` as can be."""
        for start in self._starts(before - 1):
            found = search(start, before)
            if found is not None:
                return found
            before = start
        return None

    def _from(self, start: int) -> AbstractContextManager[Counter]:
        """A counter in the tracee, which stands at a position of `_starts`."""
        if start:
            assert self._checkpoints is not None
            self._checkpoints.restore_within(self._event, start)
        else:
            self._behind()
        return self._here(start)

    @contextmanager
    def _here(self, position: int) -> Iterator[Counter]:
        """A counter in the tracee, which stands at that position."""
        with Counter.put(self._engine.tracee) as counter:
            counter.position = position
            yield counter

    # -- running --------------------------------------------------------------------------------

    def _run(self, counter: Counter, most: int | None = None) -> Counted:
        """Run on, to the next event at most (SPECIAL or SIGNAL)."""
        while True:
            why = counter.run(most, self._enough)
            if why is Counted.INTERRUPTED:
                raise Interrupted
            if why is Counted.UNKNOWN:
                at = self._engine.tracee.registers().rip
                raise TooFar(f"instructions are not counted in code that can change, at {at:#x}")
            if why is not Counted.SPECIAL or is_at_event(self._engine):
                return why
            advance(self._engine, 1)
            counter.position += 1

    def _run_to(self, counter: Counter, position: int) -> None:
        if self._run(counter, position) is not Counted.LIMIT and counter.position < position:
            raise ReplayError("the program does not come to that place again")

    def _differing(
        self, known: Contents, own: list[tuple[int, int]], rsp: int
    ) -> list[tuple[int, int]]:
        """Some words, (address, value there), that are others now than where memory was `known`."""
        found: list[tuple[int, int]] = []
        for start, data in known.items():
            if any(low <= start < high for low, high in own):
                continue
            now = self._engine.tracee.read_some(start, len(data))
            if now == data:
                continue
            for at in range(0, min(len(now), len(data)) - 7, 8):
                below = rsp - _DEAD <= start + at < rsp - _RED_ZONE
                if now[at : at + 8] != data[at : at + 8] and not below:
                    found.append((start + at, int.from_bytes(data[at : at + 8], "little")))
                    if len(found) == _WORDS_AT_ONCE:
                        return found
        return found


__all__ = ["Contents", "Landed", "Stretch", "contents"]
