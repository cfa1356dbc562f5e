# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that change what is mapped: replayed by the equivalent at the recorded address."""

from __future__ import annotations

import struct
from collections.abc import Callable

from sysrift.image import PAGE, RemoteMemory
from sysrift.replay.files import FileSource
from sysrift.replay.stack_limit import RLIMIT_STACK, set_stack_limit
from sysrift.syscalls import NAMES
from sysrift.trace.model import Event, Image, SegmentKind
from sysrift.tracee import RemoteSyscallError, Tracee

_MAP_TYPE, _MAP_ANONYMOUS = 0x0F, 0x20
_MREMAP_MAYMOVE, _MREMAP_FIXED, _MREMAP_DONTUNMAP = 1, 2, 4
_CHANGES_CONTENT = {4, 9, 24}  # MADV_DONTNEED, MADV_REMOVE, MADV_DONTNEED_LOCKED


def _pages(length: int) -> int:
    return (length + PAGE - 1) // PAGE * PAGE


class MemoryCalls:
    """Replays the calls of class MAP that succeeded."""

    def __init__(self, tracee: Tracee, source: FileSource, image: Image, pid: int) -> None:
        """`image` is the program's, `pid` the process id that it was recorded with."""
        self._tracee = tracee
        self._image = image
        self._pid = pid
        self._source = source
        self._memory = RemoteMemory(tracee)
        self._brk = image.mm[5]
        self._by_number: dict[int, Callable[[Event], None]] = {
            NAMES[name]: method
            for name, method in (
                ("mmap", self._mmap),
                ("munmap", self._same_again),
                ("mprotect", self._same_again),
                ("pkey_mprotect", self._pkey_mprotect),
                ("mremap", self._mremap),
                ("brk", self._set_brk),
                ("madvise", self._madvise),
                ("shmat", self._shmat),
                ("shmdt", self._shmdt),
                ("setrlimit", self._setrlimit),
                ("prlimit64", self._prlimit),
            )
        }
        self._attached: dict[int, int] = {}

    def fork(self, tracee: Tracee, source: FileSource, pid: int) -> MemoryCalls:
        """The same for a copy of the tracee."""
        child = MemoryCalls(tracee, source, self._image, pid)
        child._brk = self._brk
        child._attached = dict(self._attached)
        return child

    def replay(self, event: Event) -> None:
        """Do what the call did. Raises RemoteSyscallError when the kernel refuses it now."""
        method = self._by_number.get(event.nr)
        if method is not None and not -4096 < event.result < 0:
            method(event)

    def _same_again(self, event: Event) -> None:
        self._tracee.remote_syscall(event.nr, *event.args)

    def _pkey_mprotect(self, event: Event) -> None:
        self._tracee.remote_syscall(NAMES["mprotect"], *event.args[:3])

    def _mmap(self, event: Event) -> None:
        _, length, prot, flags, _, offset = event.args
        address = event.result
        file = next((s for s in event.segments if s.kind == SegmentKind.FILE), None)
        if flags & _MAP_ANONYMOUS or file is None:
            self._memory.map_anonymous(address, _pages(length), prot)
        else:
            shared = self._source.is_shared(file.block, flags & _MAP_TYPE)
            # A private mapping shows what others change in the file until its page is written to.
            follows = shared or self._source.has_shared(file.block)
            find = self._source.shared_path if follows else self._source.file_path
            self._memory.map_file(address, _pages(length), prot, find(file.block), offset, shared)

    def _mremap(self, event: Event) -> None:
        old, old_length, new_length, flags = event.args[:4]
        keep = flags & _MREMAP_DONTUNMAP
        if event.result == old:
            self._tracee.remote_syscall(event.nr, old, old_length, new_length, 0)
        else:
            how = _MREMAP_MAYMOVE | _MREMAP_FIXED | keep
            self._tracee.remote_syscall(event.nr, old, old_length, new_length, how, event.result)

    def _set_brk(self, event: Event) -> None:
        wanted = event.result
        if wanted == self._brk:
            return
        try:
            if self._tracee.remote_syscall(event.nr, wanted) == wanted:
                return
        except RemoteSyscallError:
            pass
        # The kernel's own idea of brk could not be set up: make the same memory by hand.
        old, new = _pages(self._brk), _pages(wanted)
        if new > old:
            self._memory.map_anonymous(old, new - old, 3)
        elif new < old:
            self._memory.unmap(new, old - new)

    def _madvise(self, event: Event) -> None:
        if event.args[2] & 0xFFFFFFFF in _CHANGES_CONTENT:
            self._tracee.remote_syscall(event.nr, *event.args[:3])

    def _shmat(self, event: Event) -> None:
        length = sum(s.length for s in event.segments if s.kind == SegmentKind.OUT)
        self._attached[event.result] = length
        self._memory.map_anonymous(event.result, _pages(length), 3)

    def _shmdt(self, event: Event) -> None:
        length = self._attached.pop(event.args[0], 0)
        self._memory.unmap(event.args[0], _pages(length))

    def _setrlimit(self, event: Event) -> None:
        if event.args[0] & 0xFFFFFFFF == RLIMIT_STACK:
            self._set_stack_limit(event.args[1])

    def _prlimit(self, event: Event) -> None:
        pid, what, address = event.args[0] & 0xFFFFFFFF, event.args[1] & 0xFFFFFFFF, event.args[2]
        if pid in (0, self._pid) and what == RLIMIT_STACK and address:
            self._set_stack_limit(address)

    def _set_stack_limit(self, address: int) -> None:
        limit = struct.unpack("<Q", self._tracee.read(address, 8))[0]
        set_stack_limit(self._tracee, self._image, limit)

    def note_brk(self, event: Event) -> None:
        """Remember where brk is, for the next call."""
        if event.nr == NAMES["brk"]:
            self._brk = event.result
