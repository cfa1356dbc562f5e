# SPDX-License-Identifier: GPL-2.0-or-later
"""A divergence: the replayed program asked for something else than it did when recorded."""

from __future__ import annotations

from sysrift import machine
from sysrift.errors import SysRiftError
from sysrift.trace.model import Event, EventFlag, EventKind
from sysrift.trace.reader import Trace

_LOOK_BACK = 20000


class Divergence(SysRiftError):
    """Replay and recording differ at `event`; `expected` and `found` are one-line texts."""

    exit_code = 3

    def __init__(
        self, event: int, expected: str, found: str, cause: str, process: str = ""
    ) -> None:
        """`process` names the one that it happened in, where there are several."""
        super().__init__(
            f"{process and process + ': '}divergence at event {event}: recorded {expected}, "
            f"replay found {found}; likely cause: {cause}"
        )
        self.event = event
        self.expected = expected
        self.found = found
        self.cause = cause


def divergence(
    trace: Trace, event: int, expected: str, found: str, cause: str | None = None
) -> Divergence:
    """The divergence at an event of a process; without a `cause` the most probable one."""
    name = f"process {trace.process.pid}" if len(trace.processes) > 1 else ""
    return Divergence(event, expected, found, cause or likely_cause(trace, event), name)


def likely_cause(trace: Trace, event: int) -> str:
    """What most probably made the replay differ at `event`, from what the trace knows."""
    recorded_cpu = trace.metadata.get("cpu_model")
    if recorded_cpu and recorded_cpu != machine.cpu_model():
        return (
            f"this machine's processor is another one ({machine.cpu_model()}) than the "
            f"recording's ({recorded_cpu})"
        )
    in_code: list[Event] = []
    guessed: list[Event] = []
    incomplete: list[Event] = []
    for earlier in trace.events(max(1, event - _LOOK_BACK), event - 1):
        if earlier.kind == EventKind.SIGNAL and earlier.flags & EventFlag.IN_CODE:
            in_code.append(earlier)
        if earlier.kind == EventKind.SYSCALL:
            if earlier.flags & EventFlag.GUESSED:
                guessed.append(earlier)
            if earlier.flags & EventFlag.INCOMPLETE:
                incomplete.append(earlier)
    if incomplete:
        return f"what the kernel wrote at event {incomplete[-1].number} could not be read back"
    if in_code:
        return (
            f"the signal of event {in_code[-1].number} came in the middle of a computation, at a "
            "place that looks the same at several moments"
        )
    if guessed:
        return f"what the kernel wrote at event {guessed[-1].number} had to be guessed"
    if any("shared with others" in note for note in trace.notes):
        return "memory shared with another process was changed by it"
    return "the trace was changed, or the program saw something that was not recorded"
