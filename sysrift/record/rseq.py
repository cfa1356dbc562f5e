# SPDX-License-Identifier: GPL-2.0-or-later
"""Restartable sequences of a process that runs already: unregistered while it is recorded.

The kernel writes the number of the CPU into the registered memory whenever it likes, which no
system call tells of (kernel/rseq.c, rseq(2)). A program that is started while recording is told
that there is no rseq; one that is attached to has registered it (glibc does, before main).
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from sysrift.syscalls import NAMES, BadAddress
from sysrift.tracee import RemoteSyscallError, Tracee
from sysrift.tracee import ptrace as pt

_NR_RSEQ = NAMES["rseq"]
_FLAG_UNREGISTER = 1
_CONFIGURATION = struct.Struct("<QIIII")  # struct ptrace_rseq_configuration
_CPU_ID_AT = 4  # offsetof(struct rseq, cpu_id)
_REGISTRATION_FAILED = struct.pack("<i", -2)
"""RSEQ_CPU_ID_REGISTRATION_FAILED: users of rseq (sched_getcpu, allocators) take another way."""


class Rseq(NamedTuple):
    """What a thread has registered."""

    address: int
    size: int
    signature: int


def registered(pid: int) -> Rseq | None:
    """The registration of a stopped tracee; None without one, or before Linux 5.13."""
    buffer = ctypes.create_string_buffer(_CONFIGURATION.size)
    try:
        pt.ptrace(
            pt.PTRACE_GET_RSEQ_CONFIGURATION, pid, _CONFIGURATION.size, ctypes.addressof(buffer)
        )
    except OSError:
        return None
    address, size, signature, _, _ = _CONFIGURATION.unpack_from(buffer)
    return Rseq(address, size, signature) if address else None


def unregister(tracee: Tracee) -> Rseq | None:
    """Unregister what is registered, for `register` to undo. Raises RemoteSyscallError."""
    rseq = registered(tracee.pid)
    if rseq is not None:
        tracee.remote_syscall(
            _NR_RSEQ, rseq.address, rseq.size, _FLAG_UNREGISTER, rseq.signature
        )  # fmt: skip
        try:
            tracee.write(rseq.address + _CPU_ID_AT, _REGISTRATION_FAILED)
        except BadAddress:
            pass
    return rseq


def register(tracee: Tracee, rseq: Rseq) -> None:
    """Register again; the kernel fills in the CPU when the process next runs."""
    try:
        tracee.remote_syscall(_NR_RSEQ, rseq.address, rseq.size, 0, rseq.signature)
    except RemoteSyscallError:
        pass
