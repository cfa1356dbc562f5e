# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's numbers and conventions that recorder and replayer must agree on."""

from __future__ import annotations

import signal

SYSCALL_STOP = (signal.SIGTRAP | 0x80) << 8 | 0x7F
"""The wait status of a syscall-stop under PTRACE_O_TRACESYSGOOD (ptrace(2))."""

SYNCHRONOUS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
)
"""Signals that the processor raises at an instruction; asynchronous when sent by kill(2)."""

RESTARTS = range(-516, -511)
"""Results of a call that a signal interrupted (-ERESTARTSYS .. -ERESTART_RESTARTBLOCK)."""

ADDR_NO_RANDOMIZE = 0x0040000  # personality(2)

PR_SET_TSC = 26  # prctl(2)
PR_TSC_ENABLE, PR_TSC_SIGSEGV = 1, 2
