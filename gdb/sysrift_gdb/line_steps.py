# SPDX-License-Identifier: GPL-2.0-or-later
"""`next`, `step` and `until` over a line in which a handler of the program's is entered.

GDB steps through a line by ranges of addresses. When a condition of ours moves the program counter
out of the line at a stop within it, GDB (12 to 16 at least) fails an assertion of its own
(infrun.c, resume_1: pc_in_thread_step_range). GDB itself lets a program's handler run freely, up to
where it returns to; so this does: it runs the handler, and what it calls, to its rt_sigreturn.
"""

from __future__ import annotations

from typing import NamedTuple

import gdb
from sysrift.replay.engine import Engine
from sysrift.syscalls import NAMES
from sysrift.trace.model import Delivery, Event, EventKind
from sysrift.tracee import ptrace as pt

_NR_RT_SIGRETURN = NAMES["rt_sigreturn"]


class Line(NamedTuple):
    """The addresses of a line, last included, and the stack pointer there."""

    first: int
    last: int
    rsp: int

    def has(self, rip: int) -> bool:
        """Whether an instruction belongs to it."""
        return self.first <= rip <= self.last


def line_at(rip: int, rsp: int) -> Line:
    """The line of an instruction; without debugging information, the instruction alone."""
    found = gdb.find_pc_line(rip)
    if not found.line or found.last is None:
        return Line(rip, rip, rsp)
    return Line(found.pc, found.last, rsp)


def is_handler_entry(event: Event) -> bool:
    """Whether an event is a signal that entered its handler."""
    return event.kind == EventKind.SIGNAL and event.result == Delivery.HANDLER


def is_handler_return(event: Event) -> bool:
    """Whether an event is a return from a handler."""
    return event.kind == EventKind.SYSCALL and event.nr == _NR_RT_SIGRETURN


def returned_to(engine: Engine, line: Line) -> bool | None:
    """Play the rt_sigreturn that the program stands before.

    None when it was another handler's; else whether the program is in the line again.
    """
    tracee = engine.tracee
    tracee.resume(pt.PTRACE_SYSEMU)
    tracee.wait()
    engine.system_call(tracee.registers())
    registers = tracee.registers()
    if registers.rsp != line.rsp:
        return None
    return line.has(registers.rip)


__all__ = ["Line", "is_handler_entry", "is_handler_return", "line_at", "returned_to"]
