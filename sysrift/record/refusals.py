# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that a program makes in vain while it is recorded, and its own seccomp filters.

A call is kept from happening by giving the kernel the number -1. A filter of the program's own
would be asked about that number (kernel/entry/common.c: seccomp comes after ptrace), and might
kill. So in a program with a filter the call is made, with arguments that do no harm, and the filter
judges it as it would; the result is put right afterwards. For the same reason no call is made on
behalf of such a program, unless its filters can be suspended.
"""

from __future__ import annotations

import errno
import signal
import struct
from typing import TYPE_CHECKING

from sysrift.record.call import Call
from sysrift.record.launch import OPTIONS
from sysrift.syscalls import NAMES, BadAddress
from sysrift.tracee import RemoteSyscallError, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import PR_SET_TSC, PR_TSC_ENABLE, PR_TSC_SIGSEGV

if TYPE_CHECKING:
    from sysrift.record.recorder import Recorder

PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_GET_TSC = 3, 4, 22, 25
USERFAULTFD_IOC_NEW = 0xAA00  # ioctl of /dev/userfaultfd (include/uapi/linux/userfaultfd.h)
_SECCOMP_SET = (0, 1)  # SECCOMP_SET_MODE_STRICT, SECCOMP_SET_MODE_FILTER
_PTRACE_O_SUSPEND_SECCOMP = 1 << 21
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_NR_PRCTL = NAMES["prctl"]
_BAD = (1 << 64) - 1

SYS_SECCOMP = 1
SIGSYS_OF_FILTER = struct.pack("<iii", signal.SIGSYS, errno.ENOSYS, SYS_SECCOMP).ljust(128, b"\0")
"""The siginfo_t, as far as it can be known, of the signal by which a filter ends a program."""

# What makes each refused call fail without having done anything: argument -> value.
_HARMLESS: dict[int, dict[int, int]] = {
    NAMES["rseq"]: {2: _BAD},
    NAMES["io_uring_setup"]: {0: 0, 1: 0},
    NAMES["io_setup"]: {0: 0, 1: 0},
    NAMES["userfaultfd"]: {0: _BAD},
    NAMES["memfd_secret"]: {0: _BAD},
    NAMES["ioctl"]: {0: _BAD},
    NAMES["sched_setaffinity"]: {1: 0},
}


def prevent(recorder: Recorder, call: Call, result: int) -> None:
    """At a syscall-entry-stop: the call shall not have its effect, but give `result`."""
    call.guess = None
    if not recorder.filtered:
        recorder.suppress(result)
        return
    change_arguments(recorder, call, _HARMLESS[call.nr])
    call.effect = lambda given: put_right(recorder, call, result if given < 0 else given)


def change_arguments(recorder: Recorder, call: Call, values: dict[int, int]) -> None:
    """Let the kernel see other arguments; `put_right` must be called at the exit."""
    registers = recorder.tracee.registers()
    for index, value in values.items():
        setattr(registers, _ARGUMENTS[index], value)
    recorder.tracee.set_registers(registers)
    call.effect = lambda result: put_right(recorder, call, result)


def put_right(recorder: Recorder, call: Call, result: int) -> int:
    """At a syscall-exit-stop: the program sees its own arguments again, and `result`."""
    registers = recorder.tracee.registers()
    for name, value in zip(_ARGUMENTS, call.args):
        setattr(registers, name, value)
    registers.rax = result & _BAD
    recorder.tracee.set_registers(registers)
    return result


def refuse(recorder: Recorder, call: Call) -> None:
    """ENOSYS: the program falls back to what can be recorded."""
    prevent(recorder, call, -errno.ENOSYS)
    if call.row is not None and call.row.name != "rseq":
        name = call.row.name
        recorder.note(f"refused {name}", f"{name} answers ENOSYS while recording")


def ioctl(recorder: Recorder, call: Call) -> None:
    """A userfaultfd can also be had from a device."""
    if call.args[1] & 0xFFFFFFFF == USERFAULTFD_IOC_NEW:
        prevent(recorder, call, -errno.ENOSYS)
        recorder.note("refused userfaultfd", "userfaultfd answers ENOSYS while recording")


def prctl(recorder: Recorder, call: Call) -> None:
    """Some options are virtual.

    PR_SET_TSC: rdtsc stays trapped. PR_SET_DUMPABLE: the program's memory stays readable for a
    recorder that is not root (proc(5)).
    """
    option, value = call.args[0] & 0xFFFFFFFF, call.args[1]
    if option == PR_SET_TSC and value == PR_TSC_ENABLE:
        change_arguments(recorder, call, {1: PR_TSC_SIGSEGV})
    elif option == PR_GET_TSC:
        call.effect = lambda result: _say_tsc(recorder, call, result)
    elif option == PR_SET_DUMPABLE and value in (0, 1):
        change_arguments(recorder, call, {1: 1})

        def remember(result: int) -> int:
            if result == 0:
                recorder.dumpable = value
            return put_right(recorder, call, result)

        call.effect = remember
    elif option == PR_GET_DUMPABLE and recorder.dumpable >= 0:
        call.effect = lambda result: put_right(
            recorder, call, recorder.dumpable if result >= 0 else result
        )


def _say_tsc(recorder: Recorder, call: Call, result: int) -> int:
    if result == 0:
        try:
            recorder.tracee.write(call.args[1], struct.pack("<i", PR_TSC_ENABLE))
        except BadAddress:
            pass
    return result


def filter_installed(recorder: Recorder, call: Call, result: int) -> None:
    """After seccomp(2) or prctl(PR_SET_SECCOMP) succeeded: be careful from now on."""
    by_prctl = call.nr == _NR_PRCTL and call.args[0] & 0xFFFFFFFF == PR_SET_SECCOMP
    by_call = call.nr != _NR_PRCTL and call.args[0] & 0xFFFFFFFF in _SECCOMP_SET
    if result >= 0 and (by_prctl or by_call):
        recorder.filtered = True


def suspend_filters(tracee: Tracee, options: int = OPTIONS) -> bool:
    """Put the filters of a tracee out of action until it is detached; False when not permitted.

    `options` are the ones that it is traced with.

    It takes CAP_SYS_ADMIN (ptrace(2), PTRACE_O_SUSPEND_SECCOMP).
    """
    try:
        pt.ptrace(pt.PTRACE_SETOPTIONS, tracee.pid, None, options | _PTRACE_O_SUSPEND_SECCOMP)
    except OSError:
        return False
    return True


def make_dumpable(tracee: Tracee, value: int) -> None:
    """Give the program the PR_SET_DUMPABLE that it believes to have; -1: nothing to do."""
    if value == 0 and tracee.remote_site:
        try:
            tracee.remote_syscall(_NR_PRCTL, PR_SET_DUMPABLE, value)
        except RemoteSyscallError:
            pass
