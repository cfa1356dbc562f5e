# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that wait, and that being attached to would make fail: they go on as if nothing happened.

A ptrace stop interrupts a call that waits. Most are made again by the kernel, with what is left of
their time (signal(7)). A few are not: epoll_wait fails with EINTR, which the program would never
have seen. Given -ERESTARTNOHAND as their result instead, the kernel makes them again too, unless
a handler really comes; what remains is their timeout, which would begin anew.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
from typing import NamedTuple

from sysrift.syscalls import NAMES, BadAddress
from sysrift.tracee import Registers, Tracee
from sysrift.tracee.registers import signed

ERESTARTNOHAND = -514

_SCRATCH_BELOW_STACK = 1024
"""Bytes below rsp where a structure may lie for a moment: 128 below it are the program's own."""

_REGISTER_OF = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


class Unit(enum.Enum):
    """What a timeout argument is."""

    MILLISECONDS = "an int, negative for none"
    TIMESPEC = "a pointer to a struct timespec, NULL for none"


class Timeout(NamedTuple):
    """Which argument of a call is how long it waits."""

    argument: int
    unit: Unit


_SOCKET_CALLS = (
    "read readv recvfrom recvmsg recvmmsg accept accept4 "
    "write writev sendto sendmsg sendmmsg connect"
)

NOT_RESTARTED: dict[int, Timeout | None] = {
    NAMES["epoll_wait"]: Timeout(3, Unit.MILLISECONDS),
    NAMES["epoll_pwait"]: Timeout(3, Unit.MILLISECONDS),
    NAMES["epoll_pwait2"]: Timeout(3, Unit.TIMESPEC),
    NAMES["semtimedop"]: Timeout(3, Unit.TIMESPEC),
    NAMES["rt_sigtimedwait"]: Timeout(2, Unit.TIMESPEC),
    NAMES["semop"]: None,
    # On a socket with SO_RCVTIMEO or SO_SNDTIMEO (net/sock.h, sock_intr_errno): that time begins
    # anew.
    **{NAMES[name]: None for name in _SOCKET_CALLS.split()},
}
"""The calls that fail with EINTR when a stop interrupts them, and their timeouts."""


def let_wait_on(tracee: Tracee, waited_ns: int) -> bool:
    """Where a stop made a call fail with EINTR: have the kernel make it again.

    The tracee is at the call's syscall-exit-stop or right behind. `waited_ns`: how long it has
    been waiting, which is taken off its timeout. Returns whether it was such a call.
    """
    registers = tracee.registers()
    nr = signed(registers.orig_rax)
    if nr not in NOT_RESTARTED or signed(registers.rax) != -errno.EINTR:
        return False
    registers.rax = ERESTARTNOHAND
    shorten(tracee, registers, nr, waited_ns)
    tracee.set_registers(registers)
    return True


def shorten(
    tracee: Tracee, registers: Registers, nr: int, waited_ns: int, in_memory: bool = True
) -> None:
    """Take the time that a call has waited off its timeout argument, in `registers`.

    Unless `in_memory`, a timeout that lies there is left alone.
    """
    timeout = NOT_RESTARTED.get(nr)
    if timeout is None or not (in_memory or timeout.unit is Unit.MILLISECONDS):
        return
    name = _REGISTER_OF[timeout.argument]
    value = getattr(registers, name)
    if timeout.unit is Unit.MILLISECONDS:
        total = struct.unpack("<i", struct.pack("<I", value & 0xFFFFFFFF))[0]
        if total > 0:
            # Rounded up: too short by a part of a millisecond would be early.
            setattr(registers, name, max(total - waited_ns // 1_000_000, 0))
    elif value:
        try:
            seconds, nanoseconds = struct.unpack("<qq", tracee.read(value, 16))
            left = max(seconds * 10**9 + nanoseconds - waited_ns, 0)
            scratch = (registers.rsp - _SCRATCH_BELOW_STACK) & ~15
            tracee.write(scratch, struct.pack("<qq", *divmod(left, 10**9)))
            setattr(registers, name, scratch)
        except BadAddress:
            pass


def waited_ns(pid: int) -> int:
    """How long a process that waits has been doing so, as the scheduler knows it; else 0.

    `se.exec_start` is when a task last was on a processor (/proc/PID/sched, kernel/sched/debug.c);
    this very process's is now. Each processor has a clock of its own (time that a hypervisor took
    away is not in it), so this one goes to where that one was.
    """
    before = os.sched_getaffinity(0)
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            processor = int(file.read().rpartition(")")[2].split()[36])
        os.sched_setaffinity(0, {processor})
        last, now = _exec_start(pid), _exec_start("self")
        os.sched_setaffinity(0, before)
    except (OSError, ValueError, IndexError):
        return 0
    return max(int((now - last) * 1_000_000), 0) if last is not None and now is not None else 0


def _exec_start(pid: int | str) -> float | None:
    try:
        with open(f"/proc/{pid}/sched", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("se.exec_start"):
                    return float(line.split(":")[1])
    except (OSError, ValueError, IndexError):
        pass
    return None
