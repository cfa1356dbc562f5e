# SPDX-License-Identifier: GPL-2.0-or-later
"""The newest moment before now at which one of the user's breakpoints, watchpoints or catchpoints
would stop.

The stretch since the event before now is run through again, then the one from the checkpoint
before up to there, and so on back to where the program began; each at its own speed, halting at
what could be such a moment. In each stretch it is the last one that counts.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection
from typing import NamedTuple, Optional, Union

from sysrift.errors import ReplayError
from sysrift.replay.halting import Halt, Kind
from sysrift.replay.place import Place, is_at_event
from sysrift.replay.steps import Interrupted
from sysrift.trace.model import EventKind
from sysrift.tracee import BadAddress, Registers
from sysrift_gdb import parameters
from sysrift_gdb.session import Replay
from sysrift_gdb.targets import Change, CodeTarget, SyscallTarget, Target, WatchTarget
from sysrift_gdb.tracking import Tracking


class MomentKind(enum.Enum):
    """How a moment is told."""

    CODE = "code"  # the how-many-th halt before an event, at an instruction
    MEMORY = "memory"  # the same, behind an instruction that touched memory: before that one
    ENTRY = "entry"  # the same, at the beginning of a function: before the call
    CALL = "call"  # the event is next, and the program at it
    RETURN = "return"  # the event was the last thing to happen


class Moment(NamedTuple):
    """`ordinal` counts the halts since the event before `event`; `behind` is the instruction that
    was next at a MEMORY or ENTRY halt, `returns` what was on top of the stack there."""

    kind: MomentKind
    event: int
    ordinal: int = 0
    behind: int = 0
    returns: int = 0


class ScopeEnd(enum.Enum):
    """Instead of a `Change`: the frame of the watched expression began there."""

    SCOPE_END = "scope"


Detail = Optional[Union[Change, ScopeEnd]]  # noqa: UP007, UP045 (evaluated, and GDB may have Python 3.9)


class Found(NamedTuple):
    """A moment, and what stops there, each with its own detail."""

    moment: Moment
    stopping: tuple[tuple[Target, Detail], ...]


class _Noted(NamedTuple):
    serial: int
    moment: Moment
    detail: Detail


class Search:
    """One search back from where the replay stands, within `Replay.travel`.

    `excluded` are moments of targets that have turned out to be none. `counts_here`: a stop at this
    very place is one, too (the user was further on). Afterwards each target's `passed` is how many
    stops at it lie between now and the one that was found.
    """

    def __init__(
        self,
        replay: Replay,
        targets: Collection[Target],
        excluded: Collection[tuple[int, Moment]] = (),
        counts_here: bool = False,
    ) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._targets = targets
        self._excluded = excluded
        self._counts_here = counts_here
        self.tracking = Tracking(replay, targets)
        self.tracking.halting.on_chunk = self._consider_checkpoint
        self._noted: dict[Target, deque[_Noted]] = {}
        self._scopes: dict[Target, _Noted] = {}  # where the frames of watched expressions began
        self._serial = 0
        self._newest_event = 0
        self._is_right_behind = False  # of that event, is where the search began

    def run(self) -> Found | None:
        """The newest one; None when there is none since the program began. Within
        `tracking.registers.borrowed`. Raises Interrupted, ReplayError."""
        replay = self._replay
        here = replay.place()
        for target in self._targets:
            target.passed = 0
        self._go_behind(here.event - 1)
        newest = self._newest_event = replay.behind
        self._to_here(here)
        found = self._newest()
        if found is not None:
            return found
        beginning = replay.trace.beginning
        if newest <= beginning or replay.trace.has_image(newest):
            return None
        image = max(beginning, replay.trace.image_before(newest))
        before: int | None = None  # what was looked through begins where this event is next
        for start in [n for n in reversed(replay.checkpoints.events) if image < n <= newest]:
            self.tracking.leave()
            replay.checkpoints.restore(start)
            self._through(newest, before)
            found = self._newest()
            if found is not None:
                return found
            before = start
        self._go_behind(image)
        self._through(newest, before)
        return self._newest()

    def _go_behind(self, event: int) -> None:
        self.tracking.leave()
        if self._replay.go_behind(event):
            raise Interrupted

    def _consider_checkpoint(self) -> None:
        self.tracking.leave()
        checkpoints = self._replay.checkpoints
        checkpoints.budget = parameters.checkpoint_memory()
        checkpoints.interval = parameters.checkpoint_interval()
        checkpoints.consider()

    # -- stretches ------------------------------------------------------------------------------

    def _begin(self, last: int) -> None:
        self._noted = {target: deque(maxlen=target.needed) for target in self._targets}
        self._scopes = {}
        self.tracking.begin(last)

    def _to_here(self, here: Place) -> None:
        """From behind an event to `here`, before the next one."""
        self._begin(here.event - 1)
        self._is_right_behind = self._is_at(here)
        if not here.is_at_event:
            site = Registers.from_bytes(here.registers).rip
            self.tracking.halting.passing = frozenset((site,))
        while True:
            halt = self.tracking.next(here.event)
            if halt is None:
                break
            if halt.kind in (Kind.CODE, Kind.PASSING) and self._is_at(here):
                if self._counts_here:
                    self._note_all(halt)
                if here.is_at_event:
                    break
                self.tracking.halting.passing = frozenset()
                return
            self._note_all(halt)
        if not here.is_at_event:
            raise ReplayError("the program does not come to that place again")
        if self._counts_here:
            self._note_catches(here.event, Moment(MomentKind.CALL, here.event))

    def _is_at(self, here: Place) -> bool:
        if here.event != self._engine.next or not here.is_at_event:
            return here.is_here(self._engine)
        return is_at_event(self._engine)

    def _through(self, newest: int, before: int | None) -> None:
        """From where the replay stands to right behind event `newest`; or to where event `before`,
        which is older, is next."""
        self._begin(newest if before is None else before - 1)
        while self._engine.next <= newest:
            halt = self.tracking.next(newest + 1 if before is None else before)
            if halt is None:
                return
            self._note_all(halt)

    # -- halts ----------------------------------------------------------------------------------

    def _note_all(self, halt: Halt) -> None:
        self._serial += 1
        if halt.kind is Kind.CODE:
            for watch in self.tracking.began:
                # What was before is of another frame.
                self._noted[watch].clear()
                entry = self._behind(MomentKind.ENTRY, halt)
                self._scopes[watch] = _Noted(self._serial, entry, ScopeEnd.SCOPE_END)
            moment = Moment(MomentKind.CODE, halt.event, halt.ordinal)
            for target in self._targets:
                if isinstance(target, CodeTarget) and target.holds(halt.registers, self._engine):
                    self._note(target, moment, None)
        elif halt.kind is Kind.MEMORY:
            self._note_memory(halt)
        elif halt.kind is Kind.EVENT:
            self._note_event(halt.event)

    def _note(self, target: Target, moment: Moment, detail: Detail) -> None:
        if (target.number, moment) not in self._excluded:
            self._noted[target].append(_Noted(self._serial, moment, detail))

    def _note_memory(self, halt: Halt) -> None:
        tracking = self.tracking
        moment = self._behind(MomentKind.MEMORY, halt)
        for watch, change in tracking.changes.items():
            if watch.counts(change, watch in tracking.touched) and watch.held_before(self._engine):
                self._note(watch, moment, change)

    def _behind(self, kind: MomentKind, halt: Halt) -> Moment:
        registers = halt.registers
        returns = self._word(registers.rsp)
        return Moment(kind, halt.event, halt.ordinal, registers.rip, returns)

    def _note_catches(self, event: int, moment: Moment) -> None:
        if self._replay.trace.glance(event)[0] != EventKind.SYSCALL:
            return
        nr = self._replay.trace.event(event).nr
        for target in self._targets:
            if isinstance(target, SyscallTarget) and target.catches(nr) and target.holds():
                self._note(target, moment, None)

    def _note_event(self, event: int) -> None:
        self._note_catches(event, Moment(MomentKind.CALL, event))
        held = {
            watch: watch.held_before(self._engine)
            for watch in self._targets
            if isinstance(watch, WatchTarget)
        }
        self.tracking.play()
        self._serial += 1
        for watch, change in self.tracking.changes.items():
            if change.old != change.new and watch.counts(change, False) and held[watch]:
                self._note(watch, Moment(MomentKind.CALL, event), change)
        self._serial += 1
        if not (event == self._newest_event and self._is_right_behind):
            self._note_catches(event, Moment(MomentKind.RETURN, event))

    def _word(self, address: int) -> int:
        try:
            return int.from_bytes(self._engine.tracee.read(address, 8), "little")
        except BadAddress:
            return 0

    # -- what was found -------------------------------------------------------------------------

    def _newest(self) -> Found | None:
        """Of the stretch that was run through: the newest moment at which a target stops."""
        stops: list[tuple[Target, _Noted]] = []
        for target, noted in self._noted.items():
            left = target.needed - target.passed
            if len(noted) >= left:
                stops.append((target, noted[-left]))
            elif target in self._scopes:
                stops.append((target, self._scopes[target]))
        serial = max((stop.serial for _, stop in stops), default=0)
        for target, noted in self._noted.items():
            target.passed += sum(each.serial >= serial for each in noted)
        newest = [(target, stop) for target, stop in stops if stop.serial == serial]
        if not newest:
            return None
        return Found(newest[0][1].moment, tuple((target, stop.detail) for target, stop in newest))


__all__ = ["Detail", "Found", "Moment", "MomentKind", "ScopeEnd", "Search"]
