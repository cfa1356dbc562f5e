# SPDX-License-Identifier: GPL-2.0-or-later
"""Which system calls the agent may make by itself while recording."""

from __future__ import annotations

from sysrift.agent.rows import packed
from sysrift.record import special
from sysrift.record.refusals import USERFAULTFD_IOC_NEW
from sysrift.syscalls import NAMES, ReplayClass, Row
from sysrift.syscalls.plan import Plan

_NOT_IN_THE_AGENT = {
    NAMES[name]
    for name in (
        # A program that wants SIGSYS for itself cannot have the agent (see `fast_path`).
        "rt_sigaction",
        # The kernel compares the stack pointer.
        "sigaltstack",
        # The signal that ends them comes under another mask than the program's own.
        "rt_sigsuspend", "rt_sigtimedwait", "ppoll", "pselect6", "epoll_pwait", "epoll_pwait2",
        "io_pgetevents", "pause",
        # They may be about the agent's own memory.
        "process_vm_readv", "process_vm_writev",
        # What they change is looked at by the recorder.
        "seccomp", "personality", "setrlimit", "vhangup", "reboot",
    )
}  # fmt: skip


_WITH_COMMANDS = {NAMES[name] for name in ("fcntl", "ioctl", "futex")}
_REFUSED_COMMANDS = {(NAMES["ioctl"], USERFAULTFD_IOC_NEW)}
_MAPPING = {NAMES["mmap"], NAMES["munmap"]}  # plain anonymous memory only: the agent looks


def recorded_row(row: Row, plan: Plan, command: int | None) -> bytes | None:
    """`struct row` of a call, or of a command of one (`rows.Pack`); None: it is the recorder's."""
    if not _is_for_agent(row) or (row.nr, command) in _REFUSED_COMMANDS:
        return None
    return packed(row, plan, maps=row.nr in _MAPPING)


def _is_for_agent(row: Row) -> bool:
    if row.nr in _NOT_IN_THE_AGENT:
        return False
    if row.nr in _MAPPING:
        return True
    if row.replay_class is not ReplayClass.EMULATE:
        return False
    if row.nr in _WITH_COMMANDS:
        return True
    hooked = row.nr in special.ENTRY or row.nr in special.EXIT
    return not hooked and isinstance(row.plan, Plan)
