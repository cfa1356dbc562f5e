# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel wrote, for calls that no rule covers: memory before compared with memory after.

The windows behind pointer-like arguments are compared; a call that writes through a pointer inside
a structure is out of reach, and the checksums of a `--checksum` recording would show it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sysrift.record.call import Snapshot
from sysrift.trace.model import SegmentKind
from sysrift.trace.writer import OutSegment
from sysrift.tracee import BadAddress, Tracee, read_maps

WINDOW = 16 << 10
"""Bytes compared behind each pointer-like argument."""

_GAP = 16
"""Changes nearer to each other than this are one segment."""


def arguments_snapshot(tracee: Tracee, args: tuple[int, ...]) -> Snapshot:
    """The memory behind every argument that points into writable memory."""
    windows: dict[int, int] = {}
    writable = [m for m in read_maps(tracee.pid) if m.prot & 2]
    for value in args:
        mapping = next((m for m in writable if m.start <= value < m.end), None)
        if mapping is not None:
            windows[value] = max(min(WINDOW, mapping.end - value), windows.get(value, 0))
    return [(start, tracee.read_some(start, length)) for start, length in windows.items()]


def changes(tracee: Tracee, before: Snapshot) -> list[OutSegment]:
    """Absolute OUT segments for all that is different now from `before`."""
    segments: list[OutSegment] = []
    done: set[int] = set()
    for start, old in before:
        if start in done:
            continue
        done.add(start)
        try:
            new = tracee.read(start, len(old))
        except BadAddress:
            new = tracee.read_some(start, len(old))
        if new == old:
            continue
        for first, last in changed_runs(old, new):
            segments.append((SegmentKind.OUT, 255, start + first, new[first:last]))
    return segments


def changed_runs(old: bytes, new: bytes, step: int = 256) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the runs where `new` is not `old`."""
    first = last = -1
    for at in range(0, min(len(old), len(new)), step):
        if old[at : at + step] == new[at : at + step]:
            continue
        for index in range(at, min(at + step, len(old), len(new))):
            if old[index] != new[index]:
                if first >= 0 and index - last > _GAP:
                    yield first, last + 1
                    first = -1
                if first < 0:
                    first = index
                last = index
    if first >= 0:
        yield first, last + 1
