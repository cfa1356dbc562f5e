# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay that goes on in this GDB: the stub process, the engine, and GDB's view of both.

GDB believes to debug an ordinary process. Whenever it stops that process for a system call, the
condition of our catchpoint comes here (`on_syscall_stop`), the engine plays the event, and while
there is nothing that GDB must see, runs on by itself (`_run_ahead`): a stop of GDB costs a
millisecond, one of the engine a few microseconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import gdb
from sysrift.errors import ReplayError, SysRiftError
from sysrift.native import KEEP_NUMBER_MAGIC, STUB_SYSCALL, stub_path
from sysrift.replay.checkpoints import Checkpoints
from sysrift.replay.divergence import Divergence
from sysrift.replay.engine import Engine, Halt, Reason
from sysrift.replay.place import Place, play_one
from sysrift.replay.player import patch_at
from sysrift.replay.steps import Interrupted
from sysrift.replay.stretch import Landed, Stretch
from sysrift.replay.stub import pin, prepare
from sysrift.trace.model import Event, EventFlag, EventKind, Image
from sysrift.trace.reader import Trace
from sysrift.tracee import Registers, RemoteSyscallError, Tracee, TraceeGone
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NO_SYSCALL, signed
from sysrift.views.processes import find_process, most_interesting
from sysrift.views.summary import how_it_ended
from sysrift_gdb import console, parameters
from sysrift_gdb.catchpoints import Catchpoints, UserBreakpoints
from sysrift_gdb.changes import Changes
from sysrift_gdb.debug_traps import DebugTraps, back_onto_breakpoint
from sysrift_gdb.diversion import Diversions
from sysrift_gdb.event_callbacks import Told
from sysrift_gdb.history import History
from sysrift_gdb.in_code import EventsInCode
from sysrift_gdb.interrupts import interrupts_held, is_interrupted
from sysrift_gdb.line_steps import (
    Line,
    is_handler_entry,
    is_handler_return,
    line_at,
    returned_to,
)
from sysrift_gdb.point_trap import CALL
from sysrift_gdb.signals import SignalTable

_CHUNK = 2000
"""Events between two looks at whether the user pressed Ctrl-C."""

_NR_GETPID = 39
_TRAP_FLAG = 1 << 8  # of rflags
_EXECUTES = (59, 322)
"""execve and execveat."""

_TRAP_AGAIN = CALL
"""What a SIGTRAP of the program's own is turned into, see `on_signal_stop`."""


class Replay:
    """One trace replayed in GDB's current inferior."""

    def __init__(self, path: Path, process: str | int | None = None) -> None:
        """Start the stub under GDB, rebuild the program, and stop at its beginning.

        `process` is a pid or a name, or an id as a number; None: the one that crashed, else the
        first. Raises SysRiftError; nothing is left behind then.
        """
        self.trace = _opened(path, process)
        self._user_settings = {
            "startup-with-shell": "off",
            "disable-randomization": "on",
            "displaced-stepping": "off",
        }
        self._previous_settings = {name: gdb.parameter(name) for name in self._user_settings}
        self._entered = False  # GDB's last stop was a syscall-entry-stop (its own bookkeeping)
        self.kept: Registers | None = None
        """Registers of a call that is shown to the user at its entry."""
        self._exec_pending = False
        self._ended_by = 0
        self.landed: Landed | None = None  # where a look back went last
        self.behind = 0  # the event behind which `go_behind` went
        self.diverged = False
        self.is_changed = False  # by the user: memory or registers
        self.said_end = False
        self.steps_by_line = False  # the user's last command was `next` or its like
        self.catchpoints = Catchpoints()
        self.history = History()
        enabled = self.catchpoints.enabled_by_user()
        try:
            self._start_stub()
        except BaseException:
            self.trace.close()
            raise
        try:
            self.engine = Engine(self.trace, self.tracee)
            self.checkpoints = Checkpoints(self.engine)
            self.traps = DebugTraps(self.tracee)
            self._in_code = EventsInCode(self)
            self.diversions = Diversions(self)
            self.changes = Changes(self)
            self.told = Told(self)
            self.engine.echo = self._echo
            self.engine.on_exec = lambda _image: None
            self.engine.cpus = frozenset(self._affinity)
            self.engine.player_at = patch_at(os.environ)
            self._begin()
            self.signals = SignalTable()
            self.catchpoints.ensure()
            self.catchpoints.enable_again(enabled)
            self._in_code.watch()
        except BaseException:
            self.trace.close()
            console.quietly("kill")
            raise

    # -- beginning and end ----------------------------------------------------------------------

    def _start_stub(self) -> None:
        global _starting
        for name, value in self._user_settings.items():
            gdb.execute(f"set {name} {value}", to_string=True)
        path = stub_path()
        console.quietly(f"file {_quoted(str(path))}")
        gdb.execute("set args", to_string=True)
        with interrupts_held():
            try:
                _starting = True
                with console.silence():
                    console.quietly("starti")
            except gdb.error as error:
                raise ReplayError(
                    f"GDB could not trace the replay stub {path} ({str(error).strip('.')}): "
                    "if ptrace is not permitted here, sysrift doctor says why"
                ) from None
            finally:
                _starting = False
        self.pid: int = gdb.selected_inferior().pid
        self.tracee = Tracee(self.pid)
        self._affinity = pin(self.pid, self.trace)
        try:
            prepare(self.tracee, self.trace.image(0))
        except BaseException:
            console.quietly("kill")
            raise

    def _begin(self) -> None:
        """To where looking at the process begins: its first program, or its return from fork."""
        beginning = self.trace.beginning
        if self.trace.has_image(beginning):
            self.engine.load(beginning)
        else:
            self.engine.load(self.trace.image_before(beginning))
            self._advance_to(beginning)
            self.engine.play_next()
        self._show_program()

    def _show_program(self) -> None:
        """Tell GDB which program this is now: symbols, shared libraries, breakpoints anew."""
        console.forget_caches()
        image = self.engine.image
        self._shown = image.event
        enabled = self.catchpoints.enabled_by_user()
        if image.exe_file >= 0:
            program = self.engine.source.file_path(image.exe_file)
            if self.engine.source.is_stored_copy(image.exe_file):
                console.say(f"{image.exe} has changed since: using the trace's copy of it")
        else:
            program = image.exe
        console.quietly(f"file {_quoted(program)}")
        gdb.selected_thread().name = Path(image.exe).name  # else it is the stub's
        # Setting it, to whatever value, makes GDB look for the dynamic linker of this process and
        # put its breakpoint for loaded libraries there (gdb/solib.c, reload_shared_libraries).
        search = gdb.parameter("solib-search-path") or ""
        console.quietly(f"set solib-search-path {search}")
        console.forget_caches()
        self.catchpoints.enable_where_found(enabled)

    def close(self, killed: bool = True) -> None:
        """End the replay; GDB's settings are the user's again."""
        global current
        if current is self:
            current = None
        if not killed and self._alive():
            console.quietly("kill")
        self.catchpoints.remove()
        self._in_code.trap.remove()
        self.signals.restore()
        for name, value in self._previous_settings.items():
            text = value if isinstance(value, str) else "on" if value else "off"
            gdb.execute(f"set {name} {text}", to_string=True)
        self.checkpoints.close()
        self.engine.close()
        self.trace.close()
        os.sched_setaffinity(0, self._affinity)

    def _alive(self) -> bool:
        return any(inferior.pid == self.pid for inferior in gdb.inferiors())

    # -- stops ----------------------------------------------------------------------------------

    def on_syscall_stop(self) -> bool:
        """GDB stopped for a system call; returns whether the user should see the stop."""
        self.diversions.at_stop()
        shown = self._on_syscall_stop()
        self._in_code.watch()
        return shown

    def _on_syscall_stop(self) -> bool:
        operation = self.tracee.stop_operation()
        self._entered = operation == pt.SYSCALL_INFO_ENTRY
        if not self._entered:
            return not (self.user_call or self.traps.leave()) and self._finish_kept()
        registers = self.tracee.registers()
        if signed(registers.orig_rax) == -1:
            return False
        if self.user_call:
            shown = self.diversions.system_call(registers)
            self.hand_back()
            return shown
        user = self.catchpoints.user_breakpoints()
        event = self._next_event()
        stops = self.told.tell()
        if (
            event is not None
            and (stops or _wants(user, event))
            and event.kind == EventKind.SYSCALL
            and event.nr == signed(registers.orig_rax)
        ):
            # The user catches this call: its number must survive until its exit, so the guard
            # skips it, and its result is put in place there.
            self.kept = registers.copy()
            registers.r9 = KEEP_NUMBER_MAGIC
            self.tracee.set_registers(registers)
            console.forget_caches()
            return stops
        return stops or self._play(registers, user)

    def _play(self, registers: Registers, user: UserBreakpoints) -> bool:
        """Play the event at hand and run ahead; returns whether the user should see a stop."""
        image = self.engine.image
        if not self.engine.system_call(registers) and not self.engine.fatal_signal_due:
            return self._at_end()
        if self.engine.image is not image:
            return self._became_another_program()
        if self.engine.fatal_signal_due:
            self.hand_back(self.fatal(self.engine.fatal_signal_due))
            return False
        return self._run_ahead(user)

    def run_ahead(self) -> bool:
        """Let the engine run on while it can; returns whether the user should see a stop."""
        return self._run_ahead(self.catchpoints.user_breakpoints())

    def _run_ahead(self, user: UserBreakpoints) -> bool:
        if user.hardware:
            self.tracee.watchpoint_hits = 0
        halt = self.engine.advance(
            stop_at=self.told.stop_at,
            wanted=lambda event: _shows(user, event),
            wanted_calls=_wanted_calls(user),
        )
        return self._halted(halt)

    def _halted(self, halt: Halt) -> bool:
        if halt.reason is Reason.EXEC:
            return self._became_another_program()
        if halt.reason is Reason.TRAP:
            hits = self.traps.hits
            if not hits:
                back_onto_breakpoint(self.tracee)
            registers = self.tracee.registers()
            is_breakpoint = not hits or registers.rip in self.tracee.hardware_breakpoints
            if is_breakpoint and self._in_code.trap.has_shown(registers):
                self._in_code.trap.step_over()
                return not self.traps.pass_on(self._entered) and self.run_ahead()
            if self.traps.pass_on(self._entered):
                return False
        sig = 0
        if halt.reason is Reason.SIGNAL:
            sig = halt.signal  # not the recording's (Ctrl-C): GDB must get it itself
        elif halt.reason is Reason.END and self.engine.sent_fatal_signal:
            sig = self.fatal(self.engine.sent_fatal_signal)
        self.hand_back(sig)
        return False

    def back_in_line(self, line: Line, may_leave: bool = False) -> bool:
        """A stop while GDB steps through a line: be in it when GDB goes on (see `line_steps`).

        Returns whether the user should see the stop, since the program is elsewhere. `may_leave`:
        not for a breakpoint in the handler, which GDB is going to see by itself.
        """
        if line.has(self.tracee.registers().rip):
            return False
        user = self.catchpoints.user_breakpoints()
        if not is_handler_entry(self.trace.event(self.engine.next - 1)):
            return True
        while True:
            halt = self.engine.advance(
                wanted=lambda e: is_handler_return(e) or _shows(user, e),
                wanted_calls=_wanted_calls(user),
            )
            event = self._next_event()
            if halt.reason is not Reason.WANTED or event is None or not is_handler_return(event):
                return self._halted(halt) or not may_leave
            back = returned_to(self.engine, line)
            if back is not None:
                due = self.engine.fatal_signal_due
                self.hand_back(self.fatal(due) if due else 0)
                return not back

    def fatal(self, sig: int) -> int:
        """The program ended by this signal: GDB shall report it, now and whenever it resumes."""
        self.told.tell()
        self.signals.report(signal.Signals(sig).name, True)
        self._ended_by = sig
        return sig

    def hand_back(self, sig: int = 0) -> None:
        """Leave the tracee as GDB expects it to be when it resumes it; `sig` arrives then.

        GDB counts syscall-stops: after an entry it takes the next one for the exit. So where it
        saw an entry, it gets an exit: of a call made at the stub's `syscall` instruction.
        """
        if self._entered and self.tracee.stop_operation() != pt.SYSCALL_INFO_ENTRY:
            registers = self.tracee.registers()
            call = registers.copy()
            call.set_call(_NR_GETPID)
            call.rip = STUB_SYSCALL
            self.tracee.set_registers(call)
            for _ in range(64):
                self.tracee.resume(pt.PTRACE_SYSCALL)
                self.tracee.wait()
                if self.tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY:
                    break
            registers.orig_rax = NO_SYSCALL
            self.tracee.set_registers(registers)
        elif not self._entered and self.tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY:
            # And where it saw none, the call is left, by a system call of the stub's.
            self.tracee.remote_syscall(_NR_GETPID)
        if sig:
            pt.tgkill(self.pid, sig)
        console.forget_caches()

    def _finish_kept(self) -> bool:
        """At the exit of a call that the user catches: now put its result in place."""
        kept, self.kept = self.kept, None
        if kept is None:
            return False
        image = self.engine.image
        return self._after_call(self.engine.system_call(kept), image)

    def _after_call(self, goes_on: bool, image: Image) -> bool:
        """GDB drives on after a call was played; returns whether the user should see the stop.

        `image` is the engine's from before the call.
        """
        if not goes_on and not self.engine.fatal_signal_due:
            return self._at_end()
        if self.engine.image is not image:
            return self._became_another_program()
        if self.engine.fatal_signal_due:
            pt.tgkill(self.pid, self.fatal(self.engine.fatal_signal_due))
        console.forget_caches()
        return False

    def on_signal_stop(self) -> bool:
        """GDB stopped for SIGSYS or a fault; returns whether the user should see the stop."""
        self._entered = False
        siginfo = self.tracee.siginfo()
        sig = int.from_bytes(siginfo[:4], "little")
        code = int.from_bytes(siginfo[8:12], "little", signed=True)
        if self.user_call:
            return self._on_signal_in_call(sig, code)
        done = self.diversions.at_stop(sig, code)
        if done is not None:
            self._in_code.watch()
            return done
        if sig == signal.SIGTRAP:
            # Most are GDB's own affair: a breakpoint, the end of a step. GDB cannot stand a program
            # counter that changes at a SIGTRAP, so the program's own come again as another signal.
            if not self.engine.is_trap_of_program(code):
                self._in_code.on_gdbs_trap(code)
                return False
            if self.engine.at_end:
                return self._at_end()
            pt.tgkill(self.tracee.pid, _TRAP_AGAIN)
            return False
        shown = self._on_program_signal(sig, code)
        self._in_code.watch()
        return shown

    def _on_signal_in_call(self, sig: int, code: int) -> bool:
        """The same in a function that the user lets GDB call."""
        if code <= 0 or sig == signal.SIGTRAP:
            return False  # the trap's signal comes again after it
        if sig != signal.SIGSYS:
            self.diversions.fault(sig)
            return False
        registers = self._stepped_into_call()
        shown = self.diversions.system_call(registers)
        self.tracee.remote_syscall(_NR_GETPID)
        console.forget_caches()
        return shown

    def play_caught(self, registers: Registers) -> bool:
        """A call that the user catches, with these registers at its entry, whose stop is not shown;
        returns whether what comes behind it is."""
        image = self.engine.image
        self.tracee.set_registers(registers)
        return self._after_call(self.engine.system_call(registers), image)

    def step_over(self) -> None:
        """Execute the instruction that the program stands on, whatever breakpoints are there."""
        self._in_code.trap.step_over()

    def _stepped_into_call(self) -> Registers:
        """The registers at the SIGSYS of a system call, as its entry would show them."""
        registers = self.tracee.registers()
        registers.orig_rax = registers.rax
        # The kernel puts the flags there, and GDB was single-stepping.
        registers.r11 &= ~_TRAP_FLAG
        return registers

    def _on_program_signal(self, sig: int, code: int) -> bool:
        if sig == _TRAP_AGAIN and code <= 0 and self._in_code.is_called:
            return self._in_code.on_call()
        if sig == _TRAP_AGAIN and code <= 0:
            self.engine.step_behind_trap()
            sig = signal.SIGTRAP
        if sig == signal.SIGSYS and code <= 0:
            return self._at_end()  # sent to the stub: what the recording ends by
        registers = self.tracee.registers()
        line = line_at(registers.rip, registers.rsp) if self.steps_by_line else None
        if sig == signal.SIGSYS:
            if self.told.tell():
                self.engine.rewind(self._stepped_into_call())
                self.tracee.remote_syscall(_NR_GETPID)
                console.forget_caches()
                return True
            image = self.engine.image
            goes_on = self.engine.system_call(self._stepped_into_call())
            # GDB was single-stepping, and takes the signal for the end of the step; the SIGTRAP of
            # the step itself is still to come: take it, or the next step would end at once.
            self.tracee.remote_syscall(_NR_GETPID)
            return self._after_call(goes_on, image) or (
                line is not None and self.back_in_line(line)
            )
        if self.engine.is_expected_fault(sig) and self.told.tell():
            return True
        if self.engine.fault(sig):
            if line is not None and self.back_in_line(line):
                console.forget_caches()
                return True
        else:
            if self.engine.next > self.trace.event_count:
                return self._at_end()
            self.let_fault_through(sig)
        console.forget_caches()
        return False

    def let_fault_through(self, sig: int) -> None:
        """GDB shall report the fault that is at hand."""
        self.signals.report(signal.Signals(sig).name, True)
        self.catchpoints.let_next_fault_through()

    def place(self) -> Place:
        """Where the program stands. Ends a diversion, and takes the user's changes back; where
        those are too old for that, it is where they began."""
        self.diversions.leave()
        self.changes.take_back_at_once()
        if self.is_changed:
            return self.changes.place
        if self.kept is not None:
            return Place(self.engine.next)
        return Place.of(self.engine)

    @property
    def is_in_call(self) -> bool:
        """Whether GDB shows the entry of the next event's system call, which the user catches."""
        return self.kept is not None

    @property
    def follows_recording(self) -> bool:
        """Whether there is more to play, and it can be."""
        return not (self.diverged or self._ended_by)

    @property
    def user_call(self) -> bool:
        """Whether a function that the user calls is, or was, executed (`print f(x)`)."""
        return self.diversions.is_on

    def after_diversion(self) -> None:
        """The process is again what it was before such a call."""
        self._report_no_faults()
        if self._entered != (self.tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY):
            self.hand_back()
        self.send_again()

    def send_again(self) -> None:
        """Signals that were on their way to the program were dropped: they are to come again."""
        if self._ended_by:
            pt.tgkill(self.pid, self._ended_by)
        self._in_code.after_user_call()

    def _at_end(self) -> bool:
        console.forget_caches()
        if not self.said_end:
            self.said_end = True
            console.say(f"end of the recording: {self.ending()}")
        return True

    def ending(self) -> str:
        """How the recording ended, in words."""
        return how_it_ended(self.trace.end)

    def _became_another_program(self) -> bool:
        self._exec_pending = True
        console.forget_caches()
        return True

    def on_stop(self) -> None:
        """GDB stopped for the user, whatever for (before the user can look)."""
        self.steps_by_line = False
        if not self._alive():
            return
        self.catchpoints.ensure()
        self.diversions.on_stop()
        if self.user_call:
            return
        self._in_code.on_stop()
        if self._exec_pending:
            # GDB has just taken its breakpoints out of a program that is no more, so into the new
            # one: put the new one in place once more.
            self._exec_pending = False
            self.engine.load(self.engine.next - 1)
            if self.trace.event(self.engine.image.event).nr in _EXECUTES:
                console.say(f"the program became {self.engine.image.exe} (execve)")
            else:
                console.say("a child that borrowed this process's memory mapped some of it anew")
            self._show_program()
        elif self.kept is not None and self.tracee.stop_operation() == pt.SYSCALL_INFO_NONE:
            self._finish_kept()
        if self._ended_by:
            # Whatever the user does now, the program has ended here: the signal comes again.
            pt.tgkill(self.pid, self._ended_by)
            if not self.said_end:
                self.said_end = True
                console.say(f"end of the recording: {self.ending()}")

    def fail(self, error: Exception) -> None:
        """Replaying cannot go on: say so, and show where."""
        console.forget_caches()
        text = str(error)
        if isinstance(error, Divergence):
            self.diverged = True
            if self.is_changed:
                text = text.replace(error.cause, "you have changed the program (sysrift-restore)")
        console.say(text)

    def as_recorded(self) -> None:
        """The program is what the recording says again."""
        self.is_changed = False
        self.changes.forget()

    def restore(self) -> None:
        """Take back what the user has changed. Raises SysRiftError."""
        self.diversions.leave()
        self.changes.take_back()

    # -- going places ---------------------------------------------------------------------------

    def goto(self, target: int) -> None:
        """Go to event `target` (0: the start; beyond the last: the end).

        Breakpoints are not stopped at on the way. Raises SysRiftError.
        """
        self.travel(lambda: self.go_to_event(target))

    def return_to(self, place: Place) -> None:
        """Go to a place that `Place.of` told, in the same way. Raises SysRiftError."""
        self.travel(lambda: self.go_to_place(place, is_interrupted))

    def go_to_event(self, target: int) -> bool:
        """To event `target`, in `travel`; returns whether the user interrupted it."""
        if target == 0:
            self._leave_end()
            self._begin()
            return False
        self._jump(target)
        return self._advance_to(target)

    def go_to_place(self, place: Place, enough: Callable[[], bool]) -> bool:
        """To `place`, in `travel`; returns whether that was interrupted."""
        if place.is_at_event:
            return self.go_to_event(place.event)
        return self._go_into_midst(place, enough)

    def _go_into_midst(self, place: Place, enough: Callable[[], bool]) -> bool:
        """Behind the event before `place`, and on to it."""

        def behind() -> None:
            if self.go_behind(place.event - 1):
                raise Interrupted

        try:
            Stretch(self.engine, place.event, behind, enough, self.checkpoints).find(place)
        except Interrupted:
            return True
        except ReplayError:
            # By a stop at each pass, which tells more of them apart.
            return self.go_behind(place.event - 1) or not place.run_to(self.engine, enough)
        return False

    def go_behind(self, last: int) -> bool:
        """Right behind event `last`, before anything else is executed, in `travel`; returns whether
        that was interrupted."""
        self._leave_end()
        while last > self.trace.beginning and not self.trace.has_image(last):
            # Back over what comes in one with the event before it (signals at the end of a call).
            self._begin_again(self.trace.image_before(last), self.checkpoints.last_before(last))
            if self._advance_to(last):
                return True
            self.behind = last
            if self.engine.next <= last:
                play_one(self.engine)
                return False
            last -= 1
        self.behind = max(last, self.trace.beginning)
        if self.trace.has_image(last):
            self.engine.load(last)
        else:
            self._begin()
        return False

    def travel(self, go: Callable[[], bool]) -> None:
        """Let the engine drive by `go`, which returns whether the user interrupted it."""
        self.diversions.leave()
        with interrupts_held():
            self._forget_stop()
            echo, self.engine.echo = self.engine.echo, None
            interrupted = False
            try:
                with self.tracee.watchpoints_off():
                    interrupted = go()
            finally:
                self.engine.echo = echo
                if self.engine.image.event != self._shown:
                    self._show_program()
                self.hand_back()
                self.told.begin_here()
                self._in_code.watch()
        console.quietly("sharedlibrary")
        console.forget_caches()
        gdb.invalidate_cached_frames()
        for notice in travelled:
            notice()
        if interrupted:
            console.say(f"interrupted at event {self.engine.next}")

    def _jump(self, target: int) -> None:
        """To the last image before event `target`, when that is the way, or a short cut."""
        nearest = self.trace.image_before(target)
        checkpoint = self.checkpoints.last_before(target)
        here = self.engine.next
        if target < here or self.diverged or self.is_changed or max(nearest + 1, checkpoint) > here:
            self._leave_end()
            self._begin_again(nearest, checkpoint)

    def _begin_again(self, image: int, checkpoint: int) -> None:
        """From a checkpoint or behind an image, whichever is nearer."""
        if checkpoint > image:
            self.checkpoints.restore(checkpoint)
        else:
            self.engine.load(image)

    def _leave_end(self) -> None:
        """What was said and done at the end, or at a divergence, is no more."""
        self.diverged = False
        self.as_recorded()
        self.said_end = False
        self._ended_by = 0
        self._exec_pending = False
        self._report_no_faults()

    def _report_no_faults(self) -> None:
        for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"):
            self.signals.report(name, False)

    def _forget_stop(self) -> None:
        """Leave whatever stop GDB showed, so that the engine can drive."""
        self._in_code.forget()
        if self.kept is not None:
            kept, self.kept = self.kept, None
            self.engine.rewind(kept)
        elif self.tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY:
            registers = self.tracee.registers()
            registers.orig_rax = NO_SYSCALL
            self.tracee.set_registers(registers)

    def _advance_to(self, target: int) -> bool:
        """Run to event `target`; returns whether the user interrupted it."""
        while target > self.engine.next and not self._stands_at_end():
            limit = min(_CHUNK, target - self.engine.next)
            halt = self.engine.advance(limit=limit)
            if halt.reason is Reason.END:
                self._ended_by = self.engine.sent_fatal_signal
                return False
            if halt.reason is Reason.TRAP:
                raise ReplayError("the program ran into a breakpoint of its own (int3)")
            if halt.reason is Reason.REACHED and not self.is_changed:
                self.checkpoints.budget = parameters.checkpoint_memory()
                self.checkpoints.interval = parameters.checkpoint_interval()
                self.checkpoints.consider()
            if is_interrupted():
                return True
        return False

    def _stands_at_end(self) -> bool:
        return self.engine.next > self.trace.event_count

    # -- helpers --------------------------------------------------------------------------------

    def _next_event(self) -> Event | None:
        if self.engine.next <= self.trace.event_count:
            return self.trace.event(self.engine.next)
        return None

    def _echo(self, data: bytes) -> None:
        if parameters.echo():
            gdb.write(data.decode("utf-8", "replace"))
            gdb.flush()


def _wants(user: UserBreakpoints, event: Event) -> bool:
    return event.kind == EventKind.SYSCALL and (user.all_syscalls or event.nr in user.syscalls)


def _wanted_calls(user: UserBreakpoints) -> frozenset[int] | None:
    """The plain calls that GDB must stop at; None: all of them."""
    return None if user.all_syscalls else frozenset(user.syscalls)


def _shows(user: UserBreakpoints, event: Event) -> bool:
    """Whether GDB must be the one to stop at an event: the user's, and the program's exec."""
    return bool(event.flags & EventFlag.IMAGE) or _wants(user, event)


def _opened(path: Path, process: str | int | None) -> Trace:
    """A trace at the process that the user means."""
    trace = Trace(path)
    try:
        if process is None:
            process = most_interesting(trace).id
        elif isinstance(process, str):
            process = find_process(trace, process).id
        return trace.of(process)
    except BaseException:
        trace.close()
        raise


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


_starting = False  # a stub is being started, by `starti`
_replay_next: tuple[Path, int] | None = None  # what to replay when the user's `starti` is done

travelled: list[Callable[[], None]] = []
"""Called when the program has been put somewhere else."""

current: Replay | None = None
"""The replay of this GDB, if one goes on."""


def active() -> Replay:
    """The current replay; GdbError when there is none."""
    drop_if_dead()
    if current is None:
        raise gdb.GdbError("SysRift: no replay is going on: sysrift-replay TRACE begins one")
    return current


def drop_if_dead() -> None:
    """Forget the replay when its process is gone (kill, quit)."""
    if current is not None and not current._alive():
        current.close()


def begin(path: Path, process: str | int | None = None) -> Replay:
    """Begin to replay a process of a trace (see `Replay`), ending a replay that goes on.

    Raises SysRiftError.
    """
    global current
    drop_if_dead()
    if current is not None:
        _opened(path, process).close()  # or else the replay that goes on stays
        console.say(f"ending the replay of {current.trace.path}")
        current.close(killed=False)
    elif gdb.selected_inferior().pid:
        raise ReplayError("this GDB is debugging a live program: kill it first, or use another GDB")
    current = Replay(path, process)
    return current


def prepare_starti() -> None:
    """Before the user's `starti`: end the replay, and make the stub what will be started."""
    global _replay_next
    drop_if_dead()
    if current is not None and not _starting:
        _replay_next = current.trace.path, current.trace.process.id
        current.close(killed=False)
        console.quietly(f"exec-file {_quoted(str(stub_path()))}")


def replay_after_starti() -> bool:
    """After the user's `starti`: begin the replay that it ended again, if there was one."""
    global _replay_next
    if _replay_next is None or _starting:
        return False
    (path, process), _replay_next = _replay_next, None
    console.quietly("kill")
    begin(path, process)
    console.say(f"back at the start of {path}")
    return True


def end_instead_of_detaching() -> None:
    """`detach`: the stub cannot live alone (its guard would kill it)."""
    drop_if_dead()
    if current is not None:
        console.say("a replayed process cannot run by itself: the replay ends instead")
        current.close(killed=False)


__all__ = [
    "Halt",
    "RemoteSyscallError",
    "Replay",
    "SysRiftError",
    "TraceeGone",
    "active",
    "begin",
    "current",
    "travelled",
]
