# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing the point where a computing program gets its signal, so that replay finds it again.

The program is interrupted twice. The first time, some of its memory is copied. The second time it
is single-stepped for at most a few milliseconds: until an instruction that a jump can displace
comes up for the third time (then a whole pass of the loop was seen), or one is good enough. What
the passes wrote, and what of the copied memory has changed, tells this pass from the others.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections import Counter
from typing import NamedTuple

from sysrift.record.instructions import Decoder, Registers, Run
from sysrift.record.watched import WatchedMemory
from sysrift.trace.points import JUMP_LENGTH, MAX_WORDS, Lead, Point, Word
from sysrift.tracee import BadAddress, Tracee, TraceeGone
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NAMES

BUDGET = 0.0025
"""Seconds that the single-stepping may take; signals come 20 ms apart at least."""

_ENOUGH_PASSES = 3
_WRITTEN_WORDS = 256
_CHANGED_WORDS = 512
_NAMED_WORDS = 128
_CALLERS = 8
_MORE_PAGES = 64
_USER_REGISTERS = struct.Struct(f"<{len(NAMES)}Q")
_RIP, _RSP = NAMES.index("rip"), NAMES.index("rsp")
_CANDIDATES = tuple(
    NAMES.index(name)
    for name in [
        "rax",
        "rbx",
        "rcx",
        "rdx",
        "rsi",
        "rdi",
        "rbp",
        "r8",
        "r9",
        "r10",
        "r11",
        "r12",
        "r13",
        "r14",
        "r15",
    ]
)
_DEBUG_ADDRESS, _DEBUG_CONTROL = 848, 848 + 7 * 8  # offsetof(struct user, u_debugreg[0], [7])


class Outcome(NamedTuple):
    """What looking for a point came to.

    `point`: the program stands at it. `status`: a stop came instead, with which the recorder has
    to deal. Neither: the next instruction makes an event, which is as good a place.
    """

    point: Point | None = None
    status: int | None = None


class PointSearch:
    """One search, begun at the first interruption.

    `arrived` are (signal, siginfo) that came while single-stepping; they are not delivered yet.
    """

    def __init__(self, tracee: Tracee) -> None:
        self.arrived: list[tuple[int, bytes]] = []
        self._tracee = tracee
        self._memory = WatchedMemory(tracee, tracee.registers().rsp)
        self._steps: list[Registers] = []

    def choose(self) -> Outcome:
        """At the second interruption: step on to a good point. Raises TraceeGone."""
        self._decoder = Decoder(self._tracee)
        until = time.monotonic() + BUDGET
        visits: Counter[int] = Counter()
        runs: dict[int, Run] = {}
        aim: int | None = None
        while True:
            now = _USER_REGISTERS.unpack(bytes(self._tracee.registers()))
            rip = now[_RIP]
            if self._decoder.makes_event(rip):
                return Outcome()
            self._steps.append(now)
            out_of_time = time.monotonic() > until
            if self._decoder.repeats(rip):
                if out_of_time or not self._set_breakpoint_behind(rip):
                    return Outcome(self._describe(None))
                try:
                    status = self._step(pt.PTRACE_CONT)
                finally:
                    pt.ptrace(pt.PTRACE_POKEUSER, self._tracee.pid, _DEBUG_CONTROL, 0)
            else:
                visits[rip] += 1
                run = self._decoder.run_at(rip)
                if run is not None:
                    runs[rip] = run
                    if rip == aim or out_of_time:
                        return Outcome(self._describe(run))
                if visits[rip] >= _ENOUGH_PASSES and aim is None:
                    aim = _best(runs, visits)
                    if aim is None:
                        return Outcome(self._describe(None))
                    if aim == rip:
                        return Outcome(self._describe(runs[rip]))
                if out_of_time and time.monotonic() > until + BUDGET:
                    return Outcome(self._describe(None))
                status = self._step(pt.PTRACE_SINGLESTEP)
            if status is not None:
                return Outcome(status=status)

    # -- moving ---------------------------------------------------------------------------------

    def _step(self, request: int) -> int | None:
        """Move by one instruction (or to the debug register's); a wait status if that is not
        what happened."""
        while True:
            self._tracee.resume(request)
            _, status = os.waitpid(self._tracee.pid, pt.WALL)
            if status & 0xFF != 0x7F:
                raise TraceeGone(self._tracee.pid, status)
            sig = os.WSTOPSIG(status)
            if status >> 16:
                if sig != signal.SIGTRAP:
                    return status  # a group-stop
                continue  # another PTRACE_INTERRUPT
            siginfo = self._tracee.siginfo()
            code = struct.unpack_from("<i", siginfo, 8)[0]
            if sig == signal.SIGTRAP and code > 0:
                return None
            if code > 0 and sig in _FAULTS:
                return status
            self.arrived.append((sig, siginfo))

    def _set_breakpoint_behind(self, address: int) -> bool:
        """A debug register stops the program behind the instruction at `address`: a step executes
        one iteration of a repeating one. False if there are no debug registers."""
        instruction = self._decoder.at(address)
        assert instruction is not None
        try:
            pid = self._tracee.pid
            pt.ptrace(pt.PTRACE_POKEUSER, pid, _DEBUG_ADDRESS, address + instruction.len)
            pt.ptrace(pt.PTRACE_POKEUSER, pid, _DEBUG_CONTROL, 1)
        except OSError:
            return False
        return True

    # -- describing -----------------------------------------------------------------------------

    def _describe(self, run: Run | None) -> Point:
        """Where the program stands now: what tells this pass from the others."""
        here = self._steps[-1]
        passes = [step for step in self._steps if step[_RIP] == here[_RIP]]
        if len(passes) < 2:
            passes = self._steps
        variety = {index: len({step[index] for step in passes}) for index in _CANDIDATES}
        telling = sorted(
            (index for index in _CANDIDATES if variety[index] > 1), key=lambda i: -variety[i]
        )
        times = self._written_times()
        words = self._words([address for address, _ in times.most_common(_WRITTEN_WORDS)])
        changed, ranges = self._memory.compare(_CHANGED_WORDS)
        known = {word.address for word in words}
        words += [word for word in changed if word.address not in known]
        known.update(word.address for word in changed)
        named = self._named()
        words += self._words([address for address in named if address not in known])
        ranges += self._memory.pages_of({*times, *named})[:_MORE_PAGES]
        lead = Lead.REGISTER if telling else Lead.WORD if words else Lead.NOTHING
        return Point(
            code=run.code if run else b"",
            pieces=run.pieces if run else (),
            lead=lead,
            telling=bytes(telling),
            words=tuple(words[:MAX_WORDS]),
            ranges=tuple(ranges),
            xsave=self._tracee.xsave(),
        )

    def _written_times(self) -> Counter[int]:
        """How often the steps wrote each word of the program's own data."""
        times: Counter[int] = Counter()
        for step in self._steps[:-1]:
            for start, length in self._decoder.written(step[_RIP], step):
                for address in range(start & ~7, start + length, 8):
                    times[address] += 1
        return Counter({a: n for a, n in times.items() if self._memory.is_own_data(a)})

    def _named(self) -> list[int]:
        """The words of global variables that this code and the code that called it names."""
        found: dict[int, None] = {}
        for place in (self._steps[-1][_RIP], *self._memory.return_addresses(_CALLERS)):
            for address in self._decoder.globals_near(place):
                if self._memory.is_own_data(address):
                    found[address & ~7] = None
        return list(found)[:_NAMED_WORDS]

    def _words(self, addresses: list[int]) -> list[Word]:
        words = []
        for address in addresses:
            try:
                value = int.from_bytes(self._tracee.read(address, 8), "little")
            except BadAddress:
                continue
            words.append(Word(address, value))
        return words


def _best(runs: dict[int, Run], visits: Counter[int]) -> int | None:
    """The address to aim at: not passed too often, and displaced as one instruction if possible."""
    if not runs:
        return None

    def cost(address: int) -> tuple[bool, bool, int, int]:
        run = runs[address]
        single = run.pieces[0].length >= JUMP_LENGTH
        return (visits[address] < 2, run.enters_itself, visits[address], 0 if single else 1)

    return min(runs, key=cost)


_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)
