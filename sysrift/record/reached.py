# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the kernel wrote though the call does not say so.

A buffer whose second page cannot be written to gets its first page filled, and the call fails with
EFAULT, or counts whole pieces only (fs/pipe.c, pipe_read; fs/readdir.c). A write to /proc/self/mem,
and process_vm_writev(2) to itself, change memory that no argument of the table's rules points to;
so does process_madvise(2).
"""

from __future__ import annotations

import bisect
import errno
import os
from typing import TYPE_CHECKING

from sysrift.record import guess
from sysrift.record.call import Call, store_range
from sysrift.record.mapped_files import WRITERS
from sysrift.syscalls import NAMES, BadAddress, Range
from sysrift.trace.model import ABSOLUTE, SegmentKind
from sysrift.tracee import Tracee, read_maps

if TYPE_CHECKING:
    from sysrift.record.recorder import Recorder

_ALL = 0x7FFFF000  # include/linux/fs.h, MAX_RW_COUNT: as if the call had done all that it could
_MOST = 64 << 20
"""Bytes that are kept of a buffer which reaches into memory that cannot be written to."""

_SIMPLE = {NAMES[name]: 1 for name in ("read", "pread64", "recvfrom")} | {NAMES["getrandom"]: 0}
"""Calls that fill one buffer: the argument that points to it; the next is its length."""

_VECTORED = {
    NAMES[name]
    for name in ("readv", "preadv", "preadv2", "recvmsg", "getdents", "getdents64", "recvmmsg")
}
_OPENING = {NAMES[name] for name in ("open", "openat", "openat2")}
_NR_PROCESS_VM_WRITEV = NAMES["process_vm_writev"]
_NR_PROCESS_MADVISE = NAMES["process_madvise"]
_DROPPING = (4, 24)  # MADV_DONTNEED, MADV_DONTNEED_LOCKED
_IOV_MAX = 1024
_MAP_FIXED = 0x10
_NR_MMAP, _NR_BRK = NAMES["mmap"], NAMES["brk"]
_TAKING = {
    NAMES[name]
    for name in ("mmap", "munmap", "mremap", "mprotect", "pkey_mprotect", "remap_file_pages",
                 "shmat", "shmdt")
}  # fmt: skip
"""Calls after which memory may no longer be writable; what has been added is found anyway."""


class WritableMemory:
    """Where a program can write, remembered until a call takes some of it away."""

    def __init__(self) -> None:
        self._starts: list[int] | None = None
        self._ends: list[int] = []

    def forget(self) -> None:
        """The mappings are others now."""
        self._starts = None

    def end_from(self, tracee: Tracee, address: int, wanted: int) -> int:
        """The first byte from `address` on, but at most `wanted`, that cannot be written."""
        end = self._look(tracee, address)
        if end < wanted:
            self.forget()  # a stack may have grown
            end = self._look(tracee, address)
        return min(end, wanted)

    def _look(self, tracee: Tracee, address: int) -> int:
        if self._starts is None:
            starts: list[int] = []
            self._ends = []
            for mapping in read_maps(tracee.pid):
                if mapping.prot & 2 == 0:
                    continue
                if starts and self._ends[-1] == mapping.start:
                    self._ends[-1] = mapping.end
                else:
                    starts.append(mapping.start)
                    self._ends.append(mapping.end)
            self._starts = starts
        at = bisect.bisect_right(self._starts, address) - 1
        return max(self._ends[at], address) if at >= 0 else address


class Reached:
    """Finds what calls of one process have written beyond what their rules say."""

    def __init__(self) -> None:
        self.writable = WritableMemory()
        self.memory_opened = False
        """Whether the program has opened what may be its own memory (/proc/self/mem)."""
        self._brk = 0

    def copy(self) -> Reached:
        """What a forked process has."""
        other = Reached()
        other.memory_opened = self.memory_opened
        other._brk = self._brk
        return other

    def mappings_changed(self) -> None:
        """Memory was mapped or unmapped, the heap's perhaps, by calls that were not seen here."""
        self.writable.forget()
        self._brk = 1 << 64

    def after(self, recorder: Recorder, call: Call, result: int) -> None:
        """At the exit of a call: add to its segments what else it has written."""
        nr = call.nr
        if result == -errno.EFAULT:
            for address, data in guess.arguments_snapshot(recorder.tracee, call.args):
                call.segments.append((SegmentKind.OUT, ABSOLUTE, address, data))
            self._cut_short(recorder, call, failed=True)
        elif nr in _SIMPLE:
            buffer = _SIMPLE[nr]
            if 0 <= result < call.args[buffer + 1]:
                self._cut_short(recorder, call)
        elif nr in _VECTORED:
            if result >= 0:
                self._cut_short(recorder, call)
        elif nr in _OPENING:
            if result >= 0 and any(
                kind == SegmentKind.IN and isinstance(data, bytes) and data.endswith(b"mem\0")
                for kind, _, _, data in call.segments
            ):
                self.memory_opened = True
        elif nr == _NR_PROCESS_VM_WRITEV:
            if result > 0 and call.args[0] == recorder.tracee.pid:
                self._in_vector(recorder, call, call.args[3:5], result)
        elif nr == _NR_PROCESS_MADVISE:
            if result > 0 and call.args[3] & 0xFFFFFFFF in _DROPPING:
                # Dropped pages are zeros now, or the file's again. (Another process's are not: then
                # this says of the same addresses here what they hold.)
                self._in_vector(recorder, call, call.args[1:3], result)
        elif self.memory_opened and nr in WRITERS and result > 0:
            self._written_by_descriptor(recorder, call, result)
        if nr in _TAKING and (nr != _NR_MMAP or call.args[3] & _MAP_FIXED):
            self.writable.forget()
        elif nr == _NR_BRK:
            if result < self._brk:
                self.writable.forget()
            self._brk = result

    def _cut_short(self, recorder: Recorder, call: Call, failed: bool = False) -> None:
        """Keep what buffers hold that reach into memory which cannot be written to.

        Of a call that `failed` others may have been filled before, too.
        """
        if call.row is None:
            return
        tracee = recorder.tracee
        for item in call.row.outputs(call.args, _ALL, tracee, call.before):
            wanted = item.address + min(item.length, _MOST)
            end = self.writable.end_from(tracee, item.address, wanted)
            if item.address < end and (failed or end < wanted):
                reached = item._replace(length=end - item.address)
                self._keep(recorder, call, reached)

    @staticmethod
    def _keep(recorder: Recorder, call: Call, item: Range) -> None:
        segments, flags = store_range(recorder.tracee, recorder.writer.add_data, call.args, item)
        call.segments += segments
        call.flags |= flags

    def _in_vector(
        self, recorder: Recorder, call: Call, vector_and_count: tuple[int, ...], result: int
    ) -> None:
        """Keep what the first `result` bytes are that an iovec array points to."""
        vector, count = vector_and_count
        for index in range(min(count, _IOV_MAX)):
            try:
                pair = recorder.tracee.read(vector + 16 * index, 16)
            except BadAddress:
                return
            address = int.from_bytes(pair[:8], "little")
            length = min(int.from_bytes(pair[8:], "little"), result)
            if length:
                self._keep(recorder, call, Range(ABSOLUTE, address, length, "data"))
            result -= length

    def _written_by_descriptor(self, recorder: Recorder, call: Call, result: int) -> None:
        for path, span in WRITERS[call.nr](recorder.tracee, call.args, result):
            try:
                target = os.readlink(path)
            except OSError:
                continue
            if target.startswith(f"/proc/{recorder.tracee.pid}/") and target.endswith("/mem"):
                first, last = span(path)
                self._keep(recorder, call, Range(ABSOLUTE, first, last - first, "data"))


__all__ = ["Reached", "WritableMemory"]
