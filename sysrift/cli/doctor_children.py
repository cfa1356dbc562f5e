# SPDX-License-Identifier: GPL-2.0-or-later
"""Child processes to try things on: limited in time, and always reaped.

A probe may change the process that it runs in for good (a seccomp filter), or kill it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator

from sysrift.tracee import ptrace as pt

TIME_LIMIT = 5.0
"""Seconds that a probe may take."""

_PR_SET_PDEATHSIG = 1
_FAILED = 125

libc = ctypes.CDLL(None, use_errno=True)


class ProbeFailed(Exception):
    """A probe did not come to an end, or not to one that tells anything."""


@contextlib.contextmanager
def child(body: Callable[[], int]) -> Iterator[int]:
    """A process that runs `body` and exits with what it returns; gives its pid. Killed at exit."""
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for sig in (signal.SIGSEGV, signal.SIGTRAP, signal.SIGSYS):
                signal.signal(sig, signal.SIG_DFL)
            os._exit(body())
        finally:
            os._exit(_FAILED)
    try:
        yield pid
    finally:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            # Killed, so this ends; a tracee may report a stop or two on its way.
            while os.WIFSTOPPED(os.waitpid(pid, pt.WALL)[1]):
                pt.ptrace(pt.PTRACE_CONT, pid, None, signal.SIGKILL)


def wait(pid: int) -> int:
    """The next wait status of a child. Raises ProbeFailed when there is none in time."""
    deadline = time.monotonic() + TIME_LIMIT
    pause = 0.0002
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, pt.WALL | os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    raise ProbeFailed(f"no answer in {TIME_LIMIT:.0f} seconds")


def exit_code(body: Callable[[], int]) -> int:
    """Run `body` in a child; what it returned (0..124), or -N when signal N ended it.

    Raises ProbeFailed when it did not end in time, or raised.
    """
    with child(body) as pid:
        status = wait(pid)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    if os.WEXITSTATUS(status) == _FAILED:
        raise ProbeFailed("the probe could not be run")
    return os.WEXITSTATUS(status)


def sleep_until_killed() -> int:
    """A body that does nothing, in system calls that end soon should all else fail."""
    for _ in range(int(2 * TIME_LIMIT)):
        time.sleep(1)
    return 0
