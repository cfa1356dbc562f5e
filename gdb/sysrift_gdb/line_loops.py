# SPDX-License-Identifier: GPL-2.0-or-later
"""A loop within one line, such as `while (!flag) ;`, that the user steps over.

GDB steps through it instruction by instruction, which takes minutes for what the program did in
milliseconds. Where all ways out of the line are direct jumps, the engine can run through it with a
breakpoint behind each; the jump that led there is then executed once more, by GDB's next step.
"""

from __future__ import annotations

import re

import gdb
from sysrift.tracee import Tracee
from sysrift_gdb.debug_traps import INT3
from sysrift_gdb.line_steps import Line

_JUMP = re.compile(r"^(?:bnd |notrack )?(j[a-z]+)(?:,p[nt])?\s+0x([0-9a-f]+)")
_PLAIN = re.compile(
    r"^(?:(?:v?mov|cmov|set|cmp|test|add|sub|and|or|xor|inc|dec|lea|neg|not|sh[lr]|sar|imul|nop|c[bwdq]"
    r"|cltq|cqto|cwtl|pause|ucomis|comis|cvt|pxor|xchg|lock)[a-z0-9]*)\b"
)
_MOST_BYTES = 512
"""Of a line at most: a longer one is hardly a loop that takes long."""


class LineLoop:
    """The ways out of a line: by where each leads, the jump that leads there."""

    def __init__(self, exits: dict[int, int]) -> None:
        self._exits = exits
        self._replaced: dict[int, bytes] = {}

    @staticmethod
    def of(line: Line, code: range) -> LineLoop | None:
        """None when the line can be left otherwise, or a way out leads into `code`, which a search
        needs as it is."""
        line = _whole(line)
        if line.last - line.first > _MOST_BYTES:
            return None
        architecture = gdb.selected_inferior().architecture()
        exits: dict[int, int] = {}
        falls_out = True
        for instruction in architecture.disassemble(line.first, line.last):
            address, text = instruction["addr"], instruction["asm"]
            end = address + instruction["length"]
            jump = _JUMP.match(text)
            if jump is None and not _PLAIN.match(text):
                return None
            ways = [int(jump[2], 16)] if jump else []
            falls_out = jump is None or jump[1] not in ("jmp", "jmpq")
            if falls_out:
                ways.append(end)
            for way in ways:
                if line.has(way):
                    continue
                if jump is None or way in exits or way in code:
                    return None
                exits[way] = address
        return LineLoop(exits)

    def put(self, tracee: Tracee) -> None:
        """Put a breakpoint behind each way out, where there is none."""
        for address in self._exits:
            byte = tracee.read(address, 1)
            if byte != INT3:
                self._replaced[address] = byte
                tracee.write(address, INT3)

    def take_away(self, tracee: Tracee) -> None:
        """Take those away."""
        for address, byte in self._replaced.items():
            tracee.write(address, byte)
        self._replaced = {}

    def led_out(self, address: int) -> int | None:
        """The jump that led out of the line to `address`; None for another place."""
        return self._exits.get(address)


def _whole(line: Line) -> Line:
    """The addresses around these that belong to the same source line, in rows of their own."""
    here = gdb.find_pc_line(line.first)
    if not here.line:
        return line
    first, last = line.first, line.last
    while last - first <= _MOST_BYTES:
        before, behind = gdb.find_pc_line(first - 1), gdb.find_pc_line(last + 1)
        if before.symtab == here.symtab and before.line == here.line:
            first = before.pc
        elif behind.symtab == here.symtab and behind.line == here.line and behind.last is not None:
            last = behind.last
        else:
            break
    return Line(first, last, line.rsp)


__all__ = ["LineLoop"]
