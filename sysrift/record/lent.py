# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a process lends to a child (vfork(2), posix_spawn(3)): what the child wrote there.

The parent sleeps until the child executes a program or ends. In a replay of the parent there is no
child, so what it left in memory belongs to the parent's call.
"""

from __future__ import annotations

from collections.abc import Iterator

from sysrift.image import checksum_spans
from sysrift.record.guess import changed_runs
from sysrift.trace.model import ABSOLUTE, SegmentKind
from sysrift.trace.writer import OutSegment
from sysrift.tracee import Tracee, read_maps
from sysrift.tracee.pagemap import PAGE

KEPT = 32 << 20
"""Bytes of writable memory that are kept to compare with; of more only a sum of each page is."""


class LentMemory:
    """A process's writable memory as it was before it was lent."""

    def __init__(self, tracee: Tracee) -> None:
        self._maps = read_maps(tracee.pid)
        spans = list(checksum_spans(tracee.pid))
        self._kept: dict[int, bytes] = {}
        self._sums: dict[int, list[int]] = {}
        keep = sum(length for _, length in spans) <= KEPT
        for start, length in spans:
            data = tracee.read_some(start, length)
            if keep:
                self._kept[start] = data
            else:
                self._sums[start] = _page_sums(data)

    def is_mapped_otherwise(self, tracee: Tracee) -> bool:
        """Whether the borrower mapped or unmapped memory, or made a stack or the heap grow."""
        return read_maps(tracee.pid) != self._maps

    def changes(self, tracee: Tracee) -> list[OutSegment]:
        """What is different now."""
        segments: list[OutSegment] = []
        for start, old in self._kept.items():
            new = tracee.read_some(start, len(old))
            if new != old:
                segments += [
                    (SegmentKind.OUT, ABSOLUTE, start + first, new[first:last])
                    for first, last in changed_runs(old, new)
                ]
        for start, sums in self._sums.items():
            new = tracee.read_some(start, len(sums) * PAGE)
            for at, now in enumerate(_page_sums(new)):
                if now != sums[at]:
                    page = new[at * PAGE : (at + 1) * PAGE]
                    segments.append((SegmentKind.OUT, ABSOLUTE, start + at * PAGE, page))
        segments += [
            (SegmentKind.OUT, ABSOLUTE, address, data) for address, data in self._fresh(tracee)
        ]
        return segments

    def _fresh(self, tracee: Tracee) -> Iterator[tuple[int, bytes]]:
        """Pages that have come into being since, and hold something."""
        before = {
            page for start, length in self._lengths() for page in range(start, start + length, PAGE)
        }
        for start, length in checksum_spans(tracee.pid):
            if all(page in before for page in range(start, start + length, PAGE)):
                continue
            data = tracee.read_some(start, length)
            for at in range(0, len(data), PAGE):
                page = data[at : at + PAGE]
                if start + at not in before and page.count(0) != len(page):
                    yield start + at, page

    def _lengths(self) -> Iterator[tuple[int, int]]:
        for start, data in self._kept.items():
            yield start, len(data)
        for start, sums in self._sums.items():
            yield start, len(sums) * PAGE


def _page_sums(data: bytes) -> list[int]:
    """A 64-bit sum of each page; Python's hash of bytes is a keyed one (SipHash)."""
    return [hash(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
