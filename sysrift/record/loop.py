# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole recording: every process of a tree, driven by one loop around waitpid(2).

What happens at a process's stop is its `Recorder`'s; here is whose stop it is, what all processes
share (the trace, the table of files, the clock, timers), and how it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from sysrift.record import launch
from sysrift.record.agent import Experience
from sysrift.record.files import FileTable
from sysrift.record.recorder import Recorder, RecordingStops
from sysrift.record.turns import PATIENCE, Turns
from sysrift.trace.model import End
from sysrift.trace.writer import TraceWriteError, TraceWriter
from sysrift.tracee import TraceeGone
from sysrift.tracee import ptrace as pt

_IDLE_FLUSH = 0.5
"""Seconds after which events are written even when their block is not full."""

_HINT_AFTER = 2.0
"""Seconds that processes may go on after the program itself before the user is told."""

_MISSED = 0.1
"""Seconds after which a timer that was not noticed comes again."""

_INTERRUPT_AGAIN = 0.05
"""Seconds after which processes that could not be let go are stopped again."""

_BUSY_RETRY = 0.005
"""Seconds after which a timer that came at a bad moment comes again."""


@dataclass(frozen=True)
class Options:
    """How to record; see `sysrift-record --help`."""

    checksum_every: int = 0  # a memory checksum every N events, and at the end; 0: none
    affinity: frozenset[int] = frozenset()  # the CPUs that the program would have had
    cpu: int | None = None  # the CPU that the recorder is bound to
    follow: bool = True  # record child processes too
    wait: bool = True  # until all of them have ended, not only the first
    agent: int = 0  # from its so many-th call on a program has the agent; 0: never


class Recording:
    """Records a tree of processes, whose first stands at its PTRACE_EVENT_EXEC stop."""

    ptrace_options = launch.OPTIONS

    def __init__(
        self,
        pid: int,
        writer: TraceWriter,
        options: Options,
        warn: Callable[[str], None],
        store_all_files: bool = False,
    ) -> None:
        self.writer = writer
        self.options = options
        self.experience = Experience()
        self.files = FileTable(writer.add_file, store_all_files)
        self.stopped = ""
        self._warn = warn
        self._noted: set[str] = set()
        self.started_ns = time.monotonic_ns()
        self._stops: deque[tuple[int, int]] = deque()
        self._early: dict[int, int] = {}
        self._unrecorded: set[int] = set()
        self._waiting = False
        self._failure: OSError | None = None
        self._armed_until = 0.0
        self._hint_at = 0.0
        self._flush_at = 0.0
        self._requested = ""
        self._first = pid
        self._first_status: int | None = None
        self._first_end = End("stopped", message="the recording ended before the program did")
        self.processes: dict[int, Recorder] = {pid: self._make_first(pid)}
        self.turns = Turns(self.processes.values)

    def _make_first(self, pid: int) -> Recorder:
        cpu = -1 if self.options.cpu is None else self.options.cpu
        process = self.writer.add_process(pid, "exec", cpu=cpu)
        return Recorder(self, pid, process, self.options.affinity)

    # -- what the recorders use -----------------------------------------------------------------

    def now_us(self) -> int:
        """Microseconds since the recording began."""
        return (time.monotonic_ns() - self.started_ns) // 1000

    def note(self, key: str, text: str, quiet: bool = False) -> None:
        """Tell the user once per `key`, on stderr (unless `quiet`) and in the trace."""
        if key not in self._noted:
            self._noted.add(key)
            if not quiet:
                self._warn(text)
            self.writer.note(text)

    def arm(self, seconds: float) -> None:
        """Have the timer come in so many seconds, or earlier when it would anyway."""
        until = time.monotonic() + seconds
        if not self._armed_until or until < self._armed_until:
            self._armed_until = until
            # Again, should it come right before waitpid(2), which would sleep over it.
            signal.setitimer(signal.ITIMER_REAL, seconds, _MISSED)

    def arm_flush(self) -> None:
        """See that events are in the file before long."""
        if not self._flush_at:
            self._flush_at = time.monotonic() + _IDLE_FLUSH
            self.arm(_IDLE_FLUSH)

    def born(self, parent: Recorder, how: str) -> None:
        """A process made another one (PTRACE_EVENT_FORK, _VFORK, _CLONE): record it, or let go."""
        message = ctypes.c_ulong()
        pt.ptrace(pt.PTRACE_GETEVENTMSG, parent.tracee.pid, None, ctypes.addressof(message))
        pid = message.value
        try:
            status = self._take_stop(pid)
            if not os.WIFSTOPPED(status):
                return
            if not self.options.follow:
                parent.let_child_go(pid)
                return
            self._add_child(parent, pid, how)
        except (ProcessLookupError, ChildProcessError, TraceeGone):
            pass  # killed before it ran

    def _add_child(self, parent: Recorder, pid: int, how: str) -> None:
        cpu = self.place(pid, parent)
        process = self.writer.add_process(
            pid, how, parent.id, self.writer.number(parent.id) + 1, self.now_us(), cpu
        )
        child = Recorder(self, pid, process, parent.affinity, parent)
        child.cpu = cpu
        self.processes[pid] = child
        self.turns.changed()
        self._with_turn(child, child.begin_born)

    def place(self, pid: int, parent: Recorder | None = None) -> int:
        """Bind a process to a CPU; returns which, -1 for none.

        One CPU for recorder and program makes a stop 3 to 10 times cheaper. But processes that
        compute at the same time shall do so: each is bound to the CPU where the fewest others are
        in user code, the recorder's own if that is one of them. Its parent does not count: it most
        often waits.
        """
        own = self.options.cpu
        if own is None:
            return -1
        busy = dict.fromkeys(self.options.affinity, 0)
        for recorder in self.processes.values():
            computes = recorder.call is None and recorder.tracee.pid != pid
            if computes and recorder is not parent and recorder.cpu in busy:
                busy[recorder.cpu] += 1
        chosen = min(busy, key=lambda cpu: (busy[cpu], cpu != own), default=own)
        try:
            os.sched_setaffinity(pid, {chosen})
        except OSError:
            return -1
        return chosen

    def _take_stop(self, pid: int) -> int:
        """Wait for the next stop of a process, which may have been reported already."""
        if pid in self._early:
            return self._early.pop(pid)
        for at, (stopped, status) in enumerate(self._stops):
            if stopped == pid:
                del self._stops[at]
                return status
        return os.waitpid(pid, pt.WALL)[1]

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> int:
        """Record to the end; returns the first process's wait status. The trace is closed then."""
        previous = signal.signal(signal.SIGALRM, self._on_timer)
        try:
            first = self.processes[self._first]
            self._guarded(first, first.begin)
            while self._goes_on():
                self._next_stop()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            for recorder in self.processes.values():
                recorder.tracee.close()
            self._close()
            self.writer.abandon()
        return self._wait_for_first()

    def _goes_on(self) -> bool:
        if self._first_status is not None and not self.options.wait:
            self.request_stop("the first process has ended")
        return bool(self.processes)

    def _next_stop(self) -> None:
        """Handle every stop that there is, each once: no process can starve another."""
        self._waiting = True
        try:
            pid, status = os.waitpid(-1, pt.WALL)
        except ChildProcessError:
            self.processes.clear()
            return
        finally:
            self._waiting = False
        stops = self._stops
        stops.append((pid, status))
        while len(self.processes) > 1:
            try:
                pid, status = os.waitpid(-1, pt.WALL | os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            stops.append((pid, status))
        while stops:
            self._dispatch(*stops.popleft())
            self._give_turns()
        if self._failure is not None:
            self._stop_all(self._failure)

    def _dispatch(self, pid: int, status: int) -> None:
        recorder = self.processes.get(pid)
        if recorder is None:
            if not os.WIFSTOPPED(status):
                if pid == self._first:
                    self._first_status = status
                self._early.pop(pid, None)
            else:
                self._stray_stop(pid, status)
            return
        if not os.WIFSTOPPED(status):
            self._ended(recorder, status)
            return
        if recorder.returns_to_user(status):
            self._with_turn(recorder, lambda: recorder.on_stop(status))
        else:
            self._guarded(recorder, lambda: recorder.on_stop(status))

    def _with_turn(self, recorder: Recorder, action: Callable[[], None]) -> None:
        """Do what lets a process run user code: now, or when it is its turn."""
        if self.turns.begin(recorder, action):
            self._guarded(recorder, action)
        elif self.turns.contended:
            self.arm(PATIENCE)

    def _give_turns(self) -> None:
        """Let those go on that have waited for it."""
        while True:
            turn = self.turns.next()
            if turn is None:
                return
            self._guarded(*turn)
            if self.turns.contended:
                self.arm(PATIENCE)

    def _stray_stop(self, pid: int, status: int) -> None:
        """A stop of a process that is not recorded: not yet, or not any more."""
        if pid not in self._unrecorded:
            self._early[pid] = status  # its parent's stop, which tells what it is, is to come
            return
        # It could not be detached where it was: keep it running under ptrace.
        sig = os.WSTOPSIG(status) if status >> 16 == 0 else 0
        try:
            pt.ptrace(pt.PTRACE_CONT, pid, None, 0 if sig & 0x80 else sig)
        except OSError:
            pass

    def _guarded(self, recorder: Recorder, action: Callable[[], None]) -> None:
        """Do something with a process; what goes wrong ends its recording, not the process."""
        try:
            action()
        except TraceeGone as gone:
            self._ended(recorder, gone.status)
        except ProcessLookupError:
            pass  # killed meanwhile: waitpid tells
        except TraceWriteError as error:
            self._stop_all(error)
        except (RecordingStops, OSError) as reason:
            self._let_go(recorder, _why(reason))
        except Exception as bug:
            if os.environ.get("SYSRIFT_DEBUG"):
                import traceback

                traceback.print_exc()
            self._let_go(recorder, f"internal error: {type(bug).__name__}: {bug}")

    # -- ends -----------------------------------------------------------------------------------

    def request_stop(self, reason: str) -> None:
        """Let every process go as soon as it can be, and end the recording. Any time."""
        if not self._requested:
            self._requested = reason
            self._interrupt_all()

    def _interrupt_all(self) -> None:
        """Have the processes that are to be let go stop, soon and again."""
        for pid, recorder in self.processes.items():
            if recorder.leaving:
                try:
                    pt.ptrace(pt.PTRACE_INTERRUPT, pid)
                except OSError:
                    pass
        self.arm(_INTERRUPT_AGAIN)

    @property
    def leaving(self) -> str:
        """Why processes are to be let go where they stop next; empty when they are not."""
        return self._requested

    @property
    def first_has_ended(self) -> bool:
        """Whether the program itself is over, and only processes that it started go on."""
        return self._first not in self.processes

    def _ended(self, recorder: Recorder, status: int) -> None:
        """A process ended: say how."""
        if os.WIFSIGNALED(status):
            end = End("killed", signal=os.WTERMSIG(status))
        else:
            end = End("exited", status=os.WEXITSTATUS(status))
        if recorder.tracee.pid == self._first:
            self._first_status = status
            self._hint_at = time.monotonic() + _HINT_AFTER
            self.arm(_HINT_AFTER)
        self._forget(recorder, end)
        self._release_strays(recorder)

    def _release_strays(self, parent: Recorder) -> None:
        """Let go what a process that was killed just then had made (its stop never came)."""
        for pid in list(self._early):
            if parent_of(pid) not in self.processes:
                del self._early[pid]
                parent.let_child_go(pid)

    def _forget(self, recorder: Recorder, end: End) -> None:
        del self.processes[recorder.tracee.pid]
        self.turns.forget(recorder)
        recorder.tracee.close()
        end = replace(end, duration_us=self.now_us())
        if recorder.tracee.pid == self._first:
            self._first_end = end
        try:
            self.writer.end_process(recorder.id, end)
        except TraceWriteError as error:
            self._stop_all(error)

    def _let_go(self, recorder: Recorder, message: str) -> None:
        """Let a process run on unrecorded, wherever it is."""
        if recorder.tracee.pid == self._first:
            self.stopped = message
            self._warn(f"recording stops here, the program goes on: {message}")
        elif not self._requested:
            self.note(
                f"let go {message}",
                f"a process ({recorder.tracee.pid}) is not recorded any more, and goes on: "
                f"{message}",
            )
        self._release(recorder, message)

    def _release(self, recorder: Recorder, message: str) -> None:
        """Detach a process, and say in the trace why."""
        self._dismiss_sharers(recorder)
        self._detach(recorder)
        self._forget(recorder, End("stopped", message=message))

    def _dismiss_sharers(self, recorder: Recorder) -> None:
        """A process is about to run on unrecorded: so must those that share memory with it.

        What it writes there, and when, will not be known, and they may read it at any moment.
        Those that wait for their turn, or compute, have not seen anything of it yet: they go first.
        The others are in a call, and are let go at its end.
        """
        if self._requested:
            return
        sharers = [each for each in self.turns.sharers(recorder) if not each.dismissed]
        for each in sharers:
            each.dismissed = (
                f"it shares memory with process {recorder.tracee.pid}, which is not recorded any "
                "more"
            )
        recorder.dismissed = recorder.dismissed or "it goes on unrecorded"
        for each in sharers:
            action = self.turns.take_waiting(each)
            if action is not None:
                self._guarded(each, action)
            elif each.call is None:
                status = self._halt(each)
                if status is not None:
                    self._dispatch(each.tracee.pid, status)
        if sharers:
            self._interrupt_all()

    def _detach(self, recorder: Recorder) -> None:
        try:
            recorder.let_go()
        except TraceeGone as gone:
            if gone.pid == self._first:
                self._first_status = gone.status
        except OSError:
            self._unrecorded.add(recorder.tracee.pid)

    def _stop_all(self, error: OSError) -> None:
        """The trace cannot be written any more: let everything run on."""
        if self._failure is None or self.processes:
            self._failure = error
            self.stopped = _why(error)
            self._warn(f"recording stops here, the program goes on: {self.stopped}")
        for recorder in list(self.processes.values()):
            self._halt(recorder)
            self._detach(recorder)
            recorder.tracee.close()
        self.processes.clear()

    def _halt(self, recorder: Recorder) -> int | None:
        """See that a process is stopped; the wait status of the stop that it came to.

        None when it was stopped already, or is gone, which waitpid tells.
        """
        pid = recorder.tracee.pid
        if recorder.is_stopped:
            return None
        try:
            pt.ptrace(pt.PTRACE_INTERRUPT, pid)
            return self._take_stop(pid)
        except OSError:
            return None

    def _close(self) -> None:
        full = replace(self._first_end, events=self.writer.events, duration_us=self.now_us())
        try:
            if self._failure is not None:
                raise self._failure
            self.writer.close(full)
        except OSError as error:
            if self._failure is None:
                self.stopped = _why(error)
                self._warn(f"the trace is cut short: {self.stopped}")
            try:
                self._save_pending()
                short = replace(full, how="stopped", message=_why(error))
                self.writer.close_short(replace(short, events=self.writer.events))
            except OSError:
                pass

    def _save_pending(self) -> None:
        """Large memory did not fit; the events gathered since the last block may."""
        try:
            self.writer.flush()
        except OSError:
            self.writer.drop_pending()

    def _wait_for_first(self) -> int:
        """The first process's wait status, when it has ended at last."""
        while self._first_status is None:
            try:
                pid, status = os.waitpid(self._first, pt.WALL)
            except ChildProcessError:
                return 0
            if os.WIFSTOPPED(status):
                self._stray_stop(pid, status)
            else:
                self._first_status = status
        return self._first_status

    # -- timers ---------------------------------------------------------------------------------

    def _on_timer(self, *_: object) -> None:
        """SIGALRM. Only acts while waiting for the program, so nothing else is half done."""
        self._armed_until = 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not self._waiting:
            self.arm(_BUSY_RETRY)
            return
        self._waiting = False  # another SIGALRM may come in the midst of this one
        try:
            self._when_waiting()
        finally:
            self._waiting = True

    def _when_waiting(self) -> None:
        now = time.monotonic()
        slow = self.turns.overdue(now)
        if slow is not None:
            slow.end_turn()
        if self.turns.contended:
            self.arm(PATIENCE)
        if self._hint_at > now:
            self.arm(self._hint_at - now)
        elif self._hint_at:
            self._hint_at = 0.0
            self._warn(
                f"the program has ended, {len(self.processes)} processes that it started go on and "
                "are recorded: Ctrl-C ends the recording and lets them go"
            )
        if any(recorder.leaving for recorder in self.processes.values()):
            self._interrupt_all()
        for recorder in self.processes.values():
            wait = recorder.interrupt_when_due(now)
            if wait:
                self.arm(wait)
        if self._flush_at > now:
            self.arm(self._flush_at - now)
            return
        self._flush_at = 0.0
        try:
            drained = [recorder.drain() for recorder in self.processes.values()]
            if any(drained):
                self.arm_flush()
            if self.writer.pending:
                self.writer.flush_soon()
            if self.writer.pending:
                self.arm_flush()
        except OSError as error:
            self._failure = error


def parent_of(pid: int) -> int:
    """The process id of `pid`'s parent (proc_pid_stat(5)); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _why(reason: Exception) -> str:
    if isinstance(reason, OSError):
        return reason.strerror or str(reason)
    return str(reason)
