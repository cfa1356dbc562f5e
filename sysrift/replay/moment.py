# SPDX-License-Identifier: GPL-2.0-or-later
"""The moment that a point means: whether the tracee stands at it, and if not, what is different."""

from __future__ import annotations

import struct
import zlib

from sysrift.errors import TraceError
from sysrift.trace.model import AFTER, Event, SegmentKind
from sysrift.trace.points import Point, Range, unpack
from sysrift.tracee import BadAddress, Registers, Tracee
from sysrift.tracee.registers import NAMES

_TRAP_FLAG, _RESUME_FLAG = 1 << 8, 1 << 16
_NOT_COMPARED = {"orig_rax", "cs", "ss", "ds", "es", "fs", "gs", "eflags"}
_COMPARED = tuple(name for name in NAMES if name not in _NOT_COMPARED)
_NAMED = 4  # of the things that differ; the others are counted


class Moment:
    """What an event in a computation says about the moment when it came.

    `registers` are the tracee's then. Of all moments that are compared, the one that is closest is
    remembered, for `closest` to tell.
    """

    def __init__(self, tracee: Tracee, event: Event) -> None:
        """Raises TraceError when the event does not say what to look for."""
        self._tracee = tracee
        self.point = Point()
        registers: Registers | None = None
        for segment in event.segments:
            if segment.data is None:
                continue
            if segment.kind == SegmentKind.REGISTERS and segment.address != AFTER:
                registers = Registers.from_bytes(segment.data)
            elif segment.kind == SegmentKind.POINT:
                try:
                    self.point = unpack(segment.data)
                except ValueError as error:
                    raise TraceError(f"damaged trace: event {event.number}: {error}") from None
        if registers is None:
            raise TraceError(f"damaged trace: event {event.number} lacks its registers")
        self.registers = registers
        self._ranges = list(self.point.ranges)
        self._rank = (9, 0)
        self._closest = ""

    @property
    def closest(self) -> str:
        """What was different at the moment that came closest; empty when none was compared."""
        return self._closest

    def is_now(self, registers: Registers) -> bool:
        """Whether the tracee, whose registers these are, stands at the moment meant."""
        differing = differing_registers(registers, self.registers)
        if differing:
            self._remember((3, len(differing)), differing, "register")
            return False
        if not same_xsave(self._tracee.xsave(), self.point.xsave):
            self._remember((2, 0), ["the floating point or vector registers"], "")
            return False
        return self._has_words() and self._has_ranges()

    def _has_words(self) -> bool:
        differing = [
            f"0x{address:x}"
            for address, value in self.point.words
            if self._read(address, 8) != struct.pack("<Q", value)
        ]
        if differing:
            self._remember((1, len(differing)), differing, "word at")
        return not differing

    def _has_ranges(self) -> bool:
        """One that was different before is looked at first: most likely it is so again."""
        for index, part in enumerate(self._ranges):
            if not self._has_range(part):
                self._ranges.insert(0, self._ranges.pop(index))
                if self._rank > (0, len(self._ranges)):
                    differing = [part for part in self._ranges if not self._has_range(part)]
                    shown = [
                        f"0x{part.address:x}-0x{part.address + part.length:x}" for part in differing
                    ]
                    self._remember((0, len(differing)), shown, "memory of")
                return False
        return True

    def _has_range(self, part: Range) -> bool:
        data = self._read(part.address, part.length)
        return data is not None and zlib.crc32(data) == part.crc

    def _read(self, address: int, length: int) -> bytes | None:
        try:
            return self._tracee.read(address, length)
        except BadAddress:
            return None

    def _remember(self, rank: tuple[int, int], differing: list[str], what: str) -> None:
        if rank >= self._rank:
            return
        self._rank = rank
        shown = ", ".join(differing[:_NAMED])
        if len(differing) > _NAMED:
            shown += f" and {len(differing) - _NAMED} more"
        self._closest = f"{what} {shown}".strip()


def differing_registers(found: Registers, wanted: Registers) -> list[str]:
    """The names of those in which two sets of registers differ, as far as a program can tell."""
    differing = [name for name in _COMPARED if getattr(found, name) != getattr(wanted, name)]
    if (found.eflags ^ wanted.eflags) & ~(_TRAP_FLAG | _RESUME_FLAG):
        differing.append("eflags")
    return differing


def same_xsave(found: bytes, wanted: bytes) -> bool:
    """Whether two xsave areas hold the same values (Intel SDM vol. 1, 13.4).

    Not compared: the addresses and opcode of the last x87 instruction, which is another one in
    displaced code, the software's bytes and the header, whose bits depend on more than the values.
    """
    if not wanted:
        return True
    if len(found) != len(wanted):
        found, wanted = found[:512], wanted[:512]
    return all(found[part] == wanted[part] for part in _XSAVE_PARTS)


_XSAVE_PARTS = (slice(0, 6), slice(24, 28), slice(32, 416), slice(576, None))
