# SPDX-License-Identifier: GPL-2.0-or-later
"""The instructions of a replay between two events, one by one: what going back looks at.

From behind one event to the next nothing but the program's own code runs, so stepping through it
again gives the same instructions in the same order. A step takes some 10 us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from sysrift.errors import ReplayError
from sysrift.replay.engine import Engine
from sysrift.replay.place import Place, is_at_event
from sysrift.tracee import BadAddress, Registers
from sysrift.tracee import ptrace as pt

MOST = 1_000_000
"""Instructions between two events that are looked at one by one."""

_LOOK = 4096  # steps between two looks at whether the user has had enough
_LONGEST_INSTRUCTION = 15
_PREFIXES = bytes((0xF2, 0xF3, 0x66, 0x67, *range(0x40, 0x50)))
_REPEATS = frozenset(b"\xf2\xf3")
_STRING_INSTRUCTIONS = tuple(bytes((op,)) for op in b"\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf")


class TooFar(ReplayError):
    """There are too many instructions to go through them in this way."""


class Interrupted(Exception):
    """The user has had enough."""


class Step(NamedTuple):
    """Where an instruction is about to be executed, with the stack pointer, and watched memory.

    `done` instructions were executed before; a repeated string instruction counts as one.
    """

    ip: int
    sp: int
    watched: bytes
    done: int


class Watched(NamedTuple):
    """Memory to look at before each instruction; nothing for a length of 0."""

    address: int = 0
    length: int = 0


_NOTHING = Watched()


def walk(
    engine: Engine,
    place: Place | None,
    enough: Callable[[], bool],
    watched: Watched = _NOTHING,
    most: int = MOST,
    count: int | None = None,
) -> list[Step]:
    """Step to `place`, or over `count` instructions, or else to the next event.

    The tracee stands behind an event, and what is asked for comes before the next, with nothing of
    a debugger's or of the engine's in its code. Returns all that was passed, the first and the last
    place included; the tracee stands at the last. Raises TooFar, Interrupted, and ReplayError when
    `place` is not there.
    """
    tracee = engine.tracee
    site = 0 if place is None else Registers.from_bytes(place.registers).rip
    event = engine.trace.event(engine.next) if engine.next <= engine.trace.event_count else None
    passed: list[Step] = []
    done = -1
    _leave_call(engine)
    while True:
        registers = tracee.registers()
        if not passed or not _is_repeating(engine, passed[-1].ip, registers.rip):
            done += 1
        passed.append(Step(registers.rip, registers.rsp, _look(engine, watched), done))
        if place is not None and registers.rip == site and place.is_here(engine):
            return passed
        if done == count:
            return passed
        if event is not None and registers.rip == event.site and is_at_event(engine):
            break
        if len(passed) > most:
            raise TooFar(f"more than {most} instructions since event {engine.next - 1}")
        if len(passed) % _LOOK == 0 and enough():
            raise Interrupted
        if not _step(engine):
            break
    if place is not None or count is not None:
        raise ReplayError("the program does not come to that place again")
    return passed


def step(engine: Engine, count: int) -> None:
    """Execute so many instructions, as `walk` has passed them before. Raises ReplayError."""
    _leave_call(engine)
    for _ in range(count):
        if not _step(engine):
            raise ReplayError("the program does not come to that place again")


def advance(engine: Engine, count: int) -> None:
    """Execute so many instructions, a repeated one as a whole. Raises ReplayError."""
    if count:
        walk(engine, None, lambda: False, count=count)


def _is_repeating(engine: Engine, before: int, now: int) -> bool:
    """Whether a step from `before` to `now` was an iteration of a string instruction, not the last
    (Intel SDM vol. 2, REP): it may have up to four prefixes."""
    if before != now:
        return False
    code = engine.tracee.read_some(now, 4)
    rest = code.lstrip(_PREFIXES)
    return len(rest) < len(code) and not _REPEATS.isdisjoint(code[: len(code) - len(rest)]) and (
        rest[:1] in _STRING_INSTRUCTIONS
    )  # fmt: skip


def nesting(before: Step, after: Step) -> int:
    """1 when the instruction at `before` called a function (or a handler was entered there), -1
    when it returned from one, else 0.

    A jump leaves the stack pointer alone, and whatever else changes it goes on right behind.
    """
    if before.ip < after.ip <= before.ip + _LONGEST_INSTRUCTION or before.sp == after.sp:
        return 0
    return 1 if after.sp < before.sp else -1


def _leave_call(engine: Engine) -> None:
    """The first single step out of a syscall-entry-stop executes nothing (kernel/entry/common.c):
    make it, so that the next one does."""
    tracee = engine.tracee
    if tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY:
        before = tracee.registers().rip
        _step(engine)
        if tracee.registers().rip != before:
            raise ReplayError("a step out of a system call went too far")


def _step(engine: Engine) -> bool:
    """One instruction; False when there was a signal instead."""
    tracee = engine.tracee
    while True:
        tracee.resume(pt.PTRACE_SINGLESTEP)
        status = tracee.wait()
        if not status >> 16:
            return os.WSTOPSIG(status) == signal.SIGTRAP


def _look(engine: Engine, watched: Watched) -> bytes:
    if not watched.length:
        return b""
    try:
        return engine.tracee.read(watched.address, watched.length)
    except BadAddress:
        return b""


__all__ = [
    "MOST",
    "Interrupted",
    "Step",
    "TooFar",
    "Watched",
    "advance",
    "nesting",
    "step",
    "walk",
]
