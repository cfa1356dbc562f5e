# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a computing program that is watched, to tell one moment of it from another.

All of a process's memory would tell best, but takes too long: a megabyte costs half a millisecond.
So it is the top of the stack, then the program's own data, its heap, its libraries' data, until
there is no more room. Of mappings that have none it is the pages that registers and the stack's
top lead to, in one step or two: what an interpreter works on is found there.
"""

from __future__ import annotations

import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sysrift.trace.points import Range, Word
from sysrift.tracee import Mapping, Tracee, read_maps

_BUDGET = 8 << 20
_STACK_BELOW, _STACK_ABOVE = 128, 16 << 10  # the red zone is part of the stack
_PART = 64 << 10
_REACHED_PAGES = 256
_WORD = 8
_PAGE = 4096
_FEW_BYTES = 256  # of a page: more than that is changed all over
_SAMPLED = 32  # every so many words then
_NOT_ZERO = re.compile(rb"[^\0]")


class _Part(NamedTuple):
    """A piece of memory as it was at some time."""

    data: bytes
    crc: int


class WatchedMemory:
    """The watched memory of a program, as it was when it was looked at or compared last.

    What is found unchanged keeps its checksum, also from one signal to the next.
    """

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self._parts: dict[int, _Part] = {}  # by address
        self._spans: list[tuple[int, int]] = []
        self._stack: tuple[int, bytes] = (0, b"")
        self._mappings: list[Mapping] = []
        self._starts: list[int] = []
        self._own: dict[int, bool] = {}  # by page

    def look(self, registers: Sequence[int], rsp: int) -> None:
        """Note what is to be watched, and how it is, at the first of two moments."""
        self._note_mappings()
        self._choose_spans(registers, rsp)
        for start, length in self._spans:
            for at in range(start, start + length, _PART):
                now = self._read(at, start + length)
                if at not in self._parts or self._parts[at].data != now:
                    self._parts[at] = _Part(now, -1)

    def _note_mappings(self) -> None:
        mappings = read_maps(self._tracee.pid)
        if mappings != self._mappings:
            self._mappings = mappings
            self._starts = [mapping.start for mapping in mappings]
            self._own = {}

    def _read(self, at: int, end: int) -> bytes:
        return self._tracee.read_some(at, min(_PART, end - at))

    def _choose_spans(self, registers: Sequence[int], rsp: int) -> None:
        spans, left_out = _spans(self._tracee.pid, rsp, self._mappings)
        stack = next((span for span in spans if span[0] <= rsp < span[0] + span[1]), (0, 0))
        self._stack = (stack[0], self._tracee.read_some(*stack))
        if left_out:
            spans += self._reached(registers, left_out)
        self._spans = spans
        wanted = {at for start, length in spans for at in range(start, start + length, _PART)}
        self._parts = {at: part for at, part in self._parts.items() if at in wanted}

    def _reached(self, registers: Sequence[int], areas: list[Mapping]) -> list[tuple[int, int]]:
        """Pages of `areas` that the registers and the stack's top lead to."""
        pages: dict[int, None] = {}

        def note(words: Iterable[int]) -> None:
            for word in words:
                if len(pages) < _REACHED_PAGES and any(a.start <= word < a.end for a in areas):
                    pages[word // _PAGE * _PAGE] = None

        note(registers)
        note(_words_of(self._stack[1]))
        for page in list(pages):
            note(_words_of(self._tracee.read_some(page, _PAGE)))
        return [(page, _PAGE) for page in pages]

    def _mapping(self, address: int) -> Mapping | None:
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._mappings[index].end:
            return self._mappings[index]
        return None

    def is_own_data(self, address: int) -> bool:
        """Whether the program, and nobody else, can write there."""
        page = address // _PAGE
        own = self._own.get(page)
        if own is None:
            mapping = self._mapping(address)
            own = mapping is not None and mapping.prot & 3 == 3 and not mapping.shared
            self._own[page] = own
        return own

    def return_addresses(self, most: int) -> list[int]:
        """Up to `most` addresses of code that the top of the stack holds, the nearest first."""
        words = _words_of(self._stack[1])
        found: list[int] = []
        for word in words:
            mapping = self._mapping(word)
            if mapping is not None and mapping.prot & 4 and word not in found:
                found.append(word)
                if len(found) == most:
                    break
        return found

    def stack_words(self, most: int) -> list[int]:
        """The addresses of the first words of the stack: what its callers keep in registers lies
        there, also the counts of their loops."""
        start, data = self._stack
        return list(range(start, start + min(len(data), most * _WORD), _WORD))

    def pages_of(self, addresses: Iterable[int]) -> list[Range]:
        """Checksums of the pages with these addresses that are not watched anyway."""
        ranges = []
        for page in sorted({address // _PAGE * _PAGE for address in addresses}):
            if any(start <= page < start + length for start, length in self._spans):
                continue
            data = self._tracee.read_some(page, _PAGE)
            if len(data) == _PAGE and self.is_own_data(page):
                ranges.append(Range(page, _PAGE, zlib.crc32(data)))
        return ranges

    def compare(
        self, registers: Sequence[int], rsp: int, most: int
    ) -> tuple[list[Word], list[Range]]:
        """At a later moment: at most `most` words that differ from before, as they are now, and
        checksums of all that is watched."""
        words: list[Word] = []
        ranges = []
        old_stack, before = self._stack
        self._choose_spans(registers, rsp)
        stack, now = self._stack
        first = max(old_stack, stack)
        words += _changed(first, before[first - old_stack :], now[first - stack :])
        for start, length in self._spans:
            for at in range(start, start + length, _PART):
                now = self._read(at, start + length)
                known = self._parts.get(at)
                if known is None or known.data != now or known.crc < 0:
                    if known is not None and len(words) < most and known.data != now:
                        words += _changed(at, known.data, now)
                    known = self._parts[at] = _Part(now, zlib.crc32(now))
                if now:
                    ranges.append(Range(at, len(now), known.crc))
        if len(words) > most:
            step = len(words) / most
            words = [words[int(index * step)] for index in range(most)]
        return words, ranges


def _words_of(data: bytes) -> memoryview:
    return memoryview(data)[: len(data) // _WORD * _WORD].cast("Q")


def _changed(start: int, before: bytes, now: bytes) -> list[Word]:
    """Words that are different; only a few of each page where most is."""
    words = []
    for skipped in range(0, min(len(before), len(now)), _PAGE):
        new = now[skipped : skipped + _PAGE]
        old = before[skipped : skipped + len(new)]
        if old == new:
            continue
        length = min(len(old), len(new))
        difference = int.from_bytes(old[:length], "little") ^ int.from_bytes(new[:length], "little")
        bits = difference.to_bytes(length, "little")
        if length - bits.count(0) <= _FEW_BYTES:
            places = sorted({found.start() // _WORD for found in _NOT_ZERO.finditer(bits)})
        else:
            places = [at for at in range(0, length // _WORD, _SAMPLED) if any(bits[8 * at :][:8])]
        for place in places:
            value = new[place * _WORD : (place + 1) * _WORD]
            if len(value) == _WORD:
                words.append(Word(start + skipped + place * _WORD, int.from_bytes(value, "little")))
    return words


def _spans(
    pid: int, rsp: int, mappings: list[Mapping]
) -> tuple[list[tuple[int, int]], list[Mapping]]:
    """(address, length) of what is watched, the most telling first, in whole words; and the
    mappings that there is no room for."""
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        exe = ""
    low = (rsp - _STACK_BELOW) // _WORD * _WORD
    spans = []
    left_out: list[Mapping] = []
    ranked: list[tuple[int, Mapping]] = []
    own = False  # the mapping belongs to the program: its bss follows its data
    for mapping in mappings:
        own = mapping.name == exe or (own and not mapping.name)
        if mapping.start <= rsp < mapping.end:
            start = max(low, mapping.start)
            spans.append((start, min(rsp + _STACK_ABOVE, mapping.end) // _WORD * _WORD - start))
            if mapping.name == "[stack]":
                continue  # else it is a coroutine's or a handler's, and may lie in the heap
        if mapping.prot & 3 != 3 or mapping.shared or mapping.is_kernel:
            continue
        ranked.append((0 if own else 1 if mapping.name == "[heap]" else 2, mapping))
    left = _BUDGET - sum(length for _, length in spans)
    for _, mapping in sorted(ranked, key=lambda pair: (pair[0], pair[1].end - pair[1].start)):
        length = mapping.end - mapping.start
        if length <= left:
            spans.append((mapping.start, length))
            left -= length
        else:
            left_out.append(mapping)
    return spans, left_out
