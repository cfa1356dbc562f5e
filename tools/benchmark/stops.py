# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a recording's time goes: its stops, by what they are about, with the recorder's seconds.

usage: stops.py FILE.json SYSRIFT-RECORD-ARGUMENTS

It is sysrift-record with a clock around what it does at a stop; the counts go to the file. What a
stop costs beside that, two switches between processes, is not in them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sysrift.agent import code as at
from sysrift.cli.main import record_main
from sysrift.record.fast_path import FastPath
from sysrift.record.recorder import Recorder
from sysrift.syscalls import lookup
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYSCALL_STOP

_REASONS = {
    at.REASON_ROW: "handed over",
    at.REASON_FULL: "the ring is full",
    at.REASON_RANGE: "memory new to the agent",
    at.REASON_ATTENTION: "asked to stop",
    at.REASON_LARGE: "too large for the agent",
}
_EVENTS = {
    getattr(pt, f"PTRACE_EVENT_{name}"): f"{name.lower()} event"
    for name in ("FORK", "VFORK", "CLONE", "EXEC", "EXIT", "STOP", "VFORK_DONE")
    if hasattr(pt, f"PTRACE_EVENT_{name}")
}


class Stops:
    """Counts of stops and seconds, by label."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._label = ""

    def install(self) -> None:
        """Count all stops of the recorders of this process."""
        stop = Recorder.on_stop

        def on_stop(recorder: Recorder, status: int) -> None:
            self._label = _stop_label(recorder, status)
            start = time.perf_counter()
            try:
                stop(recorder, status)
            finally:
                self.counts[self._label] += 1
                self.seconds[self._label] += time.perf_counter() - start

        Recorder.on_stop = on_stop  # type: ignore[method-assign,assignment]
        self._label_by("_handed_over", lambda fast, nr: f"{_reason(fast)}: {_name(nr)}")
        self._label_by("_dispatched", lambda _, nr: f"a site's first calls: {_name(nr)}")
        self._label_by("_follow", self._followed)

    def _label_by(self, method: str, label: Callable[[FastPath, int], str]) -> None:
        """Stops in which a method of the fast path is called are about what `label` says."""
        original: Any = getattr(FastPath, method)

        def labelled(fast: FastPath, registers: Any, *others: Any) -> Any:
            self._label = label(fast, registers.rax)
            return original(fast, registers, *others)

        setattr(FastPath, method, labelled)

    def _followed(self, fast: FastPath, nr: int) -> str:
        name = f"followed by ptrace: {_name(nr)}"
        fast.__dict__["followed"] = name
        return name

    def save(self, path: Path) -> None:
        """Write them as JSON: label to [count, seconds]."""
        stops = {label: [self.counts[label], self.seconds[label]] for label in self.counts}
        path.write_text(json.dumps(stops))


def _stop_label(recorder: Recorder, status: int) -> str:
    if status == SYSCALL_STOP:
        if recorder.fast is None:
            return "before the agent comes"
        return str(recorder.fast.__dict__.get("followed", "followed by ptrace"))
    event, sig = status >> 16, os.WSTOPSIG(status)
    if event:
        return _EVENTS.get(event, f"event {event}")
    if sig == signal.SIGSEGV:
        return "rdtsc, or a fault"
    return f"signal {signal.Signals(sig).name}" if sig in set(signal.Signals) else f"signal {sig}"


def _reason(fast: FastPath) -> str:
    return _REASONS.get(fast.agent.last.reason, "handed over")


def _name(nr: int) -> str:
    row = lookup(nr)
    return row.name if row else str(nr)


def main() -> int:
    """Record as sysrift-record does, and count."""
    path, sys.argv = Path(sys.argv[1]), ["sysrift-record", *sys.argv[2:]]
    stops = Stops()
    stops.install()
    try:
        return record_main()
    finally:
        stops.save(path)


if __name__ == "__main__":
    sys.exit(main())
