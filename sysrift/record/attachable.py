# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a running process can be attached to, and a line that says why when it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sysrift.errors import RecordError
from sysrift.tracee import read_maps

_PF_KTHREAD = 0x00200000  # include/linux/sched.h; field 9 of proc_pid_stat(5)
_ELFCLASS32 = 1
_PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


def status_of(pid: int | str) -> dict[str, str]:
    """The fields of /proc/PID/status (proc_pid_status(5)); empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key: value.strip() for key, value in pairs}


def refuse_unattachable(pid: int) -> None:
    """Raise RecordError when process `pid` is not one that can be recorded."""
    status = status_of(pid)
    if not status:
        raise _refusal(pid, "there is no such process")
    name = f"{pid} ({status.get('Name', '?')})"
    group = int(status["Tgid"])
    if pid == os.getpid():
        raise _refusal(name, "it is the recorder itself")
    if status["State"].startswith(("Z", "X")):
        raise _refusal(name, "it has ended already, and waits for its parent to notice (a zombie)")
    if _is_kernel_thread(pid):
        raise _refusal(name, "it is a thread of the kernel")
    if group != pid:
        raise _refusal(name, f"it is a thread of process {group}: threads are not recorded yet")
    tracer = int(status.get("TracerPid", "0"))
    if tracer:
        by = status_of(tracer).get("Name", "?")
        raise _refusal(name, f"{by} ({tracer}) traces it already, and there can be one tracer only")
    refuse_threads(pid)
    if _is_32_bit(pid):
        raise _refusal(name, "it is a 32-bit program, which is not supported")


def refuse_threads(pid: int) -> None:
    """Raise RecordError for a process of several threads."""
    status = status_of(pid)
    count = int(status.get("Threads", "1"))
    if count > 1:
        raise _refusal(
            f"{pid} ({status['Name']})", f"it has {count} threads, which are not recorded yet"
        )


def refused_by_kernel(pid: int, error: OSError) -> RecordError:
    """What PTRACE_SEIZE's failure means to the user."""
    status = status_of(pid)
    name = f"{pid} ({status['Name']})" if status else str(pid)
    if error.errno == errno.ESRCH:
        return _refusal(name, "it has just ended")
    if error.errno != errno.EPERM:
        return _refusal(name, error.strerror or str(error))
    owner = status.get("Uid", "").split()[:1]
    if os.geteuid() != 0 and owner and owner[0] != str(os.geteuid()):
        return _refusal(name, f"not permitted: it belongs to another user (uid {owner[0]})")
    scope = _ptrace_scope()
    if scope in (1, 2) and os.geteuid() != 0:
        return _refusal(
            name,
            f"not permitted (kernel.yama.ptrace_scope is {scope}): run as root, or "
            "sysctl kernel.yama.ptrace_scope=0",
        )
    if scope == 3:
        return _refusal(name, "kernel.yama.ptrace_scope is 3: nobody may attach on this machine")
    return _refusal(name, "not permitted (sysrift doctor says more)")


def has_own_filter(pid: int) -> bool:
    """Whether a process has seccomp filters that the recorder has not, which may kill for a call.

    In a container both have the container's.
    """
    theirs, ours = status_of(pid), status_of("self")
    if theirs.get("Seccomp", "0") == "0":
        return False
    return theirs.get("Seccomp") != ours.get("Seccomp") or (
        theirs.get("Seccomp_filters") != ours.get("Seccomp_filters")
    )


def overlaps(pid: int, start: int, end: int) -> bool:
    """Whether a process has mapped anything in a range of addresses."""
    return any(m.start < end and start < m.end for m in read_maps(pid))


def _refusal(name: int | str, why: str) -> RecordError:
    return RecordError(f"cannot attach to process {name}: {why}")


def _is_kernel_thread(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(int(text.rpartition(")")[2].split()[6]) & _PF_KTHREAD)


def _is_32_bit(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:
            head = file.read(5)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and head[4] == _ELFCLASS32


def _ptrace_scope() -> int:
    try:
        return int(_PTRACE_SCOPE.read_text())
    except (OSError, ValueError):
        return 0
