# SPDX-License-Identifier: GPL-2.0-or-later
"""`verify`: a whole trace replayed without a debugger, every event checked."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from sysrift.errors import ReplayError
from sysrift.replay.divergence import Divergence
from sysrift.replay.engine import Engine, Halt, Reason
from sysrift.replay.stub import headless_stub
from sysrift.trace.model import EventFlag
from sysrift.trace.reader import Trace
from sysrift.tracee import RemoteSyscallError, TraceeGone

_PROGRESS_EVERY = 20000


@dataclass(frozen=True)
class Verified:
    """What a faithful replay checked."""

    events: int
    checksums: int
    ending: str


def verify(trace: Trace, progress: Callable[[int], None] | None = None) -> Verified:
    """Replay `trace` from its first event to its last.

    `progress` is called with the number of events done now and then. Raises Divergence, or
    TraceError/ReplayError when the trace cannot be replayed here at all.
    """
    with headless_stub(trace) as tracee:
        engine = Engine(trace, tracee)
        engine.check_checksums = True
        try:
            engine.load(0)
            while True:
                halt = engine.advance(limit=_PROGRESS_EVERY)
                if progress is not None:
                    progress(engine.next - 1)
                if halt.reason is not Reason.REACHED:
                    break
            return _judge(trace, engine, halt)
        except TraceeGone as gone:
            raise Divergence(
                engine.next,
                "a running program",
                f"that it ended (wait status {gone.status:#x})",
                "the replayed process was killed from outside",
            ) from None
        except RemoteSyscallError as error:
            raise ReplayError(f"the process image cannot be rebuilt here: {error}") from None
        finally:
            engine.close()


def _judge(trace: Trace, engine: Engine, halt: Halt) -> Verified:
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
        if halt.signal and halt.signal != end.signal:
            raise Divergence(
                engine.next, f"the end by signal {end.signal}", f"signal {halt.signal}",
                "the trace's end does not fit its events",
            )  # fmt: skip
    elif end.how == "exited":
        ending = f"exited with status {end.status}"
        if last is not None and last.flags & EventFlag.UNFINISHED:
            given = last.args[0] & 0xFF
            if given != end.status:
                raise Divergence(
                    trace.event_count, f"exit status {end.status}", f"exit status {given}",
                    "the trace's end does not fit its events",
                )  # fmt: skip
    else:
        ending = f"up to where recording stopped ({end.message})"
    return Verified(trace.event_count, engine.checksums_checked, ending)
