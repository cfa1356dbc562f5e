# SPDX-License-Identifier: GPL-2.0-or-later
"""Traps that the engine gets in GDB's place: a hardware watchpoint's, and a breakpoint's `int3`."""

from __future__ import annotations

from sysrift.image import BadAddress
from sysrift.replay.stub import enter_debug_trap
from sysrift.tracee import Registers, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NO_SYSCALL
from sysrift_gdb import console

INT3 = b"\xcc"


class DebugTraps:
    """Gives GDB the traps of debug registers that the engine has run into.

    The instruction is executed, and cannot be again. So the program sends itself the same SIGTRAP
    (only to itself may a process send a siginfo_t that seems to be the kernel's), and DR6 is as it
    was; GDB looks at nothing else (linux-nat.c, save_stop_reason).
    """

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self._sent: tuple[Registers, int] | None = None

    @property
    def hits(self) -> int:
        """The debug registers that the last SIGTRAP came from; 0 for another SIGTRAP."""
        return self._tracee.watchpoint_hits if self._tracee.has_watchpoints else 0

    def pass_on(self, in_call: bool) -> bool:
        """Let GDB have the trap that the engine has halted at. False: it is another one.

        `in_call`: GDB has seen the entry of a system call, and is to see this one's exit; then
        `leave` has to be called there.
        """
        hits = self.hits
        if not hits:
            return False
        self._sent = self._tracee.registers(), hits
        enter_debug_trap(self._tracee)
        if not in_call:
            self._tracee.resume(pt.PTRACE_SYSCALL)
            self._tracee.wait()
            self.leave()
        console.forget_caches()
        return True

    def leave(self) -> bool:
        """At a syscall-exit-stop: if it is of the call that sends the SIGTRAP, which arrives right
        behind it, put the program's registers back, and return True."""
        if self._sent is None:
            return False
        (registers, hits), self._sent = self._sent, None
        registers.orig_rax = NO_SYSCALL
        self._tracee.set_registers(registers)
        self._tracee.watchpoint_hits = hits
        console.forget_caches()
        return True


def back_onto_breakpoint(tracee: Tracee) -> None:
    """Put a program that has executed an `int3` back onto it, so that GDB gets it, too."""
    registers = tracee.registers()
    try:
        if tracee.read(registers.rip - 1, 1) == INT3:
            registers.rip -= 1
            registers.orig_rax = NO_SYSCALL
            tracee.set_registers(registers)
    except BadAddress:
        pass


__all__ = ["INT3", "DebugTraps", "back_onto_breakpoint"]
