# SPDX-License-Identifier: GPL-2.0-or-later
"""The long way between two events: places in it are found, and gone to, by counting instructions.

Position 0 is right behind the event; a repeated string instruction counts as one. Between two
events nothing but the program's own code runs, so a position means the same moment every time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from sysrift import image as images
from sysrift.errors import ReplayError
from sysrift.replay.counter import Counted, Counter
from sysrift.replay.engine import Engine
from sysrift.replay.place import Place, is_at_event
from sysrift.replay.steps import Interrupted, Step, TooFar, Watched, advance, walk
from sysrift.tracee import BadAddress, Registers


class Landed(NamedTuple):
    """A place between two events that was gone to, and how to know it again."""

    event: int
    position: int
    place: Place


Contents = dict[int, bytes]
"""What is in writable memory, by address."""

_MOST_CONTENTS = 256 << 20
_WORDS_AT_ONCE = 8  # to compare beside, after a pass that was another one
_MOST_WORDS = 60
_LAST_STEPS = 100_000  # from the start of a block to what it raises
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
    """What lies between the event that was played last and the next.

    `behind` puts the tracee right behind the event; `enough` says whether the user has had enough.
    All that runs raises Interrupted then, and TooFar where instructions cannot be counted.
    """

    def __init__(
        self, engine: Engine, behind: Callable[[], None], enough: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._behind = behind
        self._enough = enough

    def find(self, place: Place, known: Contents | None = None) -> int:
        """The position of a place; the tracee stands there afterwards.

        `known`, what memory contains there, helps where registers are the same at many passes.
        Raises ReplayError when the program does not come there.
        """
        registers = Registers.from_bytes(place.registers)
        words = list(place.words)
        self._behind()
        with Counter.put(self._engine.tracee) as counter:
            counter.look_for(registers, words)
            while True:
                why = self._run(counter)
                if why in (Counted.PLACE, Counted.SPECIAL) and place.is_here(
                    self._engine, counter.own
                ):
                    return counter.position
                if why is not Counted.PLACE:
                    break
                if known and len(words) < _MOST_WORDS:
                    words += self._differing(known, counter.own, registers.rsp)
                    counter.look_for(registers, words)
        raise ReplayError("the program does not come to that place again")

    def end(self) -> int:
        """The position of the next event, at which the tracee stands afterwards."""
        engine = self._engine
        point = engine.point
        self._behind()
        with Counter.put(engine.tracee) as counter:
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
        self._behind()
        with Counter.put(self._engine.tracee) as counter:
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
        self._behind()
        with Counter.put(self._engine.tracee) as counter:
            counter.note_stack(pointer)
            self._run_to(counter, before)
            return counter.above

    def last_change(self, watched: Watched, before: int) -> int | None:
        """The position, up to `before`, shortly before which the memory was changed last; None when
        it was not. Raises TooFar where it is not there all the time."""
        self._behind()
        tracee = self._engine.tracee
        with Counter.put(tracee) as counter:
            try:
                counter.note_changes(watched.address, watched.length)
            except BadAddress:
                raise TooFar("the memory to look at is not there all the time") from None
            self._run_to(counter, before)
            changed, position = counter.changed, counter.position
            if tracee.read(watched.address, watched.length) != counter.value:
                changed = position
        rest = walk(self._engine, None, self._enough, watched, count=before - position)
        return before if rest[0].watched != rest[-1].watched else changed

    def last_pass(self, addresses: Collection[int], before: int) -> int | None:
        """The position before `before` where the program came to one of the addresses last."""
        self._behind()
        with Counter.put(self._engine.tracee) as counter:
            counter.note_passes(addresses)
            self._run_to(counter, before)
            last = max((each.last for each in counter.passes.values()), default=None)
            position = counter.position
        for each in walk(self._engine, None, self._enough, count=before - position)[:-1]:
            if each.ip in addresses:
                last = position + each.done
        return last

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
