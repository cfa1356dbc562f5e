# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls in a diversion: of a function that the user lets the replayed process execute.

The recording has nothing for them. Calls that change nothing but the process's own memory are
made, or done by hand, such that `Saved.put_back` can undo them: what was mapped stays mapped.
What is written to the program's stdout and stderr is given to the caller. Everything else gets
ENOSYS, and the world outside never hears of it.
"""

from __future__ import annotations

import errno
import signal
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

from sysrift.image import RemoteMemory
from sysrift.replay.engine import Engine
from sysrift.replay.saved import Saved
from sysrift.syscalls import NAMES, lookup
from sysrift.syscalls.plan import read_iovec
from sysrift.tracee import BadAddress, Registers, RemoteSyscallError
from sysrift.tracee.pagemap import PAGE
from sysrift.tracee.registers import MASK, signed

_PROT_WRITE = 2
_MAP_SHARED_MASK, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x03, 0x02, 0x10, 0x20
_MAP_GROWSDOWN, _MAP_LOCKED, _MAP_HUGETLB, _MAP_NOREPLACE = 0x100, 0x2000, 0x40000, 0x100000
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_MADV_DONTNEED, _MADV_REMOVE = 4, 9
_AT_EMPTY_PATH = 0x1000
_FUTEX_COMMAND, _FUTEX_WAKE = 0x7F, 1
_IGNORED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_CHUNK = 1 << 20

_REAL = {
    NAMES[name]
    for name in (
        "getuid", "geteuid", "getgid", "getegid", "getrandom", "getcpu", "sched_yield", "uname",
        "mincore",
    )
}  # fmt: skip
"""Calls that only tell something, into the process's own memory: the stub makes them."""

_AS_IF_DONE = {NAMES[name] for name in ("mlock", "mlock2", "munlock", "msync", "membarrier")}

# struct stat of a terminal (arch/x86/include/uapi/asm/stat.h): the C library flushes a stream that
# leads to one at every line, instead of keeping what a diversion's end takes back.
_TERMINAL = struct.pack(
    "<QQQIIIIQqqq", 0, 1, 1, stat.S_IFCHR | 0o620, 0, 0, 0, 136 << 8, 0, 1024, 0
).ljust(144, b"\0")


class Outcome(NamedTuple):
    """What becomes of a call.

    `result` is what it returns; `output` what it has written to stdout or stderr; `refused` is its
    name when it was not made; `signal` would come to the process; by what `ends` says it would end.
    """

    result: int
    output: bytes = b""
    refused: str = ""
    signal: int = 0
    ends: str = ""


class DivertedCalls:
    """The calls of one diversion of an engine's tracee, which began as `saved` says."""

    def __init__(self, engine: Engine, saved: Saved) -> None:
        self.brk = saved.brk
        self._engine = engine
        self._tracee = engine.tracee
        self._memory = RemoteMemory(engine.tracee)
        self._saved = saved
        pid = engine.source.recorded_pid
        self._by_number: dict[int, Callable[[tuple[int, ...]], Outcome | int]] = {
            NAMES[name]: method
            for name, method in (
                ("mmap", self._mmap),
                ("munmap", self._munmap),
                ("mprotect", self._mprotect),
                ("mremap", self._mremap),
                ("madvise", self._madvise),
                ("brk", self._set_brk),
                ("write", self._write),
                ("writev", self._writev),
                ("fstat", self._fstat),
                ("newfstatat", self._newfstatat),
                ("rt_sigprocmask", self._rt_sigprocmask),
                ("futex", self._futex),
                ("exit", lambda args: Outcome(0, ends=f"exit({args[0] & 0xFF})")),
                ("exit_group", lambda args: Outcome(0, ends=f"exit({args[0] & 0xFF})")),
                ("kill", lambda args: self._kill(args[0], args[1])),
                ("tkill", lambda args: self._kill(args[0], args[1])),
                ("tgkill", lambda args: self._kill(args[0], args[2])),
                ("getpid", lambda _args: pid),
                ("gettid", lambda _args: pid),
                ("set_tid_address", lambda _args: pid),
            )
        }

    def make(self, registers: Registers) -> Outcome:
        """What becomes of the call that the tracee has stopped for, with these registers.

        The tracee's registers are as before afterwards, but a syscall-entry-stop may be left.
        """
        nr, args = signed(registers.orig_rax), registers.arguments
        try:
            if nr in _REAL:
                return Outcome(self._tracee.remote_syscall(nr, *args))
            if nr in _AS_IF_DONE:
                return Outcome(0)
            method = self._by_number.get(nr)
            outcome = method(args) if method is not None else -errno.ENOSYS
        except RemoteSyscallError as error:
            outcome = -error.errno
        except BadAddress:
            outcome = -errno.EFAULT
        if isinstance(outcome, Outcome):
            return outcome
        if outcome != -errno.ENOSYS:
            return Outcome(outcome)
        row = lookup(nr)
        return Outcome(outcome, refused=row.name if row is not None else f"system call {nr}")

    # -- memory ---------------------------------------------------------------------------------

    def _mmap(self, args: tuple[int, ...]) -> int:
        address, length, prot, flags = args[:4]
        length = _pages(length)
        if not flags & _MAP_ANONYMOUS or flags & _MAP_HUGETLB:
            return -errno.ENOSYS
        if flags & (_MAP_FIXED | _MAP_NOREPLACE) and self._saved.overlaps(
            address, address + length
        ):
            return -errno.EEXIST if flags & _MAP_NOREPLACE else -errno.ENOMEM
        if not flags & (_MAP_FIXED | _MAP_NOREPLACE) and self._saved.overlaps(
            address, address + length
        ):
            address = 0
        flags &= ~(_MAP_GROWSDOWN | _MAP_LOCKED)
        return self._tracee.remote_syscall(NAMES["mmap"], address, length, prot, flags, -1, 0)

    def _munmap(self, args: tuple[int, ...]) -> int:
        start, length = args[:2]
        if start % PAGE or not length:
            return -errno.EINVAL
        for low, high in self._saved.unmapped(start, start + _pages(length)):
            self._memory.unmap(low, high - low)
        return 0  # what was there before stays: nobody is going to look

    def _mprotect(self, args: tuple[int, ...]) -> int:
        start, length, prot = args[:3]
        end = start + _pages(length)
        if prot & _PROT_WRITE:
            self._saved.keep(start, end)
        return self._tracee.remote_syscall(NAMES["mprotect"], start, end - start, prot)

    def _mremap(self, args: tuple[int, ...]) -> int:
        old, old_length, new_length, flags, target = args[:5]
        old_length, new_length = _pages(old_length), _pages(new_length)
        if flags & _MREMAP_FIXED and self._saved.overlaps(target, target + new_length):
            return -errno.ENOMEM
        if not self._saved.overlaps(old, old + max(old_length, PAGE)):
            return self._tracee.remote_syscall(
                NAMES["mremap"], old, old_length, new_length, flags, target
            )
        if flags & ~_MREMAP_MAYMOVE or not old_length:
            return -errno.ENOMEM
        if new_length <= old_length:
            return old
        if not flags & _MREMAP_MAYMOVE:
            return -errno.ENOMEM
        new = self._tracee.remote_syscall(
            NAMES["mmap"], 0, new_length, 3, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0
        )
        for at in range(0, old_length, _CHUNK):
            self._tracee.write(new + at, self._tracee.read(old + at, min(_CHUNK, old_length - at)))
        return new

    def _madvise(self, args: tuple[int, ...]) -> int:
        start, length, advice = args[:3]
        if advice not in (_MADV_DONTNEED, _MADV_REMOVE):
            return 0
        self._saved.keep(start, start + _pages(length))
        return self._tracee.remote_syscall(NAMES["madvise"], start, length, advice)

    def _set_brk(self, args: tuple[int, ...]) -> int:
        wanted, first = args[0], self._saved.brk
        if wanted == 0 or wanted == self.brk:
            return self.brk
        if wanted < first:
            # The memory stays, but a program may count on zeros when it gets it again.
            lowest = self._lowest_brk()
            if wanted < lowest:
                return self.brk
            for at in range(wanted, first, _CHUNK):
                self._tracee.write(at, bytes(min(_CHUNK, first - at)))
        if self._saved.overlaps(_pages(first), max(_pages(wanted), _pages(first))):
            return self.brk
        old, new = (max(_pages(brk), _pages(first)) for brk in (self.brk, wanted))
        if new > old:
            self._memory.map_anonymous(old, new - old, 3)
        elif new < old:
            self._memory.unmap(new, old - new)
        self.brk = wanted
        return wanted

    def _lowest_brk(self) -> int:
        end = _pages(self._saved.brk)
        return next((m.start for m in self._saved.maps if m.end == end), self._saved.brk)

    # -- output ---------------------------------------------------------------------------------

    def _write(self, args: tuple[int, ...]) -> Outcome | int:
        if not self._engine.is_output(args[0]):
            return -errno.ENOSYS
        data = self._tracee.read(args[1], args[2])
        return Outcome(len(data), output=data)

    def _writev(self, args: tuple[int, ...]) -> Outcome | int:
        if not self._engine.is_output(args[0]):
            return -errno.ENOSYS
        parts = read_iovec(self._tracee, args[1], args[2])
        data = b"".join(self._tracee.read(address, length) for address, length in parts)
        return Outcome(len(data), output=data)

    def _fstat(self, args: tuple[int, ...]) -> int:
        if not self._engine.is_output(args[0]):
            return -errno.ENOSYS
        self._tracee.write(args[1], _TERMINAL)
        return 0

    def _newfstatat(self, args: tuple[int, ...]) -> int:
        if not args[3] & _AT_EMPTY_PATH or self._tracee.read(args[1], 1) != b"\0":
            return -errno.ENOSYS
        return self._fstat((args[0], args[2]))

    # -- signals --------------------------------------------------------------------------------

    def _rt_sigprocmask(self, args: tuple[int, ...]) -> int:
        if args[2]:
            self._tracee.write(args[2], bytes(min(args[3], 128)))
        return 0

    def _futex(self, args: tuple[int, ...]) -> int:
        return 0 if args[1] & _FUTEX_COMMAND == _FUTEX_WAKE else -errno.ENOSYS

    def _kill(self, pid: int, number: int) -> Outcome | int:
        number &= 0xFFFFFFFF
        if pid & 0xFFFFFFFF != self._engine.source.recorded_pid:
            return -errno.ENOSYS
        if number == 0 or number in _IGNORED:
            return 0
        return Outcome(0, signal=number) if number in signal.valid_signals() else -errno.EINVAL


def _pages(length: int) -> int:
    return (length + PAGE - 1) // PAGE * PAGE & MASK


__all__ = ["DivertedCalls", "Outcome"]
