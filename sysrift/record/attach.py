# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording a process that runs already: from where it is when it is attached to.

The process is stopped by PTRACE_INTERRUPT, which also interrupts a call that waits. The image shows
it on that call's `syscall` instruction; the call with its -ERESTART... result is the first event,
and the kernel, which makes it again, gives the next. So a signal that comes in the meantime ends
the call just as it would have, and a replay sees the same.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from sysrift import image
from sysrift.errors import RecordError
from sysrift.native import STUB_END, STUB_START
from sysrift.record import attachable, rescue, waiting
from sysrift.record.detach import registers_kept, signals_wait, step_out
from sysrift.record.leaks import vdso_mapping
from sysrift.record.loop import Options, Recording
from sysrift.record.recorder import Recorder, RecordingStops
from sysrift.record.refusals import suspend_filters
from sysrift.record.seizing import OPTIONS, interrupt
from sysrift.record.snapshot import Snapshot, hurry
from sysrift.trace.model import End
from sysrift.trace.writer import TraceWriter
from sysrift.tracee import ptrace as pt
from sysrift.tracee import read_maps
from sysrift.tracee.kernel import RESTARTS
from sysrift.tracee.registers import NO_SYSCALL, Registers, signed

_POLL = 0.02
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_CS_32_BIT = 0x23  # arch/x86/include/asm/segment.h, __USER32_CS


_NOT_ABLE = (
    "the process has a seccomp filter of its own: rdtsc is not trapped and rseq stays registered, "
    "and what it takes from there is not recorded (root may do more)"
)


class AttachedRecorder(Recorder):
    """Records a process from the moment that it is attached to."""

    recording: AttachedRecording

    def begin(self) -> None:
        """The seized process runs: stop it, take its image, and let it go on."""
        pid = self.tracee.pid
        self.is_stopped = False
        waited = waiting.waited_ns(pid)
        begun = time.monotonic()
        status = interrupt(pid)
        self.is_stopped = True
        if os.WSTOPSIG(status) in _STOP_SIGNALS:
            self._await_continuation()
            waited, begun = 0, time.monotonic()
        attachable.refuse_threads(pid)
        if self.tracee.registers().cs == _CS_32_BIT:
            raise RecordError(f"cannot attach to process {pid}: it executes 32-bit code")
        self.cpu = self.recording.place(pid)
        with hurry():
            self._take_over(waited)
        self.writer.trim_space()
        self.go_on()
        self.recording.began(time.monotonic() - begun)

    def _await_continuation(self) -> None:
        """Stopped by job control: it stays so, until somebody continues it."""
        self.recording.on_begun()
        pid = self.tracee.pid
        self.recording.tell_user(f"process {pid} is stopped: recording begins when it is continued")
        while True:
            pt.ptrace(pt.PTRACE_LISTEN, pid)
            stopped = 0
            while not stopped:
                stopped, status = os.waitpid(pid, pt.WALL | os.WNOHANG)
                if not stopped:
                    if self.recording.leaving:
                        pt.ptrace(pt.PTRACE_INTERRUPT, pid)
                    time.sleep(_POLL)
            if not os.WIFSTOPPED(status):
                raise RecordError(f"process {pid} ended before recording began")
            if status >> 16 == pt.PTRACE_EVENT_STOP and os.WSTOPSIG(status) == signal.SIGTRAP:
                return
            self._leave_if_asked()

    def _take_over(self, waited_ns: int) -> None:
        """Close the leaks and take the image."""
        tracee = self.tracee
        vdso = vdso_mapping(tracee.pid)
        inside = range(vdso.start, vdso.end) if vdso is not None else range(0)
        self.filtered = attachable.has_own_filter(tracee.pid)
        options = self.recording.ptrace_options
        able = not self.filtered or suspend_filters(tracee, options)
        with signals_wait(tracee):
            step_out(tracee, inside.__contains__)
            waits_on = waiting.let_wait_on(tracee, waited_ns)
            with registers_kept(tracee):
                remarks = self.leaks.close(tracee, able)
        if not able:
            remarks.append(_NOT_ABLE)
        elif self.filtered:
            pt.ptrace(pt.PTRACE_SETOPTIONS, tracee.pid, None, options)
        self.recording.changed(self)
        for remark in remarks:
            self.note(remark, remark)
        registers = tracee.registers()
        interrupted = registers.orig_rax != NO_SYSCALL and signed(registers.rax) in RESTARTS
        store = Snapshot(self.writer).store
        begun = time.monotonic_ns()
        taken = image.capture(tracee, 0, self, self.writer.add_data, store)
        if waits_on:
            took = time.monotonic_ns() - begun
            waiting.shorten(tracee, registers, registers.orig_rax, took, in_memory=False)
            tracee.set_registers(registers)
        if interrupted:
            taken = dataclasses.replace(taken, registers=_on_its_call(registers))
        self._add_image(dataclasses.replace(taken, task=self.id, cpu=self.cpu))
        for mapping in read_maps(tracee.pid):
            self._watch(mapping.start, mapping.end, mapping.shared and bool(mapping.prot & 2))
        if registers.orig_rax != NO_SYSCALL:
            self._remember_boundary()
        if interrupted:
            nr = registers.orig_rax & 0xFFFFFFFF
            self._entry(pt.AUDIT_ARCH_X86_64, registers.rip, registers.rsp, nr, registers.arguments)
            self._exit(registers.rip, registers.rsp, signed(registers.rax))

    def _watch(self, start: int, end: int, shared: bool) -> None:
        if shared:
            self.watch_shared(start, end - start)

    def _exit(self, ip: int, sp: int, result: int) -> None:
        """As for any recorder; but a call that only letting go interrupted goes on afterwards."""
        self._waited_ns = 0
        if self.leaving and self.call is not None:
            waited = (self.now_us() - self.call.time_us) * 1000
            if waiting.let_wait_on(self.tracee, 0):
                result = waiting.ERESTARTNOHAND
                self._waited_ns = waited
        super()._exit(ip, sp, result)

    _waited_ns = 0

    def let_go(self) -> None:
        """Detach; a call that was interrupted waits for the rest of its time."""
        if self._waited_ns:
            registers = self.tracee.registers()
            nr = signed(registers.orig_rax)
            if signed(registers.rax) == waiting.ERESTARTNOHAND:
                waiting.shorten(self.tracee, registers, nr, self._waited_ns)
                self.tracee.set_registers(registers)
        super().let_go()


def _on_its_call(registers: Registers) -> bytes:
    """Registers as the kernel will have them to make an interrupted call again, as that call."""
    there = registers.copy()
    there.rip -= 2
    there.rax = registers.orig_rax
    there.orig_rax = NO_SYSCALL
    return bytes(there)


class AttachedRecording(Recording):
    """Records a running process, and the processes that it makes, until it is asked to stop.

    `told` gets, as they change, the facts that undoing takes for each process (`rescue.facts`).
    `on_begun` is called when the process goes on, or is found to be stopped by others.
    """

    ptrace_options = OPTIONS

    def __init__(
        self,
        pid: int,
        writer: TraceWriter,
        options: Options,
        warn: Callable[[str], None],
        told: Callable[[dict[str, Any]], None],
        store_all_files: bool = False,
        quiet: bool = False,
        event_limit: int = 0,
    ) -> None:
        super().__init__(pid, writer, options, warn, store_all_files)
        self.failed: RecordError | None = None
        self.outlived = False
        self._quiet = quiet
        self._told = told
        self.on_begun: Callable[[], None] = lambda: None
        self._known: dict[int, int] = {}
        self._event_limit = event_limit

    def _make_first(self, pid: int) -> Recorder:
        cpu = -1 if self.options.cpu is None else self.options.cpu
        process = self.writer.add_process(pid, "attach", cpu=cpu)
        return AttachedRecorder(self, pid, process, self.options.affinity)

    def look_at_files(self) -> None:
        """Read the mapped files now, while the process runs, and not while it waits."""
        first = self.processes[self._first]
        for mapping in read_maps(self._first):
            if mapping.is_file:
                first.mapped(mapping)
        if attachable.overlaps(self._first, STUB_START, STUB_END):
            raise RecordError(
                f"cannot attach to process {self._first}: it uses the addresses that a replay needs"
            )

    @property
    def leaving(self) -> str:
        """Why processes are to be let go; the limit of events is looked at too."""
        if not self._requested and 0 < self._event_limit <= self.writer.events:
            self.request_stop(f"{self.writer.events} events were recorded")
        return self._requested

    def tell_user(self, text: str) -> None:
        """A remark, unless the user wants none."""
        if not self._quiet:
            self._warn(text)

    def began(self, seconds: float) -> None:
        """The process goes on, recorded, after having been stopped for so long."""
        self.on_begun()
        self.tell_user(
            f"attached to process {self._first}, which was stopped for {seconds * 1000:.0f} ms"
        )

    # -- what it takes to undo ------------------------------------------------------------------

    def changed(self, recorder: Recorder) -> None:
        """Tell what it takes to undo what was done to a process."""
        self._known[recorder.tracee.pid] = id(recorder.leaks.vdso)
        affinity = recorder.affinity if recorder.cpu >= 0 else frozenset()
        self._told(rescue.facts(recorder.tracee, recorder.leaks, affinity))

    def _dispatch(self, pid: int, status: int) -> None:
        super()._dispatch(pid, status)
        recorder = self.processes.get(pid)
        if recorder is not None and self._known.get(pid) != id(recorder.leaks.vdso):
            self.changed(recorder)

    def _add_child(self, parent: Recorder, pid: int, how: str) -> None:
        super()._add_child(parent, pid, how)
        recorder = self.processes.get(pid)
        if recorder is not None:
            self.changed(recorder)

    def _forget(self, recorder: Recorder, end: End) -> None:
        super()._forget(recorder, end)
        self._known.pop(recorder.tracee.pid, None)
        self._told({"gone": recorder.tracee.pid})

    # -- ends -----------------------------------------------------------------------------------

    def _guarded(self, recorder: Recorder, action: Callable[[], None]) -> None:
        def keep_refusal() -> None:
            try:
                action()
            except RecordError as refusal:
                self.failed = refusal
                raise RecordingStops(str(refusal)) from None

        super()._guarded(recorder, keep_refusal)

    def _let_go(self, recorder: Recorder, message: str) -> None:
        if recorder.tracee.pid == self._first:
            self.outlived = True
            self.stopped = message
            if not self._requested and self.failed is None:
                self._warn(f"recording stops here, the program goes on: {message}")
            self._release(recorder, message)
        else:
            super()._let_go(recorder, message)

    def _wait_for_first(self) -> int:
        """It is not ours to wait for."""
        return self._first_status or 0
