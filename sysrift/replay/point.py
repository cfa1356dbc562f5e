# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the pass of an instruction at which a signal came, among the millions before it.

Two ways: a jump to generated code that compares in the process (`patch`), and, where no jump can be
put, a breakpoint that stops at every pass (about 15 us each). Either way the pass that agrees with
the recording in all that the process itself compared is compared here in full.
"""

from __future__ import annotations

import enum
import os
import resource
import signal
import struct
import time
import zlib
from typing import NamedTuple

from sysrift.errors import ReplayError, TraceError
from sysrift.replay.patch import INT3, CannotPatch, Patch, plan
from sysrift.trace.model import AFTER, Event, SegmentKind
from sysrift.trace.points import JUMP_LENGTH, Point, unpack
from sysrift.tracee import BadAddress, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYSCALL_STOP
from sysrift.tracee.registers import NAMES

_PATIENCE_CPU, _PATIENCE_FACTOR = 10, 30
"""Seconds of the program's CPU time to look for a point, and how often the recorded time beside."""

_PATIENCE_STOPS = 60.0
"""Seconds to look for a point where every pass is a stop."""

_NR_MMAP, _NR_MPROTECT, _NR_MUNMAP = 9, 10, 11
_READ_WRITE, _READ_EXECUTE = 3, 5
_MAP_FLAGS = 0x100000 | 0x02 | 0x20  # MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_ANONYMOUS
_TRAP_FLAG, _RESUME_FLAG = 1 << 8, 1 << 16
_MAX_STEPS = 20000  # through the generated code, to its end
_NOT_COMPARED = {"orig_rax", "cs", "ss", "ds", "es", "fs", "gs"}
_COMPARED = tuple(name for name in NAMES if name not in {*_NOT_COMPARED, "eflags"})


class Came(enum.Enum):
    """What a search ended with."""

    FOUND = "found"  # the program stands at the point, on the pass that was meant
    SYSCALL = "system call"  # it made a system call first: it never came to the point
    STOP = "stop"  # something else: a signal, somebody's breakpoint


class Search(NamedTuple):
    """How a search ended, with the registers then; of a STOP its signal, and whether an
    instruction raised it."""

    came: Came
    registers: Registers
    signal: int = 0
    raised: bool = False


class PointFinder:
    """Looks for the point of one SIGNAL event in a tracee that runs towards it.

    Between two calls nothing of it is left in the process.
    """

    def __init__(self, tracee: Tracee, event: Event, recorded_us: int) -> None:
        """`recorded_us`: how long the program ran to the point when it was recorded.

        Raises TraceError when the event does not say what to look for.
        """
        self._tracee = tracee
        self.event = event
        self.site = event.site
        self._watched = False  # there are debug registers, which may trap
        self._hits = 0  # those that did, where a search stopped
        self._recorded = recorded_us / 1e6
        self._registers: Registers | None = None
        self._point = Point()
        for segment in event.segments:
            if segment.data is None:
                continue
            if segment.kind == SegmentKind.REGISTERS and segment.address != AFTER:
                self._registers = Registers.from_bytes(segment.data)
            elif segment.kind == SegmentKind.POINT:
                try:
                    self._point = unpack(segment.data)
                except ValueError as error:
                    raise TraceError(f"damaged trace: event {event.number}: {error}") from None
        if self._registers is None:
            raise TraceError(f"damaged trace: event {event.number} lacks its registers")
        self.wanted: Registers = self._registers

    @property
    def displaced(self) -> range:
        """The addresses of the code that a search needs as it is."""
        return range(self.site, self.site + max(len(self._point.code), 1))

    # -- comparing ------------------------------------------------------------------------------

    def is_here(self, registers: Registers) -> bool:
        """Whether the tracee, whose registers these are, stands at the point on the pass meant."""
        wanted = self.wanted
        if any(getattr(registers, name) != getattr(wanted, name) for name in _COMPARED):
            return False
        if (registers.eflags ^ wanted.eflags) & ~(_TRAP_FLAG | _RESUME_FLAG):
            return False
        if not _same_xsave(self._tracee.xsave(), self._point.xsave):
            return False
        try:
            for address, value in self._point.words:
                if self._tracee.read(address, 8) != struct.pack("<Q", value):
                    return False
            for address, length, crc in self._point.ranges:
                if zlib.crc32(self._tracee.read(address, length)) != crc:
                    return False
        except BadAddress:
            return False
        return True

    # -- searching ------------------------------------------------------------------------------

    def search(self) -> Search:
        """Let the tracee run to the point, or to what comes instead.

        Its registers are the program's own afterwards, and its code is as it was; where a
        debugger's watchpoint stopped it, `Tracee.watchpoint_hits` tells. Raises ReplayError when it
        is not found in time, TraceeGone.
        """
        tracee = self._tracee
        registers = tracee.registers()
        if self.is_here(registers):
            return Search(Came.FOUND, registers)
        self._watched = tracee.has_watchpoints
        self._hits = 0
        try:
            with _CpuLimit(tracee.pid, _PATIENCE_CPU + _PATIENCE_FACTOR * self._recorded):
                try:
                    patch = self._plan()
                except CannotPatch:
                    return self._search_by_breakpoint()
                return self._search_by_patch(patch)
        finally:
            if self._watched:
                tracee.watchpoint_hits = self._hits

    def _plan(self) -> Patch:
        point = self._point
        mappings = read_maps(self._tracee.pid)
        patch = plan(self.site, point, self.wanted, point.xsave, mappings)
        if self._code(len(point.code)) != point.code:
            raise CannotPatch("a debugger has a breakpoint there")
        hardware = self._tracee.hardware_breakpoints if self._watched else []
        if any(address in self.displaced for address in hardware):
            raise CannotPatch("a debugger has a hardware breakpoint there")
        return patch

    def _code(self, length: int) -> bytes:
        return self._tracee.read_some(self.site, length)

    def _resume(self, request: int) -> int:
        """Let it run to the next stop, whose wait status this returns."""
        if self._watched:
            self._tracee.watchpoint_hits = 0
        self._tracee.resume(request)
        return self._tracee.wait()

    def _is_watchpoint(self) -> bool:
        """Whether a SIGTRAP just now came from a debug register."""
        self._hits = self._tracee.watchpoint_hits if self._watched else 0
        return self._hits != 0

    # -- by generated code ----------------------------------------------------------------------

    def _search_by_patch(self, patch: Patch) -> Search:
        tracee = self._tracee
        try:
            self._put(patch)
        except RemoteSyscallError:
            return self._search_by_breakpoint()
        try:
            tracee.write(self.site, patch.jump)
        except BadAddress:
            self._take_away(patch)
            return self._search_by_breakpoint()
        try:
            return self._run(patch)
        finally:
            tracee.write(self.site, self._point.code[:JUMP_LENGTH])
            self._take_away(patch)

    def _put(self, patch: Patch) -> None:
        tracee = self._tracee
        tracee.remote_syscall(_NR_MMAP, patch.start, patch.length, _READ_EXECUTE, _MAP_FLAGS, -1, 0)
        data_length = patch.start + patch.length - patch.data_start
        tracee.remote_syscall(_NR_MPROTECT, patch.data_start, data_length, _READ_WRITE)
        tracee.write(patch.code_start, patch.code)
        tracee.write(patch.data_start, patch.data)

    def _take_away(self, patch: Patch) -> None:
        self._tracee.remote_syscall(_NR_MUNMAP, patch.start, patch.length)

    def _run(self, patch: Patch) -> Search:
        tracee = self._tracee
        while True:
            status = self._resume(pt.PTRACE_SYSEMU)
            registers = tracee.registers()
            if status == SYSCALL_STOP:
                return Search(Came.SYSCALL, registers)
            if status >> 16:
                continue
            sig = os.WSTOPSIG(status)
            if sig == signal.SIGTRAP and self._is_watchpoint():
                if patch.contains(registers.rip) and registers.rip not in patch.ends:
                    self._hits = 0
                    continue  # the comparing code read what is watched
                return Search(Came.STOP, self._leave(patch), sig, True)
            if sig == signal.SIGTRAP and registers.rip == patch.match:
                if self._check_match(patch, registers):
                    return Search(Came.FOUND, registers)
                continue
            trapped_at = registers.rip - (1 if sig == signal.SIGTRAP else 0)
            moved = patch.moved(trapped_at) if trapped_at != self.site else None
            if moved is not None and sig in (signal.SIGTRAP, signal.SIGILL):
                registers.rip = moved
                tracee.set_registers(registers)
                continue
            if sig == signal.SIGXCPU:
                raise self._not_found()
            raised = self._raised()
            return Search(Came.STOP, self._leave(patch), sig, raised)

    def _raised(self) -> bool:
        code: int = struct.unpack_from("<i", self._tracee.siginfo(), 8)[0]  # si_code
        return code > 0

    def _check_match(self, patch: Patch, registers: Registers) -> bool:
        """At the generated code's int3: whether it is the pass that is meant; if not, go on."""
        registers.rip = self.site
        found = self.is_here(registers)
        if not found:
            registers.rip = patch.displaced[0]
        self._tracee.set_registers(registers)
        return found

    def _leave(self, patch: Patch) -> Registers:
        """Where something else stopped the program: put it onto its own instructions."""
        tracee = self._tracee
        for _ in range(_MAX_STEPS):
            registers = tracee.registers()
            if not patch.contains(registers.rip):
                return registers
            original = patch.original(registers.rip)
            if original is None and registers.rip == patch.match:
                original = self.site
            if original is not None:
                registers.rip = original
                tracee.set_registers(registers)
                return registers
            tracee.resume(pt.PTRACE_SINGLESTEP)
            tracee.wait()
        raise ReplayError("the generated code that looks for a signal's place does not end")

    # -- by a breakpoint ------------------------------------------------------------------------

    def _search_by_breakpoint(self) -> Search:
        """Stop at every pass. A byte that is an int3 already is somebody else's breakpoint."""
        tracee = self._tracee
        until = time.monotonic() + _PATIENCE_STOPS
        original = self._point.code[:1] or self._code(1)
        theirs = self._code(1)[0] == INT3
        while True:
            if time.monotonic() > until:
                raise self._not_found()
            if not theirs and tracee.registers().rip == self.site:
                # Over the instruction itself; a repeated one comes here at every iteration.
                before = self._code(1)
                tracee.write(self.site, original)
                status = self._resume(pt.PTRACE_SINGLESTEP)
                tracee.write(self.site, before)
                registers = tracee.registers()
                if os.WSTOPSIG(status) != signal.SIGTRAP or self._is_watchpoint():
                    return Search(Came.STOP, registers, os.WSTOPSIG(status), self._raised())
                if self.is_here(registers):
                    return Search(Came.FOUND, registers)
                continue
            if not theirs:
                tracee.write(self.site, bytes((INT3,)))
            status = self._resume(pt.PTRACE_SYSEMU)
            if not theirs:
                tracee.write(self.site, original)
            registers = tracee.registers()
            if status == SYSCALL_STOP:
                return Search(Came.SYSCALL, registers)
            if status >> 16:
                continue
            sig = os.WSTOPSIG(status)
            if sig == signal.SIGXCPU:
                raise self._not_found()
            trapped = sig == signal.SIGTRAP and not self._is_watchpoint()
            if theirs or not trapped or registers.rip != self.site + 1:
                # Also on the pass that is meant: they see their breakpoint, and then the event.
                return Search(Came.STOP, registers, sig, self._raised())
            registers.rip -= 1
            tracee.set_registers(registers)
            if self.is_here(registers):
                return Search(Came.FOUND, registers)

    def _not_found(self) -> ReplayError:
        return ReplayError(
            f"the place in a computation where signal {self.event.nr} (event "
            f"{self.event.number}) came was not found: the program passes {self.site:#x}, but "
            "never, for many times as long as it took when it was recorded, with the recorded "
            "registers and memory"
        )


def _same_xsave(found: bytes, wanted: bytes) -> bool:
    """Whether two xsave areas hold the same values (Intel SDM vol. 1, 13.4).

    Not compared: the addresses and opcode of the last x87 instruction, which is another one in
    displaced code, the software's bytes and the header, whose bits depend on more than the values.
    """
    if not wanted:
        return True
    if len(found) != len(wanted):
        found, wanted = found[:512], wanted[:512]
    return all(found[part] == wanted[part] for part in _XSAVE_PARTS)


_XSAVE_PARTS = (slice(0, 6), slice(24, 28), slice(32, 416), slice(576, None))


class _CpuLimit:
    """Within it, the process gets SIGXCPU when it has used so much more CPU time."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._seconds = seconds

    def __enter__(self) -> None:
        with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self._before = resource.prlimit(self._pid, resource.RLIMIT_CPU)
        soft, hard = int(used + self._seconds) + 1, self._before[1]
        if hard == resource.RLIM_INFINITY or soft < hard:
            resource.prlimit(self._pid, resource.RLIMIT_CPU, (soft, hard))

    def __exit__(self, *_: object) -> None:
        try:
            resource.prlimit(self._pid, resource.RLIMIT_CPU, self._before)
        except OSError:
            pass


__all__ = ["Came", "PointFinder", "Search"]
