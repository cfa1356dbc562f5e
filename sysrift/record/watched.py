# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a computing program that is watched, to tell one moment of it from another.

All of a process's memory would tell best, but takes too long: a megabyte costs half a millisecond.
So it is the top of the stack, then the program's own data, its heap, its libraries' data, until a
megabyte is full. Of what does not fit, single pages can be added when it is compared.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable

from sysrift.trace.points import Range, Word
from sysrift.tracee import Mapping, Tracee, read_maps

_BUDGET = 1 << 20
_STACK_BELOW, _STACK_ABOVE = 128, 16 << 10  # the red zone is part of the stack
_PART = 64 << 10
_WORD = 8
_PAGE = 4096


class WatchedMemory:
    """A copy of the watched memory, as it was when this was made."""

    def __init__(self, tracee: Tracee, rsp: int) -> None:
        self._tracee = tracee
        self._parts: list[tuple[int, bytes]] = []
        self._mappings = read_maps(tracee.pid)
        self._starts = [mapping.start for mapping in self._mappings]
        for start, length in _spans(tracee.pid, rsp, self._mappings):
            for at in range(start, start + length, _PART):
                data = tracee.read_some(at, min(_PART, start + length - at))
                if data:
                    self._parts.append((at, data))

    def _mapping(self, address: int) -> Mapping | None:
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._mappings[index].end:
            return self._mappings[index]
        return None

    def is_own_data(self, address: int) -> bool:
        """Whether the program, and nobody else, can write there."""
        mapping = self._mapping(address)
        return mapping is not None and mapping.prot & 3 == 3 and not mapping.shared

    def return_addresses(self, most: int) -> list[int]:
        """Up to `most` addresses of code that the top of the stack holds, the nearest first."""
        stack = self._parts[0][1] if self._parts else b""
        words = memoryview(stack)[: len(stack) // _WORD * _WORD].cast("Q")
        found: list[int] = []
        for word in words:
            mapping = self._mapping(word)
            if mapping is not None and mapping.prot & 4 and word not in found:
                found.append(word)
                if len(found) == most:
                    break
        return found

    def pages_of(self, addresses: Iterable[int]) -> list[Range]:
        """Checksums of the pages with these addresses that are not watched anyway."""
        ranges = []
        for page in sorted({address // _PAGE * _PAGE for address in addresses}):
            if any(start <= page < start + len(data) for start, data in self._parts):
                continue
            data = self._tracee.read_some(page, _PAGE)
            if len(data) == _PAGE and self.is_own_data(page):
                ranges.append(Range(page, _PAGE, zlib.crc32(data)))
        return ranges

    def compare(self, most: int) -> tuple[list[Word], list[Range]]:
        """At a later moment: at most `most` words that differ from the copy, as they are now,
        and checksums of all that is watched."""
        words: list[Word] = []
        ranges = []
        for start, before in self._parts:
            now = self._tracee.read_some(start, len(before))
            if not now:
                continue
            ranges.append(Range(start, len(now), zlib.crc32(now)))
            if now != before and len(words) < most:
                words += _changed(start, before, now)
        if len(words) > most:
            step = len(words) / most
            words = [words[int(index * step)] for index in range(most)]
        return words, ranges


def _changed(start: int, before: bytes, now: bytes) -> list[Word]:
    whole = min(len(before), len(now)) // _WORD * _WORD
    old, new = memoryview(before)[:whole].cast("Q"), memoryview(now)[:whole].cast("Q")
    return [
        Word(start + index * _WORD, value) for index, value in enumerate(new) if value != old[index]
    ]


def _spans(pid: int, rsp: int, mappings: list[Mapping]) -> list[tuple[int, int]]:
    """(address, length) of what is watched, the most telling first; whole words."""
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        exe = ""
    low = (rsp - _STACK_BELOW) // _WORD * _WORD
    spans = []
    ranked: list[tuple[int, Mapping]] = []
    own = False  # the mapping belongs to the program: its bss follows its data
    for mapping in mappings:
        own = mapping.name == exe or (own and not mapping.name)
        if mapping.start <= rsp < mapping.end:
            start = max(low, mapping.start)
            spans.append((start, min(rsp + _STACK_ABOVE, mapping.end) // _WORD * _WORD - start))
            continue
        if mapping.prot & 3 != 3 or mapping.shared or mapping.is_kernel:
            continue
        ranked.append((0 if own else 1 if mapping.name == "[heap]" else 2, mapping))
    left = _BUDGET - sum(length for _, length in spans)
    for _, mapping in sorted(ranked, key=lambda pair: (pair[0], pair[1].end - pair[1].start)):
        length = mapping.end - mapping.start
        if length <= left:
            spans.append((mapping.start, length))
            left -= length
    return spans
