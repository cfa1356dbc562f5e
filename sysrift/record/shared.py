# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the program shares: with a file that it also writes to, or with other processes.

What changes there behind the program's back is found by comparing at every system call's exit, as
long as it is small. Replay has private memory instead, and these changes are put into it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sysrift.record.guess import changed_runs
from sysrift.tracee import Tracee, read_maps

LIMIT = 256 << 10
"""Bytes of shared memory that are compared; comparing more would cost more than a stop does."""


class SharedMemory:
    """The shared mappings of a program, and what they held when last looked at."""

    def __init__(self) -> None:
        self._last: dict[int, bytes] = {}
        self._wanted: set[tuple[int, int]] = set()

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def add(self, tracee: Tracee, address: int, length: int) -> bool:
        """Watch a mapping that was just made; False when that is too much to compare."""
        if length + sum(size for _, size in self._wanted) > LIMIT:
            return False
        self._wanted.add((address, length))
        self._last[address] = tracee.read_some(address, length)
        return True

    def copy(self) -> SharedMemory:
        """What a forked process has: the same mappings."""
        other = SharedMemory()
        other._last = dict(self._last)
        other._wanted = set(self._wanted)
        return other

    def clear(self) -> None:
        """Forget all mappings (execve)."""
        self._wanted.clear()
        self._last.clear()

    def remap(self, tracee: Tracee) -> None:
        """Drop what is no longer mapped as shared, after a call that changes mappings."""
        shared = [m for m in read_maps(tracee.pid) if m.shared]
        for address, length in list(self._wanted):
            if not any(m.start <= address and address + length <= m.end for m in shared):
                self._wanted.discard((address, length))
                self._last.pop(address, None)

    def changes(self, tracee: Tracee) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of what is different now from the last look."""
        for address, length in self._wanted:
            now = tracee.read_some(address, length)
            before = self._last[address]
            if now != before:
                self._last[address] = now
                if len(now) != len(before):
                    yield address, now
                    continue
                for first, last in changed_runs(before, now):
                    yield address + first, now[first:last]
