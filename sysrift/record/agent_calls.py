# SPDX-License-Identifier: GPL-2.0-or-later
"""Which system calls the agent may make by itself while recording."""

from __future__ import annotations

import os
import signal

from sysrift.agent.rows import Guard, GuardKind, Guards, packed
from sysrift.record import special
from sysrift.record.mapped_files import FICLONE, FICLONERANGE, WRITERS
from sysrift.record.refusals import USERFAULTFD_IOC_NEW
from sysrift.syscalls import NAMES, ReplayClass, Row
from sysrift.syscalls.plan import Plan

_NOT_IN_THE_AGENT = {
    NAMES[name]
    for name in (
        # The kernel compares the stack pointer.
        "sigaltstack",
        # The signal that ends them comes under another mask than the program's own.
        "rt_sigsuspend", "rt_sigtimedwait", "ppoll", "pselect6", "epoll_pwait", "epoll_pwait2",
        "io_pgetevents", "pause",
        # They may be about the agent's own memory.
        "process_vm_readv", "process_vm_writev",
        # What they change is looked at by the recorder.
        "seccomp", "personality", "setrlimit", "vhangup", "reboot",
        # What descriptors are afterwards is looked at by the recorder (see `GUARDS`).
        "close_range",
    )
}  # fmt: skip


_WITH_COMMANDS = {NAMES[name] for name in ("fcntl", "ioctl", "futex")}
_REFUSED_COMMANDS = {
    # They write to files in a way of their own, or fill memory.
    (NAMES["ioctl"], command)
    for command in (USERFAULTFD_IOC_NEW, FICLONE, FICLONERANGE)
}
_MAPPING = {
    # Of files only what the recorder has seen: the agent looks.
    NAMES[name]
    for name in ("mmap", "munmap", "brk", "mprotect", "mremap")
}
_HARMLESS = {NAMES["prlimit64"]}  # as far as its guard allows it

GUARDS: Guards = {
    NAMES[name]: guard
    for name, guard in (
        # A program that wants SIGSYS for itself cannot have the agent (see `fast_path`).
        ("rt_sigaction", Guard(GuardKind.OTHER, 0, signal.SIGSYS)),
        ("prlimit64", Guard(GuardKind.NULL, 2)),
        ("close", Guard(GuardKind.CLOSES, 0)),
        ("dup2", Guard(GuardKind.CLOSES, 1)),
        ("dup3", Guard(GuardKind.CLOSES, 1)),
    )
}
"""What the agent looks at in calls that it makes."""

_WRITING = {
    NAMES[name]: guard
    for name, guard in (
        *((name, Guard(GuardKind.UNMAPPED, 0)) for name in (
            "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "ftruncate",
            "fallocate",
        )),
        *((name, Guard(GuardKind.UNMAPPED, 2)) for name in ("copy_file_range", "splice")),
        ("open", Guard(GuardKind.WITHOUT, 1, os.O_TRUNC)),
        ("openat", Guard(GuardKind.WITHOUT, 2, os.O_TRUNC)),
    )
}  # fmt: skip

GUARDS_OF_MAPPED_FILES: Guards = {
    **GUARDS,
    # Those that have no better one: the recorder sees each of them. (`ioctl`: _REFUSED_COMMANDS.)
    **{nr: Guard(GuardKind.NEVER) for nr in WRITERS if nr != NAMES["ioctl"]},
    **_WRITING,
}
"""The same for a program that has mapped a file: what changes that is the recorder's affair."""


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
    if row.replay_class is not ReplayClass.EMULATE and row.nr not in _HARMLESS:
        return False
    if row.nr in _WITH_COMMANDS:
        return True
    hooked = row.nr in special.ENTRY or row.nr in special.EXIT
    return not hooked and isinstance(row.plan, Plan)
