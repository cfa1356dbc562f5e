# SPDX-License-Identifier: GPL-2.0-or-later
"""Being there when the program comes to the place of an event in the middle of a computation.

While GDB lets the program run, or steps it, nobody else looks where it is. So GDB gets a breakpoint
at the place, which the user does not see: its condition is false, but the condition of our `catch
signal SIGTRAP` is evaluated there, as at every SIGTRAP. It compares the pass with the one recorded.

What is to be done then changes the program counter, which GDB cannot stand at a SIGTRAP; and
perhaps the user is to see this stop first, for a breakpoint or a step of theirs. So a signal is
sent: it arrives as soon as GDB resumes the program, before that executes anything.
"""

from __future__ import annotations

import enum
import os
import re
import signal

import gdb
from sysrift.replay.engine import Engine
from sysrift.tracee import Registers
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NAMES

CALL = signal.SIGILL
"""The signal that is sent: one that our catchpoint catches."""

_SENT = 1 << CALL - 1 | 1 << signal.SIGTRAP - 1
_NEVER = "0"
_PATIENCE = 8
"""Passes that are stepped through before it is looked whether that can be cut short."""
_OTHER = {"orig_rax", "eflags"}
_ROW = re.compile(r"^(-?\d+)(?:\.\d+)?\s.*?\sy\s+(0x[0-9a-f]+)\b", re.MULTILINE)


class Called(enum.Enum):
    """What the signal was sent for."""

    HERE = "here"  # this is the pass of the point
    FREE = "free"  # another one, and GDB lets the program run
    STEPPING = "stepping"  # another one of many, and GDB steps the program


class PointTrap:
    """The breakpoint, at one place at a time, and the signal.

    `called`: the signal was sent, and has not arrived yet. `over_breakpoint`: when it arrives, GDB
    is about to step over the breakpoints at the point.
    """

    def __init__(self, engine: Engine) -> None:
        self.called = self.over_breakpoint = False
        self.why = Called.HERE
        self._passes = 0  # of the point's address, since the user looked
        self._engine = engine
        self._tracee = engine.tracee
        self._site = 0
        self._made: dict[int, gdb.Breakpoint] = {}
        self._left_at = 0  # where the engine has left the program, until GDB stops it
        self._shown: Registers | None = None
        self._lifted: tuple[int, bytes] | None = None

    # -- the breakpoint -------------------------------------------------------------------------

    def put(self, site: int | None) -> None:
        """Have it at an address; None: nowhere.

        Nothing is deleted here: GDB may be going through the breakpoints that it has just hit.
        """
        site = site or 0
        if site == self._site:
            return
        if self._site:
            self._made[self._site].enabled = False
        if site and site in self._made:
            self._made[site].enabled = True
        elif site:
            self._made[site] = trap = gdb.Breakpoint(f"*{site:#x}", internal=True)
            trap.silent = True
            trap.condition = _NEVER
        self._site = site

    def tidy(self) -> None:
        """While GDB is stopped for the user, with no breakpoints in the program's code: let go of
        those that are not enabled."""
        self._lifted = None
        self._passes = 0
        for site in [site for site in self._made if site != self._site]:
            trap = self._made.pop(site)
            if trap.is_valid():
                trap.delete()

    def remove(self) -> None:
        """Take them all out of GDB's table."""
        self._site = 0
        self.tidy()

    def _is_alone(self) -> bool:
        """Whether no other breakpoint, the user's or GDB's own, lies on the same address."""
        trap = self._made.get(self._site)
        if trap is None:
            return False
        return all(
            int(address, 16) != self._site or int(number) == trap.number
            for number, address in _rows()
        )

    # -- the signal -----------------------------------------------------------------------------

    def watch(self) -> None:
        """The engine has moved the program, and GDB is going to move it next, sooner or later."""
        point = self._engine.point
        self.put(point.site if point is not None else None)
        self._look(False)
        if not self.called:
            self.over_breakpoint = False
        self._left_at = self._tracee.registers().rip if point is not None else 0

    def look(self, ran_onto_breakpoint: bool) -> None:
        """At a SIGTRAP that is GDB's own affair. `ran_onto_breakpoint`: GDB did let the program
        run, and is not stepping it."""
        self._put_back()
        if not self.called:
            self.over_breakpoint = True
        self._look(ran_onto_breakpoint)

    def _look(self, ran_onto_breakpoint: bool) -> None:
        """Where the program is at the point, or just at its address: have it when GDB goes on."""
        left_at, self._left_at = self._left_at, 0
        point = self._engine.point
        if point is None or self.called:
            return
        registers = self._tracee.registers()
        if registers.rip != point.site:
            return
        # On another pass it pays to look for the right one by ourselves (a pass costs nothing then)
        # unless there is a breakpoint of somebody's that has to see every pass.
        self._passes += 1
        if point.is_here(registers):
            self.call()
        elif ran_onto_breakpoint:
            if left_at != point.site and self._is_alone():
                self.call(Called.FREE)
        elif self._passes > _PATIENCE and self.over_breakpoint and self._is_alone():
            self._passes = 0
            self.call(Called.STEPPING)

    def call(self, why: Called = Called.HERE) -> None:
        """Send the signal."""
        self.called, self.why = True, why
        pt.tgkill(self._tracee.pid, CALL)

    def take_back(self) -> None:
        """Nothing that was sent shall arrive: the user goes elsewhere, by `sysrift-goto`."""
        self.called = False
        while self._tracee.pending_signals & _SENT:
            self._tracee.resume(pt.PTRACE_SYSEMU)  # what is pending comes first
            self._tracee.wait()

    # -- after an event ---------------------------------------------------------------------------

    def show(self) -> None:
        """Before an event at the point: what GDB knows of breakpoints just here has been seen."""
        self._shown = None if self._is_alone() else self._tracee.registers()

    def has_shown(self, registers: Registers) -> bool:
        """Whether the program, with these registers, is back from the handler of such an event.

        Once: it is the same pass of the breakpoint, and GDB would count it again.
        """
        shown = self._shown
        if shown is None or registers.rip != shown.rip or registers.rsp != shown.rsp:
            return False
        self._shown = None
        return all(
            getattr(registers, name) == getattr(shown, name) for name in NAMES if name not in _OTHER
        )

    def lift(self, site: int) -> None:
        """GDB has stopped at `site` for its breakpoints, and is going to step over them; it took
        the signal's arrival for that step. So they are away for one more step."""
        self._lifted = site, self._tracee.read(site, 1)
        self._tracee.write(site, _original(site))

    def _put_back(self) -> None:
        """After that step: GDB believes that its breakpoints are there, if there still are any."""
        if self._lifted is not None:
            (site, byte), self._lifted = self._lifted, None
            if any(int(address, 16) == site for _, address in _rows()):
                self._tracee.write(site, byte)

    def step_over(self) -> None:
        """Execute the instruction that the program stands on, whatever breakpoints are there.

        A fault of it leaves it to be executed again, by GDB.
        """
        tracee = self._tracee
        site = tracee.registers().rip
        before = tracee.read(site, 1)
        tracee.write(site, _original(site))
        tracee.resume(pt.PTRACE_SINGLESTEP)
        sig = os.WSTOPSIG(tracee.wait())
        tracee.write(site, before)
        if sig == signal.SIGINT:
            pt.tgkill(tracee.pid, sig)


def _rows() -> list[tuple[str, str]]:
    """Number and address of all enabled breakpoints, GDB's own among them."""
    return _ROW.findall(gdb.execute("maint info breakpoints", to_string=True))


def _original(address: int) -> bytes:
    """A byte of the program's code, without GDB's breakpoints."""
    return bytes(gdb.selected_inferior().read_memory(address, 1))


__all__ = ["CALL", "Called", "PointTrap"]
