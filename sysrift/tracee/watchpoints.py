# SPDX-License-Identifier: GPL-2.0-or-later
"""The four debug registers of a tracee, for whoever drives it by ptrace: memory and instructions
that it stops at by SIGTRAP (Intel SDM vol. 3, 18.2; arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from sysrift.tracee import ptrace as pt
from sysrift.tracee.process import Tracee

COUNT = 4
"""Debug registers for addresses."""

_WRITES, _ACCESSES = 1, 3  # R/W fields of DR7; 0: an instruction is executed
_LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}  # LEN fields of DR7


class Piece(NamedTuple):
    """What one debug register is for: aligned memory of 1, 2, 4 or 8 bytes, or, with a length of
    0, the instruction at `address`.

    Memory stops behind the instruction that writes there, or reads, if it `reads`; an instruction
    in front of it.
    """

    address: int
    length: int = 0
    reads: bool = False

    @property
    def _control(self) -> int:
        if not self.length:
            return 0
        return (_ACCESSES if self.reads else _WRITES) | _LENGTHS[self.length] << 2


def pieces(address: int, length: int, reads: bool = False) -> list[Piece]:
    """Memory of any length, cut into what debug registers can hold."""
    found = []
    end = address + length
    while address < end:
        size = next(n for n in (8, 4, 2, 1) if not address % n and address + n <= end)
        found.append(Piece(address, size, reads))
        address += size
    return found


class DebugRegisters:
    """The debug registers of one stopped tracee."""

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self._pid = tracee.pid
        self._set: tuple[Piece, ...] = ()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Afterwards they are as a debugger, who does not look on within, has set them. Raises
        OSError where there are none (some virtual machines)."""
        before = [pt.peek_user(self._pid, pt.DEBUG_ADDRESS + 8 * n) for n in range(COUNT)]
        control = pt.peek_user(self._pid, pt.DEBUG_CONTROL)
        self._set = ()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it may be gone
                self._poke(pt.DEBUG_CONTROL, 0)
                for n, address in enumerate(before):
                    self._poke(pt.DEBUG_ADDRESS + 8 * n, address)
                self._poke(pt.DEBUG_CONTROL, control)
                self.hits = 0
            self._set = ()

    def set(self, wanted: tuple[Piece, ...]) -> None:
        """Let it stop at these, at most four, and at nothing else. Raises OSError for an address
        that is the kernel's."""
        if self._set == wanted:
            return
        self._poke(pt.DEBUG_CONTROL, 0)
        self._set = ()
        control = 0
        for n, piece in enumerate(wanted):
            self._poke(pt.DEBUG_ADDRESS + 8 * n, piece.address)
            control |= 1 << 2 * n | piece._control << 16 + 4 * n
        if control:
            self._poke(pt.DEBUG_CONTROL, control)
        self._set = wanted

    @property
    def hits(self) -> int:
        """Which of them the last debug exception was for, as bits 0 to 3 (see
        `Tracee.watchpoint_hits`)."""
        return self._tracee.watchpoint_hits

    @hits.setter
    def hits(self, bits: int) -> None:
        self._tracee.watchpoint_hits = bits

    def _poke(self, offset: int, word: int) -> None:
        pt.ptrace(pt.PTRACE_POKEUSER, self._pid, offset, word)


__all__ = ["COUNT", "DebugRegisters", "Piece", "pieces"]
