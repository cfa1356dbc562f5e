# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the program shares: with other processes, or with a file that others write to.

What changes there behind the program's back is found by comparing: a little at every system call's
exit, more of it when the program has waited (for those others, perhaps), and else as often as a
twentieth of the time allows. Replay has a copy of its own, and these changes are put into it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from sysrift.record.guess import changed_runs
from sysrift.tracee import Tracee, read_maps

EVERY_CALL = 256 << 10
"""Bytes that are compared at every system call; more would cost more than its stops do."""

LIMIT = 16 << 20
"""Bytes that are compared at all, and kept here for that."""

_PAGE = 4096
_WAITED_US = 1000
_SHARE = 20


class SharedMemory:
    """The shared mappings of a program, and what they held when last looked at."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], bytes] = {}
        self._often: set[tuple[int, int]] = set()
        self._entered: dict[tuple[int, int], bytes] = {}
        self._own: list[tuple[int, int]] = []
        self._exposed = False
        self._due_ns = 0
        self.objects: frozenset[tuple[str, int]] = frozenset()
        """(device, inode) of what is mapped: the same in all processes that share it."""

    def _identify(self, tracee: Tracee) -> None:
        starts = [address for address, _ in self._last]
        self.objects = frozenset(
            (mapping.device, mapping.inode)
            for mapping in read_maps(tracee.pid)
            if mapping.shared and any(mapping.start <= start < mapping.end for start in starts)
        )

    @property
    def seen(self) -> dict[tuple[int, int], bytes]:
        """(address, length) of each mapping that is compared, and what it held at the last look."""
        return self._last

    @property
    def is_exposed(self) -> bool:
        """Whether processes that the program made may be changing it right now."""
        return self._exposed and bool(self._last)

    def __bool__(self) -> bool:
        return bool(self._last)

    def add(self, tracee: Tracee, address: int, length: int, anonymous: bool = False) -> bool:
        """Watch a mapping that was just made; False when that is too much to compare.

        `anonymous` memory is the program's own until it makes a process to share it with.
        """
        if anonymous and not self._exposed:
            self._own.append((address, length))
            return True
        if length + sum(size for _, size in self._last) > LIMIT:
            return False
        if length + sum(size for _, size in self._often) <= EVERY_CALL:
            self._often.add((address, length))
        self._last[address, length] = tracee.read_some(address, length)
        self._identify(tracee)
        return True

    def expose(self, tracee: Tracee) -> bool:
        """The program is about to make a process; False when that is too much to compare."""
        self._exposed = True
        own, self._own = self._own, []
        added = [self.add(tracee, address, length) for address, length in own]
        self.remap(tracee)
        return all(added)

    def copy(self) -> SharedMemory:
        """What a forked process has: the same mappings."""
        other = SharedMemory()
        other._last = dict(self._last)
        other._often = set(self._often)
        other._exposed = self._exposed
        other.objects = self.objects
        return other

    def clear(self) -> None:
        """Forget all mappings (execve)."""
        self._last.clear()
        self._often.clear()
        self._own.clear()
        self._exposed = False
        self.objects = frozenset()

    def remap(self, tracee: Tracee) -> None:
        """Drop what is no longer mapped as shared, after a call that changes mappings."""
        shared = [m for m in read_maps(tracee.pid) if m.shared]
        for span in list(self._last):
            address, length = span
            if not any(m.start <= address and address + length <= m.end for m in shared):
                self._often.discard(span)
                del self._last[span]
        self._identify(tracee)

    def at_entry(self, tracee: Tracee, everything: bool = False) -> None:
        """A call begins, or a turn ends: what the program itself has written is in memory.

        Without this look, others' writes that undo it would not be seen.
        """
        for span in self._last if everything else self._often:
            self._entered[span] = tracee.read_some(*span)

    def changes(
        self, tracee: Tracee, call_us: int, everything: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of what is different from the last look, after a call of that long."""
        yield from self._compare(tracee, self._often)
        if len(self._often) < len(self._last):
            start = time.monotonic_ns()
            if everything or call_us >= _WAITED_US or start >= self._due_ns:
                yield from self._compare(tracee, self._last.keys() - self._often)
                now = time.monotonic_ns()
                self._due_ns = now + _SHARE * (now - start)

    def _compare(self, tracee: Tracee, spans: set[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for span in spans:
            address, length = span
            now = tracee.read_some(address, length)
            before = self._last[span]
            self._last[span] = now
            for old in {before, self._entered.pop(span, before)}:
                if now == old:
                    continue
                if len(now) != len(old):
                    yield address, now
                    break
                runs = changed_runs if length <= EVERY_CALL else _changed_pages
                for first, last in runs(old, now):
                    yield address + first, now[first:last]


def _changed_pages(before: bytes, now: bytes) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the runs of pages that are not the same."""
    first = -1
    for at in range(0, len(now), _PAGE):
        same = before[at : at + _PAGE] == now[at : at + _PAGE]
        if not same and first < 0:
            first = at
        elif same and first >= 0:
            yield first, at
            first = -1
    if first >= 0:
        yield first, len(now)
