# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the program's that the user lets GDB call (`print f(x)`).

Such a call leaves traces even when the function changes nothing: it has used the stack below the
program's own part of it, and GDB does not restore all of the processor's registers (AVX-512's are
not as they were). The place of an event in a computation is told by these as well.
"""

from __future__ import annotations

from typing import NamedTuple

from sysrift.tracee import BadAddress, Tracee

_RED_ZONE = 128
_DEPTH = 128 << 10
"""Bytes of stack that a called function is expected to use at most."""


class Traces(NamedTuple):
    """What a call is going to overwrite, from before it: the xsave area, and the stack below what
    the program uses, which ends at `end`."""

    xsave: bytes
    end: int
    stack: bytes

    @staticmethod
    def before_call(tracee: Tracee) -> Traces:
        """As it is now."""
        end = tracee.registers().rsp - _RED_ZONE
        start = end - _DEPTH
        stack = b""
        while start < end and not stack:  # the part of it that is there at all
            stack = tracee.read_some(start, end - start)
            start = (start | 0xFFF) + 1
        return Traces(tracee.xsave(), end, stack)

    def restore(self, tracee: Tracee) -> None:
        """Let it be as if there had been no call; unless the program is still in it."""
        if tracee.registers().rsp - _RED_ZONE != self.end:
            return
        tracee.set_xsave(self.xsave)
        try:
            tracee.write(self.end - len(self.stack), self.stack)
        except BadAddress:
            pass  # unmapped by the called function


__all__ = ["Traces"]
