# SPDX-License-Identifier: GPL-2.0-or-later
"""`verify`: a whole trace replayed without a debugger, every event checked."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from sysrift.errors import ReplayError
from sysrift.replay.divergence import divergence
from sysrift.replay.engine import Engine, Halt, Reason
from sysrift.replay.player import PATCH_AT
from sysrift.replay.stub import fork_stub, headless_stub, kill_stub
from sysrift.trace.ahead import reading_ahead
from sysrift.trace.model import Event, EventFlag, Process
from sysrift.trace.reader import Trace
from sysrift.tracee import RemoteSyscallError, TraceeGone

_PROGRESS_EVERY = 20000
_NONE: frozenset[int] = frozenset()  # what makes a process is not emulated


@dataclass(frozen=True)
class Verified:
    """What a faithful replay checked: all processes' events, and how the (first) process ended."""

    events: int
    checksums: int
    ending: str
    processes: int = 1
    played: int = 0
    """Events that were replayed without a stop."""


class _Branch:
    """A process on its way to be verified: its engine, and the children that it has yet to make."""

    def __init__(self, engine: Engine, children: list[Process]) -> None:
        self.engine = engine
        self.births: dict[int, list[Process]] = defaultdict(list)
        for child in children:
            self.births[child.parent_event].append(child)

    def makes_child(self, event: Event) -> bool:
        """Whether a call makes a child that was not verified yet."""
        return bool(self.births.get(event.number))

    def next_child(self) -> Process | None:
        """A child that the call at hand makes and that was not verified yet."""
        waiting = self.births.get(self.engine.next)
        return waiting.pop(0) if waiting else None


def verify(
    trace: Trace,
    progress: Callable[[int], None] | None = None,
    alone: bool = False,
    player_at: int | None = PATCH_AT,
) -> Verified:
    """Replay `trace` from its first event to its last, and all processes that it made likewise.

    A child is replayed when its parent comes to the call that made it, in a fork of the replayed
    process: so what it shares with its parent is not replayed again. `progress` is called with the
    number of events done now and then. `alone` leaves the children out. `player_at`: from which
    call of a site on events are played without a stop; None: never. Raises Divergence, or
    TraceError/ReplayError when the trace cannot be replayed here at all.
    """
    cpus = frozenset(os.sched_getaffinity(0))
    with headless_stub(trace) as tracee, reading_ahead(trace.file, cpus):
        engine = Engine(trace, tracee)
        engine.check_checksums = True
        engine.cpus = cpus
        engine.player_at = player_at
        engine.is_alone = True
        verifier = _Verifier(engine, progress, alone)
        try:
            engine.load(0)
            return verifier.run()
        except TraceeGone as gone:
            engine = verifier.branches[-1].engine
            raise divergence(
                engine.trace,
                engine.next,
                "a running program",
                f"that it ended (wait status {gone.status:#x})",
                "the replayed process was killed from outside",
            ) from None
        except RemoteSyscallError as error:
            raise ReplayError(f"the process image cannot be rebuilt here: {error}") from None
        finally:
            verifier.close()
            verifier.branches[0].engine.close()


class _Verifier:
    """Goes through a tree of processes, each child where its parent makes it."""

    def __init__(self, engine: Engine, progress: Callable[[int], None] | None, alone: bool) -> None:
        self._progress = progress
        self._done = 0
        self._children: dict[int, list[Process]] = defaultdict(list)
        trace = engine.trace
        for process in trace.processes.values():
            if process.parent and not alone and trace.file.spans(process.id):
                self._children[process.parent].append(process)
        self.branches = [_Branch(engine, self._children[trace.process.id])]

    def run(self) -> Verified:
        """Verify all; what was checked, with the first process's ending."""
        checksums = processes = played = 0
        while True:
            branch = self.branches[-1]
            ending = self._advance(branch)
            child = branch.next_child()
            if child is not None:
                self._fork(branch.engine, child)
                continue
            engine = branch.engine
            self._done += engine.trace.event_count - engine.trace.process.first_event + 1
            checksums += engine.checksums_checked
            processes += 1
            played += engine.played
            if len(self.branches) == 1:
                return Verified(self._done, checksums, ending, processes, played)
            self._leave()

    def _advance(self, branch: _Branch) -> str:
        """To the next call that makes a child of interest, or the end: says how that was then."""
        engine = branch.engine
        begun = engine.trace.process.first_event
        # A process that only computes would never come to another call; but a call behind the last
        # event that made a child has to be come to.
        engine.stops_where_cut_off = not branch.births.get(engine.trace.event_count + 1)
        while True:
            halt = engine.advance(
                limit=_PROGRESS_EVERY, wanted=branch.makes_child, wanted_calls=_NONE
            )
            if self._progress is not None:
                self._progress(self._done + engine.next - begun)
            if halt.reason is Reason.WANTED or (
                halt.reason is Reason.END and branch.births.get(engine.next)
            ):
                return ""
            if halt.reason is not Reason.REACHED:
                return _judge(engine.trace, engine, halt)

    def _fork(self, parent: Engine, child: Process) -> None:
        tracee = fork_stub(parent.tracee)
        try:
            engine = parent.fork(parent.trace.of(child.id), tracee)
        except BaseException:
            tracee.close()
            kill_stub(tracee.pid)
            raise
        self.branches.append(_Branch(engine, self._children[child.id]))

    def _leave(self) -> None:
        """Done with the child at hand: back to its parent."""
        engine = self.branches.pop().engine
        engine.close()
        kill_stub(engine.tracee.pid)

    def close(self) -> None:
        """Leave nothing behind but the first process."""
        while len(self.branches) > 1:
            self._leave()


def _judge(trace: Trace, engine: Engine, halt: Halt) -> str:
    """How a process ended, which must be as recorded. Raises Divergence."""
    if halt.reason is not Reason.END:
        raise engine.unexpected(halt)
    if engine.next <= trace.event_count and not engine.at_end:
        raise engine.unexpected(halt)
    if engine.is_complete and engine.next > trace.event_count:
        raise engine.unexpected(halt)
    engine.check_final_memory()
    last = trace.event(trace.event_count) if trace.event_count else None
    end = trace.end
    if end is None:
        ending = "up to where the recording was cut off"
    elif end.how == "killed":
        ending = f"killed by {signal.Signals(end.signal).name}"
        if engine.is_complete and halt.signal and halt.signal != end.signal:
            raise divergence(
                trace, engine.next, f"the end by signal {end.signal}", f"signal {halt.signal}",
                "the trace's end does not fit its events",
            )  # fmt: skip
    elif end.how == "exited":
        ending = f"exited with status {end.status}"
        if last is not None and last.flags & EventFlag.UNFINISHED:
            given = last.args[0] & 0xFF
            if given != end.status:
                raise divergence(
                    trace, trace.event_count, f"exit status {end.status}", f"exit status {given}",
                    "the trace's end does not fit its events",
                )  # fmt: skip
    else:
        ending = f"up to where recording stopped ({end.message})"
    return ending
