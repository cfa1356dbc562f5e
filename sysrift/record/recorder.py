# SPDX-License-Identifier: GPL-2.0-or-later
"""The ptrace loop: one process, from its first instruction to its end, into a trace.

Two stops a system call: at its entry the program's side is read (arguments, the data handed in), at
its exit the kernel's (result, what it wrote). What some calls need beyond their table row
is in `special`; what signals need is here and in `signals`.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from sysrift import image
from sysrift.record import guess, special
from sysrift.record.call import Call, store_range
from sysrift.record.files import FileTable
from sysrift.record.leaks import ClosedLeaks
from sysrift.record.shared import SharedMemory
from sysrift.record.signals import (
    Action,
    HeldSignals,
    action_of,
    frame_bytes,
    is_synchronous,
    tsc_instruction,
)
from sysrift.syscalls import lookup
from sysrift.trace.model import (
    ABSOLUTE,
    AFTER,
    BEFORE,
    Delivery,
    End,
    EventFlag,
    EventKind,
    SegmentKind,
)
from sysrift.trace.writer import OutSegment, TraceWriter
from sysrift.tracee import Mapping, Tracee, TraceeGone
from sysrift.tracee import ptrace as pt
from sysrift.tracee.inputs import Shown, input_checksum
from sysrift.tracee.kernel import RESTARTS, SYSCALL_STOP
from sysrift.tracee.registers import NO_SYSCALL, Registers

_TRAP_STOP = signal.SIGTRAP << 8 | 0x7F

_IDLE_FLUSH = 0.5
"""Seconds after which events are written even when their block is not full."""

_PATIENCE = 0.02
"""Seconds that a signal waits for a system call before it is delivered where the program is."""

_NR_RESTART_SYSCALL = 219
_IMAGE = int(EventFlag.IMAGE)  # an operator of IntFlag costs a microsecond


class RecordingStops(Exception):
    """Recording cannot go on, though the program can; the message says why."""


@dataclass(frozen=True)
class Options:
    """How to record; see `sysrift-record --help`."""

    checksum_every: int = 0  # a memory checksum every N events, and at the end; 0: none
    affinity: frozenset[int] = frozenset()  # the CPUs that the program would have had


class Recorder:
    """Records one tracee that stands at its PTRACE_EVENT_EXEC stop, until it ends."""

    def __init__(
        self,
        pid: int,
        writer: TraceWriter,
        options: Options,
        warn: Callable[[str], None],
        store_all_files: bool = False,
    ) -> None:
        self.tracee = Tracee(pid)
        self.writer = writer
        self.options = options
        self.files = FileTable(writer.add_file, store_all_files)
        self.leaks = ClosedLeaks()
        self.held = HeldSignals()
        self.shared = SharedMemory()
        self.affinity = frozenset(options.affinity)
        self.call: Call | None = None
        self.interrupted: Call | None = None
        self._warn = warn
        self._noted: set[str] = set()
        self._started = time.monotonic_ns()
        self._waiting = False
        self._failure: OSError | None = None
        self._hold_until = 0.0
        self._timer_armed = False
        self._exit_ip = self._exit_sp = 0
        self._at_boundary = False
        self.stopped = ""

    # -- what the rest of the recorder uses -----------------------------------------------------

    def now_us(self) -> int:
        """Microseconds since the recording began."""
        return (time.monotonic_ns() - self._started) // 1000

    def note(self, key: str, text: str, quiet: bool = False) -> None:
        """Tell the user once per `key`, on stderr (unless `quiet`) and in the trace."""
        if key not in self._noted:
            self._noted.add(key)
            if not quiet:
                self._warn(text)
            self.writer.note(text)

    def mapped(self, mapping: Mapping) -> int | None:
        """The file behind a mapping (`image.FileRecorder`)."""
        return self.files.mapped(mapping, self.tracee.pid)

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> int:
        """Record to the end; returns the program's wait status. The trace is closed afterwards."""
        previous = signal.signal(signal.SIGALRM, self._on_timer)
        try:
            try:
                self._begin()
                self._loop()
            except TraceeGone as gone:
                return self._finish(gone.status)
            except (RecordingStops, OSError) as reason:
                return self._stop_recording(reason)
            except Exception as bug:
                return self._stop_recording(
                    RecordingStops(f"internal error: {type(bug).__name__}: {bug}")
                )
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self.tracee.close()
            self.writer.abandon()
        raise AssertionError("the loop ends by an exception")

    def _wait(self) -> int:
        self._waiting = True
        _, status = os.waitpid(self.tracee.pid, pt.WALL)
        self._waiting = False
        if status & 0xFF != 0x7F:
            raise TraceeGone(self.tracee.pid, status)
        return status

    def _resume(self, sig: int = 0) -> None:
        try:
            pt.ptrace(pt.PTRACE_SYSCALL, self.tracee.pid, None, sig)
        except OSError as error:
            # Killed (SIGKILL) while it was stopped: waitpid tells.
            if not pt.is_gone(error):
                raise

    def _begin(self) -> None:
        """From the exec event to the execve's syscall-exit-stop; then the first image."""
        self._resume()
        while self._wait() != SYSCALL_STOP:
            self._resume()
        self._new_program(0)

    def _new_program(self, event: int) -> None:
        """At the exit of an execve: close the leaks of the new program, take its image."""
        self.tracee.reopen_memory()
        self.tracee.remote_site = 0
        self.shared.clear()
        for remark in self.leaks.close(self.tracee):
            self.note(remark, remark)
        for sig, siginfo in self.tracee.held_signals:
            self.held.hold(sig, siginfo)
        self.tracee.held_signals.clear()
        self.writer.add_image(image.capture(self.tracee, event, self, self.writer.add_data))
        self._remember_boundary()

    def _loop(self) -> None:
        tracee = self.tracee
        while True:
            if self.held:
                self._watch_held()
            self._resume()
            status = self._wait()
            while status != SYSCALL_STOP:
                status = self._other_stop(status)
            if self._failure is not None:
                raise self._failure
            try:
                entry = tracee.syscall_entry()
                if entry is not None:
                    self._at_boundary = False
                    self._entry(entry.arch, entry.ip, entry.sp, entry.nr, entry.args)
                else:
                    self._exit()
            except ProcessLookupError:
                continue  # killed meanwhile: the next wait tells

    # -- system calls ---------------------------------------------------------------------------

    def _entry(self, arch: int, ip: int, sp: int, nr: int, args: tuple[int, ...]) -> None:
        if nr & 0x80000000:
            # Our own -1 of a rewound call, or a number that never was a call.
            nr -= 1 << 64 if nr >> 63 else 1 << 32
        if self.held:
            self._rewind()
            self.call = Call(nr, args, ip - 2, sp, 0, None)
            self.call.rewound = True
            self.held.requeue(self.tracee.pid)
            return
        if arch != pt.AUDIT_ARCH_X86_64 or nr & 0x40000000:
            self._rewind()
            raise RecordingStops("the program makes a 32-bit system call (not supported)")
        row = lookup(nr)
        call = Call(nr, args, ip - 2, sp, self.now_us(), row)
        self.call = call
        if row is not None:
            shown: list[Shown] = []
            call.input_crc = input_checksum(row, args, self.tracee, shown)
            for argument, address, data in shown:
                offset = (address - args[argument]) & NO_SYSCALL
                call.segments.append((SegmentKind.IN, argument, offset, data))
            if row.known(args) or (nr == _NR_RESTART_SYSCALL and self.interrupted is not None):
                call.before = row.before(args, self.tracee)
            else:
                call.guess = guess.arguments_snapshot(self.tracee, args)
        else:
            call.guess = guess.arguments_snapshot(self.tracee, args)
        hook = special.ENTRY.get(nr)
        if hook is not None:
            hook(self, call)

    def _exit(self) -> None:
        call = self.call
        self.call = None
        self._exit_ip, self._exit_sp, result = self.tracee.syscall_exit()
        self._at_boundary = True
        if call is None or call.rewound:
            return
        if call.effect is not None:
            changed = call.effect(result)
            result = result if changed is None else changed
        row = call.row
        if call.nr == _NR_RESTART_SYSCALL and self.interrupted is not None:
            # The call that goes on writes where the interrupted one would have.
            source = self.interrupted
            row, call.before, call.guess = source.row, source.before, source.guess
        if call.guess is not None:
            self._guessed(call)
        elif row is not None:
            for item in row.outputs(call.args, result, self.tracee, call.before):
                segments, flags = store_range(self.tracee, self.writer.add_data, call.args, item)
                call.segments += segments
                call.flags |= flags
        if result == -errno.EFAULT:
            self._partly_written(call)
        hook = special.EXIT.get(call.nr)
        if hook is not None:
            hook(self, call, result)
        if self.shared:
            call.segments += [
                (SegmentKind.OUT, ABSOLUTE, address, data)
                for address, data in self.shared.changes(self.tracee)
            ]
        if result in RESTARTS:
            if call.nr != _NR_RESTART_SYSCALL:
                self.interrupted = call
        else:
            self.interrupted = None
        number = self._log(call, result)
        if call.flags & _IMAGE:
            self._new_program(number)

    def _log(self, call: Call, result: int) -> int:
        """Put a call into the trace; returns its event number."""
        arity = 6 if call.row is None else len(call.row.arguments)
        args = call.args if arity == 6 else call.args[:arity] + (0,) * (6 - arity)
        number = self.writer.add_event(
            EventKind.SYSCALL,
            call.flags,
            call.nr,
            self.tracee.pid,
            call.time_us,
            call.site,
            call.sp,
            result,
            call.input_crc,
            args,
            call.segments,
        )
        if not self._timer_armed:
            self._arm(_IDLE_FLUSH)
        every = self.options.checksum_every
        if every and number % every == 0 and not call.flags & _IMAGE:
            self.writer.add_checksum(image.checksum(self.tracee))
        return number

    def _partly_written(self, call: Call) -> None:
        """EFAULT: the kernel may have written up to the bad address; keep what is there now."""
        for address, data in guess.arguments_snapshot(self.tracee, call.args):
            call.segments.append((SegmentKind.OUT, ABSOLUTE, address, data))

    def watch_shared(self, address: int, length: int) -> None:
        """Compare a shared mapping at every system call from now on, if it is small enough."""
        if not self.shared.add(self.tracee, address, length):
            self.note(
                "shared memory",
                "the program maps much memory shared with others: what they write there is not "
                "recorded",
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
        every, number = self.options.checksum_every, self.writer.events + 1
        self._log(call, 0)
        if every and number % every:
            self.writer.add_checksum(image.checksum(self.tracee))

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
        self._at_boundary = True

    # -- other stops ----------------------------------------------------------------------------

    def _other_stop(self, status: int) -> int:
        """Deal with a stop that is no syscall-stop, resume, and return the next status."""
        event = status >> 16
        if event == 0:
            return self._signal(os.WSTOPSIG(status))
        if event == pt.PTRACE_EVENT_STOP and os.WSTOPSIG(status) != signal.SIGTRAP:
            # A group-stop (job control): stay stopped until SIGCONT (ptrace(2), PTRACE_LISTEN).
            pt.ptrace(pt.PTRACE_LISTEN, self.tracee.pid)
            return self._wait()
        if event == pt.PTRACE_EVENT_STOP and self.held and self.call is None:
            self._deliver_in_code()
        elif event in (pt.PTRACE_EVENT_FORK, pt.PTRACE_EVENT_VFORK, pt.PTRACE_EVENT_CLONE):
            special.let_child_go(self)
        elif event == pt.PTRACE_EVENT_EXIT:
            self._dying()
        elif event == pt.PTRACE_EVENT_EXEC and self.call is not None:
            self.call.flags |= _IMAGE
        self._resume()
        return self._wait()

    def _dying(self) -> None:
        """PTRACE_EVENT_EXIT: the last moment that the program has memory."""
        if self.call is not None:
            self.log_last_call(self.call)
            self.call = None

    # -- signals --------------------------------------------------------------------------------

    def _signal(self, sig: int) -> int:
        """A signal-delivery-stop: deliver, hold, or emulate rdtsc; returns the next status."""
        tracee = self.tracee
        siginfo = tracee.siginfo()
        registers = tracee.registers()
        if is_synchronous(sig, siginfo) or sig == signal.SIGSEGV:
            read = tsc_instruction(tracee, registers.rip) if sig == signal.SIGSEGV else None
            if read is not None and self.leaks.tsc:
                self._time_stamp(registers, read.number, read.length)
                self._resume()
                return self._wait()
            if is_synchronous(sig, siginfo):
                return self._deliver(sig, siginfo, registers, EventFlag(0))
        at_boundary = self._at_boundary and (
            registers.rip == self._exit_ip and registers.rsp == self._exit_sp
        )
        original = self.held.original_siginfo(sig)
        if original is not None:
            siginfo = original
            tracee.set_siginfo(original)
        action = action_of(tracee.pid, sig)
        if action in (Action.IGNORE, Action.STOP):
            self._resume(sig)
            return self._wait()
        if at_boundary or registers.rip == self._in_code_at:
            flags = EventFlag(0) if at_boundary else EventFlag.IN_CODE
            return self._deliver(sig, siginfo, registers, flags, action)
        self.held.hold(sig, siginfo)
        self._watch_held()
        self._resume()
        return self._wait()

    _in_code_at = -1

    def _deliver_in_code(self) -> None:
        """The program makes no system calls: its signal is delivered where it is."""
        self._in_code_at = self.tracee.registers().rip
        self.held.requeue(self.tracee.pid)

    def _deliver(
        self,
        sig: int,
        siginfo: bytes,
        registers: Registers,
        flags: EventFlag,
        action: Action | None = None,
    ) -> int:
        """Let a signal happen and log what it did; returns the next wait status."""
        tracee = self.tracee
        self._in_code_at = -1
        action = action or action_of(tracee.pid, sig)
        if action not in (Action.HANDLER, Action.FATAL):
            action = Action.FATAL  # a blocked or ignored fault kills (force_sig_info)
        segments: list[OutSegment] = [(SegmentKind.SIGINFO, ABSOLUTE, 0, siginfo)]
        if flags & EventFlag.IN_CODE or is_synchronous(sig, siginfo):
            before = bytes(registers)
            segments.append((SegmentKind.REGISTERS, ABSOLUTE, BEFORE, before))
        if action is Action.FATAL:
            self._log_signal(sig, flags, Delivery.FATAL, registers, segments)
            if self.options.checksum_every:
                self.writer.add_checksum(image.checksum(tracee))
            self._resume(sig)
            return self._wait()
        tracee.resume(pt.PTRACE_SINGLESTEP, sig)
        status = self._wait()
        if status != _TRAP_STOP:
            # The frame could not be written (no stack left): the kernel sends SIGSEGV instead.
            return status
        entered = tracee.registers()
        segments += [
            (SegmentKind.REGISTERS, ABSOLUTE, AFTER, bytes(entered)),
            (SegmentKind.XSAVE, ABSOLUTE, 0, tracee.xsave()),
            (SegmentKind.OUT, ABSOLUTE, entered.rsp, frame_bytes(tracee, entered)),
        ]
        self._log_signal(sig, flags, Delivery.HANDLER, registers, segments)
        self._remember_boundary()
        self._resume()
        return self._wait()

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
            self.tracee.pid,
            self.now_us(),
            registers.rip,
            registers.rsp,
            delivery,
            0,
            (0,) * 6,
            segments,
        )

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
        self._at_boundary = False
        self.writer.add_event(
            EventKind.TSC,
            0,
            number,
            self.tracee.pid,
            self.now_us(),
            site,
            registers.rsp,
            value - (1 << 64) if value >> 63 else value,
            0,
            (processor, 0, 0, 0, 0, 0),
        )

    # -- timers ---------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._timer_armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _watch_held(self) -> None:
        if not self._hold_until:
            self._hold_until = time.monotonic() + _PATIENCE
            self._arm(_PATIENCE)

    def _on_timer(self, *_: object) -> None:
        """SIGALRM. Only acts while waiting for the program, so nothing else is half done."""
        self._timer_armed = False
        if not self._waiting:
            self._arm(0.005)
            return
        if self._hold_until:
            self._hold_until = 0.0
            if self.held:
                try:
                    pt.ptrace(pt.PTRACE_INTERRUPT, self.tracee.pid)
                except OSError:
                    pass
        try:
            if self.writer.pending:
                self.writer.flush()
        except OSError as error:
            self._failure = error

    # -- the end --------------------------------------------------------------------------------

    def _finish(self, status: int) -> int:
        """The program ended: say how, and close the trace."""
        if os.WIFSIGNALED(status):
            end = End("killed", signal=os.WTERMSIG(status))
        else:
            end = End("exited", status=os.WEXITSTATUS(status))
        self._close(end)
        return status

    def _close(self, end: End) -> None:
        full = End(**{
            **end.to_json(), "events": self.writer.events, "duration_us": self.now_us()
        })  # fmt: skip
        try:
            if self._failure is not None:
                raise self._failure
            self.writer.close(full)
        except OSError as error:
            self.stopped = _why(error)
            self._warn(f"the trace is cut short: {error.strerror}")
            try:
                short = {**full.to_json(), "how": "stopped", "message": _why(error)}
                self._save_pending()
                self.writer.close_short(End(**{**short, "events": self.writer.events}))
            except OSError:
                pass

    def _save_pending(self) -> None:
        """Large memory did not fit; the events gathered since the last block may."""
        try:
            self.writer.flush()
        except OSError:
            self.writer.drop_pending()

    def _stop_recording(self, reason: Exception) -> int:
        """Let the program run on unrecorded, close the trace, and wait for the program's end."""
        message = self.stopped = _why(reason)
        self._warn(f"recording stops here, the program goes on: {message}")
        try:
            self.let_go()
        except (TraceeGone, OSError):
            pass
        if isinstance(reason, OSError):
            self._failure = reason
        self._close(End("stopped", message=message))
        while True:
            try:
                _, status = os.waitpid(self.tracee.pid, pt.WALL)
            except ChildProcessError:
                return 0
            if not os.WIFSTOPPED(status):
                return status
            # It could not be let go where it was: keep it running under ptrace.
            sig = os.WSTOPSIG(status) if status >> 16 == 0 else 0
            pt.ptrace(pt.PTRACE_CONT, self.tracee.pid, None, 0 if sig & 0x80 else sig)

    def let_go(self) -> None:
        """Detach, at a syscall-stop, and leave the program as if it never had been recorded."""
        tracee = self.tracee
        entered = tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY
        if entered and tracee.registers().orig_rax != NO_SYSCALL:
            self._rewind()
        self.leaks.reopen(tracee)
        for sig, siginfo in tracee.held_signals:
            self.held.hold(sig, siginfo)
        if self.affinity:
            os.sched_setaffinity(tracee.pid, self.affinity)
        self.held.requeue(tracee.pid)
        pt.ptrace(pt.PTRACE_DETACH, tracee.pid, None, 0)


def _why(reason: Exception) -> str:
    if isinstance(reason, OSError):
        return reason.strerror or str(reason)
    return str(reason)


__all__ = ["Options", "Recorder", "RecordingStops"]
