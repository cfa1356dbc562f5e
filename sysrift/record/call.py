# SPDX-License-Identifier: GPL-2.0-or-later
"""One system call while it is being recorded: from its entry to its exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sysrift.syscalls import BadAddress, Range, Row
from sysrift.trace.model import ABSOLUTE, EventFlag, SegmentKind
from sysrift.trace.writer import CHUNK, OutSegment
from sysrift.tracee import Tracee

if TYPE_CHECKING:
    from sysrift.record.lent import LentMemory

Snapshot = list[tuple[int, bytes]]
"""(address, bytes) of memory as it was at the call's entry."""

_MASK = 0xFFFFFFFFFFFFFFFF


class Call:
    """A system call that has been entered."""

    __slots__ = (
        "args", "before", "effect", "flags", "guess", "input_crc", "lent", "nr", "rewound", "row",
        "segments", "site", "snapshot", "sp", "time_us",
    )  # fmt: skip

    def __init__(
        self, nr: int, args: tuple[int, ...], site: int, sp: int, time_us: int, row: Row | None
    ) -> None:
        self.nr = nr
        self.args = args
        self.site = site
        self.sp = sp
        self.time_us = time_us
        self.row = row
        self.flags = 0
        self.input_crc = 0
        self.before: object = None
        self.guess: Snapshot | None = None
        self.lent: LentMemory | None = None
        self.segments: list[OutSegment] = []
        self.effect: Callable[[int], int | None] | None = None
        self.rewound = False
        self.snapshot = False  # an image is taken at its exit: mappings changed behind its back


def store_range(
    tracee: Tracee, add_data: Callable[[bytes], int], args: tuple[int, ...], item: Range
) -> tuple[list[OutSegment], int]:
    """The segments that hold what the kernel wrote into a range, and the event flags to set."""
    argument, address, length, _ = item
    base = address - args[argument] if argument != ABSOLUTE else address
    base &= _MASK
    if length <= CHUNK:
        try:
            return [(SegmentKind.OUT, argument, base, tracee.read(address, length))], 0
        except BadAddress:
            data = tracee.read_some(address, length)
            return [(SegmentKind.OUT, argument, base, data)], EventFlag.INCOMPLETE
    segments: list[OutSegment] = []
    for start in range(0, length, CHUNK):
        want = min(CHUNK, length - start)
        data = tracee.read_some(address + start, want)
        if data:
            reference = (len(data), add_data(data))
            segments.append((SegmentKind.OUT, argument, (base + start) & _MASK, reference))
        if len(data) < want:
            return segments, EventFlag.INCOMPLETE
    return segments, 0
