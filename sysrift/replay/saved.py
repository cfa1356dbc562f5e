# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stopped process is just now, kept in order to be put back into the same process.

Other than an image or a checkpoint it holds only what a process can change without asking the
kernel, and expects what was mapped to be mapped still: `DivertedCalls` sees to that. So it takes
no longer than reading the writable memory does.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator

from sysrift.image import CHUNK
from sysrift.native import AGENT_END, AGENT_START, STUB_END, STUB_START
from sysrift.syscalls import NAMES
from sysrift.tracee import BadAddress, Mapping, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee.maps import PROT_WRITE
from sysrift.tracee.pagemap import PAGE, open_pagemap, populated
from sysrift.tracee.registers import NO_SYSCALL

_NR_MPROTECT, _NR_MUNMAP, _NR_MADVISE = (NAMES[n] for n in ("mprotect", "munmap", "madvise"))
_MADV_DONTNEED = 4
_OWN = ((STUB_START, STUB_END), (AGENT_START, AGENT_END))
"""What is the replayer's."""

Span = tuple[int, int]
"""Start and end of a part of the address space."""


class TooLarge(Exception):
    """More memory can be written to than was to be read."""


class Saved:
    """Memory, registers and xsave area of a tracee, which is in a ptrace-stop, not running.

    Nothing is written to it, and no call is made in it, before `put_back`.
    """

    def __init__(self, tracee: Tracee, brk: int, most: int | None = None) -> None:
        """`brk` is its program break; `most` the bytes of memory that may be read for this.

        Raises TooLarge, and OSError when the process is gone.
        """
        self.registers = tracee.registers()
        self.xsave = tracee.xsave()
        self.brk = brk
        self._tracee = tracee
        self._most = most
        self.size = 0
        self.maps = [m for m in read_maps(tracee.pid) if not (m.is_kernel or _is_own(m))]
        self._starts = [mapping.start for mapping in self.maps]
        self._runs: dict[int, bytes] = {}
        self._read_of = [mapping for mapping in self.maps if mapping.prot & PROT_WRITE]
        pagemap = open_pagemap(tracee.pid)
        try:
            for mapping in self._read_of:
                self._read(pagemap, mapping)
        finally:
            if pagemap >= 0:
                os.close(pagemap)

    def _read(self, pagemap: int, mapping: Mapping) -> None:
        for start, end in self._spans(pagemap, mapping):
            for at in range(start, end, CHUNK):
                length = min(CHUNK, end - at)
                self.size += length
                if self._most is not None and self.size > self._most:
                    raise TooLarge
                data = self._tracee.read_some(at, length)
                if data:
                    self._runs[at] = data

    @staticmethod
    def _spans(pagemap: int, mapping: Mapping) -> Iterator[Span]:
        """The parts of a mapping whose bytes are its own."""
        if mapping.shared:
            # What it has not touched yet is the file's, and can be written to all the same.
            yield mapping.start, mapping.end
            return
        for start, length in populated(pagemap, mapping):
            yield start, start + length

    def is_before(self, registers: Registers) -> bool:
        """Whether these are its general registers."""
        registers = registers.copy()
        registers.orig_rax = self.registers.orig_rax
        return bytes(registers) == bytes(self.registers)

    def covers(self, address: int, length: int) -> bool:
        """Whether all of that can be written to, so that `put_back` knows what was there.

        A debugger's writes go to any memory.
        """
        return any(
            m.start <= address and address + length <= m.end and m.prot & PROT_WRITE
            for m in self.maps
        )

    # -- the address space ----------------------------------------------------------------------

    def overlaps(self, start: int, end: int) -> bool:
        """Whether anything was mapped there, or is the replayer's."""
        first = bisect.bisect_right(self._starts, start) - 1
        return any(m.end > start and m.start < end for m in self.maps[max(first, 0) :]) or any(
            start < high and end > low for low, high in _OWN
        )

    def unmapped(self, start: int, end: int) -> list[Span]:
        """The parts of that where nothing was mapped, and that are not the replayer's."""
        taken = sorted([(m.start, m.end) for m in self.maps] + list(_OWN))
        return _without(start, end, taken)

    def keep(self, start: int, end: int) -> None:
        """Before something there changes that could not be written to: keep that as well."""
        pagemap = open_pagemap(self._tracee.pid)
        self._most = None
        try:
            for mapping in self.maps:
                low, high = max(mapping.start, start), min(mapping.end, end)
                if low < high and not mapping.prot & PROT_WRITE and not mapping.shared:
                    part = mapping._replace(start=low, end=high)
                    if part not in self._read_of:
                        self._read_of.append(part)
                        self._read(pagemap, part)
        finally:
            if pagemap >= 0:
                os.close(pagemap)

    # -- putting it back --------------------------------------------------------------------------

    def put_back(self) -> bool:
        """Make the tracee what it was.

        Returns whether its general registers were others. Raises RemoteSyscallError, BadAddress,
        OSError when that is not possible.
        """
        tracee = self._tracee
        before = tracee.registers()
        self._map_as_before()
        self._write_as_before()
        tracee.set_xsave(self.xsave)
        registers = self.registers.copy()
        registers.orig_rax = NO_SYSCALL
        tracee.set_registers(registers)
        before.orig_rax = NO_SYSCALL
        return bytes(before) != bytes(registers)

    def _map_as_before(self) -> None:
        tracee = self._tracee
        for now in read_maps(tracee.pid):
            if now.is_kernel or _is_own(now):
                continue
            for start, end in self.unmapped(now.start, now.end):
                tracee.remote_syscall(_NR_MUNMAP, start, end - start)
            for was in self.maps:
                start, end = max(was.start, now.start), min(was.end, now.end)
                if start < end and was.prot != now.prot:
                    tracee.remote_syscall(_NR_MPROTECT, start, end - start, was.prot)

    def _write_as_before(self) -> None:
        tracee = self._tracee
        for start, data in self._runs.items():
            now = tracee.read_some(start, len(data))
            if now == data:
                continue
            for at in range(0, len(data), PAGE):
                page = data[at : at + PAGE]
                if now[at : at + PAGE] != page:
                    tracee.write(start + at, page)
        known = sorted((start, start + len(data)) for start, data in self._runs.items())
        pagemap = open_pagemap(tracee.pid)
        try:
            for mapping in self._read_of:
                if mapping.shared:
                    continue
                for start, length in list(populated(pagemap, mapping)):
                    for low, high in _without(start, start + length, known):
                        self._untouch(mapping, low, high)
        finally:
            if pagemap >= 0:
                os.close(pagemap)

    def _untouch(self, mapping: Mapping, start: int, end: int) -> None:
        """Let pages be again what they were before anybody wrote to them."""
        try:
            self._tracee.remote_syscall(_NR_MADVISE, start, end - start, _MADV_DONTNEED)
        except RemoteSyscallError:
            if mapping.is_file:
                raise
            self._tracee.write(start, bytes(end - start))  # it is locked


def _is_own(mapping: Mapping) -> bool:
    return any(low <= mapping.start < high for low, high in _OWN)


def _without(start: int, end: int, taken: list[Span]) -> list[Span]:
    """The parts of a span that are none of the `taken` ones (in order)."""
    rest = []
    for low, high in taken[max(bisect.bisect_left(taken, (start, 0)) - 1, 0) :]:
        if low >= end:
            break
        if high <= start:
            continue
        if low > start:
            rest.append((start, low))
        start = max(start, high)
    if start < end:
        rest.append((start, end))
    return rest


__all__ = ["BadAddress", "Saved", "TooLarge"]
