# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing events: a range of numbers, names, failures; for the shell's and GDB's commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sysrift.errors import UsageError
from sysrift.syscalls import NAMES
from sysrift.trace.model import Event, EventFlag, EventKind
from sysrift.trace.reader import Trace
from sysrift.views.signals import signal_name

_TIME_STAMPS = {"rdtsc": 0, "rdtscp": 1}
_SIGNALS = {signal_name(number): number for number in range(1, 65)}
_RANGE = re.compile(r"(\d{0,18})(?:(-)(\d{0,18}|end))?")


@dataclass(frozen=True)
class EventFilter:
    """Which events to show. `last` None is the end; `names` None is all (see `parse_names`)."""

    first: int = 1
    last: int | None = None
    failed: bool = False
    names: frozenset[tuple[int, int]] | None = None

    def matches(self, event: Event) -> bool:
        """Whether an event within the range is wanted."""
        if self.names is not None and (event.kind, event.nr) not in self.names:
            return False
        return not self.failed or is_failure(event)

    def includes(self, event: Event) -> bool:
        """Whether an event is wanted."""
        last = event.number if self.last is None else self.last
        return self.first <= event.number <= last and self.matches(event)

    def select(self, trace: Trace) -> Iterator[Event]:
        """The wanted events of `trace`, in order. Raises TraceError when they are unreadable."""
        return filter(self.matches, trace.events(self.first, self.last))

    def reaches_end(self, trace: Trace) -> bool:
        """Whether the range includes the end of the trace."""
        return self.last is None or self.last >= trace.event_count


def is_failure(event: Event) -> bool:
    """Whether a system call returned an error. One that a signal interrupts and restarts did not.

    An error is -4095..-1; the kernel's -512..-516 only ever reach a tracer (signal(7)).
    """
    return (
        event.kind == EventKind.SYSCALL
        and -4096 < event.result < 0
        and not -516 <= event.result <= -512
        and not event.flags & EventFlag.UNFINISHED
    )


def parse_range(text: str) -> tuple[int, int | None]:
    """First and last number of `A-B`, `A-` or `A-end`, `-B`, or a single `A`.

    Raises UsageError for anything else.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match.group(1) or match.group(3)):
        raise UsageError(f"{text!r} is not a range of events: write 100-200, 100-, -200 or 100")
    first = int(match.group(1) or 1)
    if not match.group(2):
        last: int | None = first
    else:
        last = None if match.group(3) in ("", "end") else int(match.group(3))
    if last is not None and last < first:
        raise UsageError(f"the range {text} is empty: its end is before its beginning")
    return first, last


def parse_names(text: str) -> frozenset[tuple[int, int]]:
    """(EventKind, number) of each of a comma-separated list of names.

    A name is a system call's, a signal's (`SIGSEGV`), `rdtsc` or `rdtscp`. Raises UsageError for
    an unknown one.
    """
    chosen = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name in NAMES:
            chosen.add((int(EventKind.SYSCALL), NAMES[name]))
        elif name.upper() in _SIGNALS:
            chosen.add((int(EventKind.SIGNAL), _SIGNALS[name.upper()]))
        elif name in _TIME_STAMPS:
            chosen.add((int(EventKind.TSC), _TIME_STAMPS[name]))
        else:
            raise UsageError(f"there is no system call or signal named {name!r}")
    if not chosen:
        raise UsageError("no name given: write names like openat,read")
    return frozenset(chosen)
