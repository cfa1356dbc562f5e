# SPDX-License-Identifier: GPL-2.0-or-later
"""Meddling with a process that shall not notice: at attaching to it, and at letting it go.

A call that was interrupted shows -ERESTARTSYS or the like in rax; the kernel looks at rax and
orig_rax when the process goes on, and makes the call again, or has it fail with EINTR when a
handler comes first (arch/x86/kernel/signal.c, arch_do_signal_or_restart). So both must be there
again after system calls have been made on the process's behalf.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from sysrift.record.leaks import ClosedLeaks
from sysrift.tracee import Tracee
from sysrift.tracee import ptrace as pt

# A SIGTRAP that is blocked, as a single step raises it, would lose its handler
# (kernel/signal.c, force_sig_info_to_task).
_ALL_BUT_SIGTRAP = ((1 << 64) - 1) & ~(1 << (signal.SIGTRAP - 1))

_MOST_STEPS = 20_000
"""More than a function of the vDSO takes, its waiting for a clock update included."""


@contextlib.contextmanager
def signals_wait(tracee: Tracee) -> Iterator[None]:
    """Signals stay where they are, in the kernel, with all that is known of them."""
    mask = tracee.signal_mask()
    tracee.set_signal_mask(_ALL_BUT_SIGTRAP)
    try:
        yield
    finally:
        tracee.set_signal_mask(mask)


@contextlib.contextmanager
def registers_kept(tracee: Tracee) -> Iterator[None]:
    """Registers are as before afterwards, orig_rax too."""
    before = tracee.registers()
    try:
        yield
    finally:
        tracee.set_registers(before)


def step_out(tracee: Tracee, is_inside: Callable[[int], bool]) -> None:
    """Single-step until the program counter is not inside any more, in vain after a while."""
    for _ in range(_MOST_STEPS):
        if not is_inside(tracee.registers().rip):
            return
        tracee.resume(pt.PTRACE_SINGLESTEP)
        tracee.wait()


def open_leaks(tracee: Tracee, leaks: ClosedLeaks, able: bool = True) -> None:
    """Undo what was changed in a stopped process.

    Not `able`: see `ClosedLeaks.reopen`. It is made to leave the vDSO's replaced functions first:
    their old code is another.
    """
    spans = [range(address, address + len(code)) for address, code in leaks.vdso]
    with signals_wait(tracee):
        step_out(tracee, lambda rip: any(rip in span and rip != span.start for span in spans))
        with registers_kept(tracee):
            leaks.reopen(tracee, able=able)
