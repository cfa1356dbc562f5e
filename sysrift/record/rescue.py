# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting right a process whose recorder was killed while it was attached to.

It outlives the recorder, but its vDSO is still replaced, rdtsc still traps (and would kill it), and
it is bound to a CPU.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from typing import Any

from sysrift.errors import RecordError
from sysrift.record import waiting
from sysrift.record.detach import open_leaks
from sysrift.record.leaks import ClosedLeaks
from sysrift.record.rseq import Rseq
from sysrift.record.seizing import OPTIONS, interrupt
from sysrift.tracee import Tracee, TraceeGone
from sysrift.tracee import ptrace as pt

_LET_GO_WITHIN = 5.0
"""Seconds that the kernel may take to end the dead recorder, which still counts as the tracer."""


def facts(tracee: Tracee, leaks: ClosedLeaks, affinity: Iterable[int]) -> dict[str, Any]:
    """What it takes to undo what was done to a process, as JSON."""
    return {
        "pid": tracee.pid,
        "site": tracee.remote_site,
        "vdso": [[address, code.hex()] for address, code in leaks.vdso],
        "tsc": leaks.tsc,
        "rseq": leaks.rseq,
        "affinity": sorted(affinity),
    }


def put_right(known: dict[str, Any]) -> bool:
    """Undo what `known`, from `facts`, says; returns whether the process is there and all right."""
    pid = known["pid"]
    try:
        _seize(pid)
        waited = waiting.waited_ns(pid)
        interrupt(pid)
        tracee = Tracee(pid, known["site"])
    except (OSError, RecordError):
        return False
    try:
        leaks = ClosedLeaks()
        leaks.vdso = [(address, bytes.fromhex(code)) for address, code in known["vdso"]]
        leaks.tsc = known["tsc"]
        leaks.rseq = Rseq(*known["rseq"]) if known["rseq"] else None
        waiting.let_wait_on(tracee, waited)
        open_leaks(tracee, leaks)
        if known["affinity"]:
            os.sched_setaffinity(pid, known["affinity"])
        pt.ptrace(pt.PTRACE_DETACH, pid, None, 0)
    except (OSError, TraceeGone):
        return False
    finally:
        tracee.close()
    return True


def _seize(pid: int) -> None:
    """PTRACE_SEIZE, as soon as the process has no tracer any more. Raises OSError."""
    until = time.monotonic() + _LET_GO_WITHIN
    while True:
        try:
            pt.ptrace(pt.PTRACE_SEIZE, pid, None, OPTIONS)
            return
        except OSError as error:
            if error.errno != errno.EPERM or time.monotonic() > until:
                raise
        time.sleep(0.0005)
