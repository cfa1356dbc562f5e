# SPDX-License-Identifier: GPL-2.0-or-later
"""Becoming the tracer of a process that runs already, and stopping it (ptrace(2), PTRACE_SEIZE)."""

from __future__ import annotations

import os
import time

from sysrift.errors import RecordError
from sysrift.record import attachable, launch
from sysrift.tracee import ptrace as pt

OPTIONS = launch.OPTIONS & ~pt.PTRACE_O_EXITKILL
"""A process that was there before the recorder outlives it."""

_STOPS_WITHIN = 10.0
"""Seconds that a process may take to stop, in a call that cannot be interrupted."""

_LONGEST_SLEEP = 0.02


def seize(pid: int) -> None:
    """Become the tracer of a running process, which runs on. Raises RecordError."""
    try:
        pt.ptrace(pt.PTRACE_SEIZE, pid, None, OPTIONS)
    except OSError as error:
        raise attachable.refused_by_kernel(pid, error) from None


def interrupt(pid: int) -> int:
    """Stop a seized process; returns the wait status of its PTRACE_EVENT_STOP.

    Signals that come first are delivered. Raises RecordError when it ends, or does not stop.
    """
    pt.ptrace(pt.PTRACE_INTERRUPT, pid)
    until = time.monotonic() + _STOPS_WITHIN
    pause = 0.0002
    while time.monotonic() < until:
        stopped, status = os.waitpid(pid, pt.WALL | os.WNOHANG)
        if not stopped:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_SLEEP)
            continue
        if not os.WIFSTOPPED(status):
            raise RecordError(f"process {pid} ended while it was being attached to")
        if status >> 16 == pt.PTRACE_EVENT_STOP:
            return status
        sig = os.WSTOPSIG(status) if status >> 16 == 0 else 0
        pt.ptrace(pt.PTRACE_CONT, pid, None, sig)
    state = attachable.status_of(pid).get("State", "?")
    raise RecordError(
        f"cannot attach to process {pid}: it does not stop within {_STOPS_WITHIN:.0f} s, "
        f"its state is {state}"
    )
