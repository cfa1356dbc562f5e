# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting a program under ptrace, as nearly as it would start from a shell."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from ptrace.binding import func as binding

from sysrift.errors import CannotExecute, RecordError
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import ADDR_NO_RANDOMIZE

OPTIONS: int = (
    binding.PTRACE_O_TRACESYSGOOD
    | binding.PTRACE_O_TRACEFORK
    | binding.PTRACE_O_TRACEVFORK
    | binding.PTRACE_O_TRACECLONE
    | binding.PTRACE_O_TRACEEXEC
    | binding.PTRACE_O_TRACEEXIT
    | pt.PTRACE_O_EXITKILL
)

# Signals that Python ignores at its own start; execve(2) would hand that on to the program.
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """The path that execvp(3) would execute. Raises CannotExecute (126 or 127)."""
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH", os.defpath)
        candidates = [str(Path(part or ".") / name) for part in path.split(os.pathsep)]
    refused = ""
    for candidate in candidates:
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        refused = refused or candidate
    if refused:
        why = "is a directory" if Path(refused).is_dir() else "is not executable"
        raise CannotExecute(f"cannot run {refused}: it {why}", 126)
    if "/" in name:
        raise CannotExecute(f"cannot run {name}: no such file", 127)
    raise CannotExecute(f"cannot run {name}: not found in PATH", 127)


def refuse_setuid(path: str) -> None:
    """Raise CannotExecute for a program that would lose its privileges under ptrace (execve(2))."""
    status = os.stat(path)
    if os.geteuid() == 0:
        return
    if (status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()) or (
        status.st_mode & stat.S_ISGID and status.st_gid not in (os.getegid(), *os.getgroups())
    ):
        raise CannotExecute(
            f"cannot record {path}: it is set-user-ID or set-group-ID, and the kernel takes its "
            "privileges away under ptrace; run sysrift-record as root to record it",
            126,
        )


def spawn(path: str, argv: Sequence[str], environment: Mapping[str, str], cpu: int | None) -> int:
    """Start the program; it is stopped at its PTRACE_EVENT_EXEC afterwards. Returns its pid.

    Address space randomisation is off for it; it runs on `cpu` only (None: anywhere). It keeps
    stdin, stdout, stderr, terminal, process group and working directory.
    Raises CannotExecute, or RecordError when ptrace is not permitted.
    """
    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go_write)
            os.close(error_read)
            _child(path, argv, environment, cpu, go_read, error_write)
        finally:
            os._exit(125)
    os.close(go_read)
    os.close(error_write)
    try:
        try:
            pt.ptrace(pt.PTRACE_SEIZE, child, None, OPTIONS)
        except OSError as error:
            _reap(child)
            raise RecordError(
                f"ptrace is not permitted here ({error.strerror}): run sysrift doctor to see why"
            ) from None
        os.write(go_write, b"x")
        while True:
            _, status = os.waitpid(child, pt.WALL)
            if not os.WIFSTOPPED(status):
                raise _exec_failure(path, os.read(error_read, 4))
            if status >> 16 == pt.PTRACE_EVENT_EXEC:
                return child
            # A signal (Ctrl-C) before the program even began: let it have its effect.
            sig = 0 if status >> 16 else os.WSTOPSIG(status)
            pt.ptrace(pt.PTRACE_CONT, child, None, sig)
    finally:
        os.close(go_write)
        os.close(error_read)


def _exec_failure(path: str, report: bytes) -> CannotExecute:
    number = struct.unpack("<i", report)[0] if len(report) == 4 else errno.EIO
    hints = {
        errno.ENOEXEC: "not a program of this machine (wrong architecture or format)",
        errno.ENOENT: "its interpreter does not exist",
    }
    why = hints.get(number, os.strerror(number))
    return CannotExecute(f"cannot run {path}: {why}", 126)


def _child(
    path: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    cpu: int | None,
    go: int,
    report: int,
) -> NoReturn:
    """The child between fork and exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.personality(libc.personality(0xFFFFFFFF) | ADDR_NO_RANDOMIZE)
    for sig in _PYTHON_IGNORES:
        signal.signal(sig, signal.SIG_DFL)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if not os.read(go, 1):
        os._exit(125)
    try:
        os.execve(path, list(argv), dict(environment))
    except OSError as error:
        os.write(report, struct.pack("<i", error.errno or errno.EIO))
    os._exit(125)


def _reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, pt.WALL)
