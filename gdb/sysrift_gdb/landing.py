# SPDX-License-Identifier: GPL-2.0-or-later
"""Going to a moment that a search back has found.

A debug register stops the program behind the instruction that touched memory, and it is the one
before that the user wants to see: so passes of that instruction are counted up to there, and then
the program goes to the last of them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import gdb
from sysrift.errors import ReplayError
from sysrift.replay.engine import Reason
from sysrift.replay.halting import Halt, Kind
from sysrift.replay.steps import MOST, Interrupted, TooFar
from sysrift.tracee import read_maps
from sysrift.tracee.maps import PROT_EXEC
from sysrift_gdb.interrupts import is_interrupted
from sysrift_gdb.search_back import Moment, MomentKind
from sysrift_gdb.session import Replay
from sysrift_gdb.tracking import Tracking

_OFFSET = re.compile(r" \+ (\d+) in section")
_FARTHEST = 1 << 16  # bytes from a function's beginning that are disassembled
_LOOK = 4096  # steps between two looks at whether the user has had enough
_LOST = "the program does not come to that place again"


class _Anchor(NamedTuple):
    """So many halts since an event, and then so many passes of what is passed: in front of the
    instruction that touches the memory, or somewhere before that."""

    halts: int
    passes: int


class Landing:
    """Goes to moments, within `Replay.travel` and `tracking.registers.borrowed`."""

    def __init__(self, replay: Replay, tracking: Tracking) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._tracking = tracking

    def go_to(self, moment: Moment) -> None:
        """Go there. Raises Interrupted, ReplayError."""
        if moment.kind is MomentKind.RETURN:
            self._behind(moment.event)
        elif moment.kind is MomentKind.CALL:
            self._behind(moment.event - 1)
            if self._engine.advance(stop_at=moment.event).reason is not Reason.REACHED:
                raise ReplayError(_LOST)
        elif moment.kind is MomentKind.CODE:
            self._to_halt(moment, moment.ordinal)
        else:
            self._to_touching(moment)
        self._tracking.halting.passing = frozenset()

    def _behind(self, event: int) -> None:
        self._tracking.leave()
        if self._replay.go_behind(event):
            raise Interrupted

    def _to_halt(self, moment: Moment, ordinal: int) -> Halt | None:
        """To the halt of that ordinal, in the stretch of the moment; to its beginning for 0."""
        self._behind(moment.event - 1)
        self._tracking.begin(moment.event - 1)
        return self._on_to_halt(moment, ordinal) if ordinal else None

    def _on_to_halt(self, moment: Moment, ordinal: int) -> Halt:
        while True:
            halt = self._tracking.next(moment.event)
            if halt is None:
                raise ReplayError(_LOST)
            if halt.kind in (Kind.CODE, Kind.MEMORY) and halt.ordinal == ordinal:
                return halt

    # -- in front of what touches memory ----------------------------------------------------------

    def _to_touching(self, moment: Moment) -> None:
        halting = self._tracking.halting
        candidates = _could_have_touched(moment)
        self._behind(moment.event - 1)
        self._tracking.begin(moment.event - 1)
        code = [m for m in read_maps(self._replay.pid) if m.prot & PROT_EXEC]
        halting.passing = frozenset(
            at for at in candidates if any(m.start <= at < m.end for m in code)
        ).difference(halting.code)
        anchor = self._last_pass(moment)
        self._to_anchor(moment, anchor)
        steps = self._steps_to_halt(moment)
        self._to_anchor(moment, anchor)
        for _ in range(steps - 1):
            self._tracking.step()

    def _last_pass(self, moment: Moment) -> _Anchor:
        """Run to the moment's halt, counting passes since the halt before."""
        passes = 0
        while True:
            halt = self._tracking.next(moment.event)
            if halt is None:
                raise ReplayError(_LOST)
            if halt.kind is Kind.PASSING:
                passes += 1
            elif halt.kind in (Kind.CODE, Kind.MEMORY):
                if halt.ordinal == moment.ordinal:
                    return _Anchor(moment.ordinal - 1, passes)
                passes = 0

    def _to_anchor(self, moment: Moment, anchor: _Anchor) -> None:
        self._to_halt(moment, anchor.halts)
        passes = 0
        while passes < anchor.passes:
            halt = self._tracking.next(moment.event)
            if halt is None:
                raise ReplayError(_LOST)
            passes += halt.kind is Kind.PASSING

    def _steps_to_halt(self, moment: Moment) -> int:
        """How many instructions there are up to the one behind which the halt is, that included."""
        steps = 1
        while not self._step_ends(moment):
            steps += 1
            if steps > MOST:
                raise TooFar(f"more than {MOST} instructions to what touched the watched memory")
            if steps % _LOOK == 0 and is_interrupted():
                raise Interrupted
        return steps

    def _step_ends(self, moment: Moment) -> bool:
        touched = self._tracking.step()
        if moment.kind is MomentKind.MEMORY:
            return touched
        return self._engine.tracee.registers().rip == moment.behind


def _could_have_touched(moment: Moment) -> set[int]:
    """Which instructions may be the one whose end the halt of a moment was: the one before in the
    code, a call just made, or a string instruction that goes on."""
    found = {_instruction_before(moment.behind), _instruction_before(moment.returns)}
    return found - {0} | {moment.behind}


def _instruction_before(address: int) -> int:
    """The beginning of the instruction that ends at an address, by GDB's disassembler; 0 when it
    is not known."""
    if not 0 < address < 1 << 63:
        return 0
    try:
        start = _beginning_of_function(address - 1)
        if not start or address - start > _FARTHEST:
            return 0
        architecture = gdb.newest_frame().architecture()
        *_, last = architecture.disassemble(start, address - 1)
    except (gdb.error, ValueError):
        return 0
    return int(last["addr"]) if last["addr"] + last["length"] == address else 0


def _beginning_of_function(address: int) -> int:
    block = gdb.block_for_pc(address)
    while block is not None and block.function is None:
        block = block.superblock
    if block is not None:
        return int(block.start)
    offset = _OFFSET.search(gdb.execute(f"info symbol {address:#x}", to_string=True))
    return address - int(offset.group(1)) if offset else 0


__all__ = ["Landing"]
