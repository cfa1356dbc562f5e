# SPDX-License-Identifier: GPL-2.0-or-later
"""The replay engine: plays recorded events into a stub process, and checks every one.

The replayed program runs natively between its system calls. At each one the tracee stops
(PTRACE_SYSEMU, or a debugger's PTRACE_SYSCALL, or the guard's SIGSYS), the engine compares what it
asks for with the recorded event, puts result and memory in place, and the kernel never sees it.

Positions: `next` is the number of the event that has not happened yet. "At event N" means that
events 1 to N-1 have happened and the program stands on the `syscall` instruction of event N, or
where it was when event N came in the middle of a computation.
"""

from __future__ import annotations

import bisect
import copy
import enum
import os
import signal
from collections.abc import Callable
from typing import NamedTuple

from sysrift import image as images
from sysrift.replay.divergence import Divergence, divergence
from sysrift.replay.files import FileSource
from sysrift.replay.memory_calls import MemoryCalls
from sysrift.replay.output import ProgramOutput
from sysrift.replay.player import PATCH_AT, SHOW_AFTER, Player
from sysrift.replay.point import Came, PointFinder
from sysrift.syscalls import NAMES, ReplayClass, lookup
from sysrift.trace.model import AFTER, Delivery, Event, EventFlag, EventKind, Image, SegmentKind
from sysrift.trace.reader import Trace
from sysrift.tracee import BadAddress, Registers, RemoteSyscallError, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.inputs import input_checksum
from sysrift.tracee.kernel import RESTARTS, SYNCHRONOUS, SYSCALL_STOP
from sysrift.tracee.registers import MASK, NO_SYSCALL, signed
from sysrift.tracee.registers import NAMES as NAMES_OF_REGISTERS

_ERESTART_RESTARTBLOCK = -516
_SI_KERNEL = 0x80  # si_code of the SIGTRAP of an int3 (arch/x86/kernel/traps.c, do_int3_user)
# Plain integers: an operator of IntFlag costs a microsecond, and these are used at every event.
_IN_CODE, _UNFINISHED, _IMAGE = (
    int(EventFlag.IN_CODE),
    int(EventFlag.UNFINISHED),
    int(EventFlag.IMAGE),
)
_NR_RESTART_SYSCALL = NAMES["restart_syscall"]
_NR_ARCH_PRCTL = NAMES["arch_prctl"]
_ARCH_SET_GS, _ARCH_SET_FS = 0x1001, 0x1002
_TSC_LENGTH = (2, 3)
_MANY = 1000  # events for which patching sites is worth it at once


class Reason(enum.Enum):
    """Why `Engine.advance` came back."""

    REACHED = "reached"  # the event asked for is the next one
    WANTED = "wanted"  # an event that the caller wants to see is the next one
    END = "end"  # everything recorded has happened
    TRAP = "trap"  # SIGTRAP: somebody's breakpoint, the program counter behind it
    SIGNAL = "signal"  # a signal that is not the recording's (the user's Ctrl-C)
    EXEC = "exec"  # the program replaced itself: another image is in place


class Halt(NamedTuple):
    """Why, and with which signal (TRAP, SIGNAL, END by a signal), advancing halted."""

    reason: Reason
    signal: int = 0


def _call_text(nr: int, args: tuple[int, ...], site: int, sp: int) -> str:
    row = lookup(nr)
    name = row.name if row is not None else f"syscall_{nr}"
    arity = len(row.arguments) if row is not None else 6
    shown = ", ".join(hex(value) for value in args[:arity])
    return f"{name}({shown}) at {site:#x} with rsp {sp:#x}"


class Kept(NamedTuple):
    """What the engine itself knows at a position, beside the process (see `Engine.keep`)."""

    next: int
    image: Image
    brk: int
    output: ProgramOutput
    affinity: frozenset[int]


class Engine:
    """Replays one trace in one tracee.

    `echo`, when set, gets what the program writes to stdout and stderr. `on_exec` is told of each
    image that an execve puts in place. `cpus` are those that the tracee and this thread may be
    bound to, to follow the recorded process: cpuid, which cannot be trapped, tells the number.
    """

    def __init__(self, trace: Trace, tracee: Tracee) -> None:
        self.trace = trace
        self.tracee = tracee
        self.source = FileSource(trace)
        self.next = 1
        self.image: Image = trace.image(0)
        self.cpus: frozenset[int] = frozenset()
        self.echo: Callable[[bytes], None] | None = None
        self.on_exec: Callable[[Image], None] | None = None
        self.check_checksums = False
        self.stops_where_cut_off = False  # rather than running on to the next system call, if any
        self.checksums_checked = 0
        self.player_at: int | None = PATCH_AT  # a site's call from which on it is played in place
        self.is_alone = False  # nobody looks at the tracee between two calls of `advance`
        self.played = 0
        """How many events there were without a stop."""
        self._player: Player | None = None
        self._checksum_numbers = sorted(trace.checksums)
        self._output = ProgramOutput()
        self._calls = MemoryCalls(tracee, self.source, self.image.mm[5])
        self._finder: PointFinder | None = None

    def close(self) -> None:
        """Let go of everything but the tracee."""
        self.source.close()
        self.tracee.close()

    def fork(self, trace: Trace, tracee: Tracee) -> Engine:
        """An engine for the timeline of a child, in a `tracee` that is a copy of this one's.

        Both stand before the call that makes the child.
        """
        child = Engine.__new__(Engine)
        child.__dict__.update(self.__dict__)
        child.trace, child.tracee = trace, tracee
        child.source = self.source.fork(tracee)
        child.checksums_checked = child.played = 0
        child._checksum_numbers = sorted(trace.checksums)
        if self._player is not None:
            child._player = self._player.copy(tracee, trace)
        child._finder = None
        child._output = copy.deepcopy(self._output)
        child._calls = self._calls.fork(tracee, child.source)
        return child

    def _bind(self, cpu: int) -> None:
        """Run where the recorded process ran, if that CPU is there."""
        if cpu in self.cpus:
            os.sched_setaffinity(self.tracee.pid, {cpu})
            os.sched_setaffinity(0, {cpu})

    # -- positions ------------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """Whether the recording goes to the program's end, and that end is an event of it."""
        end = self.trace.end
        return end is not None and (
            end.how == "exited" or (end.how == "killed" and end.signal != signal.SIGKILL)
        )

    @property
    def at_end(self) -> bool:
        """Whether the last thing that can be replayed has happened."""
        if self.next > self.trace.event_count:
            return True
        event = self.trace.event(self.next)
        return self._has_no_return(event) or (
            event.kind == EventKind.SIGNAL and event.result == Delivery.FATAL
        )

    def _has_no_return(self, event: Event) -> bool:
        """Whether the process ended in a call; or the recording, before the new program's image."""
        if event.flags & _IMAGE:
            return not self.trace.has_image(event.number)
        return bool(event.flags & _UNFINISHED)

    def load(self, event: int = 0, reached: bool = False) -> None:
        """Put the image after event number `event` in place; the process is at its first
        instruction afterwards, and `next` is `event` + 1. `reached`: by replaying up to there."""
        image = self.trace.image(event)
        self.source.forget_copies()
        self._player = None  # its memory is gone, as all that was
        images.restore(self.tracee, image, self.source)
        self.image = image
        self.next = event + 1
        self._bind(image.cpu)
        self._calls = MemoryCalls(self.tracee, self.source, image.mm[5])
        self._new_player()
        if not reached:
            self._output = ProgramOutput()
        registers = Registers.from_bytes(image.registers)
        registers.orig_rax = NO_SYSCALL
        self.tracee.set_registers(registers)
        if self._settle(registers):
            self.tracee.set_registers(registers)

    def _new_player(self) -> None:
        """An image was put in place: whatever was in memory is gone."""
        self._player = None
        if self.player_at is not None:
            self._player = Player(
                self.tracee, self.trace, self.image, self.player_at, not self.is_alone
            )

    def keep(self) -> Kept | None:
        """What to `put_back` when the process is brought back to where it stands now.

        The process is the program alone afterwards, and its image may be taken.

        Copies of files are not in it. None where that is not all there is: with System V segments.
        """
        if self._calls.has_attached:
            return None
        if self._player is not None:
            self._player.take_out()
        affinity = frozenset(os.sched_getaffinity(self.tracee.pid))
        output = copy.deepcopy(self._output)
        return Kept(self.next, self.image, self._calls.brk, output, affinity)

    def put_back(self, kept: Kept) -> None:
        """The process is in place again as it was when this was kept."""
        self.next, self.image = kept.next, kept.image
        self._calls = MemoryCalls(self.tracee, self.source, kept.brk)
        self._output = copy.deepcopy(kept.output)
        self._finder = None
        self._new_player()
        for pid in (self.tracee.pid, 0):
            os.sched_setaffinity(pid, kept.affinity)

    @property
    def brk(self) -> int:
        """The program break."""
        return self._calls.brk

    def is_output(self, fd: int) -> bool:
        """Whether a descriptor of the program's leads to its first stdout or stderr now."""
        return self._output.has(fd)

    # -- system calls ---------------------------------------------------------------------------

    def system_call(self, registers: Registers) -> bool:
        """The tracee stopped for a system call (at its entry, or SIGSYS); `registers` are its own.

        Plays the event(s) due here; the tracee's registers are set to go on with. Returns False,
        with the program back on its `syscall` instruction, when the recording ends here.
        Raises Divergence.
        """
        if self.next > self.trace.event_count:
            self._rewind(registers)
            return False
        event = self.trace.event(self.next)
        if event.kind == EventKind.SIGNAL and self._signal_due(event, registers.rip - 2, registers):
            # It came right before this call: the call is made after the handler, if ever.
            self._rewind(registers)
            if event.result == Delivery.FATAL:
                return False
            self._enter_handler(event, registers)
            self._settle(registers)
            self.tracee.set_registers(registers)
            return True
        self._check_call(event, registers)
        if self._has_no_return(event):
            self._rewind(registers)
            return False
        if self.echo is not None:
            written = self._output.bytes_written(event, self.tracee)
            if written:
                self.echo(written)
        self._apply_call(event, registers)
        return True

    def _rewind(self, registers: Registers) -> None:
        registers.rip -= 2
        registers.rax = registers.orig_rax
        registers.orig_rax = NO_SYSCALL
        self.tracee.set_registers(registers)

    def rewind(self, registers: Registers) -> None:
        """Put a tracee that has entered a system call back on its `syscall` instruction."""
        self._rewind(registers)

    def _check_call(self, event: Event, registers: Registers) -> None:
        nr = signed(registers.orig_rax)
        if (
            event.kind == EventKind.SYSCALL
            and event.nr == nr
            and event.site == registers.rip - 2
            and event.rsp == registers.rsp
        ):
            row = lookup(nr)
            arity = 6 if row is None else len(row.arguments)
            args = registers.arguments
            if event.args[:arity] == args[:arity]:
                if row is None or event.input_crc == input_checksum(row, args, self.tracee):
                    return
                raise self._divergence(
                    _call_text(nr, args, event.site, event.rsp)
                    + f" handing in data with checksum {event.input_crc:#010x}",
                    f"data with checksum {input_checksum(row, args, self.tracee):#010x}",
                )
        raise self._divergence(
            self._event_text(event),
            _call_text(nr, registers.arguments, registers.rip - 2, registers.rsp),
        )

    @staticmethod
    def _event_text(event: Event) -> str:
        if event.kind == EventKind.SYSCALL:
            return _call_text(event.nr, event.args, event.site, event.rsp)
        if event.kind == EventKind.TSC:
            name = ("rdtsc", "rdtscp")[event.nr & 1]
            return f"{name} at {event.site:#x} with rsp {event.rsp:#x}"
        return f"signal {event.nr} at {event.site:#x} with rsp {event.rsp:#x}"

    def _divergence(self, expected: str, found: str, event: int = 0) -> Divergence:
        """At event number `event`; 0 for the next one."""
        return divergence(self.trace, event or self.next, expected, found)

    def unexpected(self, halt: Halt) -> Divergence:
        """The divergence that a halt is where nothing but the end was expected."""
        if self.next <= self.trace.event_count:
            expected = self._event_text(self.trace.event(self.next))
        else:
            expected = "the end"
        registers = self.tracee.registers()
        name = signal.Signals(halt.signal).name if halt.signal else halt.reason.value
        return self._divergence(expected, f"{name} at {registers.rip:#x}")

    def _apply_call(self, event: Event, registers: Registers) -> None:
        tracee = self.tracee
        if event.flags & _IMAGE:
            self.load(event.number, reached=True)
            self._after(event, self.tracee.registers().rsp)
            if self.on_exec is not None:
                self.on_exec(self.image)
            return
        row = lookup(event.nr)
        registers.rax = event.result & MASK
        registers.orig_rax = NO_SYSCALL
        if row is not None and row.replay_class is not ReplayClass.EMULATE:
            if row.replay_class is ReplayClass.MAP:
                if self._player is not None:
                    self._player.memory_call(event)
                try:
                    self._calls.replay(event)
                except RemoteSyscallError as error:
                    raise self._divergence(self._event_text(event), str(error)) from None
                self._calls.note_brk(event)
            elif event.nr == _NR_ARCH_PRCTL and event.result == 0:
                if event.args[0] == _ARCH_SET_FS:
                    registers.fs_base = event.args[1]
                elif event.args[0] == _ARCH_SET_GS:
                    registers.gs_base = event.args[1]
        if event.segments:
            self._apply_segments(event, registers)
        self.next += 1
        self._after(event, registers.rsp)  # before a signal's frame changes memory again
        # Where a signal interrupted the call, it either comes next, or the call is restarted.
        if not self._settle(registers) and event.result in RESTARTS:
            registers.rip -= 2
            block = event.result == _ERESTART_RESTARTBLOCK
            registers.rax = _NR_RESTART_SYSCALL if block else event.nr
        tracee.set_registers(registers)
        if event.number == self.trace.process.parent_event:
            self._bind(self.trace.process.cpu)  # its birth

    def _apply_segments(self, event: Event, registers: Registers) -> None:
        changed_file = 0
        for segment in event.segments:
            kind, _, address, _, _, data = segment
            if kind == SegmentKind.OUT:
                if data is None:
                    data = self.trace.segment_data(segment)
                self._write(address, data)
            elif kind == SegmentKind.FILE_SIZE:
                changed_file = segment.block
                self.source.resize(changed_file, address)
            elif kind == SegmentKind.FILE_DATA:
                self.source.change(changed_file, address, self.trace.segment_data(segment))
            elif kind == SegmentKind.REGISTERS and address == AFTER and data is not None:
                loaded = Registers.from_bytes(data)
                for name in NAMES_OF_REGISTERS:
                    setattr(registers, name, getattr(loaded, name))
                registers.orig_rax = NO_SYSCALL
            elif kind == SegmentKind.XSAVE and data is not None:
                self.tracee.set_xsave(data)

    def _write(self, address: int, data: bytes) -> None:
        """Put into memory what the kernel put there."""
        try:
            try:
                self.tracee.write(address, data)
            except BadAddress:
                self._calls.write(address, data)
        except BadAddress as error:
            raise self._divergence(
                f"{len(data)} bytes written at {address:#x}", str(error)
            ) from None

    def _after(self, event: Event, rsp: int) -> None:
        """Check the memory checksum that was recorded after an event, with `rsp` after it."""
        if self.check_checksums:
            expected = self.trace.checksums.get(event.number)
            if expected is not None:
                self._compare_checksum(event.number, expected, rsp)

    def check_final_memory(self) -> None:
        """At the end: compare memory with the checksum recorded there, if there is one."""
        expected = self.trace.checksums.get(self.next)
        if self.check_checksums and expected is not None:
            self._compare_checksum(self.next, expected, self.tracee.registers().rsp)

    def _compare_checksum(self, number: int, expected: bytes, rsp: int) -> None:
        found = images.checksum(self.tracee, rsp)
        self.checksums_checked += 1
        if found != expected:
            raise self._divergence(
                f"memory with checksum {expected.hex()} after it",
                f"memory with checksum {found.hex()}",
                number,
            )

    # -- signals --------------------------------------------------------------------------------

    @staticmethod
    def _signal_due(event: Event, rip: int, registers: Registers) -> bool:
        """Whether an asynchronous signal was delivered just here."""
        return (
            event.kind == EventKind.SIGNAL
            and not event.flags & _IN_CODE
            and not _raised_by_instruction(event)
            and event.site == rip
            and event.rsp == registers.rsp
        )

    def _settle(self, registers: Registers) -> bool:
        """Enter the handlers of signals that came right after the last event.

        Changes `registers` only (and memory); returns whether there was a signal, handled or fatal.
        """
        settled = False
        while self.next <= self.trace.event_count:
            event = self.trace.event(self.next)
            if not self._signal_due(event, registers.rip, registers):
                break
            settled = True
            if event.result == Delivery.FATAL:
                break
            self._enter_handler(event, registers)
        return settled

    def _enter_handler(self, event: Event, registers: Registers) -> None:
        self._apply_segments(event, registers)
        self.next += 1

    @property
    def sent_fatal_signal(self) -> int:
        """The signal, sent and not a fault, that is the next event and ends the recording, or 0."""
        if self.next <= self.trace.event_count:
            event = self.trace.event(self.next)
            if (
                event.kind == EventKind.SIGNAL
                and event.result == Delivery.FATAL
                and not _raised_by_instruction(event)
            ):
                return event.nr
        return 0

    @property
    def fatal_signal_due(self) -> int:
        """The signal that ends the recording right here, at a system call boundary; else 0."""
        sig = self.sent_fatal_signal
        if not sig:
            return 0
        registers = self.tracee.registers()
        return sig if self._signal_due(self.trace.event(self.next), registers.rip, registers) else 0

    def fault(self, sig: int) -> bool:
        """The tracee stopped by a signal that an instruction raises (SIGSEGV, ...).

        Plays what the recording has for it: rdtsc's value, or the handler's frame. Returns False
        when it is the end of the recording; raises Divergence when it did not happen then.
        """
        registers = self.tracee.registers()
        if self.next <= self.trace.event_count:
            event = self.trace.event(self.next)
            here = event.site == registers.rip and event.rsp == registers.rsp
            if event.kind == EventKind.TSC and here and sig == signal.SIGSEGV:
                self._time_stamp(event, registers)
                return True
            if event.kind == EventKind.SIGNAL and _arrives_as(event) == sig and here:
                if event.result == Delivery.FATAL:
                    if sig == signal.SIGTRAP and _si_code(event) == _SI_KERNEL:
                        registers.rip -= 1  # on the int3, as on any other faulting instruction
                        self.tracee.set_registers(registers)
                    return False
                self._enter_handler(event, registers)
                self._settle(registers)
                self.tracee.set_registers(registers)
                return True
            expected = self._event_text(event)
        elif not self.is_complete:
            return False
        else:
            expected = "the end"
        name = signal.Signals(sig).name
        raise self._divergence(
            expected, f"{name} at {registers.rip:#x} with rsp {registers.rsp:#x}"
        )

    @property
    def _cut_off(self) -> bool:
        return self.next > self.trace.event_count and not self.is_complete

    def is_expected_fault(self, sig: int) -> bool:
        """Whether the next event is just this signal, raised by the instruction at hand."""
        if self.next > self.trace.event_count:
            return False
        event = self.trace.event(self.next)
        registers = self.tracee.registers()
        kind_matches = (event.kind == EventKind.TSC and sig == signal.SIGSEGV) or (
            event.kind == EventKind.SIGNAL and _arrives_as(event) == sig
        )
        return kind_matches and event.site == registers.rip

    def is_trap_of_program(self, code: int) -> bool:
        """Whether a SIGTRAP with this si_code, at hand, is one that the program handled itself.

        A debugger may have put the program counter back onto an `int3`; see `step_behind_trap`.
        """
        if self.next > self.trace.event_count:
            return False
        event = self.trace.event(self.next)
        if event.kind != EventKind.SIGNAL or event.nr != signal.SIGTRAP or _si_code(event) != code:
            return False
        rip = self.tracee.registers().rip
        return rip == event.site or (code == _SI_KERNEL and rip + 1 == event.site)

    def step_behind_trap(self) -> None:
        """Put the program counter where the SIGTRAP that is the next event left it."""
        registers = self.tracee.registers()
        registers.rip = self.trace.event(self.next).site
        self.tracee.set_registers(registers)

    def _time_stamp(self, event: Event, registers: Registers) -> None:
        value = event.result & MASK
        registers.rax = value & 0xFFFFFFFF
        registers.rdx = value >> 32
        if event.nr == 1:
            registers.rcx = event.args[0]
        registers.rip += _TSC_LENGTH[event.nr & 1]
        registers.orig_rax = NO_SYSCALL
        self.next += 1
        self._settle(registers)
        self.tracee.set_registers(registers)

    # -- running --------------------------------------------------------------------------------

    def advance(
        self,
        stop_at: int | None = None,
        wanted: Callable[[Event], bool] | None = None,
        limit: int | None = None,
        wanted_calls: frozenset[int] | None = None,
    ) -> Halt:
        """Run on until event `stop_at` is next, an event is `wanted`, or something else happens.

        The tracee must be in any ptrace-stop with the registers to go on with. At REACHED and
        WANTED the program stands on the event's `syscall` instruction, or at its point in a
        computation. `limit` bounds the events. `wanted_calls`: of the calls without a flag that are
        emulated only these may be `wanted`; None: any.
        Raises Divergence, TraceeGone.
        """
        if self.fatal_signal_due:
            return Halt(Reason.END, self.fatal_signal_due)
        last = self.trace.event_count + 1 if limit is None else self.next + limit
        if stop_at is not None:
            last = min(last, stop_at)
        if wanted is None:
            wanted_calls = frozenset()
        show_after = SHOW_AFTER if self.player_at is None else min(SHOW_AFTER, self.player_at)
        if self.is_alone or (limit or 0) >= _MANY:
            show_after = 0
        try:
            return self._advance(last, wanted, wanted_calls, show_after)
        finally:
            if not self.is_alone and self._player is not None:
                self._player.hide()

    def _advance(
        self,
        last: int,
        wanted: Callable[[Event], bool] | None,
        wanted_calls: frozenset[int] | None,
        show_after: int,
    ) -> Halt:
        """`advance` up to event `last`, with sites patched after so many stops."""
        tracee = self.tracee
        count = self.trace.event_count
        stops = 0
        aimed, played_by_stop = False, True
        while True:
            if self.stops_where_cut_off and self._cut_off:
                return Halt(Reason.END)
            player = self._player if wanted_calls is not None else None
            if self.next <= count:
                if self.trace.glance(self.next)[1] & _IN_CODE:
                    event = self.trace.event(self.next)
                    if self._player is not None:
                        self._player.hide()
                    halt = self._find_in_code(event)
                    if halt is not None:
                        return halt
                    if self.next >= last:
                        return Halt(Reason.REACHED)
                    if not self.play_at_point(tracee.registers()):
                        return Halt(Reason.END, event.nr)
                    played_by_stop = True
                    continue
            elif not self.is_complete:
                return Halt(Reason.END)  # there may be no further stop: killed in an endless loop
            if player is None:
                if self._player is not None:
                    self._player.hide()
            elif stops >= show_after and player.can_show:
                player.show()
            if player is not None and player.shown and wanted_calls is not None:
                aimed = self._aim(player, last, wanted_calls)
                if played_by_stop:
                    player.go_on()
            played_by_stop = False
            tracee.resume(pt.PTRACE_SYSEMU)
            status = tracee.wait()
            stops += 1
            registers = None
            if status == SYSCALL_STOP:
                registers = tracee.registers()
            if player is not None and player.shown:
                self._take(player)
                if registers is None and status >> 16 == 0:
                    sig, rip = os.WSTOPSIG(status), tracee.registers().rip
                    if player.is_inside(rip):
                        if not player.left_over(sig, rip):
                            if self._disturbed(player, sig):
                                return Halt(Reason.SIGNAL, sig)
                            continue
                        registers = player.call_at_hand()
                        ran_out = aimed and sig == signal.SIGTRAP and player.ran_out
                        if ran_out and self._aim(player, last, wanted_calls):
                            self._rewind(registers)  # to the next block's events
                            continue
            if registers is not None:
                if self.next >= last:
                    self._rewind(registers)
                    return Halt(Reason.REACHED)
                if (
                    wanted is not None
                    and self.next <= count
                    and wanted(self.trace.event(self.next))
                ):
                    self._rewind(registers)
                    return Halt(Reason.WANTED)
                before = self.image
                call = registers.rip - 2, signed(registers.orig_rax), registers.arguments
                if not self.system_call(registers):
                    return Halt(Reason.END, self.fatal_signal_due)
                if self.image is not before and self.on_exec is not None:
                    return Halt(Reason.EXEC)
                if self.fatal_signal_due:
                    return Halt(Reason.END, self.fatal_signal_due)
                if player is not None and player is self._player:
                    player.called(*call)
                    played_by_stop = True
                continue
            if status >> 16:
                continue
            sig = os.WSTOPSIG(status)
            if sig in SYNCHRONOUS and (self.is_expected_fault(sig) or self._cut_off):
                if self.next >= last:
                    return Halt(Reason.REACHED)
                if not self.fault(sig):
                    return Halt(Reason.END, sig)
                played_by_stop = True
            elif sig == signal.SIGTRAP:
                return Halt(Reason.TRAP, sig)
            elif sig in SYNCHRONOUS and tracee.siginfo()[8:12] > b"\0\0\0\0":
                self.fault(sig)
            else:
                return Halt(Reason.SIGNAL, sig)

    def _take(self, player: Player) -> None:
        """Count what the player has played."""
        played = player.take()
        self.next += played
        self.played += played

    def _disturbed(self, player: Player, sig: int) -> bool:
        """A signal came while the program is in the player: get it out, unless it goes on.

        Returns whether it is out, at a boundary.
        """
        if sig == signal.SIGTRAP:
            # A watchpoint: what is written there is the kernel's, which triggers none.
            self.tracee.watchpoint_hits = 0
            return False
        player.get_out()
        self._take(player)
        return True

    def _aim(self, player: Player, last: int, wanted_calls: frozenset[int] | None) -> bool:
        """Let the player go on at the next event; False when it is none of its."""
        if wanted_calls is None:
            return False
        bound = last
        if self.check_checksums and self._checksum_numbers:
            at = bisect.bisect_left(self._checksum_numbers, self.next)
            if at < len(self._checksum_numbers):
                bound = min(bound, self._checksum_numbers[at])
        if self.echo is None:
            player.watch(0, frozenset(), wanted_calls)
        else:
            player.watch(self._output.descriptors, self._output.watched, wanted_calls)
        return player.aim(self.next, bound)

    def play_next(self) -> None:
        """From the next event's `syscall` instruction to right behind it.

        For a call that comes at once: `advance` has REACHED it. Raises Divergence, TraceeGone.
        """
        self.tracee.resume(pt.PTRACE_SYSEMU)
        status = self.tracee.wait()
        if status != SYSCALL_STOP or not self.system_call(self.tracee.registers()):
            raise self.unexpected(Halt(Reason.SIGNAL, os.WSTOPSIG(status)))

    @property
    def point(self) -> PointFinder | None:
        """What knows the place of the next event, if that lies in the middle of a computation."""
        if self.next > self.trace.event_count:
            return None
        event = self.trace.event(self.next)
        if not event.flags & _IN_CODE:
            return None
        if self._finder is None or self._finder.event is not event:
            before = self.trace.event(event.number - 1).time_us if event.number > 1 else 0
            self._finder = PointFinder(self.tracee, event, event.time_us - before)
        return self._finder

    def play_at_point(self, registers: Registers) -> bool:
        """Play the next event, at whose `point` the tracee stands, with these registers.

        Returns False, with nothing changed, when it is the signal that ends the recording.
        """
        event = self.trace.event(self.next)
        if event.kind == EventKind.SIGNAL and event.result == Delivery.FATAL:
            return False
        self._enter_handler(event, registers)
        self._settle(registers)
        self.tracee.set_registers(registers)
        return True

    def _find_in_code(self, event: Event) -> Halt | None:
        """Run to the point, between two system calls, where an event happened.

        Returns a Halt when something else happened first.
        """
        finder = self.point
        assert finder is not None
        outcome = finder.search()
        registers = outcome.registers
        if outcome.came is Came.SYSCALL:
            call = _call_text(
                signed(registers.orig_rax), registers.arguments, registers.rip - 2, registers.rsp
            )
            raise self._divergence(
                f"{self._event_text(event)} in the middle of a computation", call
            )
        if outcome.came is Came.STOP:
            if outcome.signal == signal.SIGTRAP:
                return Halt(Reason.TRAP, outcome.signal)
            if outcome.signal in SYNCHRONOUS and outcome.raised:
                self.fault(outcome.signal)
            return Halt(Reason.SIGNAL, outcome.signal)
        return None


def _arrives_as(event: Event) -> int:
    """The signal that the kernel meant to deliver; where there was no room for its frame, it became
    the SIGSEGV that the event shows."""
    return event.args[0] or event.nr


def _raised_by_instruction(event: Event) -> bool:
    """Whether a SIGNAL event is a fault: a SIGSEGV and its like that the kernel raised."""
    unframed, raised = event.args[:2]
    if unframed:
        return bool(raised)
    if event.nr not in SYNCHRONOUS:
        return False
    return _si_code(event) > 0


def _si_code(event: Event) -> int:
    """si_code of a SIGNAL event; 0 when it has no siginfo_t."""
    for segment in event.segments:
        if segment.kind == SegmentKind.SIGINFO and segment.data is not None:
            return int.from_bytes(segment.data[8:12], "little", signed=True)
    return 0
