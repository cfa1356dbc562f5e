# SPDX-License-Identifier: GPL-2.0-or-later
"""What was found out about `syscall` instructions of files, for the next process that maps them.

To look for a place for a jump, instructions have to be decoded, which takes longer than some
programs run. What was decided for a site holds wherever the bytes that it was decided by are the
same, so those are kept with it and compared: neither a file that was changed nor one that is
written to in memory is mistaken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sysrift.tracee import Mapping

Read = Callable[[int, int], bytes]
"""Reads so many bytes, perhaps fewer, of a process at an address, as they are without patches."""

File = tuple[str, int, str]
"""Device and inode of a file, or "[vdso]"."""


class Patch(NamedTuple):
    """How a site can be patched, and by which bytes this was decided."""

    hole: int
    """Where the padding that it jumps to begins, from the site; 0: nowhere."""
    behind: bytes
    """Of a wide site: the instructions that the jump displaces."""
    first: int
    """Where what was looked at begins, from the site."""
    seen: bytes


class KnownSites:
    """The sites of the files that the processes of one recording have mapped."""

    def __init__(self) -> None:
        self._patches: dict[File, dict[int, Patch]] = {}
        self._calls: dict[File, dict[int, int]] = {}

    def count(self, mapping: Mapping, address: int) -> int:
        """A process comes to a site by a stop: for the so many-th time, of all processes."""
        calls = self._calls.setdefault(_file(mapping), {})
        offset = _offset(mapping, address)
        calls[offset] = calls.get(offset, 0) + 1
        return calls[offset]

    def add(self, mapping: Mapping, address: int, patch: Patch) -> None:
        """This was found out of a site."""
        self._patches.setdefault(_file(mapping), {})[_offset(mapping, address)] = patch

    def get(self, mapping: Mapping, address: int, read: Read, taken: set[int]) -> Patch | None:
        """What is known of a site, if it is true here. `taken` holes are used by others."""
        patch = self._patches.get(_file(mapping), {}).get(_offset(mapping, address))
        return patch if patch and _holds(patch, mapping, address, read, taken) else None

    def all(self, mapping: Mapping, read: Read, taken: set[int]) -> Iterator[tuple[int, Patch]]:
        """The sites in a mapping that can be patched, with their addresses."""
        for offset, patch in self._patches.get(_file(mapping), {}).items():
            address = mapping.start + offset - mapping.offset
            if not mapping.start <= address < mapping.end or not (patch.hole or patch.behind):
                continue
            if _holds(patch, mapping, address, read, taken):
                yield address, patch
                if patch.hole:
                    taken.add(address + patch.hole)


def _file(mapping: Mapping) -> File:
    return mapping.device, mapping.inode, "" if mapping.inode else mapping.name


def _offset(mapping: Mapping, address: int) -> int:
    return mapping.offset + address - mapping.start


def _holds(patch: Patch, mapping: Mapping, address: int, read: Read, taken: set[int]) -> bool:
    first = address + patch.first
    if first < mapping.start or first + len(patch.seen) > mapping.end:
        return False
    hole = address + patch.hole
    if patch.hole and any(abs(hole - other) < 5 for other in taken):
        return False
    return read(first, len(patch.seen)) == patch.seen


__all__ = ["KnownSites", "Patch"]
