# SPDX-License-Identifier: GPL-2.0-or-later
"""A run over a stretch of the replay that keeps watched expressions in view (`replay.halting`).

What memory an expression hangs on may change whenever it is touched (`p->next->value`), and so do
the debug registers and the events at which the kernel wrote there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sysrift.errors import ReplayError
from sysrift.replay.halting import Halt, Halting, Kind
from sysrift.trace import touching
from sysrift.trace.model import EventKind
from sysrift.tracee.watchpoints import COUNT, DebugRegisters, Piece, pieces
from sysrift_gdb.interrupts import is_interrupted
from sysrift_gdb.session import Replay
from sysrift_gdb.targets import Change, CodeTarget, SyscallTarget, Target, WatchTarget

_END_OF_MEMORY = 0x7FFF_FFFF_F000  # of a program's (TASK_SIZE_MAX, arch/x86/include/asm/page_64.h)


class Tracking:
    """A run, from wherever `begin` finds the replay, within `registers.borrowed`."""

    def __init__(self, replay: Replay, targets: Collection[Target]) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._targets = targets
        self._watches = [t for t in targets if isinstance(t, WatchTarget)]
        calls = [t for t in targets if isinstance(t, SyscallTarget)]
        self._all_calls = any(t.numbers is None for t in calls)
        self._calls = frozenset[int]().union(*(t.numbers for t in calls if t.numbers is not None))
        self.registers = DebugRegisters(replay.tracee)
        self.halting = Halting(self._engine, self.registers, is_interrupted)
        self.halting.events = self._next_event
        self.halting.code = frozenset(
            address for t in targets if isinstance(t, CodeTarget) for address in t.addresses
        ).union(watch.entry for watch in self._watches if watch.entry)
        self.changes: dict[WatchTarget, Change] = {}
        """Of those whose memory may have changed, at the last halt or event."""
        self.began: set[WatchTarget] = set()
        """Those whose frame has just been made, at the last halt."""
        self.touched: set[WatchTarget] = set()
        """Those whose memory the instruction before the last halt touched."""
        self._owners: list[set[WatchTarget]] = []  # of each piece of memory
        self._last = 0
        self._queue: Iterator[int] | None = None  # events to halt at, from `_queued_from` on
        self._queued_from = self._ahead = 0

    def leave(self) -> None:
        """The replay is going to be put somewhere else."""
        self.halting.leave()

    def begin(self, last: int) -> None:
        """The replay has been put somewhere else; `last` is the last event that is of interest from
        there on: it is halted at, too."""
        self._last = last
        self.halting.begin()
        for watch in self._watches:
            watch.look(self._engine)
            watch.remember(self._engine)
        self._share_out()

    def next(self, until: int) -> Halt | None:
        """Run to the next halt; None when event `until` is next, or the recording ends."""
        self._go_on()
        halt = self.halting.next(until)
        self.changes, self.began, self.touched = {}, set(), set()
        if halt is not None and halt.kind is Kind.MEMORY:
            self.touched = set().union(*(self._owners[index] for index in halt.touched))
        elif halt is not None and halt.kind is Kind.CODE:
            self.began = {watch for watch in self._watches if watch.begins_at(halt.registers)}
        self.changes = {watch: watch.look(self._engine) for watch in self.touched | self.began}
        return halt

    def step(self) -> bool:
        """One instruction; whether it touched watched memory."""
        self._go_on()
        touched = self.halting.step()
        if touched is None:
            raise ReplayError("the program does not come to that place again")
        return bool(touched)

    def play(self) -> None:
        """Let the event happen that was halted at, with what it changes in `changes`."""
        self.halting.play()
        self.changes = {watch: watch.look(self._engine) for watch in self._watches}

    def _go_on(self) -> None:
        """What was changed has been seen: what is there now is what changes next."""
        for watch in self.changes:
            watch.remember(self._engine)
        if any(watch.moved for watch in self.changes):
            self._share_out()
        self.changes = {}

    # -- memory and debug registers -------------------------------------------------------------

    def _share_out(self) -> None:
        """Give the debug registers to what is watched now."""
        reads: dict[tuple[int, int], bool] = {}
        owners: dict[tuple[int, int], set[WatchTarget]] = {}
        for watch in self._watches:
            watch.moved = False
            for address, length in watch.memory:
                if address + length > _END_OF_MEMORY:
                    continue  # a wild pointer: no debug register takes that
                for piece in pieces(address, length):
                    key = piece.address, piece.length
                    reads[key] = reads.get(key, False) or watch.looks_at_reads
                    owners.setdefault(key, set()).add(watch)
        if len(owners) > COUNT:
            raise ReplayError(
                f"the watchpoints need {len(owners)} debug registers, and there are {COUNT}: "
                "disable some"
            )
        self.halting.memory = tuple(Piece(*key, reads[key]) for key in owners)
        self._owners = list(owners.values())
        self._queue = None

    # -- events ---------------------------------------------------------------------------------

    def _next_event(self, first: int) -> int:
        if self._queue is None or first < self._queued_from:
            self._queued_from = first
            self._queue = self._events(first)
            self._ahead = next(self._queue, 0)
        while 0 < self._ahead < first:
            self._ahead = next(self._queue, 0)
        return self._ahead

    def _events(self, first: int) -> Iterator[int]:
        """Those, from there on, at which the user catches a call, or something watched may change;
        and the last one."""
        trace = self._replay.trace
        memory = [part for watch in self._watches for part in watch.memory]
        writes = touching.writing(trace, first, self._last, memory) if memory else iter(())
        caught = (
            touching.calls(trace, first, self._last, None if self._all_calls else self._calls)
            if self._all_calls or self._calls
            else iter(())
        )
        write, call = next(writes, 0), next(caught, 0)
        while write or call:
            number = min(n for n in (write, call) if n)
            if trace.glance(number)[0] == EventKind.SIGNAL and number > first:
                yield number - 1  # it may come in one with that, which is halted at then
            yield number
            write = next(writes, 0) if write == number else write
            call = next(caught, 0) if call == number else call
        if self._last >= first:
            yield self._last


__all__ = ["Tracking"]
