# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a trace: what each was, how it ended, and which one the user means."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from sysrift.errors import UsageError
from sysrift.trace.file import TraceFile
from sysrift.trace.model import End, Event, Process
from sysrift.trace.reader import Trace
from sysrift.views.text import printable

CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
"""Signals by which a program ends that did something wrong."""


@dataclass(frozen=True)
class ProcessFacts:
    """A recorded process; `depth` is how far it is below the first one."""

    process: Process
    depth: int
    command: str  # as a user would type it; in parentheses when it is what an ancestor executed
    began: str
    events: int
    end: End | None

    @property
    def crashed(self) -> bool:
        """Whether it ended by a signal of a program's own fault."""
        return _crashed(self.end)


def process_facts(trace: Trace) -> list[ProcessFacts]:
    """All processes of the trace's recording, each followed by those that it made."""
    children: dict[int, list[Process]] = {}
    for process in trace.processes.values():
        children.setdefault(process.parent, []).append(process)
    found = []
    waiting = [(process, 0) for process in reversed(children.get(0, []))]
    while waiting:
        process, depth = waiting.pop()
        found.append(
            ProcessFacts(
                process,
                depth,
                command_text(trace.file, process),
                _beginning(trace.file, process),
                trace.file.last_number(process.id) - process.first_event + 1,
                trace.file.end_of(process.id),
            )
        )
        waiting += [(child, depth + 1) for child in reversed(children.get(process.id, []))]
    return found


def command_text(file: TraceFile, process: Process) -> str:
    """What a process executed last, as a user would type it."""
    programs = file.programs_of(process.id)
    if not programs:
        return "?"
    words = programs[-1].argv or (programs[-1].exe,)
    text = printable(" ".join(map(shlex.quote, words)))
    return text if process.id in file.programs else f"({text})"


def _beginning(file: TraceFile, process: Process) -> str:
    if not process.parent:
        return "attached to" if process.how == "attach" else "started"
    executed = "+exec" if process.id in file.programs else ""
    return f"{process.how}{executed}"


def _names(file: TraceFile, process: Process) -> set[str]:
    """The names by which a user may call a process: of its program, as executed and as found."""
    own = file.programs.get(process.id, [])
    names = {PurePath(program.exe).name for program in own}
    return names | {PurePath(program.argv[0]).name for program in own if program.argv}


def find_process(trace: Trace, text: str) -> Process:
    """The process that the user means by a pid or a name. Raises UsageError."""
    if text.isdigit():
        by_pid = [p for p in trace.processes.values() if p.pid == int(text)]
        if by_pid:
            return by_pid[-1]  # a pid that comes again: the newest
        raise UsageError(f"no process {text} was recorded: sysrift ps lists them")
    named = [p for p in trace.processes.values() if text in _names(trace.file, p)]
    if not named:
        raise UsageError(f"no process named {text!r} was recorded: sysrift ps lists them")
    if len(named) > 1:
        crashed = [p for p in named if _crashed(trace.file.end_of(p.id))]
        if len(crashed) == 1:
            return crashed[0]
        pids = ", ".join(str(process.pid) for process in named[:10])
        more = ", ..." if len(named) > 10 else ""
        raise UsageError(f"{len(named)} processes are named {text!r}: say which, {pids}{more}")
    return named[0]


def _crashed(end: End | None) -> bool:
    return end is not None and end.how == "killed" and end.signal in CRASHES


def most_interesting(trace: Trace) -> Process:
    """The process to look at when the user names none: one that crashed, else the first."""
    first = trace.processes[min(trace.processes)]
    for process in trace.processes.values():
        if _crashed(trace.file.end_of(process.id)):
            return process
    return first


def all_events(trace: Trace) -> Iterator[Event]:
    """The events of all processes of the trace's recording, in the order of their happening."""
    for entry in trace.file.event_blocks():
        yield from trace.file.events_in_order(entry.offset)
