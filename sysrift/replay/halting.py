# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a replay over a stretch of events at its own speed, halting at code and memory.

Memory is watched by debug registers; so are instructions, where there is one left (a halt is one
stop then, and code stays as it is), else they are `int3` while the tracee runs. The halts between
two events come in the same order whenever it runs there again, so the how-many-th halt before which
event tells a moment, and finds it again.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.engine import Engine, Reason
from sysrift.replay.place import is_at_event, play_one
from sysrift.replay.steps import Interrupted
from sysrift.syscalls import NAMES
from sysrift.trace.model import Event, EventKind
from sysrift.tracee import Registers
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYNCHRONOUS, SYSCALL_STOP
from sysrift.tracee.registers import NO_SYSCALL
from sysrift.tracee.watchpoints import COUNT, DebugRegisters, Piece

_INT3 = b"\xcc"
_SYSCALL = b"\x0f\x05"
_CHUNK = 20_000  # events between two looks at whether the user has had enough
_RESUME_FLAG = 1 << 16  # of rflags: execute an instruction that a debug register is for
_LOOK = 64  # halts between two such looks
_MAPS = "brk mmap munmap mremap mprotect pkey_mprotect madvise shmat shmdt remap_file_pages"
MAPS = frozenset(NAMES[name] for name in _MAPS.split(" "))
"""Calls that change what memory there is."""


class Kind(enum.Enum):
    """What a run halts at."""

    CODE = "code"  # an instruction asked for is next
    MEMORY = "memory"  # the instruction before has touched memory asked for
    PASSING = "passing"  # an instruction is next that is looked at, but makes no moment
    EVENT = "event"  # an event asked for is next


class Halt(NamedTuple):
    """`event` has not happened yet; `ordinal` counts CODE and MEMORY since the one before happened.

    `touched` are indices of the memory asked for.
    """

    kind: Kind
    event: int
    ordinal: int
    registers: Registers
    touched: frozenset[int] = frozenset()


class Halting:
    """A run of the engine's tracee, from where it stands, within `DebugRegisters.borrowed`.

    Attributes, which may be changed at every halt: `code` and `passing` (addresses of
    instructions), `memory`, and `events`, which gives the first event to halt at from a number on
    (0: none); calls that change what memory there is are always halted at.
    `on_chunk` is called at times, with nothing in the tracee but the program.
    """

    def __init__(
        self, engine: Engine, registers: DebugRegisters, enough: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._tracee = engine.tracee
        self._registers = registers
        self._enough = enough
        self.code: frozenset[int] = frozenset()
        self.memory: tuple[Piece, ...] = ()
        self.passing: frozenset[int] = frozenset()
        self.events: Callable[[int], int] = lambda _first: 0
        self.on_chunk: Callable[[], None] = lambda: None
        self._halts = 0
        self._shared: tuple[tuple[int, ...], frozenset[int]] = (), frozenset()
        self._shared_for: object = None
        self.begin()

    def leave(self) -> None:
        """Let the tracee be moved by others."""
        self._registers.set(())

    def begin(self) -> None:
        """The tracee has been put somewhere else."""
        self._ordinal = 0
        self._event = self._engine.next
        self._told = False  # of the instruction that is next
        self._told_event = 0

    # -- running --------------------------------------------------------------------------------

    def next(self, last: int) -> Halt | None:
        """Run on to the next halt; None when event `last` is next, or the recording ends.

        An event that was halted at happens first. Raises Interrupted, ReplayError.
        """
        while True:
            self._halts += 1
            if self._halts % _LOOK == 0 and self._enough():
                raise Interrupted
            registers = self._tracee.registers()
            ip = registers.rip
            if not self._told and (ip in self.code or ip in self.passing):
                self._told = True
                return self._halt(Kind.CODE if ip in self.code else Kind.PASSING, registers)
            if not self._told or self._by_register(ip):
                halt, goes_on = self._advance(last, registers)
                if halt is not None or not goes_on:
                    return halt
                continue
            if is_at_event(self._engine):
                event = self._engine.next
                if event >= last:
                    return None
                if not self._told_now and self.events(event) == event:
                    self._told_event = event
                    return self._halt(Kind.EVENT, registers)
                self.play()
                continue
            touched = self._step_over(last)
            if touched is None:
                return None
            if touched:
                return self._halt(Kind.MEMORY, self._tracee.registers(), touched)

    def _halt(
        self, kind: Kind, registers: Registers, touched: frozenset[int] = frozenset()
    ) -> Halt:
        if self._event != self._engine.next:
            self._event, self._ordinal = self._engine.next, 0
        if kind in (Kind.CODE, Kind.MEMORY):
            self._ordinal += 1
        return Halt(kind, self._event, self._ordinal, registers, touched)

    def play(self) -> None:
        """Let the event happen that was halted at."""
        self._registers.set(())
        play_one(self._engine)
        self._told = False

    def step(self) -> frozenset[int] | None:
        """Execute one instruction, which is no event; what memory it touched. None: a signal came
        instead. For looking closely at what lies between two halts."""
        self._told = False
        registers = self._registers
        registers.set(self.memory)
        registers.hits = 0
        tracee = self._tracee
        while True:
            tracee.resume(pt.PTRACE_SINGLESTEP)
            status = tracee.wait()
            if not status >> 16:
                break
        touched = self._touched(registers.hits)
        return touched if os.WSTOPSIG(status) == signal.SIGTRAP else None

    def _advance(self, last: int, registers: Registers) -> tuple[Halt | None, bool]:
        """Let the engine run; a halt, and whether it is to go on if there is none."""
        engine, tracee = self._engine, self._tracee
        told = engine.next if self._told_now else 0
        event = self.events(engine.next + self._told_now)
        target = min(last, event or last, engine.next + _CHUNK)
        exact, patched = self._shared_out()
        if self._told and not registers.eflags & _RESUME_FLAG:
            registers.eflags |= _RESUME_FLAG
            tracee.set_registers(registers)
        self._told = False
        # Libraries come and go; so do breakpoints in them.
        codes = {at: tracee.read_some(at, 1) for at in patched}
        try:
            self._registers.set(self.memory + tuple(Piece(address) for address in exact))
            self._registers.hits = 0
            for at, code in codes.items():
                if code:
                    tracee.write(at, _INT3)
            halt = engine.advance(
                stop_at=target,
                wanted=lambda event: is_mapping(event) and event.number != told,
                wanted_calls=frozenset(),
            )
        finally:
            for at, code in codes.items():
                if code:
                    tracee.write(at, code)
        registers = tracee.registers()
        if halt.reason is Reason.REACHED:
            if engine.next >= last:
                return None, False
            if engine.next == event:
                self._told_event = event
                self._told = registers.rip in self.code or registers.rip in self.passing
                return self._halt(Kind.EVENT, registers), True
            if self._enough():
                raise Interrupted
            self.on_chunk()
            return None, True
        if halt.reason is Reason.WANTED:
            if engine.next >= last:
                return None, False
            self._told_event = engine.next
            self._told = registers.rip in self.code or registers.rip in self.passing
            return self._halt(Kind.EVENT, registers), True
        if halt.reason is Reason.TRAP:
            hits = self._registers.hits
            touched = self._touched(hits)
            if touched:
                return self._halt(Kind.MEMORY, registers, touched), True
            if hits:
                return None, True
            if codes.get(registers.rip - 1):
                registers.rip -= 1
                registers.orig_rax = NO_SYSCALL
                tracee.set_registers(registers)
                return None, True
            raise ReplayError("the program ran into a breakpoint of its own (int3)")
        if halt.reason is Reason.SIGNAL:
            if self._enough():
                raise Interrupted
            return None, True
        return None, False

    def _step_over(self, last: int) -> frozenset[int] | None:
        """Execute the instruction that was halted at; what memory it touched. None where that is
        event `last`, or the end."""
        engine, tracee = self._engine, self._tracee
        if tracee.read_some(tracee.registers().rip, 2) == _SYSCALL:
            tracee.resume(pt.PTRACE_SYSEMU)
            status = tracee.wait()
            if status == SYSCALL_STOP:
                registers = tracee.registers()
                if engine.next >= last:
                    engine.rewind(registers)
                    return None
                self._told = False
                return frozenset() if engine.system_call(registers) else None
            raise ReplayError("the program does not come to that place again")
        touched = self.step()
        if touched is not None:
            return touched
        sig = int.from_bytes(tracee.siginfo()[:4], "little")
        if sig in SYNCHRONOUS and engine.is_expected_fault(sig):
            if engine.next >= last:
                return None
            return frozenset() if engine.fault(sig) else None
        if self._enough():
            raise Interrupted
        return frozenset()  # somebody's signal, which is not the recording's

    # -- details --------------------------------------------------------------------------------

    def _shared_out(self) -> tuple[tuple[int, ...], frozenset[int]]:
        """The instructions that debug registers are for, and those that become `int3`."""
        key = self.code, self.passing, self.memory
        if key != self._shared_for:
            free = COUNT - len(self.memory)
            wanted = sorted(self.code | self.passing)
            self._shared = tuple(wanted[:free]), frozenset(wanted[free:])
            self._shared_for = key
        return self._shared

    def _by_register(self, ip: int) -> bool:
        return ip in self._shared_out()[0]

    def _touched(self, hits: int) -> frozenset[int]:
        return frozenset(n for n in range(len(self.memory)) if hits >> n & 1)

    @property
    def _told_now(self) -> bool:
        """Whether the event that is next has been halted at."""
        return self._told_event == self._engine.next


def is_mapping(event: Event) -> bool:
    """Whether an event changes what memory there is."""
    return event.kind == EventKind.SYSCALL and event.nr in MAPS


__all__ = ["MAPS", "Halt", "Halting", "Kind", "is_mapping"]
