# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that change what is mapped: replayed by the equivalent at the recorded address.

Where the program could tell the difference the equivalent is the same thing to the kernel: shared
memory is shared, a stack grows, a mapping past its file's end raises SIGBUS.
"""

from __future__ import annotations

import errno
import resource
import struct
from collections.abc import Callable
from typing import NamedTuple

from sysrift.image import RemoteMemory, limit_stack, stack_floor
from sysrift.replay.files import FileSource
from sysrift.syscalls import NAMES
from sysrift.trace.model import Event, Mapped, SegmentKind
from sysrift.tracee import BadAddress, Mapping, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee.pagemap import PAGE

_MAP_SHARED_MASK, _MAP_ANONYMOUS, _MAP_GROWSDOWN, _MAP_DENYWRITE = 0x03, 0x20, 0x100, 0x800
_MAP_HUGETLB, _HUGE_SHIFT, _HUGE_DEFAULT = 0x40000, 26, 21
_SHARED = (1, 3)  # MAP_SHARED, MAP_SHARED_VALIDATE
_MREMAP_MAYMOVE, _MREMAP_FIXED, _MREMAP_DONTUNMAP = 1, 2, 4
_SHM_RDONLY, _SHM_EXEC = 0o10000, 0o100000
_PARTLY = {-errno.ENOMEM, -errno.EACCES}
"""How a call over several mappings fails after it has done some of them."""

# DONTNEED, REMOVE, DONTFORK, DOFORK, WIPEONFORK, KEEPONFORK, DONTNEED_LOCKED, GUARD_INSTALL,
# GUARD_REMOVE (include/uapi/asm-generic/mman-common.h): those that a program can see the effect of.
_SEEN_ADVICE = {4, 9, 10, 11, 18, 19, 24, 102, 103}

_NR_RT_SIGPROCMASK, _SIG_SETMASK = NAMES["rt_sigprocmask"], 2


def _pages(length: int) -> int:
    return (length + PAGE - 1) // PAGE * PAGE


def _failed(result: int) -> bool:
    return -4096 < result < 0


class _Segment(NamedTuple):
    """A System V segment that is attached."""

    inode: int
    length: int


class MemoryCalls:
    """Replays the calls of class MAP."""

    def __init__(self, tracee: Tracee, source: FileSource, brk: int) -> None:
        self._tracee = tracee
        self._source = source
        self._memory = RemoteMemory(tracee)
        self._brk = brk
        self._by_number: dict[int, Callable[[Event], None]] = {
            NAMES[name]: method
            for name, method in (
                ("mmap", self._mmap),
                ("munmap", self._same_again),
                ("mprotect", self._same_again),
                ("pkey_mprotect", self._same_again),
                ("pkey_alloc", self._same_again),
                ("pkey_free", self._same_again),
                ("remap_file_pages", self._same_again),
                ("mremap", self._mremap),
                ("brk", self._set_brk),
                ("madvise", self._madvise),
                ("shmat", self._shmat),
                ("shmdt", self._shmdt),
                ("setrlimit", self._setrlimit),
                ("prlimit64", self._prlimit64),
            )
        }
        self._failures: dict[int, Callable[[Event], None]] = {
            NAMES["mprotect"]: self._as_far_as_it_went,
            NAMES["madvise"]: self._as_far_as_it_went,
            NAMES["mremap"]: self._moved_in_vain,
        }
        self._attached: dict[int, _Segment] = {}

    def fork(self, tracee: Tracee, source: FileSource) -> MemoryCalls:
        """The same for a copy of the tracee."""
        child = MemoryCalls(tracee, source, self._brk)
        child._attached = dict(self._attached)
        return child

    @property
    def brk(self) -> int:
        """Where the program break is."""
        return self._brk

    @property
    def has_attached(self) -> bool:
        """Whether System V segments are attached."""
        return bool(self._attached)

    def replay(self, event: Event) -> None:
        """Do what the call did. Raises RemoteSyscallError when the kernel refuses it now."""
        methods = self._failures if _failed(event.result) else self._by_number
        method = methods.get(event.nr)
        if method is not None:
            method(event)

    def _same_again(self, event: Event) -> None:
        self._tracee.remote_syscall(event.nr, *event.args)

    def _as_far_as_it_went(self, event: Event) -> None:
        """A call that failed in its midst: it does so at the same place again."""
        if event.result not in _PARTLY:
            return
        if event.nr == NAMES["madvise"] and event.args[2] & 0xFFFFFFFF not in _SEEN_ADVICE:
            return
        try:
            self._tracee.remote_syscall(event.nr, *event.args)
        except RemoteSyscallError:
            pass

    def _moved_in_vain(self, event: Event) -> None:
        """mremap unmaps its target, and what is cut off, before it finds that it cannot move."""
        if event.result == -errno.EFAULT and event.args[3] & _MREMAP_FIXED:
            try:
                self._tracee.remote_syscall(event.nr, *event.args)
            except RemoteSyscallError:
                pass

    def _mmap(self, event: Event) -> None:
        _, length, prot, flags, _, offset = event.args
        address = event.result
        shared = flags & _MAP_SHARED_MASK in _SHARED
        if flags & _MAP_HUGETLB:
            size = 1 << (flags >> _HUGE_SHIFT & 63 or _HUGE_DEFAULT)
            length = (length + size - 1) // size * size
        length = _pages(length)
        file = next((s for s in event.segments if s.kind == SegmentKind.FILE), None)
        if flags & _MAP_ANONYMOUS or file is None:
            if shared:
                path = self._source.memory_path("shared", event.number, length)
                self._memory.map_file(address, length, prot, path, 0, True)
            else:
                grows = bool(flags & _MAP_GROWSDOWN)
                self._memory.map_anonymous(address, length, prot, grows)
            return
        if self._source.is_stored(file.block) and (shared or not flags & _MAP_DENYWRITE):
            path = self._source.copy_path(file.block, bool(file.length & Mapped.IN_STEP))
        else:
            # What the dynamic linker maps (MAP_DENYWRITE) is not written to while it is in use.
            path = self._source.file_path(file.block)
            shared = False
        writable = not file.length & Mapped.READ_ONLY
        self._memory.map_file(address, length, prot, path, offset, shared, writable)

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
        if event.args[2] & 0xFFFFFFFF in _SEEN_ADVICE:
            self._tracee.remote_syscall(event.nr, *event.args[:3])

    def _shmat(self, event: Event) -> None:
        length = _pages(sum(s.length for s in event.segments if s.kind == SegmentKind.OUT))
        shmid, _, flags = event.args[:3]
        prot = 1 | (0 if flags & _SHM_RDONLY else 2) | (4 if flags & _SHM_EXEC else 0)
        path = self._source.memory_path("SYSV", shmid, length)
        writable = not flags & _SHM_RDONLY
        self._memory.map_file(event.result, length, prot, path, 0, True, writable)
        mapping = self._mapping_at(event.result)
        self._attached[event.result] = _Segment(mapping.inode if mapping else 0, length)

    def _shmdt(self, event: Event) -> None:
        """Unmap what is left of the segment where it was attached (ipc/shm.c, ksys_shmdt)."""
        segment = self._attached.pop(event.args[0], _Segment(0, 0))
        first, last = event.args[0], event.args[0] + segment.length
        for mapping in read_maps(self._tracee.pid):
            in_place = mapping.start - first == mapping.offset
            if mapping.inode == segment.inode and in_place and first <= mapping.start < last:
                self._memory.unmap(mapping.start, min(mapping.end, last) - mapping.start)

    # -- the stack's limit ----------------------------------------------------------------------

    def _setrlimit(self, event: Event) -> None:
        if event.args[0] & 0xFFFFFFFF == resource.RLIMIT_STACK:
            self._limit_stack(event.args[1])

    def _prlimit64(self, event: Event) -> None:
        pid, which, limit = event.args[:3]
        if which & 0xFFFFFFFF == resource.RLIMIT_STACK and limit and self._is_own(pid):
            self._limit_stack(limit)

    def _is_own(self, pid: int) -> bool:
        return pid & 0xFFFFFFFF in (0, self._source.recorded_pid)

    def _limit_stack(self, address: int) -> None:
        pid = self._tracee.pid
        wanted = struct.unpack("<Q", self._tracee.read(address, 8))[0]
        wanted = wanted if wanted < 1 << 63 else 0
        before = resource.prlimit(pid, resource.RLIMIT_STACK)[0]
        limit_stack(pid, wanted)
        maps = read_maps(pid)
        stack = next((m for m in maps if m.name == "[stack]"), None)
        if stack is None:
            return
        old = stack_floor(stack.end, max(before, 0))
        new = stack_floor(stack.end, wanted)
        if any(m.end == old and m.start == old - PAGE and not m.prot for m in maps):
            self._memory.unmap(old - PAGE, PAGE)
        if new and not any(m.start < new and new - PAGE < m.end for m in maps if m.end != old):
            self._memory.map_anonymous(new - PAGE, PAGE, 0)

    # -- writing where the tracer alone cannot ----------------------------------------------------

    def _mapping_at(self, address: int) -> Mapping | None:
        maps = read_maps(self._tracee.pid)
        return next((m for m in maps if m.start <= address < m.end), None)

    def write(self, address: int, data: bytes) -> None:
        """Put into memory what the kernel could write there, though /proc/PID/mem cannot.

        That is a shared mapping that is not writable, and a stack that has yet to grow. Raises
        BadAddress when it is neither.
        """
        mapping = self._mapping_at(address)
        if mapping is None:
            self._grow(address)
            self._tracee.write(address, data)
            return
        while data:
            if mapping is None:
                raise BadAddress(f"no memory at {address:#x}")
            part = data[: mapping.end - address]
            if not self._source.write_behind(mapping, address, part):
                self._tracee.write(address, part)
            data, address = data[len(part) :], address + len(part)
            mapping = self._mapping_at(address) if data else mapping

    def _grow(self, address: int) -> None:
        """Let the kernel itself write at `address`: that makes a stack grow down to it."""
        try:
            self._tracee.remote_syscall(_NR_RT_SIGPROCMASK, _SIG_SETMASK, 0, address, 8)
        except RemoteSyscallError:
            raise BadAddress(f"no memory at {address:#x}") from None

    def note_brk(self, event: Event) -> None:
        """Remember where brk is, for the next call."""
        if event.nr == NAMES["brk"]:
            self._brk = event.result
