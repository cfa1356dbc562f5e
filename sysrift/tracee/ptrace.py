# SPDX-License-Identifier: GPL-2.0-or-later
"""ptrace(2) itself, and the requests that are used here.

Raw ctypes, because GDB's process may not load python-ptrace, and because that lacks SEIZE,
GET_SYSCALL_INFO, SYSEMU and the register sets.
"""

from __future__ import annotations

import ctypes
import errno
import os

PTRACE_TRACEME = 0
PTRACE_PEEKUSER = 3
PTRACE_POKEUSER = 6
PTRACE_CONT = 7
PTRACE_KILL = 8
PTRACE_SINGLESTEP = 9
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SYSEMU = 31
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETSIGINFO = 0x4202
PTRACE_SETSIGINFO = 0x4203
PTRACE_GETREGSET = 0x4204
PTRACE_SETREGSET = 0x4205
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GETSIGMASK = 0x420A
PTRACE_SETSIGMASK = 0x420B
PTRACE_GET_SYSCALL_INFO = 0x420E
PTRACE_GET_RSEQ_CONFIGURATION = 0x420F
PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210

PTRACE_O_TRACESYSGOOD = 0x01
PTRACE_O_TRACEFORK = 0x02
PTRACE_O_TRACEVFORK = 0x04
PTRACE_O_TRACECLONE = 0x08
PTRACE_O_TRACEEXEC = 0x10
PTRACE_O_TRACEEXIT = 0x40
PTRACE_O_EXITKILL = 0x100000

PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_EXIT = 6
PTRACE_EVENT_STOP = 128

SYSCALL_INFO_NONE = 0
SYSCALL_INFO_ENTRY = 1
SYSCALL_INFO_EXIT = 2

AUDIT_ARCH_X86_64 = 0xC000003E

DEBUG_ADDRESS = 848  # offsetof(struct user, u_debugreg)
DEBUG_STATUS = DEBUG_ADDRESS + 6 * 8
DEBUG_CONTROL = DEBUG_ADDRESS + 7 * 8

NT_X86_XSTATE = 0x202
WALL = 0x40000000
"""__WALL: wait for children of any kind (waitpid(2))."""

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int | None = None, data: object = None) -> int:
    """ptrace(2). `data` is None, an integer or a ctypes pointer; raises OSError on failure."""
    result: int = _ptrace(request, pid, address, data)
    if result == -1:
        number = ctypes.get_errno()
        if number:
            raise OSError(number, os.strerror(number))
    return result


def peek_user(pid: int, offset: int) -> int:
    """The word at `offset` of a tracee's `struct user` (PTRACE_PEEKUSER)."""
    ctypes.set_errno(0)
    word: int = _ptrace(PTRACE_PEEKUSER, pid, offset, None)
    number = ctypes.get_errno()
    if word == -1 and number:
        raise OSError(number, os.strerror(number))
    return word & 0xFFFFFFFFFFFFFFFF


def set_user_dispatch(pid: int, start: int, length: int) -> None:
    """Have system calls from outside of this memory raise SIGSYS; from anywhere for no length: off.

    Syscall User Dispatch (struct ptrace_sud_config, include/uapi/linux/ptrace.h). Raises OSError
    where the kernel cannot set it from outside (before Linux 6.4).
    """
    # Off takes nothing but zeros (kernel/entry/syscall_user_dispatch.c).
    config = (ctypes.c_uint64 * 4)(*((1, 0, start, length) if length else (0, 0, 0, 0)))
    size, data = ctypes.sizeof(config), ctypes.addressof(config)
    ptrace(PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, pid, size, data)


def is_gone(error: OSError) -> bool:
    """Whether a ptrace call failed because the tracee is dead (or not stopped any more)."""
    return error.errno == errno.ESRCH


_NR_TGKILL = 234


def tgkill(pid: int, sig: int) -> None:
    """Send `sig` to the only thread of process `pid` (tgkill(2)); a dead one is no error."""
    _libc.syscall(_NR_TGKILL, pid, pid, int(sig))
