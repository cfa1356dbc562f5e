# SPDX-License-Identifier: GPL-2.0-or-later
"""One process while it is recorded: what happens at each of its stops.

Two stops a system call: at its entry the program's side is read (arguments, the data handed in), at
its exit the kernel's (result, what it wrote). What some calls need beyond their table row
is in `special`; what signals need is here and in `signals`. Whose stop it is, `loop` knows.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import time
from typing import TYPE_CHECKING

from sysrift import image
from sysrift.record import guess, special
from sysrift.record.call import Call, store_range
from sysrift.record.detach import open_leaks
from sysrift.record.fast_path import FastPath
from sysrift.record.lazy_binding import settle_lazy_binding
from sysrift.record.leaks import ClosedLeaks
from sysrift.record.mapped_files import WRITERS, MappedFiles
from sysrift.record.point import PointSearch
from sysrift.record.reached import Reached
from sysrift.record.refusals import (
    SIGSYS_OF_FILTER,
    make_dumpable,
    suspend_filters,
)
from sysrift.record.shared import SharedMemory
from sysrift.record.signals import (
    Action,
    HeldSignals,
    action_of,
    comes_again,
    frame_bytes,
    is_synchronous,
    stack_below,
    tsc_instruction,
)
from sysrift.syscalls import lookup
from sysrift.trace.model import (
    ABSOLUTE,
    AFTER,
    BEFORE,
    Delivery,
    EventFlag,
    EventKind,
    Image,
    Program,
    SegmentKind,
)
from sysrift.trace.points import Point, pack
from sysrift.trace.writer import OutSegment
from sysrift.tracee import BadAddress, Entry, Mapping, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.inputs import Shown, input_checksum
from sysrift.tracee.kernel import RESTARTS, SYSCALL_STOP
from sysrift.tracee.registers import NO_SYSCALL, Registers

if TYPE_CHECKING:
    from sysrift.record.loop import Recording

_TRAP_STOP = signal.SIGTRAP << 8 | 0x7F

_PATIENCE = 0.01
"""Seconds that a signal waits for a system call before the program is interrupted. That happens
twice: the first time only some of its memory is noted, see `point`."""

_MOST_PATIENCE, _PATIENCE_FACTOR = 0.025, 8
"""It waits longer where choosing a point takes long: so many times as long, but at most this."""

_MOST_REWOUND = 1000


_NR_RT_SIGRETURN, _NR_RESTART_SYSCALL = 15, 219
_IMAGE = int(EventFlag.IMAGE)  # an operator of IntFlag costs a microsecond

_HOW = {
    pt.PTRACE_EVENT_FORK: "fork",
    pt.PTRACE_EVENT_VFORK: "vfork",
    pt.PTRACE_EVENT_CLONE: "clone",
}


class RecordingStops(Exception):
    """A process cannot be recorded further, though it can go on; the message says why."""


class Recorder:
    """Records one process of a tree, from its first stop to its end."""

    def __init__(
        self,
        recording: Recording,
        pid: int,
        process: int,
        affinity: frozenset[int],
        parent: Recorder | None = None,
    ) -> None:
        """`process` is its `Process.id` in the trace, `affinity` the CPUs that it believes to have.

        A `parent` in the midst of the call that made it hands on what is the same in the child.
        """
        self.recording = recording
        self.writer = recording.writer
        self.options = recording.options
        self.files = recording.files
        self.id = process
        self.affinity = affinity
        self.cpu = -1
        self.held = HeldSignals()
        self.call: Call | None = None
        self.interrupted: Call | None = None
        self.is_stopped = True
        self._hold_until = 0.0
        self._exit_ip = self._exit_sp = 0
        self.at_boundary = False
        self.dismissed = ""
        """Why this process cannot be recorded further, though another one is the reason."""
        self._rewound: set[tuple[int, int]] = set()
        """Where calls that were rewound return to, with the stack pointer, until they are made."""
        self._birth: Call | None = None
        self.filtered: bool = parent is not None and parent.filtered
        self.dumpable: int = -1 if parent is None else parent.dumpable
        self.children_differ = False  # some memory is not handed on by fork (madvise(2))
        if parent is None:
            self.tracee = Tracee(pid)
            self.leaks = ClosedLeaks()
            self.shared = SharedMemory()
            self.mapped_files = MappedFiles()
            self.reached = Reached()
        else:
            self.tracee = Tracee(pid, parent.tracee.remote_site)
            self.leaks = copy.copy(parent.leaks)
            self.shared = parent.shared.copy()
            self.mapped_files = parent.mapped_files.copy()
            self.reached = parent.reached.copy()
            self._birth = parent.call
            self.children_differ = parent.children_differ
        self._search = PointSearch(self.tracee)
        self.fast: FastPath | None = None
        """The agent's side of it; None while the process has syscall-stops at all calls."""
        self._calls = 0  # since the program began, or the process
        self._had_agent = False  # whether it was considered that it gets one
        self._borrows = self._birth is not None and self._birth.lent is not None
        if parent is not None and parent.fast is not None:
            self.fast = parent.fast.born(self)

    # -- what the hooks of `special` and `image` use --------------------------------------------

    def now_us(self) -> int:
        """Microseconds since the recording began."""
        return self.recording.now_us()

    def note(self, key: str, text: str, quiet: bool = False) -> None:
        """Tell the user once per `key`, on stderr (unless `quiet`) and in the trace."""
        self.recording.note(key, text, quiet)

    def mapped(self, mapping: Mapping) -> int | None:
        """The file behind a mapping (`image.FileRecorder`)."""
        return self.files.mapped(mapping, self.tracee.pid)

    # -- stops ----------------------------------------------------------------------------------

    def resume(self, sig: int = 0) -> None:
        """Let the process run, with a signal."""
        self.is_stopped = False
        request = pt.PTRACE_SYSCALL if self.fast is None else self.fast.request
        try:
            pt.ptrace(request, self.tracee.pid, None, sig)
        except OSError as error:
            # Killed (SIGKILL) while it was stopped: waitpid tells.
            if not pt.is_gone(error):
                raise

    def begin(self) -> None:
        """From the exec event to the execve's syscall-exit-stop; then the first image; run."""
        status = 0
        while status != SYSCALL_STOP:
            self.resume()
            status = self.tracee.wait()
        self.is_stopped = True
        self._add_image(self._new_program(0))
        self.go_on()

    def begin_born(self) -> None:
        """The first stop of a process that another one made: it returns from that call too."""
        call = self._birth
        assert call is not None
        if self.fast is not None and self.shared:
            self.fast.leave()
        self._birth = None
        registers = self.tracee.registers()
        if registers.rdi != call.args[0]:
            registers.rdi = call.args[0]  # see `special.new_task`
            self.tracee.set_registers(registers)
        born = Call(call.nr, call.args, call.site, call.sp, self.now_us(), call.row)
        born.input_crc = call.input_crc
        born.segments = [part for part in call.segments if part[0] == SegmentKind.IN]
        born.segments.append((SegmentKind.REGISTERS, ABSOLUTE, AFTER, bytes(registers)))
        if call.row is not None:
            for item in call.row.outputs(call.args, 0, self.tracee, call.before):
                segments, flags = store_range(self.tracee, self.writer.add_data, call.args, item)
                born.segments += segments
                born.flags |= flags
        if self.shared:
            # What the parent has changed since it made this process, if it went on first.
            born.segments += self._changed_by_others(0, everything=True)
        if self.children_differ and call.lent is None:
            self._log_with_image(born, 0)
        else:
            self._log(born, 0)
        self._remember_boundary()
        self.go_on()

    def _log_with_image(self, call: Call, result: int) -> None:
        """Put a call into the trace that changed memory as no rule tells: with all that is there.

        The registers must be those after the call.
        """
        call.flags |= _IMAGE
        if self.fast is not None:
            self.fast.leave()
        event = self.writer.number(self.id) + 1
        taken = image.capture(self.tracee, event, self, self.writer.add_data)
        self._log(call, result)
        self.writer.add_image(dataclasses.replace(taken, task=self.id, cpu=self.cpu))

    def on_stop(self, status: int) -> None:
        """The process stopped, as `status` of waitpid(2) says: deal with it, and resume."""
        self.is_stopped = True
        if self.fast is not None and self.fast.on_stop(status):
            return
        if status != SYSCALL_STOP:
            self._other_stop(status)
            return
        stop = self.tracee.syscall_stop()
        if isinstance(stop, Entry):
            if self.fast is not None:
                self.fast.entered()
            self.at_boundary = False
            self._turn_ends = False
            self._entry(*stop)
            if self.fast is not None and self.call is not None and self.call.lent is not None:
                self.fast.lend()
            if self.call is not None:
                self.recording.turns.in_call(self, self.call)
        elif stop is not None:
            call = self.call
            self._exit(*stop)
            if self.fast is not None and call is not None:
                self.fast.returned(call.nr, call.args, -1 if call.rewound else stop.result)
            elif self.options.agent:
                self._consider_agent(stop.result)
        else:
            return  # killed, and stopped again for its exit: waitpid tells
        self.go_on()

    def _consider_agent(self, result: int) -> None:
        """After a call: a program that makes many of them gets the agent, once."""
        self._calls += 1
        # The first one of a recording finds out how `syscall` instructions are patched, and imports
        # what that takes. Those after it have the agent from their first call on.
        if self._calls < self.options.agent and not self.recording.experience.agents:
            return
        if self._had_agent or result in RESTARTS:  # (a signal is about to come)
            return
        self._had_agent = True
        if self._borrows or self.shared or self.filtered or self.reached.memory_opened:
            return
        self.fast = FastPath.begin(self, self.recording.started_ns)

    def returns_to_user(self, status: int) -> bool:
        """Whether the process will run user code after a stop, and did not before."""
        if self._listens:
            return status >> 16 == pt.PTRACE_EVENT_STOP and os.WSTOPSIG(status) == signal.SIGTRAP
        return status == SYSCALL_STOP and self.call is not None

    def end_turn(self) -> None:
        """Others wait for their turn: a call that blocks ends it, a computation is interrupted."""
        if self.call is not None:
            self.recording.turns.leave(self)
            return
        self._turn_ends = True
        try:
            pt.ptrace(pt.PTRACE_INTERRUPT, self.tracee.pid)
        except OSError:
            pass

    def go_on(self) -> None:
        """Let the process run, unless it is to be let go; see that signals do not wait too long."""
        self._leave_if_asked()
        if self.held:
            self._watch_held()
        if self.fast is not None and not self.fast.following:
            self.recording.arm_flush()
        self.resume()

    # -- what the agent's side uses -------------------------------------------------------------

    def note_rewound(self, ip: int, sp: int) -> None:
        """The call that returns to `ip` has to wait for a signal's handler."""
        if len(self._rewound) >= _MOST_REWOUND:
            self._rewound.clear()  # (the agent does not say that it has made them)
        self._rewound.add((ip, sp))

    def was_rewound(self, ip: int, sp: int) -> bool:
        """Whether a call had to wait for a handler already: the next one comes behind it."""
        return (ip, sp) in self._rewound

    def stands_at(self, ip: int, sp: int) -> None:
        """The program is between a call and the instruction before or behind it."""
        self._exit_ip, self._exit_sp = ip, sp
        self.at_boundary, self._left_handler = True, False

    def adopt_held_signals(self) -> None:
        """Signals that came while a system call was made for the tracee wait like others."""
        for sig, siginfo in self.tracee.held_signals:
            self.held.hold(sig, siginfo)
        self.tracee.held_signals.clear()

    def go_on_from_boundary(self) -> None:
        """Go on, with the signals that have waited for a place like this."""
        if self.held:
            self._search.forget()
            self._requeue_held()
        self.go_on()

    def finish_call(self, call: Call, ip: int, sp: int, result: int) -> None:
        """Log a call, at its end, that had no syscall-stops."""
        self.call = call
        self._exit(ip, sp, result)

    def checksum_if_due(self, compared: bool = True) -> None:
        """Note the checksum of memory, if the newest event is one of those that have it."""
        every = self.options.checksum_every
        if every and self.writer.number(self.id) % every == 0:
            self._add_checksum(compared)

    def drain(self) -> bool:
        """Put what the agent has recorded into the trace; whether there is an agent that goes on.

        The process may be running.
        """
        if self.fast is None or self.fast.following:
            return False
        self.fast.take()
        return True

    @property
    def leaving(self) -> str:
        """Why the process is to be let go where it stops next; empty when it is not."""
        return self.recording.leaving or self.dismissed

    def _leave_if_asked(self) -> None:
        """Raise RecordingStops when recording shall end and this is a place to let go at.

        That is right after a call, or between two instructions: a signal is not lost there.
        """
        reason = self.leaving
        if reason and self.fast is not None and self.fast.is_inside():
            return
        if reason and self.call is None and not self.held.on_their_way:
            raise RecordingStops(reason)

    def _new_program(self, event: int) -> Image:
        """At the exit of an execve: close the leaks of the new program, take its image."""
        tracee = self.tracee
        self.fast = None
        tracee.reopen_memory()
        tracee.remote_site = 0
        self.shared.clear()
        self.recording.turns.changed()
        self.mapped_files.clear()
        self.dumpable = -1
        self.reached.writable.forget()
        self.children_differ = False
        self._search = PointSearch(tracee)
        self.cpu = self.recording.place(tracee.pid)
        settle_lazy_binding(tracee)
        for remark in self.leaks.close(tracee, able=not self.filtered):
            self.note(remark, remark)
        self.adopt_held_signals()
        taken = image.capture(tracee, event, self, self.writer.add_data)
        self._remember_boundary()
        self._calls = 0
        self._had_agent = self._borrows = False
        return dataclasses.replace(taken, task=self.id, cpu=self.cpu)

    def _add_image(self, taken: Image) -> None:
        words = _command_line(self.tracee.pid)
        self.writer.add_program(self.id, Program(taken.event, taken.exe, words))
        self.writer.add_image(taken)

    # -- system calls ---------------------------------------------------------------------------

    def _entry(self, arch: int, ip: int, sp: int, nr: int, args: tuple[int, ...]) -> None:
        if nr & 0x80000000:
            # Our own -1 of a rewound call, or a number that never was a call.
            nr -= 1 << 64 if nr >> 63 else 1 << 32
        if self.held and (self.filtered or nr == _NR_RT_SIGRETURN or self.was_rewound(ip, sp)):
            # A rewound call would show itself to the program's filter. And a timer may be faster
            # than its handler is recorded: then the program would never get beyond the call, or out
            # of the handler. So the signal comes while this call is made: it is interrupted, or the
            # signal is delivered right after it.
            self._requeue_held()
        elif self.held:
            self._rewind()
            self._search.forget()
            self.call = Call(nr, args, ip - 2, sp, 0, None)
            self.call.rewound = True
            self.note_rewound(ip, sp)
            self._requeue_held()
            return
        self._rewound.discard((ip, sp))
        if arch != pt.AUDIT_ARCH_X86_64 or (nr > 0 and nr & 0x40000000):
            self._rewind()
            raise RecordingStops("the program makes a 32-bit system call (not supported)")
        row = lookup(nr)
        call = Call(nr, args, ip - 2, sp, self.now_us(), row)
        self.call = call
        if row is not None:
            self.note_inputs(call)
            if row.known(args) or (nr == _NR_RESTART_SYSCALL and self.interrupted is not None):
                call.before = row.before(args, self.tracee)
            else:
                call.guess = guess.arguments_snapshot(self.tracee, args)
        else:
            call.guess = guess.arguments_snapshot(self.tracee, args)
        if self.shared:
            self.shared.at_entry(self.tracee, self.recording.turns.shares(self))
        hook = special.ENTRY.get(nr)
        if hook is not None:
            hook(self, call)

    def note_inputs(self, call: Call) -> None:
        """Put what a call is given into it."""
        if call.row is None:
            return
        shown: list[Shown] = []
        call.input_crc = input_checksum(call.row, call.args, self.tracee, shown)
        for argument, address, data in shown:
            offset = (address - call.args[argument]) & NO_SYSCALL
            call.segments.append((SegmentKind.IN, argument, offset, data))

    def _exit(self, ip: int, sp: int, result: int) -> None:
        call = self.call
        self._exit_ip, self._exit_sp = ip, sp
        self.at_boundary = True
        self._left_handler = call is not None and call.nr == _NR_RT_SIGRETURN and not call.rewound
        if call is None or call.rewound:
            self.call = None
            return
        if call.effect is not None:
            changed = call.effect(result)
            result = result if changed is None else changed
        row = call.row
        if call.nr == _NR_RESTART_SYSCALL and self.interrupted is not None:
            # The call that goes on writes where the interrupted one would have. Its own arguments,
            # of which it has none, are not in the trace.
            source = self.interrupted
            row, call.before, call.guess = source.row, source.before, source.guess
        if call.guess is not None:
            self._guessed(call)
        elif row is not None:
            for item in row.outputs(call.args, result, self.tracee, call.before):
                if row is not call.row:
                    item = item._replace(argument=ABSOLUTE)  # restart_syscall itself has none
                segments, flags = store_range(self.tracee, self.writer.add_data, call.args, item)
                call.segments += segments
                call.flags |= flags
        try:
            self.reached.after(self, call, result)
            hook = special.EXIT.get(call.nr)
            if hook is not None:
                hook(self, call, result)
            if self.mapped_files and call.nr in WRITERS:
                self.mapped_files.changed(self, call, result)
        except BadAddress:
            call.flags |= EventFlag.INCOMPLETE  # the memory went away meanwhile
        if self.shared:
            took = self.now_us() - call.time_us
            every = self.options.checksum_every
            due = bool(every) and (self.writer.number(self.id) + 1) % every == 0
            call.segments += self._changed_by_others(took, due or self.recording.turns.shares(self))
        if result in RESTARTS:
            if call.nr != _NR_RESTART_SYSCALL:
                self.interrupted = call
        else:
            self.interrupted = None
        # Until here, a process that was killed meanwhile shall have died in the call.
        if call.flags & _IMAGE:
            taken = self._new_program(self.writer.number(self.id) + 1)
            self.call = None
            self._log(call, result)
            self._add_image(taken)
        elif call.snapshot:
            self.call = None
            self._log_with_image(call, result)
        else:
            self.call = None
            self._log(call, result)

    def _changed_by_others(self, call_us: int, everything: bool) -> list[OutSegment]:
        """What others wrote to shared memory since the last look (`SharedMemory.changes`)."""
        return [
            (SegmentKind.OUT, ABSOLUTE, address, data)
            for address, data in self.shared.changes(self.tracee, call_us, everything)
        ]

    def _log(self, call: Call, result: int) -> int:
        """Put a call into the trace; returns its event number."""
        arity = 6 if call.row is None else len(call.row.arguments)
        args = call.args if arity == 6 else call.args[:arity] + (0,) * (6 - arity)
        number = self.writer.add_event(
            EventKind.SYSCALL,
            call.flags,
            call.nr,
            self.id,
            call.time_us,
            call.site,
            call.sp,
            result,
            call.input_crc,
            args,
            call.segments,
        )
        self.recording.arm_flush()
        if not call.flags & _IMAGE:
            self.checksum_if_due(compared=not call.flags & EventFlag.UNFINISHED)
        return number

    def _add_checksum(self, compared: bool) -> None:
        """Note the checksum of memory. `compared`: shared memory has just been looked at.

        What others have written there since is not this process's to replay, yet.
        """
        rsp = self.tracee.registers().rsp
        if compared:
            self.writer.add_checksum(self.id, image.checksum(self.tracee, rsp, self.shared.seen))
        elif not self.shared.is_exposed:
            self.writer.add_checksum(self.id, image.checksum(self.tracee, rsp))

    def watch_shared(self, address: int, length: int, anonymous: bool = False) -> None:
        """Compare a shared mapping from now on, if it is not too large."""
        self.recording.turns.changed()
        if not self.shared.add(self.tracee, address, length, anonymous):
            self.shared_too_large()

    def shared_too_large(self) -> None:
        """Say that others' writes to shared memory are missed."""
        self.note(
            "shared memory",
            "the program maps more than 16 MiB of shared memory: what other processes write "
            "there is not recorded",
        )

    def _guessed(self, call: Call) -> None:
        name = call.row.name if call.row is not None else f"system call {call.nr}"
        call.flags |= EventFlag.GUESSED
        if call.guess is not None:
            call.segments += guess.changes(self.tracee, call.guess)
        detail = f" request {call.args[1]:#x}" if name == "ioctl" else ""
        self.note(
            f"guess {name}{detail}",
            f"no rule for {name}{detail}: what the kernel wrote is guessed by comparing memory",
        )

    def log_last_call(self, call: Call) -> None:
        """Put a call that will not return (exit_group) into the trace, with the last checksum."""
        call.flags |= EventFlag.UNFINISHED
        self._log_end_of(call)

    def _log_end_of(self, call: Call) -> None:
        every, number = self.options.checksum_every, self.writer.number(self.id) + 1
        self._log(call, 0)
        if every and number % every:
            self._add_checksum(compared=False)

    def _rewind(self) -> None:
        """At a syscall-entry-stop: go back to before the `syscall` instruction, doing nothing."""
        registers = self.tracee.registers()
        registers.rax = registers.orig_rax
        registers.orig_rax = NO_SYSCALL
        registers.rip -= 2
        self.tracee.set_registers(registers)

    def suppress(self, result: int) -> None:
        """At a syscall-entry-stop: the call is not made, and gives `result`."""
        registers = self.tracee.registers()
        registers.orig_rax = NO_SYSCALL
        registers.rax = result & NO_SYSCALL
        self.tracee.set_registers(registers)

    def _remember_boundary(self) -> None:
        """Nothing of the program has run at the next stop if rip and rsp are the same there."""
        registers = self.tracee.registers()
        self._exit_ip, self._exit_sp = registers.rip, registers.rsp
        self.at_boundary = True

    # -- other stops ----------------------------------------------------------------------------

    def _other_stop(self, status: int) -> None:
        """Deal with a stop that is no syscall-stop, and resume."""
        event = status >> 16
        if event == 0:
            self._signal(os.WSTOPSIG(status))
            return
        if event == pt.PTRACE_EVENT_STOP and os.WSTOPSIG(status) != signal.SIGTRAP:
            # A group-stop (job control): stay stopped until SIGCONT (ptrace(2), PTRACE_LISTEN).
            self._listens = True
            self._leave_if_asked()
            self.recording.turns.leave(self)
            pt.ptrace(pt.PTRACE_LISTEN, self.tracee.pid)
            return
        self._listens = False
        if event == pt.PTRACE_EVENT_STOP and self.call is None:
            if self.held:
                self._deliver_in_code()
                return
            if self._turn_ends:
                self._wait_in_code()
                return
        if event in _HOW:
            self.recording.born(self, _HOW[event])
        elif event == pt.PTRACE_EVENT_EXIT:
            self._dying()
        elif event == pt.PTRACE_EVENT_STOP:
            self._leave_if_asked()
        elif event == pt.PTRACE_EVENT_EXEC and self.call is not None:
            self.call.flags |= _IMAGE
        self.resume()

    def _dying(self) -> None:
        """PTRACE_EVENT_EXIT: killed in a call, which may have written anything anywhere."""
        if self.call is not None:
            self.call.flags |= EventFlag.UNFINISHED
            self._log(self.call, 0)
            self.call = None
        elif not self._doomed:
            # One that shows at no signal-delivery-stop: SIGSYS of a seccomp filter that kills.
            sig = self.tracee.event_message() & 0x7F
            if sig not in (0, signal.SIGKILL):
                siginfo: list[OutSegment] = []
                if sig == signal.SIGSYS:
                    siginfo.append((SegmentKind.SIGINFO, ABSOLUTE, 0, SIGSYS_OF_FILTER))
                registers = self.tracee.registers()
                self._log_signal(sig, EventFlag(0), Delivery.FATAL, registers, siginfo)
                if self.options.checksum_every:
                    self._add_checksum(compared=False)

    # -- signals --------------------------------------------------------------------------------

    def _signal(self, sig: int) -> None:
        """A signal-delivery-stop: deliver, hold, or emulate rdtsc; and resume."""
        tracee = self.tracee
        siginfo = tracee.siginfo()
        registers = tracee.registers()
        if is_synchronous(sig, siginfo) or sig == signal.SIGSEGV:
            read = tsc_instruction(tracee, registers.rip) if sig == signal.SIGSEGV else None
            if read is not None and self.leaks.tsc:
                self._time_stamp(registers, read.number, read.length)
                self.resume()
                return
            if is_synchronous(sig, siginfo):
                self._deliver(sig, siginfo, registers, EventFlag(0))
                return
        at_boundary = self.at_boundary and (
            registers.rip == self._exit_ip and registers.rsp == self._exit_sp
        )
        original = self.held.original_siginfo(sig)
        if original is not None:
            siginfo = original
            tracee.set_siginfo(original)
        if not at_boundary and registers.rip != self._in_code_at and self.held.has(sig):
            self.go_on()  # without a call since, what it does is what the held one does
            return
        action = action_of(tracee.pid, sig)
        if action in (Action.IGNORE, Action.STOP):
            self.resume(sig)
            return
        if at_boundary and self._left_handler and comes_again(siginfo):
            at_boundary = False  # the program itself shall get somewhere, however fast a timer is
        if at_boundary or registers.rip == self._in_code_at:
            flags = EventFlag(0) if at_boundary else EventFlag.IN_CODE
            self._deliver(sig, siginfo, registers, flags, action)
            return
        self.held.hold(sig, siginfo)
        self.go_on()

    _left_handler = False
    """Whether the boundary at hand is a return from a handler (rt_sigreturn)."""
    _in_code_at = -1
    _unframed = (0, 0)
    """The signal whose frame could not be written, and whether an instruction raised it."""
    _doomed = False
    """Whether the signal that ends the process is in the trace."""
    _turn_ends = False
    _listens = False
    _point: bytes = b""

    def _deliver_in_code(self) -> None:
        """The program makes no system calls: its signal is delivered in the midst of it."""
        point = self._point_in_code()
        if point is not None:
            self._point = pack(point)
            self._in_code_at = self.tracee.registers().rip
            self._requeue_held()
            self.go_on()

    def _wait_in_code(self) -> None:
        """Others that share memory wait: the turn ends in the midst of a computation."""
        point = self._point_in_code()
        if point is not None:
            self._turn_ends = False
            self.shared.at_entry(self.tracee, everything=True)
            packed = pack(point)
            self.recording.turns.wait(self, lambda: self._goes_on_in_code(packed))

    def _point_in_code(self) -> Point | None:
        """The point, which replay can find, where the process stands.

        None, and the process goes on, when it was interrupted for the first time, or has come to a
        boundary while a point was looked for.
        """
        if not self._search.has_looked:
            self._search.look()
            self.go_on()
            return None
        if self.fast is None:
            outcome = self._search.choose()
        else:
            with self.fast.absent():
                outcome = self._search.choose()
        for sig, siginfo in self._search.take_arrived():
            self.held.hold(sig, siginfo)
        if outcome.status is not None:
            self.on_stop(outcome.status)
        elif outcome.point is None:
            self.go_on()
        return outcome.point

    def _goes_on_in_code(self, point: bytes) -> None:
        """The turn comes again: what others have changed meanwhile happened here."""
        registers = self.tracee.registers()
        segments: list[OutSegment] = [
            (SegmentKind.REGISTERS, ABSOLUTE, BEFORE, bytes(registers)),
            (SegmentKind.POINT, ABSOLUTE, 0, point),
        ]
        segments += self._changed_by_others(0, everything=True)
        self.writer.add_event(
            EventKind.SHARED,
            EventFlag.IN_CODE,
            0,
            self.id,
            self.now_us(),
            registers.rip,
            registers.rsp,
            0,
            0,
            (0,) * 6,
            segments,
        )
        self.go_on()

    def _deliver(
        self,
        sig: int,
        siginfo: bytes,
        registers: Registers,
        flags: EventFlag,
        action: Action | None = None,
    ) -> None:
        """Let a signal happen, log what it did, and resume."""
        tracee = self.tracee
        self._in_code_at = -1
        self._search.forget()
        action = action or action_of(tracee.pid, sig)
        if action not in (Action.HANDLER, Action.FATAL):
            action = Action.FATAL  # a blocked or ignored fault kills (force_sig_info)
        segments: list[OutSegment] = [(SegmentKind.SIGINFO, ABSOLUTE, 0, siginfo)]
        if flags & EventFlag.IN_CODE or is_synchronous(sig, siginfo):
            before = bytes(registers)
            segments.append((SegmentKind.REGISTERS, ABSOLUTE, BEFORE, before))
        if self._unframed[0]:
            segments += stack_below(tracee, registers.rsp)
        if flags & EventFlag.IN_CODE:
            segments.append((SegmentKind.POINT, ABSOLUTE, 0, self._point))
        if action is Action.FATAL:
            self._log_signal(sig, flags, Delivery.FATAL, registers, segments)
            if self.options.checksum_every:
                self._add_checksum(compared=False)
            self.resume(sig)
            return
        tracee.resume(pt.PTRACE_SINGLESTEP, sig)
        status = tracee.wait()
        if status != _TRAP_STOP:
            # The frame could not be written (no stack left): the kernel sends SIGSEGV instead, to
            # the same place (arch/x86/kernel/signal.c, handle_signal).
            if not self._unframed[0]:
                self._unframed = (sig, int(is_synchronous(sig, siginfo)))
            if flags & EventFlag.IN_CODE:
                self._in_code_at = registers.rip
            self.on_stop(status)
            return
        entered = tracee.registers()
        segments += [
            (SegmentKind.REGISTERS, ABSOLUTE, AFTER, bytes(entered)),
            (SegmentKind.XSAVE, ABSOLUTE, 0, tracee.xsave()),
            (SegmentKind.OUT, ABSOLUTE, entered.rsp, frame_bytes(tracee, entered)),
        ]
        self._log_signal(sig, flags, Delivery.HANDLER, registers, segments)
        self._remember_boundary()
        self.go_on()

    def _log_signal(
        self,
        sig: int,
        flags: EventFlag,
        delivery: Delivery,
        registers: Registers,
        segments: list[OutSegment],
    ) -> None:
        self.writer.add_event(
            EventKind.SIGNAL,
            flags,
            sig,
            self.id,
            self.now_us(),
            registers.rip,
            registers.rsp,
            delivery,
            0,
            (*self._unframed, 0, 0, 0, 0),
            segments,
        )
        self._unframed = (0, 0)
        self._doomed = self._doomed or delivery is Delivery.FATAL

    def _time_stamp(self, registers: Registers, number: int, length: int) -> None:
        """Emulate rdtsc/rdtscp and log what it gave."""
        value, processor = special.read_tsc()
        registers.rax = value & 0xFFFFFFFF
        registers.rdx = value >> 32
        if number == 1:
            registers.rcx = processor
        site, registers.rip = registers.rip, registers.rip + length
        registers.orig_rax = NO_SYSCALL
        self.tracee.set_registers(registers)
        # Right behind it is a place that replay finds, for signals that wait for one.
        self._exit_ip, self._exit_sp = registers.rip, registers.rsp
        self.at_boundary = bool(self.held)
        self._search.forget()
        self._requeue_held()
        self.writer.add_event(
            EventKind.TSC,
            0,
            number,
            self.id,
            self.now_us(),
            site,
            registers.rsp,
            value - (1 << 64) if value >> 63 else value,
            0,
            (processor, 0, 0, 0, 0, 0),
        )

    # -- held signals ---------------------------------------------------------------------------

    def _requeue_held(self) -> None:
        """Let the kernel deliver what was held; what is held next waits anew."""
        self.held.requeue(self.tracee.pid)
        self._hold_until = 0.0

    def _watch_held(self) -> None:
        if self.fast is not None:
            self.fast.ask(True)
        if not self._hold_until:
            wait = min(max(_PATIENCE, _PATIENCE_FACTOR * self._search.cost), _MOST_PATIENCE)
            self._hold_until = time.monotonic() + wait
            self.recording.arm(wait)

    def interrupt_when_due(self, now: float) -> float:
        """Stop the running process when a signal has waited long enough.

        `now` is time.monotonic(). Returns the seconds that are left until then, 0 for nothing.
        """
        if not self._hold_until:
            return 0.0
        if self._hold_until > now:
            return self._hold_until - now
        self._hold_until = 0.0
        if self.held:
            try:
                pt.ptrace(pt.PTRACE_INTERRUPT, self.tracee.pid)
            except OSError:
                pass
        return 0.0

    # -- the end --------------------------------------------------------------------------------

    def let_child_go(self, pid: int) -> None:
        """Detach a child of this process that stands at its first stop, its leaks open again."""
        special.let_child_go(self, pid)

    def let_go(self) -> None:
        """Detach, at a syscall-stop, and leave the program as if it never had been recorded."""
        tracee = self.tracee
        able = not self.filtered or suspend_filters(tracee, self.recording.ptrace_options)
        entered = able and tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY
        if entered and tracee.registers().orig_rax != NO_SYSCALL:
            self._rewind()
        if self.fast is not None:
            self.fast.leave()
        open_leaks(tracee, self.leaks, able)
        if able:
            make_dumpable(tracee, self.dumpable)
        self.adopt_held_signals()
        if self.affinity and self.cpu >= 0:
            os.sched_setaffinity(tracee.pid, self.affinity)
        self.held.requeue(tracee.pid)
        pt.ptrace(pt.PTRACE_DETACH, tracee.pid, None, 0)


def _command_line(pid: int) -> tuple[str, ...]:
    """The arguments of a process that has just been executed (proc_pid_cmdline(5))."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in words)


__all__ = ["Recorder", "RecordingStops"]
