# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as lines of text, much as strace(1) prints them, an event number and a time before each.

12     0.001042 openat(AT_FDCWD, "/etc/motd", O_RDONLY) = -1 ENOENT (No such file or directory)
13     0.001097 rdtsc()                                 = 81985529216486895
14     0.001301 --- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x0} ---
                +++ killed by SIGSEGV +++
"""

from __future__ import annotations

from sysrift.syscalls import lookup
from sysrift.syscalls.decode import format_call, format_result
from sysrift.trace.model import ABSOLUTE, Delivery, Event, EventFlag, EventKind, SegmentKind
from sysrift.trace.reader import Trace
from sysrift.views.signals import siginfo_text, signal_name

SHOWN_BYTES = 32
"""How much of a buffer or string a line shows; strace's default."""

_RESULT_COLUMN = 39
_TIME_STAMPS = ("rdtsc", "rdtscp")
_REMARKS = (
    (EventFlag.GUESSED, "guessed"),
    (EventFlag.INCOMPLETE, "incomplete"),
)


def event_name(event: Event) -> str:
    """`openat`, `syscall_0x3e7` for a number without a row, `SIGSEGV`, `rdtsc`, `shared_memory`."""
    if event.kind == EventKind.SYSCALL:
        row = lookup(event.nr)
        return row.name if row else f"syscall_{event.nr & (1 << 64) - 1:#x}"
    if event.kind == EventKind.SIGNAL:
        return signal_name(event.nr)
    if event.kind == EventKind.TSC and 0 <= event.nr < len(_TIME_STAMPS):
        return _TIME_STAMPS[event.nr]
    if event.kind == EventKind.SHARED:
        return "shared_memory"
    return f"event_kind_{event.kind}"


def event_line(event: Event, trace: Trace, limit: int = SHOWN_BYTES) -> str:
    """One event of `trace` as a line (without a newline), at most `limit` bytes of each buffer.

    The time is in seconds since the recording began. Raises TraceError when bytes that belong to
    the event cannot be read.
    """
    head = f"{event.number:>8} {event.time_us / 1e6:>12.6f} "
    if event.kind == EventKind.SIGNAL:
        return head + signal_text(event, trace)
    if event.kind == EventKind.SHARED:
        size = sum(part.length for part in event.segments if part.kind == SegmentKind.OUT)
        return f"{head}--- others changed {size} bytes of shared memory ---"
    if event.kind == EventKind.SYSCALL:
        call, result = _system_call(event, trace, limit)
    else:
        call, result = f"{event_name(event)}()", str(event.result & 0xFFFFFFFFFFFFFFFF)
    remarks = [text for flag, text in _REMARKS if event.flags & flag]
    tail = f" /* {', '.join(remarks)} */" if remarks else ""
    return f"{head}{call:<{_RESULT_COLUMN}} = {result}{tail}"


def _system_call(event: Event, trace: Trace, limit: int) -> tuple[str, str]:
    """The call and its result, apart."""
    row = lookup(event.nr)
    fragments = argument_bytes(event, trace)
    call = format_call(row, event.nr, event.args, event.result, fragments, limit)
    if event.flags & EventFlag.UNFINISHED:
        return call, "?"
    return call, format_result(row, event.result)


def argument_bytes(event: Event, trace: Trace) -> dict[int, bytes]:
    """The leading bytes of the memory behind each argument, by the argument's index.

    That is what lies where the argument points to, or else the lowest piece that hangs on it. What
    the kernel wrote goes before what the program had there.
    """
    chosen: dict[int, tuple[tuple[bool, int, bool], int]] = {}
    for index, segment in enumerate(event.segments):
        if segment.base == ABSOLUTE or segment.kind not in (SegmentKind.OUT, SegmentKind.IN):
            continue
        elsewhere = segment.address != event.args[segment.base]
        rank = ((elsewhere, segment.address, segment.kind != SegmentKind.OUT), index)
        if segment.base not in chosen or rank < chosen[segment.base]:
            chosen[segment.base] = rank
    return {
        argument: trace.segment_data(event.segments[index])
        for argument, (_, index) in chosen.items()
    }


def signal_info(event: Event, trace: Trace) -> bytes | None:
    """The siginfo_t of a SIGNAL event; None when it was not recorded."""
    for segment in event.segments:
        if segment.kind == SegmentKind.SIGINFO:
            return trace.segment_data(segment)
    return None


def signal_text(event: Event, trace: Trace) -> str:
    """`--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x0} ---`."""
    if event.result == Delivery.STOPPED:
        return f"--- stopped by {signal_name(event.nr)} ---"
    return f"--- {siginfo_text(event.nr, signal_info(event, trace))} ---"


def end_text(trace: Trace) -> str:
    """`+++ exited with 0 +++`, `+++ killed by SIGSEGV +++`, or why there is no such end."""
    end = trace.end
    if end is None:
        return "+++ recording was cut off +++"
    if end.how == "exited":
        return f"+++ exited with {end.status} +++"
    if end.how == "killed":
        return f"+++ killed by {signal_name(end.signal)} +++"
    return f"+++ recording stopped: {printable(end.message) or 'no reason given'} +++"


def end_line(trace: Trace) -> str:
    """How the trace ends, as the line after the last event's."""
    return " " * 22 + end_text(trace)


def printable(text: str) -> str:
    """`text` with everything escaped that could move a terminal's cursor or change its colours."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
