# SPDX-License-Identifier: GPL-2.0-or-later
"""Events in the middle of a computation, where GDB drives: what is done at their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysrift.replay.engine import Halt, Reason
from sysrift.replay.point import PointFinder
from sysrift.tracee import Registers
from sysrift.tracee import ptrace as pt
from sysrift_gdb import console
from sysrift_gdb.debug_traps import back_onto_breakpoint
from sysrift_gdb.line_loops import LineLoop
from sysrift_gdb.line_steps import Line, line_at
from sysrift_gdb.point_trap import Called, PointTrap

if TYPE_CHECKING:
    from sysrift_gdb.session import Replay

_SI_KERNEL = 0x80  # si_code of the SIGTRAP of an int3


class EventsInCode:
    """Watches over the next event's place in a replay, and plays the event there."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._tracee = replay.tracee
        self.trap = PointTrap(replay.engine)

    @property
    def is_called(self) -> bool:
        """Whether the trap's signal is what GDB has just got."""
        return self.trap.called

    def watch(self) -> None:
        """GDB is about to go on, or the user to look, after the engine has played something."""
        if not self._replay.follows_recording:
            self.trap.put(None)
        elif not self._replay.user_call:
            self.trap.watch()

    def on_gdbs_trap(self, code: int) -> None:
        """A SIGTRAP with this si_code that is GDB's own affair: a breakpoint, the end of a step."""
        if self._replay.follows_recording and not self._replay.user_call:
            self.trap.look(ran_onto_breakpoint=code == _SI_KERNEL)

    def on_stop(self) -> None:
        """GDB has stopped for the user."""
        self.trap.tidy()

    def after_user_call(self) -> None:
        """GDB has run a function that the user called, at whose beginning the signal was lost."""
        if self.trap.called:
            self.trap.call(self.trap.why)

    def forget(self) -> None:
        """The user goes elsewhere."""
        self.trap.take_back()

    # -- at the place ---------------------------------------------------------------------------

    def on_call(self) -> bool:
        """The trap's signal has arrived; returns whether the user should see the stop."""
        self.trap.called = False
        point = self._engine.point
        registers = self._tracee.registers()
        if point is None or registers.rip != point.site:
            return False
        line = line_at(point.site, registers.rsp) if self._replay.steps_by_line else None
        if point.is_here(registers):
            return self._play(point, registers, line)
        if self.trap.why is Called.FREE:
            self.trap.put(None)
            return self._replay.run_ahead()
        halt = None if line is None else self._run_through(line, point)
        if halt is None:
            if self.trap.over_breakpoint:
                self.trap.lift(point.site)
        elif halt.reason is Reason.REACHED:
            return self._play(point, self._tracee.registers(), line)
        return False

    def _play(self, here: PointFinder, registers: Registers, line: Line | None) -> bool:
        """Play what happened just here. `line`: GDB is stepping through it."""
        self.trap.show()
        point: PointFinder | None = here
        while point is not None and point.is_here(registers):
            if not self._engine.play_at_point(registers):
                self._replay.hand_back(self._replay.fatal(self._engine.sent_fatal_signal))
                return False
            registers = self._tracee.registers()
            point = self._engine.point
        if registers.rip == here.site and line is not None:
            self.trap.lift(here.site)
        elif registers.rip == here.site:
            self.trap.step_over()
            if self._replay.traps.pass_on(in_call=False):
                return False
        elif self._engine.fatal_signal_due:
            pt.tgkill(self._tracee.pid, self._replay.fatal(self._engine.fatal_signal_due))
        console.forget_caches()
        return line is not None and self._replay.back_in_line(line, self.trap.over_breakpoint)

    def _run_through(self, line: Line, point: PointFinder) -> Halt | None:
        """While GDB steps through a line: run to the point, or to where the line is left.

        None, with nothing done, if that cannot be.
        """
        loop = LineLoop.of(line, point.displaced)
        if loop is None:
            return None
        tracee = self._tracee
        self.trap.put(None)
        tracee.watchpoint_hits = 0
        loop.put(tracee)
        try:
            halt = self._engine.advance(limit=0)
        finally:
            loop.take_away(tracee)
        if halt.reason is Reason.TRAP and not self._replay.traps.pass_on(in_call=False):
            registers = tracee.registers()
            jump = loop.led_out(registers.rip - 1)
            if jump is not None:
                registers.rip = jump
                tracee.set_registers(registers)
            else:
                back_onto_breakpoint(tracee)
        elif halt.reason is Reason.SIGNAL:
            pt.tgkill(tracee.pid, halt.signal)
        console.forget_caches()
        return halt


__all__ = ["EventsInCode"]
