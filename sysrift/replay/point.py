# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the pass of an instruction at which a signal came, among the millions before it.

Two ways: a jump to generated code that compares in the process (`patch`), and, where no jump can be
put, a breakpoint that stops at every pass (5 to 50 us each). Either way the pass that agrees with
the recording in all that the process itself compared is compared here in full (`moment`).
"""

from __future__ import annotations

import enum
import os
import resource
import signal
import struct
import time
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.moment import Moment
from sysrift.replay.patch import INT3, CannotPatch, Patch, plan
from sysrift.trace.model import Event
from sysrift.trace.points import JUMP_LENGTH
from sysrift.tracee import BadAddress, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYSCALL_STOP

_PATIENCE_CPU, _PATIENCE_FACTOR = 10, 30
"""Seconds of the program's own CPU time to look for a point, and how often the recorded time
beside."""

_STOP_COST = 50e-6
"""Seconds of the program's CPU time that a stop is taken for, at most."""

_PATIENCE_STOPS, _STOPS_FACTOR = 60.0, 3000
"""Seconds to look for a point where every pass is a stop, or, if that is more, how many times what
it took when it was recorded: a pass took at least some nanoseconds then."""

_NR_MMAP, _NR_MPROTECT, _NR_MUNMAP = 9, 10, 11
_READ_WRITE, _READ_EXECUTE = 3, 5
_MAP_FLAGS = 0x100000 | 0x02 | 0x20  # MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_ANONYMOUS
_RESUME_FLAG = 1 << 16
_MAX_STEPS = 20000  # through the generated code, to its end
_TRAP_HWBKPT = 4  # si_code, sigaction(2)
_REPEATS = frozenset(b"\xf2\xf3")
_PREFIXES = 4  # that an instruction has at most, in practice


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

    `site` is its address. Between two calls nothing of it is left in the process. Watchpoints and
    breakpoints that a debugger has in the process stop the program as they would without a search.
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
        self._moment = Moment(tracee, event)
        self._point = self._moment.point
        self._stops = 0

    @property
    def registers(self) -> Registers:
        """The registers there."""
        return self._moment.registers

    @property
    def words(self) -> list[tuple[int, int]]:
        """(address, value) of words of memory there, that other passes may have otherwise."""
        return list(self._point.words)

    @property
    def displaced(self) -> range:
        """The addresses of the code that a search needs as it is."""
        return range(self.site, self.site + max(len(self._point.code), 1))

    def is_here(self, registers: Registers) -> bool:
        """Whether the tracee, whose registers these are, stands at the point on the pass meant."""
        return self._moment.is_now(registers)

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
            try:
                patch = self._plan()
                self._put(patch)
            except CannotPatch:
                return self._search_by_stops()
            return self._search_by_patch(patch)
        finally:
            if self._watched:
                tracee.watchpoint_hits = self._hits

    def _plan(self) -> Patch:
        point = self._point
        mappings = read_maps(self._tracee.pid)
        patch = plan(self.site, point, self._moment.registers, point.xsave, mappings)
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

    def _next_stop(self) -> tuple[int, Registers] | Search:
        """Let it run to the next signal, or a system call, which ends the search: the signal, and
        the registers."""
        while True:
            status = self._resume(pt.PTRACE_SYSEMU)
            registers = self._tracee.registers()
            if status == SYSCALL_STOP:
                return Search(Came.SYSCALL, registers)
            if not status >> 16:
                return os.WSTOPSIG(status), registers

    def _is_watchpoint(self) -> bool:
        """Whether a SIGTRAP just now came from a debugger's debug register."""
        self._hits = self._tracee.watchpoint_hits if self._watched else 0
        return self._hits != 0

    # -- by generated code ----------------------------------------------------------------------

    def _search_by_patch(self, patch: Patch) -> Search:
        try:
            patience = _PATIENCE_CPU + _PATIENCE_FACTOR * self._recorded
            with _CpuLimit(self._tracee.pid, patience) as limit:
                return self._run(patch, limit)
        finally:
            self._tracee.write(self.site, self._point.code[:JUMP_LENGTH])
            self._take_away(patch)

    def _put(self, patch: Patch) -> None:
        """Put the generated code into the tracee, and the jump to it. Raises CannotPatch."""
        tracee = self._tracee
        length, data_length = patch.length, patch.start + patch.length - patch.data_start
        try:
            tracee.remote_syscall(
                _NR_MMAP, patch.start, length, _READ_EXECUTE, _MAP_FLAGS, -1, 0
            )  # fmt: skip
        except RemoteSyscallError:
            raise CannotPatch("there is no memory for the generated code") from None
        try:
            tracee.remote_syscall(_NR_MPROTECT, patch.data_start, data_length, _READ_WRITE)
            tracee.write(patch.code_start, patch.code)
            tracee.write(patch.data_start, patch.data)
            tracee.write(self.site, patch.jump)
        except (RemoteSyscallError, BadAddress):
            self._take_away(patch)
            raise CannotPatch("the code cannot be changed") from None

    def _take_away(self, patch: Patch) -> None:
        self._tracee.remote_syscall(_NR_MUNMAP, patch.start, patch.length)

    def _run(self, patch: Patch, limit: _CpuLimit) -> Search:
        tracee = self._tracee
        while True:
            stop = self._next_stop()
            if isinstance(stop, Search):
                return stop
            sig, registers = stop
            self._stops += 1
            if sig == signal.SIGTRAP and self._is_watchpoint():
                if registers.rip == patch.called:
                    return self._finish_call(patch)
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
                # It comes again every second (kernel/time/posix-cpu-timers.c).
                if limit.is_over(self._stops * _STOP_COST):
                    raise self._not_found()
                continue
            raised = self._raised()
            return Search(Came.STOP, self._leave(patch), sig, raised)

    def _code_of_signal(self) -> int:
        code: int = struct.unpack_from("<i", self._tracee.siginfo(), 8)[0]  # si_code
        return code

    def _raised(self) -> bool:
        return self._code_of_signal() > 0

    def _check_match(self, patch: Patch, registers: Registers) -> bool:
        """At the generated code's int3: whether it is the pass that is meant; if not, go on."""
        registers.rip = self.site
        found = self.is_here(registers)
        if not found:
            registers.rip = patch.displaced[0]
        self._tracee.set_registers(registers)
        return found

    def _finish_call(self, patch: Patch) -> Search:
        """A displaced call has pushed its return address to where a debugger watches: that traps
        behind the call, so the jump belongs to it, and so does what is watched of its operand."""
        hits = self._hits
        sig = os.WSTOPSIG(self._resume(pt.PTRACE_SINGLESTEP))
        raised = self._raised()
        self._is_watchpoint()
        # Anything else came before the jump was executed: there was no call yet.
        self._hits = hits | self._hits if sig == signal.SIGTRAP else 0
        return Search(Came.STOP, self._leave(patch), sig, raised)

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
            if registers.rip == patch.called:
                original, registers.rsp = patch.originals[-1], registers.rsp + 8
            if original is not None:
                registers.rip = original
                tracee.set_registers(registers)
                return registers
            tracee.resume(pt.PTRACE_SINGLESTEP)
            tracee.wait()
        raise ReplayError("the generated code that looks for a signal's place does not end")

    # -- by a breakpoint ------------------------------------------------------------------------

    def _search_by_stops(self) -> Search:
        """Stop at every pass: by a debug register, where one is free and it sees every pass.

        Of a repeating string instruction it sees the first iteration only. A debugger that uses
        debug registers keeps them to itself; where its breakpoint is at the point, that stops.
        """
        prefixes = self._code(_PREFIXES)
        until = time.monotonic() + max(_PATIENCE_STOPS, _STOPS_FACTOR * self._recorded)
        if prefixes[0] != INT3 and _REPEATS.isdisjoint(prefixes):
            with self._tracee.execution_breakpoint(self.site) as works:
                if works:
                    return self._search_by_register(until)
        return self._search_by_breakpoint(until)

    def _search_by_register(self, until: float) -> Search:
        tracee = self._tracee
        expected = signal.SIGTRAP, self.site, _TRAP_HWBKPT
        while time.monotonic() < until:
            stop = self._next_stop()
            if isinstance(stop, Search):
                return stop
            sig, registers = stop
            if (sig, registers.rip, self._code_of_signal()) != expected:
                return Search(Came.STOP, registers, sig, self._raised())
            if self.is_here(registers):
                # The kernel has set it, for the instruction to be executed now.
                registers.eflags &= ~_RESUME_FLAG
                tracee.set_registers(registers)
                return Search(Came.FOUND, registers)
        raise self._not_found()

    def _search_by_breakpoint(self, until: float) -> Search:
        """Stop at every pass. A byte that is an int3 already is somebody else's breakpoint."""
        tracee = self._tracee
        original = self._point.code[:1] or self._code(1)
        theirs = self._code(1)[0] == INT3
        while time.monotonic() < until:
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
            stop = self._next_stop()
            if not theirs:
                tracee.write(self.site, original)
            if isinstance(stop, Search):
                return stop
            sig, registers = stop
            trapped = sig == signal.SIGTRAP and not self._is_watchpoint()
            if theirs or not trapped or registers.rip != self.site + 1:
                # Also on the pass that is meant: they see their breakpoint, and then the event.
                return Search(Came.STOP, registers, sig, self._raised())
            registers.rip -= 1
            tracee.set_registers(registers)
            if self.is_here(registers):
                return Search(Came.FOUND, registers)
        raise self._not_found()

    def _not_found(self) -> ReplayError:
        closest = self._moment.closest
        if closest:
            differs = f"closest was a pass that differs in {closest}"
        else:
            words = len(self._point.words)
            differs = f"no pass had all registers and {words} words of memory"
        return ReplayError(
            f"the place in a computation where signal {self.event.nr} (event "
            f"{self.event.number}) came was not found: the program passes {self.site:#x}, but "
            "never, for many times as long as it took when it was recorded, with the recorded "
            f"registers and memory; {differs}"
        )


class _CpuLimit:
    """Within it, the process gets SIGXCPU when it has used so much more CPU time."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._until = self._used() + seconds

    def _used(self) -> float:
        with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_over(self, not_counted: float) -> bool:
        """Whether it has used that much, so many seconds not counted."""
        return self._used() - not_counted >= self._until

    def __enter__(self) -> _CpuLimit:
        self._before = resource.prlimit(self._pid, resource.RLIMIT_CPU)
        soft, hard = int(self._until) + 1, self._before[1]
        if hard == resource.RLIM_INFINITY or soft < hard:
            resource.prlimit(self._pid, resource.RLIMIT_CPU, (soft, hard))
        return self

    def __exit__(self, *_: object) -> None:
        try:
            resource.prlimit(self._pid, resource.RLIMIT_CPU, self._before)
        except OSError:
            pass


__all__ = ["Came", "PointFinder", "Search"]
