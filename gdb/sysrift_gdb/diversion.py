# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the program's that the user lets GDB call (`print f(x)`): diversions of a replay.

What such a function changes is the user's to look at while the command lasts that called it, and
gone afterwards. GDB tells when it is about to call one, and when that came back. It reads the
result, and a string that this points to, only later, and restores registers itself. So a diversion
ends when the command does: by the hooks of those commands, at the next prompt, or at the latest
when GDB is about to resume the program. In a breakpoint's condition there is no such moment: there
it ends as soon as the call is back.
"""

from __future__ import annotations

import contextlib
import re
import signal
from typing import TYPE_CHECKING

import gdb
from sysrift.errors import ReplayError
from sysrift.replay.diversion import DivertedCalls, Outcome
from sysrift.replay.saved import Saved
from sysrift.tracee import BadAddress, Registers, RemoteSyscallError
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NO_SYSCALL
from sysrift.views.signals import signal_name
from sysrift_gdb import console
from sysrift_gdb.debug_traps import INT3
from sysrift_gdb.point_trap import CALL

if TYPE_CHECKING:
    from sysrift_gdb.session import Replay

_DUMMY_FRAME = re.compile(r"\bstack=(0x[0-9a-f]+),code=(0x[0-9a-f]+)")

_TRAP_TRACE = 2  # si_code of the SIGTRAP of a single step
_BEFORE_INSTRUCTION = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS)
_SYSCALL_LENGTH = 2

_TIME_STAMPS = {b"\x0f\x31": 2, b"\x0f\x01\xf9": 3}
"""rdtsc and rdtscp, and how long they are."""


class Diversions:
    """The diversions of one replay, one at a time."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._engine = replay.engine
        self._tracee = replay.tracee
        self._saved: Saved | None = None  # a diversion is on, and this is from before it
        self._calls: DivertedCalls | None = None
        self._running = False  # the user has let the program run, and not seen it stop
        self._in_condition = False  # the diversion began then
        self._once_more: Saved | None = None  # see `_end_in_condition`
        self._at_watchpoint = False  # and where it did, the trap of a debug register was at hand
        self._has_sent = False  # the signal that is told there
        self._caught: Registers | None = None  # of a call that the user catches, on a condition
        self._depth = 0  # functions called that have not come back
        self._stuck = ""  # why the called function cannot go on
        self._said: set[str] = set()  # in this diversion
        self._time_stamp = 0

    @property
    def is_on(self) -> bool:
        """Whether the program is not where the recording has it: a function is, or was, called."""
        return self._saved is not None

    def puts_back(self, address: int, length: int) -> bool:
        """Whether the end of the diversion undoes a debugger's write there."""
        return self._saved is not None and self._saved.covers(address, length)

    # -- GDB calls a function ---------------------------------------------------------------------

    def on_call(self, begins: bool) -> None:
        """GDB is about to call a function, or one that it has called came back, or has stopped."""
        if begins:
            if self._saved is None:
                self._begin()
            self._depth += 1
            return
        self._depth = max(self._depth - 1, 0)
        if not self.is_on or self._depth or self._tracee.registers().rip not in _return_points():
            return  # it has stopped somewhere else, or another one is to come
        if self._in_condition:
            self._end_in_condition()
        elif console.is_machine_interface():
            # There are no hooks then. Not always: GDB dies at its exit when such a call is left
            # over, as in batch mode, where nothing waits for events after the last command.
            gdb.post_event(self._end_unless_called)

    def _begin(self) -> None:
        replay = self._replay
        self._once_more = self._caught = None
        if self._tracee.stop_operation() == pt.SYSCALL_INFO_NONE:
            self._drop_signals()  # what was sent to the program is not for the function
        else:
            registers = self._tracee.registers()
            registers.orig_rax = NO_SYSCALL
            self._tracee.set_registers(registers)
        self._saved = Saved(self._tracee, self._engine.brk)
        if replay.kept is not None:
            # Before the call that the user has caught, which is entered anew afterwards.
            kept, replay.kept = replay.kept, None
            self._caught = kept.copy() if self._running else None
            kept.rip -= 2
            kept.rax = kept.orig_rax
            kept.orig_rax = NO_SYSCALL
            self._saved.registers = kept
        self._calls = DivertedCalls(self._engine, self._saved)
        self._in_condition = self._running
        self._at_watchpoint = self._tracee.has_watchpoints and bool(self._tracee.watchpoint_hits)
        self._depth = 0
        self._stuck = ""
        self._said.clear()

    def _drop_signals(self) -> None:
        while self._tracee.pending_signals:
            self._tracee.resume(pt.PTRACE_SYSEMU)  # what is pending comes first
            self._tracee.wait()
        self._has_sent = False

    # -- its stops ------------------------------------------------------------------------------

    def system_call(self, registers: Registers) -> bool:
        """The called function makes a system call; returns whether GDB is to stop there."""
        assert self._calls is not None
        outcome = self._calls.make(registers)
        registers.rax = outcome.result & NO_SYSCALL
        registers.orig_rax = NO_SYSCALL
        self._tracee.set_registers(registers)
        self._tell(outcome)
        return bool(outcome.ends)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.output:
            gdb.write(outcome.output.decode("utf-8", "replace"))
            gdb.flush()
        if outcome.refused:
            self._say_once(
                f"the function called from GDB gets ENOSYS for {outcome.refused}: "
                "in a replay nothing reaches the outside"
            )
        if outcome.signal:
            self._stuck = f"has got {signal_name(outcome.signal)} (sent by itself)"
            pt.tgkill(self._tracee.pid, outcome.signal)
        if outcome.ends:
            self._stuck = f"would have ended the program, by {outcome.ends}"

    def fault(self, sig: int) -> None:
        """The called function stopped by a fault: for GDB to report.

        Most are none: the function returns to a breakpoint on the stack, which is not executable.
        """
        registers = self._tracee.registers()
        code = self._tracee.read_some(registers.rip, 3)
        if code[:1] == INT3:
            return
        length = next((n for text, n in _TIME_STAMPS.items() if code.startswith(text)), 0)
        if length and sig == signal.SIGSEGV:
            self._time_stamp += 1000
            registers.rax, registers.rdx = self._time_stamp & 0xFFFFFFFF, self._time_stamp >> 32
            registers.rip += length
            self._tracee.set_registers(registers)
            console.forget_caches()
            return
        self._stuck = f"has got {signal.Signals(sig).name}"
        self._replay.let_fault_through(sig)

    def on_stop(self) -> None:
        """GDB has stopped for the user."""
        self._running = False
        saved, self._once_more = self._once_more, None
        if saved is not None and not self.is_on and saved.is_before(self._tracee.registers()):
            saved.put_back()
        if self._has_sent:
            self._drop_signals()
            self._replay.send_again()
        if not self.is_on:
            return
        if not self._depth and not _calls_under_way():
            self.end()  # `finish`, `continue` in the called function
            return
        if self._stuck:
            self._say_once(
                f"the function called from GDB {self._stuck}: look around, then "
                "sysrift-restore, or whatever resumes the program, puts everything back"
            )
        else:
            self._say_once(
                "this is in a function called from GDB: all that it changes is put back when it "
                "returns (finish, continue), or by sysrift-restore"
            )

    def _say_once(self, text: str) -> None:
        """In this diversion."""
        if text not in self._said:
            self._said.add(text)
            console.say(text)

    # -- the end --------------------------------------------------------------------------------

    def on_resume(self) -> None:
        """The user lets the program go on: GDB is about to resume it."""
        if self.is_on and not _calls_under_way():
            self.end(tell_gdb=False)
        self._running = True

    def after_command(self) -> None:
        """A command of the user's is over, or the next one begins."""
        self._running = False
        self._end_unless_called(anew=True)

    def _end_unless_called(self, anew: bool = False) -> None:
        if anew:
            self._depth = 0
        if self.is_on and not self._depth and not _calls_under_way():
            with console.plainly():
                self.end()

    def before_resuming(self) -> None:
        """A command that resumes the program is about to be executed.

        Raises ReplayError, which prevents that, when the program is in a called function that
        cannot go on: then the diversion ends instead.
        """
        self.after_command()
        if self.is_on and self._stuck:
            self.leave()
            raise ReplayError("back from the function called from GDB, as if there had been none")

    def _end_in_condition(self) -> None:
        """The call is back that GDB has made to judge a condition.

        GDB is going to put registers back (some versions spoil those of AVX-512), and a byte of its
        breakpoint on the stack. So all is put back once more at the next stop: behind a step over
        the breakpoint with the condition; or, where GDB makes none, at that of a signal.
        """
        saved = self._saved
        comes_by_itself = self._caught is None and not self._at_watchpoint
        self.end(tell_gdb=False)
        self._once_more = saved
        if not comes_by_itself:
            pt.tgkill(self._tracee.pid, CALL)
            self._has_sent = True

    def at_stop(self, sig: int = 0, code: int = 0) -> bool | None:
        """GDB has stopped the program, by a signal or for a system call (0).

        Returns None when there is nothing to be done here; else whether the user should see it.
        """
        saved, self._once_more = self._once_more, None
        if self.is_on:
            return None
        if self._has_sent and sig == CALL and code <= 0:
            self._has_sent = False
            if saved is not None:
                saved.put_back()
            if self._caught is not None:
                return self._replay.play_caught(self._caught)
            return False
        if saved is None:
            return None
        now = self._tracee.registers()
        if sig == signal.SIGTRAP and code == _TRAP_TRACE:
            saved.put_back()
            self._replay.step_over()
        elif sig in _BEFORE_INSTRUCTION and now.rip - saved.registers.rip in (0, _SYSCALL_LENGTH):
            saved.put_back()
            self._tracee.set_registers(now)
        return None

    def leave(self) -> None:
        """End the diversion, if one is on, wherever the called function is."""
        if self.is_on:
            with contextlib.suppress(gdb.error):
                _give_up_calls()
            self.end()

    def end(self, tell_gdb: bool = True) -> None:
        """Put everything back. Not `tell_gdb`: it is at work, and knows all registers as they were.

        Raises ReplayError when that is not possible.
        """
        saved, self._saved, self._calls = self._saved, None, None
        if saved is None:
            return
        replay = self._replay
        self._in_condition = False
        self._stuck = ""
        try:
            moved = saved.put_back()
        except (RemoteSyscallError, BadAddress, OSError) as error:
            replay.is_changed = True
            raise ReplayError(
                f"what the function called from GDB has changed cannot be put back ({error}): "
                "sysrift-goto leads back to the recording"
            ) from None
        replay.after_diversion()
        if tell_gdb:
            if moved:
                console.forget_caches()
                gdb.invalidate_cached_frames()
            else:
                console.forget_memory()


def _calls_under_way() -> list[tuple[int, int]]:
    """Of the called functions that have not come back, the last called one's first: the addresses
    of the frame that GDB made for it (a "dummy frame"), and of the breakpoint it returns to."""
    frames = _DUMMY_FRAME.findall(gdb.execute("maint print dummy-frames", to_string=True))
    return [(int(stack, 16), int(code, 16)) for stack, code in frames]


def _return_points() -> set[int]:
    """The program counters at which the function that was called last is back."""
    first = next((code for _, code in _calls_under_way()), 0)
    return {first, first + 1}  # GDB may not have put it back onto its breakpoint


def _give_up_calls() -> None:
    """Let GDB forget the calls that have not come back, and its breakpoints on the stack for them:
    it takes each for back when the registers are as they are then (amd64_dummy_id)."""
    for _ in _calls_under_way():
        stack, code = _calls_under_way()[0]
        gdb.newest_frame().select()
        for name, value in (("rbp", stack - 16), ("rsp", stack - 16), ("pc", code)):
            gdb.execute(f"set ${name} = {value}", to_string=True)
        gdb.newest_frame().select()
        console.quietly("return")


__all__ = ["Diversions"]
