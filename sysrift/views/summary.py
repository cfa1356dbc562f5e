# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace in a few facts: what was recorded, how it ended, what failed last.

`summarize` is quick whatever the trace's size. `count_events` reads every event (4 us each).
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sysrift.syscalls import NAMES
from sysrift.trace.codec import BLOCK_HEADER
from sysrift.trace.model import End, Event, EventFlag, EventKind
from sysrift.trace.reader import Trace
from sysrift.trace.schema import BlockType
from sysrift.views.filters import is_failure
from sysrift.views.json_lines import error_name
from sysrift.views.processes import all_events, command_text
from sysrift.views.signals import signal_name
from sysrift.views.text import event_name, printable

_STEP = 4096  # events read at a time going backwards: a block's worth
_SEARCHED = 20_000
"""How many of the last events are searched for failures: 0.1 s at most."""


@dataclass(frozen=True)
class Summary:
    """What a trace is, all of it safe to print."""

    path: Path
    program: str  # the command line, quoted for a shell
    exe: str
    cwd: str
    started: datetime | None
    duration_us: int
    processes: int
    events: int  # of the process at hand
    all_events: int
    size: int
    closed: bool
    ended: str  # "exited with status 0", see `how_it_ended`
    host: str
    kernel: str
    machine: str
    cpu_model: str
    recorder: str
    notes: tuple[str, ...]
    last_failures: tuple[Event, ...] = ()  # oldest first


@dataclass
class Counts:
    """The events of a trace, counted."""

    by_name: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # by "openat ENOENT"
    system_calls: int = 0
    signals: int = 0
    signals_in_code: int = 0  # of the signals, those in the middle of a computation
    time_stamps: int = 0
    failed: int = 0
    guessed: int = 0
    incomplete: int = 0


@dataclass(frozen=True)
class Storage:
    """Where a trace's bytes go. An event block's payload stream is inside `event_bytes`."""

    by_type: dict[str, int]  # stored bytes with headers, by block type
    event_bytes: int  # of all event blocks as stored
    payload_bytes: int  # of those, memory that calls read and wrote
    files: int
    files_stored: int
    bytes_per_event: float  # of the event blocks, beside payload


def summarize(trace: Trace, last: int = 5) -> Summary:
    """The facts of `trace`, with its `last` last failed system calls.

    Failures are searched for among the last 20,000 events only. Raises TraceError when those
    cannot be read.
    """
    metadata = trace.metadata
    return Summary(
        path=trace.path,
        program=program_text(trace),
        exe=_text(metadata.get("exe")),
        cwd=_text(metadata.get("cwd")),
        started=_time(metadata.get("started")),
        duration_us=recorded_us(trace),
        processes=len(trace.processes),
        events=trace.event_count - trace.process.first_event + 1,
        all_events=trace.file.event_count,
        size=trace.file.size,
        closed=trace.closed,
        ended=_ended(trace),
        host=_text(metadata.get("host")),
        kernel=_text(metadata.get("kernel")),
        machine=_text(metadata.get("machine")),
        cpu_model=_text(metadata.get("cpu_model")),
        recorder=_text(metadata.get("recorder")),
        notes=tuple(printable(note) for note in trace.notes),
        last_failures=last_failures(trace, last),
    )


def program_text(trace: Trace) -> str:
    """The recorded command line as a user would type it; `?` when the trace does not say."""
    if trace.process.parent:
        return command_text(trace.file, trace.process)
    argv = trace.metadata.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    return printable(" ".join(map(shlex.quote, words))) or _text(trace.metadata.get("exe")) or "?"


def how_it_ended(end: End | None) -> str:
    """The end in words: `exited with status 0`, `killed by SIGSEGV`, `recording stopped: ...`."""
    if end is None:
        return "recording was cut off (recorder killed?)"
    if end.how == "exited":
        return f"exited with status {end.status}"
    if end.how == "killed":
        return f"killed by {signal_name(end.signal)}"
    return f"recording stopped: {printable(end.message) or 'no reason given'}"


def _ended(trace: Trace) -> str:
    text = how_it_ended(trace.end)
    if trace.end is not None and not trace.closed:
        text += "; the recording was cut off after that"
    return text


def last_failures(trace: Trace, count: int, searched: int = _SEARCHED) -> tuple[Event, ...]:
    """The last `count` failed system calls among the last `searched` events, oldest first."""
    found: list[Event] = []
    upper = trace.event_count
    lowest = max(trace.process.first_event, upper - searched + 1)
    while upper >= lowest and len(found) < count:
        lower = max(lowest, upper - _STEP + 1)
        failures = [event for event in trace.events(lower, upper) if _is_telling(event)]
        found = failures[max(0, len(failures) - (count - len(found))) :] + found
        upper = lower - 1
    return tuple(found)


def _is_telling(event: Event) -> bool:
    """Whether a failure says something of the program: that of rseq is the recorder's doing."""
    return is_failure(event) and event.nr != NAMES["rseq"]


def count_events(trace: Trace, progress: Callable[[int], None] | None = None) -> Counts:
    """Count the events of all processes; `progress` is told now and then how many it were so far.

    Raises TraceError when they cannot be read.
    """
    counts = Counts()
    kinds: Counter[tuple[int, int]] = Counter()
    failures: Counter[tuple[int, int]] = Counter()
    sample: dict[tuple[int, int], Event] = {}
    for done, event in enumerate(all_events(trace)):
        key = (event.kind, event.nr)
        kinds[key] += 1
        if event.result < 0 and is_failure(event):
            failures[(event.nr, -event.result)] += 1
        if event.flags:
            counts.guessed += bool(event.flags & EventFlag.GUESSED)
            in_code = event.flags & EventFlag.IN_CODE and event.kind == EventKind.SIGNAL
            counts.signals_in_code += bool(in_code)
            counts.incomplete += bool(event.flags & EventFlag.INCOMPLETE)
        if key not in sample:
            sample[key] = event
        if progress is not None and done % _STEP == 0:
            progress(done)
    for key, number in kinds.items():
        counts.by_name[event_name(sample[key])] += number
    for (nr, error), number in failures.items():
        name = event_name(sample[(EventKind.SYSCALL, nr)])
        counts.failures[f"{name} {error_name(error)}"] += number
    counts.system_calls = _of_kind(kinds, EventKind.SYSCALL)
    counts.signals = _of_kind(kinds, EventKind.SIGNAL)
    counts.time_stamps = _of_kind(kinds, EventKind.TSC)
    counts.failed = sum(failures.values())
    return counts


def _of_kind(kinds: Counter[tuple[int, int]], kind: EventKind) -> int:
    return sum(number for (own, _), number in kinds.items() if own == kind)


def storage(trace: Trace) -> Storage:
    """How the trace's bytes are used. Raises TraceError when its blocks are unreadable."""
    by_type: Counter[str] = Counter()
    for entry, stored, _ in trace.file.blocks():
        known = entry.type in BlockType._value2member_map_
        by_type[BlockType(entry.type).name.lower() if known else "unknown"] += (
            stored + BLOCK_HEADER.size
        )
    event_bytes = by_type["events"]
    payload = trace.file.payload_bytes()
    overhead = event_bytes - payload
    return Storage(
        by_type=dict(by_type),
        event_bytes=event_bytes,
        payload_bytes=payload,
        files=len(trace.files),
        files_stored=sum(bool(file.chunks) for file in trace.files.values()),
        bytes_per_event=overhead / trace.file.event_count if trace.file.event_count else 0.0,
    )


def duration_text(microseconds: int) -> str:
    """`2 min 13.4 s`, `0.218 s`: as exact as it is useful."""
    seconds = max(microseconds, 0) / 1e6
    minutes, rest = divmod(seconds, 60)
    if minutes >= 60:
        return f"{int(minutes) // 60} h {int(minutes) % 60} min"
    if minutes:
        return f"{int(minutes)} min {rest:.1f} s"
    return f"{rest:.3f} s"


def size_text(size: int) -> str:
    """`812 B`, `14.2 kB`, `3.1 GB`."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def recorded_us(trace: Trace) -> int:
    """How long the process was recorded, in microseconds since the recording began."""
    if trace.end is not None and trace.end.duration_us:
        return trace.end.duration_us
    return trace.event(trace.event_count).time_us if trace.event_count else 0


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
