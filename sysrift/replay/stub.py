# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting the stub, the guarded process that a headless replay happens in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Iterator

from sysrift.errors import ReplayError
from sysrift.native import STUB_SCRATCH, STUB_SYSCALL, stub_path
from sysrift.trace.model import Image
from sysrift.trace.reader import Trace
from sysrift.tracee import RemoteSyscallError, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import ADDR_NO_RANDOMIZE, PR_SET_TSC, PR_TSC_SIGSEGV
from sysrift.tracee.registers import NO_SYSCALL, signed

_NR_CLONE, _NR_PRCTL, _NR_RT_TGSIGQUEUEINFO = 56, 157, 297
_TRAP_HWBKPT = 4  # si_code: a debug register (<asm-generic/siginfo.h>)


def pin(tracee_pid: int, trace: Trace) -> set[int]:
    """Let this thread and the tracee share the CPU that was recorded on, if it is there.

    A ptrace stop is 3-10 times cheaper on one CPU, and cpuid, which cannot be trapped, tells the
    program the CPU's number. Returns the CPUs that this thread could use before.
    """
    before = os.sched_getaffinity(0)
    cpu = trace.image(0).cpu
    if cpu not in before:
        cpu = min(before)
    os.sched_setaffinity(tracee_pid, {cpu})
    os.sched_setaffinity(0, {cpu})
    return before


def prepare(tracee: Tracee, image: Image) -> None:
    """Guard a stub that was just started (it stands before its first instruction).

    Sets what a replayed program needs of its process: trapping rdtsc, the recorded stack limit.
    Raises ReplayError when the kernel refuses the guard.
    """
    tracee.resume(pt.PTRACE_CONT)
    status = tracee.wait()
    result = signed(tracee.registers().rax)
    if os.WSTOPSIG(status) != signal.SIGTRAP or result:
        raise ReplayError(
            f"the kernel refuses the seccomp filter that guards a replay "
            f"({os.strerror(-result) if result < 0 else 'stopped unexpectedly'}): "
            "run sysrift doctor to see why"
        )
    tracee.remote_site = STUB_SYSCALL
    try:
        tracee.remote_syscall(_NR_PRCTL, PR_SET_TSC, PR_TSC_SIGSEGV)
    except RemoteSyscallError as error:
        raise ReplayError(f"rdtsc cannot be trapped here ({error}): run sysrift doctor") from None


def enter_debug_trap(tracee: Tracee) -> None:
    """Let the tracee enter a call that sends it a SIGTRAP, as a debug register raises it.

    At the exit, to which it is to go on by PTRACE_SYSCALL, its registers have to be put back. Not
    by a single step, whose own SIGTRAP would be merged with this one.
    """
    siginfo = struct.pack("<iii", signal.SIGTRAP, 0, _TRAP_HWBKPT).ljust(128, b"\0")
    tracee.write(STUB_SCRATCH, siginfo)
    call = tracee.registers()
    call.set_call(_NR_RT_TGSIGQUEUEINFO, tracee.pid, tracee.pid, signal.SIGTRAP, STUB_SCRATCH)
    call.rip = STUB_SYSCALL
    tracee.set_registers(call)
    for _ in range(64):
        tracee.resume(pt.PTRACE_SYSCALL)
        tracee.wait()
        if tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY:
            return
    raise ReplayError("the trap of a watchpoint could not be handed to GDB")


def fork_stub(tracee: Tracee) -> Tracee:
    """Make a copy of a headless stub, with all that it has become, by a real clone(2).

    Without an exit signal: the original shall get no SIGCHLD when the copy ends.
    The copy is stopped where the original is. `kill_stub` ends it.
    """
    saved = tracee.registers()
    call = saved.copy()
    call.set_call(_NR_CLONE)
    call.rip = STUB_SYSCALL
    tracee.set_registers(call)
    tracee.resume(pt.PTRACE_CONT)
    if tracee.wait() >> 16 != pt.PTRACE_EVENT_CLONE:
        raise ReplayError("the replayed process could not be forked")
    message = ctypes.c_ulong()
    pt.ptrace(pt.PTRACE_GETEVENTMSG, tracee.pid, None, ctypes.addressof(message))
    os.waitpid(message.value, pt.WALL)
    tracee.resume(pt.PTRACE_CONT)  # to the int3 behind the stub's syscall instruction
    tracee.wait()
    child = Tracee(message.value, STUB_SYSCALL)
    saved.orig_rax = NO_SYSCALL
    for each in (tracee, child):
        each.set_registers(saved)
    return child


def kill_stub(pid: int) -> None:
    """End a stub of this process's, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, pt.WALL)


@contextlib.contextmanager
def headless_stub(trace: Trace) -> Iterator[Tracee]:
    """A prepared stub without any debugger; killed at exit.

    Raises ReplayError when ptrace or seccomp are not permitted.
    """
    path = str(stub_path())
    libc = ctypes.CDLL(None, use_errno=True)
    affinity = os.sched_getaffinity(0)
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            libc.personality(libc.personality(0xFFFFFFFF) | ADDR_NO_RANDOMIZE)
            if libc.ptrace(pt.PTRACE_TRACEME, 0, None, None) == 0:
                os.execve(path, [path], {})
        finally:
            os._exit(125)
    tracee = None
    try:
        _, status = os.waitpid(child, pt.WALL)
        if not os.WIFSTOPPED(status):
            child = 0
            raise ReplayError("ptrace is not permitted here: run sysrift doctor to see why")
        options = pt.PTRACE_O_TRACESYSGOOD | pt.PTRACE_O_EXITKILL | pt.PTRACE_O_TRACECLONE
        pt.ptrace(pt.PTRACE_SETOPTIONS, child, None, options)
        tracee = Tracee(child)
        pin(child, trace)
        prepare(tracee, trace.image(0))
        yield tracee
    finally:
        if tracee is not None:
            tracee.close()
        if child:
            kill_stub(child)
        os.sched_setaffinity(0, affinity)
