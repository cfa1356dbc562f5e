# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding events by what they did, among a million, without making an `Event` of each."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator

from sysrift.trace.events import EventsBlock
from sysrift.trace.reader import Part, Trace

Memory = tuple[int, int]
"""An address and a length."""


def writing(trace: Trace, first: int, last: int, memory: Collection[Memory]) -> Iterator[int]:
    """The numbers, from `first` to `last` and in order, of the events by which the kernel wrote
    into the memory.

    Those that changed a mapped file are among them: the file may be mapped there.
    """
    spans = [(address, address + length) for address, length in memory]
    for part, block in _blocks(trace, first, last):
        indices = [
            index
            for index, address, length in block.writes
            if length < 0 or any(low < address + length and address < high for low, high in spans)
        ]
        yield from _numbers(part, block, indices, first, last)


def calls(trace: Trace, first: int, last: int, numbers: Collection[int] | None) -> Iterator[int]:
    """The numbers, from `first` to `last` and in order, of the events that are these system calls
    (None: any)."""
    for part, block in _blocks(trace, first, last):
        indices = [
            index
            for index, nr in enumerate(block.calls)
            if nr >= 0 and (numbers is None or nr in numbers)
        ]
        yield from _numbers(part, block, indices, first, last)


def _blocks(trace: Trace, first: int, last: int) -> Iterator[tuple[Part, EventsBlock]]:
    number, last = max(first, 1), min(last, trace.event_count)
    while number <= last:
        part = trace.part(number)
        yield part, trace.file.block(part.offset)
        number = part.first + part.length


def _numbers(
    part: Part, block: EventsBlock, indices: list[int], first: int, last: int
) -> Iterator[int]:
    """The events of a part whose records have these indices in its block, each once."""
    own = block.indices(part.process)
    skipped = part.first - block.first[part.process]
    end = part.first + part.length - 1
    before = 0
    for index in indices:
        at = bisect.bisect_left(own, index)
        if at == len(own) or own[at] != index:
            continue  # another process's
        number = part.first + at - skipped
        if max(first, part.first) <= number <= min(last, end) and number != before:
            before = number
            yield number


__all__ = ["Memory", "calls", "writing"]
